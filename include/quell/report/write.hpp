// SPDX-License-Identifier: Apache-2.0
#pragma once

// Writers of documents. All give the same facts; pictures become shades in a terminal, tables (and
// shades, where there are hundreds of numbers) in Markdown, and numbers in JSON.

#include <string>

#include "quell/io/json.hpp"
#include "quell/report/document.hpp"

namespace quell::report {

/// For a terminal of 80 columns (longer cells run on; nothing is cut), in ASCII but for what names
/// hold.
std::string write_text(const Document& document);
/// Facts, verdict and glance alone, which for names of ordinary length fit 24 lines with two to
/// spare; all of it where the document has no glance.
std::string write_screen(const Document& document);
/// GitHub-flavoured Markdown.
std::string write_markdown(const Document& document);
/// One file without scripts and without anything from outside: light and dark, for paper and for
/// narrow screens. Numbers of pictures show on hover and stand in tables.
std::string write_html(const Document& document);

inline constexpr int kDocumentSchema = 1;
/// An object: "schema" (kDocumentSchema), "title", "verdict", "facts", "glance", "sections",
/// "provenance". Facts are [label, text] pairs. A block's "kind" is paragraph, facts, table,
/// heat_strip, line_plot, histogram or profile, and its members are those of document.hpp.
io::Json write_json(const Document& document);

}  // namespace quell::report
