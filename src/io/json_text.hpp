// SPDX-License-Identifier: Apache-2.0
#pragma once

// What is checked about a JSON text before it is parsed, and where a byte of it is. The parser
// library skips a byte-order mark and ends at a NUL byte, so both are refused here first.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace quell::io {

/// From 1; columns count bytes.
struct Place {
  std::uint32_t line = 1, column = 1;
};

/// The place of byte `offset` (which may be the end of the text).
Place place_of(std::string_view text, std::size_t offset) noexcept;

struct TextFault {
  std::size_t offset = 0;
  std::string_view what;
};

/// The first byte that no JSON text has: of a byte-order mark, a NUL, broken UTF-8.
std::optional<TextFault> find_text_fault(std::string_view text) noexcept;

}  // namespace quell::io
