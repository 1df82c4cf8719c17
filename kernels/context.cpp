// SPDX-License-Identifier: Apache-2.0

#include "quell/kernels/context.hpp"

#include <cstdint>
#include <utility>

#include "kernels/pages.hpp"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace quell::kernels {

void prefer_large_pages(void* data, std::size_t bytes) noexcept {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  const auto address = reinterpret_cast<std::uintptr_t>(data);
  const std::uintptr_t begin = (address + kLargePage - 1) / kLargePage * kLargePage;
  const std::uintptr_t end = (address + bytes) / kLargePage * kLargePage;
  if (begin < end) {
    static_cast<void>(madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE));
  }
#else
  static_cast<void>(data);
  static_cast<void>(bytes);
#endif
}

Status Context::reserve(std::size_t slot_bytes, std::size_t shared_bytes) {
  if (slot_bytes <= slot_bytes_ && shared_bytes <= shared_bytes_) return ok();
  constexpr std::uint64_t kAlignment = AlignedBytes::kAlignment;
  const auto slot =
      checked_round_up(slot_bytes > slot_bytes_ ? slot_bytes : slot_bytes_, kAlignment);
  const auto shared =
      checked_round_up(shared_bytes > shared_bytes_ ? shared_bytes : shared_bytes_, kAlignment);
  const auto slots = slot ? checked_multiply(*slot, executor_->width()) : std::nullopt;
  const auto total = slots && shared ? checked_add(*slots, *shared) : std::nullopt;
  // From a quarter of a large page on, round up to whole ones and leave room to align them.
  std::uint64_t padded = total.value_or(0);
  if (total && *total >= kLargePage / 4) {
    const auto pages = checked_round_up(*total, kLargePage);
    padded = pages ? checked_add(*pages, kLargePage).value_or(0) : 0;
  }
  if (!total || padded < *total) {
    return Error{ErrorCode::resource, "scratch memory of " + std::to_string(slot_bytes) +
                                          " bytes a thread and " + std::to_string(shared_bytes) +
                                          " bytes shared does not fit in memory"};
  }
  // Released first: both sizes at once could be more than the machine has.
  memory_ = AlignedBytes();
  start_ = nullptr;
  slot_bytes_ = shared_bytes_ = 0;
  QUELL_TRY(bytes, AlignedBytes::allocate(padded));
  memory_ = std::move(bytes);
  start_ = memory_.data();
  if (padded > *total) {
    prefer_large_pages(start_, memory_.size());
    const auto address = reinterpret_cast<std::uintptr_t>(start_);
    start_ += (kLargePage - address % kLargePage) % kLargePage;
  }
  slot_bytes_ = static_cast<std::size_t>(*slot);
  shared_bytes_ = static_cast<std::size_t>(*shared);
  return ok();
}

}  // namespace quell::kernels
