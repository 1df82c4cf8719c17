// SPDX-License-Identifier: Apache-2.0
#pragma once

// Results of quantization as documents, from the report that an output folder keeps
// (quell-report.json).

#include <string>

#include "quell/core/result.hpp"
#include "quell/io/json.hpp"
#include "quell/report/document.hpp"

namespace quell::report {

/// `name`: how the user called the folder; `file`: the report's path, for messages. Error: parse
/// (not a report of quell).
Result<Document> result_document(const std::string& name, const std::string& file,
                                 const io::Json& report);
/// Two results side by side, module by module. Modules that only one of them has are listed.
Result<Document> comparison_document(const std::string& name_a, const std::string& file_a,
                                     const io::Json& a, const std::string& name_b,
                                     const std::string& file_b, const io::Json& b);

}  // namespace quell::report
