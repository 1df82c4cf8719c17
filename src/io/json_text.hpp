// SPDX-License-Identifier: Apache-2.0
#pragma once

// JSON as characters: what is checked before a text is parsed, where a byte of it is, how a string
// is written. The parser library skips a byte-order mark and ends at a NUL byte, so both are
// refused here first.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
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

/// Appends `text` in quotes, escaping no more than JSON requires and in the form that the reference
/// writer of safetensors has (short escapes where they exist, else \u00 and lower-case digits).
/// Broken UTF-8 becomes U+FFFD: what is written can be read back whatever came in.
void append_json_string(std::string& out, std::string_view text);

/// The first byte that no JSON text has: of a byte-order mark, a NUL, broken UTF-8.
std::optional<TextFault> find_text_fault(std::string_view text) noexcept;

}  // namespace quell::io
