// SPDX-License-Identifier: Apache-2.0

// Normal forms are built from utf8proc's tables one character at a time: decompose, sort each run
// of marks by combining class, compose. The library's own call for whole strings swaps marks one
// step at a time, which is quadratic in the length of a run, and a run can be as long as the text.

#include "tokenizer/unicode.hpp"

#include <utf8proc.h>

#include <algorithm>
#include <iterator>
#include <vector>

namespace quell::tokenizer {
namespace {

/// Length of the well-formed character at `i`, or 0; then `bad` is the length of the maximal
/// malformed part there.
std::size_t well_formed(std::string_view bytes, std::size_t i, std::size_t& bad) noexcept {
  const auto at = [&](std::size_t k) { return static_cast<unsigned char>(bytes[k]); };
  const unsigned lead = at(i);
  bad = 1;
  if (lead < 0x80) return 1;
  std::size_t length = 0;
  unsigned low = 0x80, high = 0xBF;  // range of the second byte; the others are always 80..BF
  if (lead >= 0xC2 && lead <= 0xDF) {
    length = 2;
  } else if (lead >= 0xE0 && lead <= 0xEF) {
    length = 3;
    if (lead == 0xE0) low = 0xA0;   // below: overlong
    if (lead == 0xED) high = 0x9F;  // above: surrogates
  } else if (lead >= 0xF0 && lead <= 0xF4) {
    length = 4;
    if (lead == 0xF0) low = 0x90;   // below: overlong
    if (lead == 0xF4) high = 0x8F;  // above: beyond U+10FFFF
  } else {
    return 0;
  }
  for (std::size_t k = 1; k < length; ++k) {
    if (i + k >= bytes.size() || at(i + k) < low || at(i + k) > high) return 0;
    bad = k + 1;
    low = 0x80, high = 0xBF;
  }
  return length;
}

utf8proc_category_t category(char32_t code) noexcept {
  return utf8proc_category(static_cast<utf8proc_int32_t>(code));
}

int combining_class(utf8proc_int32_t code) noexcept {
  return utf8proc_get_property(code)->combining_class;
}

/// Whether a character can stand after any text without interacting with it: it has combining class
/// 0 and is never the second half of a composition. All code points below U+0300 and the unified
/// ideographs qualify, which is enough to keep the buffers short.
bool starts_afresh(char32_t code) noexcept {
  return code < 0x300 || (code >= 0x3400 && code <= 0x9FFF);
}

class Normal {
 public:
  Normal(std::string& out, NormalForm form) : out_(out), form_(form) {}

  void add(char32_t code) {
    if (starts_afresh(code)) flush();
    const bool compatible = form_ == NormalForm::nfkc || form_ == NormalForm::nfkd;
    const auto options =
        static_cast<utf8proc_option_t>(UTF8PROC_DECOMPOSE | (compatible ? UTF8PROC_COMPAT : 0));
    // 18 is the longest decomposition there is (U+FDFA).
    utf8proc_int32_t parts[32];
    int boundary = 0;
    const utf8proc_ssize_t count = utf8proc_decompose_char(
        static_cast<utf8proc_int32_t>(code), parts, std::ssize(parts), options, &boundary);
    if (count <= 0 || count > std::ssize(parts)) {
      points_.push_back(static_cast<utf8proc_int32_t>(code));
      return;
    }
    points_.insert(points_.end(), parts, parts + count);
  }

  void flush() {
    if (points_.empty()) return;
    for (std::size_t i = 0; i < points_.size();) {
      if (combining_class(points_[i]) == 0) {
        ++i;
        continue;
      }
      std::size_t end = i + 1;
      while (end < points_.size() && combining_class(points_[end]) != 0) ++end;
      if (end - i > 1) {
        std::stable_sort(points_.begin() + static_cast<std::ptrdiff_t>(i),
                         points_.begin() + static_cast<std::ptrdiff_t>(end),
                         [](auto a, auto b) { return combining_class(a) < combining_class(b); });
      }
      i = end;
    }
    std::size_t count = points_.size();
    if (form_ == NormalForm::nfc || form_ == NormalForm::nfkc) {
      const auto options = static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE);
      const utf8proc_ssize_t composed = utf8proc_normalize_utf32(
          points_.data(), static_cast<utf8proc_ssize_t>(points_.size()), options);
      if (composed >= 0) count = static_cast<std::size_t>(composed);
    }
    for (std::size_t i = 0; i < count; ++i) append_utf8(out_, static_cast<char32_t>(points_[i]));
    points_.clear();
  }

 private:
  std::string& out_;
  NormalForm form_;
  std::vector<utf8proc_int32_t> points_;
};

}  // namespace

void append_utf8(std::string& text, char32_t code) {
  const auto put = [&](char32_t byte) { text.push_back(static_cast<char>(byte)); };
  if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xC0 | code >> 6);
    put(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    put(0xE0 | code >> 12);
    put(0x80 | (code >> 6 & 0x3F));
    put(0x80 | (code & 0x3F));
  } else {
    put(0xF0 | code >> 18);
    put(0x80 | (code >> 12 & 0x3F));
    put(0x80 | (code >> 6 & 0x3F));
    put(0x80 | (code & 0x3F));
  }
}

bool is_utf8(std::string_view bytes) noexcept {
  for (std::size_t i = 0; i < bytes.size();) {
    if (static_cast<unsigned char>(bytes[i]) < 0x80) {
      ++i;
      continue;
    }
    std::size_t bad = 0;
    const std::size_t length = well_formed(bytes, i, bad);
    if (length == 0) return false;
    i += length;
  }
  return true;
}

std::string sanitize(std::string_view bytes) {
  std::string text;
  text.reserve(bytes.size());
  for (std::size_t i = 0; i < bytes.size();) {
    std::size_t bad = 0;
    const std::size_t length = well_formed(bytes, i, bad);
    if (length == 0) {
      append_utf8(text, 0xFFFD);
      i += bad;
    } else {
      text.append(bytes.substr(i, length));
      i += length;
    }
  }
  return text;
}

bool is_white_space(char32_t code) noexcept {
  if (code < 0x80) return code == 0x20 || (code >= 0x09 && code <= 0x0D);
  return code == 0x85 || code == 0xA0 || code == 0x1680 || (code >= 0x2000 && code <= 0x200A) ||
         code == 0x2028 || code == 0x2029 || code == 0x202F || code == 0x205F || code == 0x3000;
}

bool is_numeric(char32_t code) noexcept {
  if (code < 0x80) return code >= '0' && code <= '9';
  const auto kind = category(code);
  return kind >= UTF8PROC_CATEGORY_ND && kind <= UTF8PROC_CATEGORY_NO;
}

bool is_punctuation(char32_t code) noexcept {
  if (code < 0x80) {
    return (code >= 33 && code <= 47) || (code >= 58 && code <= 64) || (code >= 91 && code <= 96) ||
           (code >= 123 && code <= 126);
  }
  const auto kind = category(code);
  return kind >= UTF8PROC_CATEGORY_PC && kind <= UTF8PROC_CATEGORY_PO;
}

bool is_mark(char32_t code) noexcept {
  const auto kind = category(code);
  return kind >= UTF8PROC_CATEGORY_MN && kind <= UTF8PROC_CATEGORY_ME;
}

bool is_nonspacing_mark(char32_t code) noexcept {
  return category(code) == UTF8PROC_CATEGORY_MN;
}

bool is_other(char32_t code) noexcept {
  const auto kind = category(code);
  return kind == UTF8PROC_CATEGORY_CC || kind == UTF8PROC_CATEGORY_CF ||
         kind == UTF8PROC_CATEGORY_CS || kind == UTF8PROC_CATEGORY_CO;
}

std::string lower_case(std::string_view text) {
  std::string lower;
  lower.reserve(text.size());
  for (std::size_t i = 0; i < text.size();) {
    const Character c = character_at(text, i);
    i += c.bytes;
    if (c.code < 0x80) {
      const bool capital = c.code >= 'A' && c.code <= 'Z';
      lower.push_back(static_cast<char>(capital ? c.code + 32 : c.code));
    } else if (c.code == 0x130) {
      // The only code point whose full lower case is longer than one: i and a dot above.
      lower.push_back('i');
      append_utf8(lower, 0x307);
    } else {
      append_utf8(lower,
                  static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c.code))));
    }
  }
  return lower;
}

std::string normal_form(std::string_view text, NormalForm form) {
  // Bytes below this limit belong to characters that the form leaves alone unless a mark follows:
  // ASCII always, and for NFC everything below U+0300, whose lead byte is CC.
  const unsigned plain = form == NormalForm::nfc ? 0xCC : 0x80;
  std::string out;
  out.reserve(text.size());
  Normal normal(out, form);
  for (std::size_t i = 0; i < text.size();) {
    std::size_t end = i;
    while (end < text.size() && static_cast<unsigned char>(text[end]) < plain) ++end;
    if (end > i) {
      // The last plain character may take marks from what follows it.
      std::size_t last = end;
      if (end < text.size()) last = end - character_before(text, end).bytes;
      normal.flush();
      out.append(text.substr(i, last - i));
      if (last < end) normal.add(character_at(text, last).code);
      i = end;
      continue;
    }
    const Character c = character_at(text, i);
    normal.add(c.code);
    i += c.bytes;
  }
  normal.flush();
  return out;
}

std::size_t grapheme_end(std::string_view text, std::size_t position) noexcept {
  utf8proc_int32_t state = 0;
  Character left = character_at(text, position);
  std::size_t end = position + left.bytes;
  while (end < text.size()) {
    const Character right = character_at(text, end);
    if (utf8proc_grapheme_break_stateful(static_cast<utf8proc_int32_t>(left.code),
                                         static_cast<utf8proc_int32_t>(right.code), &state)) {
      break;
    }
    left = right;
    end += right.bytes;
  }
  return end;
}

}  // namespace quell::tokenizer
