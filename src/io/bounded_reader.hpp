// SPDX-License-Identifier: Apache-2.0
#pragma once

// A walk through bytes of a binary file that are already in memory: every read is checked against
// what is left, numbers are little-endian whatever the machine is.

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace quell::io {

class BoundedReader {
 public:
  explicit BoundedReader(std::span<const std::byte> bytes) noexcept : bytes_(bytes) {}

  std::size_t position() const noexcept { return position_; }
  std::size_t remaining() const noexcept { return bytes_.size() - position_; }

  /// The next number, or nothing if it does not fit into what is left.
  template <std::unsigned_integral T>
  std::optional<T> number() noexcept {
    if (remaining() < sizeof(T)) return std::nullopt;
    std::uint64_t value = 0;
    for (std::size_t i = 0; i < sizeof(T); ++i) {
      value |= static_cast<std::uint64_t>(bytes_[position_ + i]) << (8 * i);
    }
    position_ += sizeof(T);
    return static_cast<T>(value);
  }

  /// The next `count` bytes, or nothing if fewer are left.
  std::optional<std::span<const std::byte>> bytes(std::uint64_t count) noexcept {
    if (count > remaining()) return std::nullopt;
    const auto taken = bytes_.subspan(position_, static_cast<std::size_t>(count));
    position_ += taken.size();
    return taken;
  }
  /// The same, as characters.
  std::optional<std::string_view> text(std::uint64_t count) noexcept {
    const auto taken = bytes(count);
    if (!taken) return std::nullopt;
    return std::string_view(reinterpret_cast<const char*>(taken->data()), taken->size());
  }

 private:
  std::span<const std::byte> bytes_;
  std::size_t position_ = 0;
};

}  // namespace quell::io
