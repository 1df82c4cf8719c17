// SPDX-License-Identifier: Apache-2.0

#include "quell/kernels/context.hpp"

#include <cstdint>
#include <utility>

namespace quell::kernels {

Status Context::reserve(std::size_t slot_bytes, std::size_t shared_bytes) {
  if (slot_bytes <= slot_bytes_ && shared_bytes <= shared_bytes_) return ok();
  constexpr std::uint64_t kAlignment = AlignedBytes::kAlignment;
  const auto slot =
      checked_round_up(slot_bytes > slot_bytes_ ? slot_bytes : slot_bytes_, kAlignment);
  const auto shared =
      checked_round_up(shared_bytes > shared_bytes_ ? shared_bytes : shared_bytes_, kAlignment);
  const auto slots = slot ? checked_multiply(*slot, executor_->width()) : std::nullopt;
  const auto total = slots && shared ? checked_add(*slots, *shared) : std::nullopt;
  // From a quarter of a large page on, whole ones.
  const bool large = !lends_ && total && *total >= AlignedBytes::kLargePage / 4;
  const auto padded = large ? checked_round_up(*total, AlignedBytes::kLargePage) : total;
  if (!padded) {
    return Error{ErrorCode::resource, "scratch memory of " + std::to_string(slot_bytes) +
                                          " bytes a thread and " + std::to_string(shared_bytes) +
                                          " bytes shared does not fit in memory"};
  }
  if (lends_) {
    const auto address = reinterpret_cast<std::uintptr_t>(lent_.data());
    if (*padded > lent_.size() || address % kAlignment != 0) {
      needed_bytes_ = static_cast<std::size_t>(*padded);
      return Error{ErrorCode::resource,
                   "scratch memory: " + std::to_string(*padded) + " bytes needed, " +
                       std::to_string(lent_.size()) + " lent, " +
                       std::to_string(address % kAlignment) +
                       " bytes past a multiple of 64; lend as many at a multiple of 64"};
    }
    slot_bytes_ = static_cast<std::size_t>(*slot);
    shared_bytes_ = static_cast<std::size_t>(*shared);
    return ok();
  }
  // Released first: both sizes at once could be more than the machine has.
  memory_ = AlignedBytes();
  slot_bytes_ = shared_bytes_ = 0;
  QUELL_TRY(bytes, AlignedBytes::allocate(*padded));
  memory_ = std::move(bytes);
  slot_bytes_ = static_cast<std::size_t>(*slot);
  shared_bytes_ = static_cast<std::size_t>(*shared);
  return ok();
}

}  // namespace quell::kernels
