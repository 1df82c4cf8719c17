// SPDX-License-Identifier: Apache-2.0

// A .npy file is "\x93NUMPY", two version bytes, the length of a header (2 bytes in version 1, 4
// later), the header (a Python dictionary with the keys descr, fortran_order and shape), and the
// elements. The dictionary is read by a scanner for just these three keys; nothing is evaluated.

#include "quell/io/npy.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "io/bounded_reader.hpp"
#include "io/fault.hpp"
#include "io/file.hpp"
#include "io/limits.hpp"
#include "quell/core/checked.hpp"

namespace quell::io {
namespace {

static_assert(std::endian::native == std::endian::little,
              "elements are used as they are in the file, which is little-endian");

constexpr std::string_view kMagic = "\x93NUMPY";

struct NpyHeader {
  std::string descr;
  bool fortran_order = false;
  std::vector<std::uint64_t> shape;
};

// The grammar: { 'key': value, ... } with an optional last comma; values are a string, True or
// False, a tuple of integers. Every step returns false at the first character that does not fit.
class HeaderScanner {
 public:
  explicit HeaderScanner(std::string_view text) : text_(text) {}

  std::optional<NpyHeader> scan() {
    NpyHeader header;
    std::array<bool, 3> seen = {};
    if (!take('{')) return std::nullopt;
    while (!take('}')) {
      std::string key;
      if (!take_string(key) || !take(':')) return std::nullopt;
      std::size_t index = 0;
      bool good = false;
      if (key == "descr") {
        good = take_string(header.descr);
      } else if (key == "fortran_order") {
        index = 1;
        good = take_boolean(header.fortran_order);
      } else if (key == "shape") {
        index = 2;
        good = take_shape(header.shape);
      }
      if (!good || seen[index]) return std::nullopt;
      seen[index] = true;
      if (!take(',') && peek() != '}') return std::nullopt;
    }
    skip_space();
    if (at_ != text_.size() || !seen[0] || !seen[1] || !seen[2]) return std::nullopt;
    return header;
  }

 private:
  void skip_space() {
    while (at_ < text_.size() && std::string_view(" \t\r\n").find(text_[at_]) != text_.npos) ++at_;
  }
  char peek() {
    skip_space();
    return at_ < text_.size() ? text_[at_] : '\0';
  }
  bool take(char c) {
    if (peek() != c || at_ == text_.size()) return false;
    ++at_;
    return true;
  }
  bool take_word(std::string_view word) {
    skip_space();
    if (text_.substr(at_, word.size()) != word) return false;
    at_ += word.size();
    return true;
  }
  bool take_boolean(bool& value) {
    value = take_word("True");
    return value || take_word("False");
  }
  bool take_string(std::string& value) {
    const char quote = peek();
    if (quote != '\'' && quote != '"') return false;
    const std::size_t end = text_.find(quote, at_ + 1);
    if (end == text_.npos) return false;
    value = std::string(text_.substr(at_ + 1, end - at_ - 1));
    at_ = end + 1;
    return value.find('\\') == value.npos;
  }
  bool take_integer(std::uint64_t& value) {
    skip_space();
    const std::size_t start = at_;
    value = 0;
    for (; at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_) {
      const auto tens = checked_multiply(value, 10);
      const auto sum =
          tens ? checked_add(*tens, static_cast<std::uint64_t>(text_[at_] - '0')) : std::nullopt;
      if (!sum) return false;
      value = *sum;
    }
    if (at_ == start) return false;
    if (at_ < text_.size() && text_[at_] == 'L') ++at_;  // Python 2 wrote long integers so
    return true;
  }
  bool take_shape(std::vector<std::uint64_t>& shape) {
    if (!take('(')) return false;
    while (!take(')')) {
      std::uint64_t dimension = 0;
      if (shape.size() == limits::kDimensions || !take_integer(dimension)) return false;
      shape.push_back(dimension);
      // A tuple of one has its comma, so "(3)" is none.
      if (!take(',') && (peek() != ')' || shape.size() == 1)) return false;
    }
    return true;
  }

  std::string_view text_;
  std::size_t at_ = 0;
};

struct ElementName {
  std::string_view descr, name;
};
constexpr std::array<ElementName, 13> kElementNames = {{{"<i4", "int32"},
                                                        {"<f4", "float32"},
                                                        {"<i8", "int64"},
                                                        {"<u8", "uint64"},
                                                        {"<u4", "uint32"},
                                                        {"<i2", "int16"},
                                                        {"<u2", "uint16"},
                                                        {"|i1", "int8"},
                                                        {"|u1", "uint8"},
                                                        {"<f8", "float64"},
                                                        {"<f2", "float16"},
                                                        {"|b1", "bool"},
                                                        {"|O", "Python objects"}}};

std::string element_name(std::string_view descr) {
  for (const ElementName& entry : kElementNames) {
    if (entry.descr == descr) return std::string(entry.name);
  }
  std::string text = "element type '" + printable(descr, 40) + '\'';
  if (!descr.empty() && descr[0] == '>') text += " (big-endian)";
  return text;
}

template <typename T>
struct Array {
  std::vector<std::uint64_t> shape;
  std::vector<T> values;
};

template <typename T>
Result<Array<T>> read_array(const std::filesystem::path& path, std::string_view descr) {
  QUELL_TRY(file, File::open(path));
  const auto bad = [&](std::string_view message) {
    return file_fault(ErrorCode::parse, file.name(), message);
  };
  std::array<std::byte, 12> start = {};
  const auto start_size =
      static_cast<std::size_t>(std::min<std::uint64_t>(file.size(), start.size()));
  QUELL_TRY(file.read_at(0, std::span<std::byte>(start).first(start_size)));
  BoundedReader reader(std::span<const std::byte>(start).first(start_size));
  if (reader.text(kMagic.size()) != kMagic) {
    return bad("is no .npy file: it does not start with \\x93NUMPY");
  }
  const auto major = reader.number<std::uint8_t>();
  const auto minor = reader.number<std::uint8_t>();
  if (!major || !minor || *major < 1 || *major > 3) {
    return bad("has version " + (major ? std::to_string(*major) : "?") +
               " of the .npy format, expected 1, 2 or 3");
  }
  std::optional<std::uint64_t> length;
  if (*major == 1) {
    if (const auto short_length = reader.number<std::uint16_t>()) length = *short_length;
  } else if (const auto long_length = reader.number<std::uint32_t>()) {
    length = *long_length;
  }
  const std::uint64_t header_start = reader.position();
  if (!length || *length > file.size() - header_start) {
    return bad("the header is cut off: the file has " + std::to_string(file.size()) + " bytes");
  }
  if (*length > limits::kNpyHeaderBytes) {
    return bad("the header has " + std::to_string(*length) + " bytes, more than the limit of " +
               std::to_string(limits::kNpyHeaderBytes));
  }
  std::string text(static_cast<std::size_t>(*length), '\0');
  QUELL_TRY(file.read_at(header_start,
                         std::as_writable_bytes(std::span<char>(text.data(), text.size()))));
  const auto header = HeaderScanner(text).scan();
  if (!header) {
    return bad("the header is not {'descr': '...', 'fortran_order': ..., 'shape': (...)}: " +
               printable(text, 120));
  }
  if (header->descr != descr) {
    return file_fault(ErrorCode::unsupported, file.name(),
                      "holds " + element_name(header->descr) + ", expected " + element_name(descr) +
                          "; save it with .astype('" + std::string(descr) + "')");
  }
  std::uint64_t last_but_small = 1;
  for (const std::uint64_t dimension : header->shape) {
    last_but_small *= dimension > 1 ? 2 : 1;
  }
  // In one dimension both orders are the same; NumPy then writes either.
  if (header->fortran_order && last_but_small > 2) {
    return file_fault(ErrorCode::unsupported, file.name(),
                      "is in Fortran order, expected C order; save it with "
                      "numpy.ascontiguousarray");
  }
  std::optional<std::uint64_t> elements = 1;
  for (const std::uint64_t dimension : header->shape) {
    elements = elements ? checked_multiply(*elements, dimension) : std::nullopt;
  }
  if (!elements || *elements > limits::kNpyElements) {
    return bad("has more elements than the limit of " + std::to_string(limits::kNpyElements));
  }
  const std::uint64_t needed = *elements * sizeof(T);
  const std::uint64_t found = file.size() - header_start - *length;
  if (needed != found) {
    return bad("its shape needs " + std::to_string(needed) +
               " bytes of elements, but the file has " + std::to_string(found));
  }
  Array<T> array;
  array.shape = header->shape;
  array.values.resize(static_cast<std::size_t>(*elements));
  QUELL_TRY(
      file.read_at(header_start + *length, std::as_writable_bytes(std::span<T>(array.values))));
  return array;
}

}  // namespace

Result<NpyInt32> read_npy_int32(const std::filesystem::path& path) {
  QUELL_TRY(array, read_array<std::int32_t>(path, "<i4"));
  return NpyInt32{std::move(array.shape), std::move(array.values)};
}

Result<NpyFloat32> read_npy_float32(const std::filesystem::path& path) {
  QUELL_TRY(array, read_array<float>(path, "<f4"));
  return NpyFloat32{std::move(array.shape), std::move(array.values)};
}

}  // namespace quell::io
