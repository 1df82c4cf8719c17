// SPDX-License-Identifier: Apache-2.0
#pragma once

// A hash table from 64-bit keys to 32-bit values: open addressing, linear probing, at most half
// full. Merge tables and tries ask it once or more per character of text; a node-based table took
// three times as long there. Nothing iterates over it, so no result depends on its order.

#include <cstddef>
#include <cstdint>
#include <vector>

namespace quell::tokenizer {

class FlatMap {
 public:
  static constexpr std::uint32_t kAbsent = 0xFFFFFFFFu;

  FlatMap() : slots_(16) {}

  std::size_t size() const noexcept { return size_; }

  /// The value of the key, or kAbsent.
  std::uint32_t find(std::uint64_t key) const noexcept {
    for (std::size_t i = home(key);; i = (i + 1) & (slots_.size() - 1)) {
      const Slot& slot = slots_[i];
      if (slot.value == kAbsent || slot.key == key) return slot.value;
    }
  }

  /// Sets the value (not kAbsent) of the key, replacing an older one.
  void set(std::uint64_t key, std::uint32_t value) {
    if ((size_ + 1) * 2 > slots_.size()) grow();
    if (place(key, value)) ++size_;
  }

 private:
  struct Slot {
    std::uint64_t key = 0;
    std::uint32_t value = kAbsent;
  };

  std::size_t home(std::uint64_t key) const noexcept {
    // Fibonacci hashing: the golden ratio spreads consecutive keys, the upper bits are the mixed
    // ones.
    return static_cast<std::size_t>((key ^ key >> 29) * 0x9E3779B97F4A7C15u >> 20) &
           (slots_.size() - 1);
  }

  bool place(std::uint64_t key, std::uint32_t value) {
    std::size_t i = home(key);
    while (slots_[i].value != kAbsent && slots_[i].key != key) i = (i + 1) & (slots_.size() - 1);
    const bool fresh = slots_[i].value == kAbsent;
    slots_[i] = {key, value};
    return fresh;
  }

  void grow() {
    std::vector<Slot> old(slots_.size() * 2);
    old.swap(slots_);
    for (const Slot& slot : old) {
      if (slot.value != kAbsent) place(slot.key, slot.value);
    }
  }

  std::vector<Slot> slots_;
  std::size_t size_ = 0;
};

/// A trie over bytes with one 32-bit value per stored string.
class ByteTrie {
 public:
  static constexpr std::uint32_t kAbsent = FlatMap::kAbsent;
  static constexpr std::uint32_t kRoot = 0;

  template <typename Text>
  void insert(const Text& bytes, std::uint32_t value) {
    std::uint32_t node = kRoot;
    for (const char c : bytes) {
      const std::uint64_t key = edge(node, static_cast<unsigned char>(c));
      std::uint32_t next = edges_.find(key);
      if (next == kAbsent) {
        next = static_cast<std::uint32_t>(values_.size());
        values_.push_back(kAbsent);
        edges_.set(key, next);
      }
      node = next;
    }
    values_[node] = value;
  }

  /// The node reached from `node` by a byte, or kAbsent.
  std::uint32_t step(std::uint32_t node, char byte) const noexcept {
    return edges_.find(edge(node, static_cast<unsigned char>(byte)));
  }
  /// The value stored at a node, or kAbsent.
  std::uint32_t value(std::uint32_t node) const noexcept { return values_[node]; }
  bool is_empty() const noexcept { return values_.size() == 1 && values_[0] == kAbsent; }

 private:
  static std::uint64_t edge(std::uint32_t node, unsigned char byte) noexcept {
    return static_cast<std::uint64_t>(node) << 8 | byte;
  }
  FlatMap edges_;
  std::vector<std::uint32_t> values_{kAbsent};
};

}  // namespace quell::tokenizer
