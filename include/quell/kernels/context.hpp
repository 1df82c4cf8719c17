// SPDX-License-Identifier: Apache-2.0
#pragma once

// Context: what a caller lends to the kernels, one per concurrent caller: its threads and scratch
// memory. Scratch grows at the first call of a size and is kept, so later calls allocate nothing.
// Or it is the caller's own, and nothing is ever allocated.

#include <cstddef>
#include <span>
#include <utility>

#include "quell/core/executor.hpp"
#include "quell/core/result.hpp"
#include "quell/core/tensor.hpp"

namespace quell::kernels {

class Context {
 public:
  /// `executor` must outlive the context.
  explicit Context(Executor& executor) noexcept : executor_(&executor) {}
  /// Scratch is `memory`, at a 64-byte boundary, and does not grow: a call that needs more fails
  /// with `resource` before it has done anything, and needed_bytes() tells how much to lend.
  Context(Executor& executor, std::span<std::byte> memory) noexcept
      : executor_(&executor), lent_(memory), lends_(true) {}

  /// A context that was moved from has no scratch and may be used again.
  Context(Context&& other) noexcept : executor_(other.executor_) { swap_scratch(other); }
  Context& operator=(Context&& other) noexcept {
    Context taken(std::move(other));
    executor_ = taken.executor_;
    swap_scratch(taken);
    return *this;
  }

  Executor& executor() const noexcept { return *executor_; }
  /// Makes sure that every slot has `slot_bytes` and the shared area `shared_bytes`; contents are
  /// lost when an area grows. Error: resource.
  Status reserve(std::size_t slot_bytes, std::size_t shared_bytes = 0);
  /// What the last reserve that failed asked for, all areas together; 0 if none did.
  std::size_t needed_bytes() const noexcept { return needed_bytes_; }
  /// Scratch of one active call of the executor, at a 64-byte boundary.
  std::span<std::byte> slot(unsigned index) noexcept {
    return {memory() + shared_bytes_ + index * slot_bytes_, slot_bytes_};
  }
  /// Scratch that all of them see.
  std::span<std::byte> shared() noexcept { return {memory(), shared_bytes_}; }

 private:
  std::byte* memory() noexcept { return lends_ ? lent_.data() : memory_.data(); }
  void swap_scratch(Context& other) noexcept {
    std::swap(memory_, other.memory_);
    std::swap(lent_, other.lent_);
    std::swap(lends_, other.lends_);
    std::swap(needed_bytes_, other.needed_bytes_);
    std::swap(slot_bytes_, other.slot_bytes_);
    std::swap(shared_bytes_, other.shared_bytes_);
  }

  Executor* executor_;
  // One allocation, [shared, slot 0, slot 1, ...], so that it can lie on a few large pages.
  AlignedBytes memory_;
  std::span<std::byte> lent_;  // instead of memory_, if lends_
  bool lends_ = false;
  std::size_t needed_bytes_ = 0;
  std::size_t slot_bytes_ = 0;
  std::size_t shared_bytes_ = 0;
};

}  // namespace quell::kernels
