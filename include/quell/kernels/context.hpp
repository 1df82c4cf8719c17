// SPDX-License-Identifier: Apache-2.0
#pragma once

// Context: what a caller lends to the kernels, one per concurrent caller: its threads and scratch
// memory. Scratch grows at the first call of a size and is kept, so later calls allocate nothing.

#include <cstddef>
#include <span>
#include <vector>

#include "quell/core/executor.hpp"
#include "quell/core/result.hpp"
#include "quell/core/tensor.hpp"

namespace quell::kernels {

class Context {
 public:
  /// `executor` must outlive the context.
  explicit Context(Executor& executor) : executor_(&executor), slots_(executor.width()) {}

  Executor& executor() const noexcept { return *executor_; }
  /// Makes sure that every slot has `slot_bytes` and the shared area `shared_bytes`; contents are lost when
  /// an area grows. Error: resource.
  Status reserve(std::size_t slot_bytes, std::size_t shared_bytes = 0);
  std::span<std::byte> slot(unsigned index) noexcept {
    return {slots_[index].data(), slots_[index].size()};
  }
  std::span<std::byte> shared() noexcept { return {shared_.data(), shared_.size()}; }

 private:
  Executor* executor_;
  std::vector<AlignedBytes> slots_;
  AlignedBytes shared_;
};

inline Status Context::reserve(std::size_t slot_bytes, std::size_t shared_bytes) {
  for (AlignedBytes& slot : slots_) {
    if (slot.size() >= slot_bytes) continue;
    QUELL_TRY(bytes, AlignedBytes::allocate(slot_bytes));
    slot = std::move(bytes);
  }
  if (shared_.size() < shared_bytes) {
    QUELL_TRY(bytes, AlignedBytes::allocate(shared_bytes));
    shared_ = std::move(bytes);
  }
  return ok();
}

}  // namespace quell::kernels
