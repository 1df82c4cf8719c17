// SPDX-License-Identifier: Apache-2.0
#pragma once

// Text from files, made safe to show. Tensor names, tokens and paths are opaque data: they may hold
// line breaks, terminal escape sequences or marks that reverse the direction of the text.

#include <cstddef>
#include <string>
#include <string_view>

namespace quell::io {

/// `text` with everything that is no visible character escaped: control characters and broken UTF-8
/// as \xNN (\n, \r and \t by their letters, a backslash doubled), invisible and direction-changing
/// code points as \u{N}. Of a text longer than `limit` bytes the middle is replaced by "...",
/// so that an error of one line stays one line.
std::string printable(std::string_view text, std::size_t limit = 200);

}  // namespace quell::io
