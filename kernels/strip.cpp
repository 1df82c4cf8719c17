// SPDX-License-Identifier: Apache-2.0

#include "quell/kernels/strip.hpp"

#include "kernels/cpu/strip/contract.hpp"
#include "kernels/dispatch.hpp"

namespace quell::kernels {

static_assert(kStripRows == strip::kLanes);

SubtractStrip subtract_strip() noexcept {
  return choose(strip::table()).subtract;
}

}  // namespace quell::kernels
