// SPDX-License-Identifier: Apache-2.0

// Rows are spread over the host's threads and never cut. The work of a row is n (k + m / 4)
// additions.

#include "quell/kernels/hadamard.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <string>

#include "kernels/cpu/hadamard/contract.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/hadamard_orders.hpp"

namespace quell::kernels {

bool hadamard_supported(std::size_t size) noexcept {
  return hadamard_order(size) != 0;
}

Result<Hadamard> Hadamard::of_size(std::size_t size) {
  const std::size_t order = hadamard_order(size);
  if (order == 0) {
    std::string message = "hadamard: there is no transform of " + std::to_string(size) + " values";
    if (size != 0) {
      const std::size_t power = size & (~size + 1);
      message +=
          ": a size is a power of two, or a power of two times an order of Hadamard matrices " +
          std::string("that is known here (12, 20, 28, 36, 44 and others up to ") +
          std::to_string(kMaxOrder) + "), but " + std::to_string(size) + " is " +
          std::to_string(size / power) + " times " + std::to_string(power) +
          "; transform rows of this length in blocks of " + std::to_string(power) +
          " or a smaller power of two";
    }
    return Error{ErrorCode::shape, std::move(message)};
  }
  Hadamard made(size, order);
  made.codes_ = hadamard_codes(order);
  return made;
}

Status Hadamard::apply(MatrixView<float> x, Context& context) const {
  if (x.cols() % size_ != 0) {
    return Error{ErrorCode::shape, "hadamard: rows of " + std::to_string(x.cols()) +
                                       " values cannot be cut into blocks of " +
                                       std::to_string(size_) + "; pass a multiple of " +
                                       std::to_string(size_) + " columns"};
  }
  if (x.empty()) return ok();
  const auto transform = choose(hadamard_family::table()).transform;
  const hadamard_family::Problem problem{
      order_, static_cast<unsigned>(std::countr_zero(size_ / order_)), codes_.data(),
      static_cast<float>(1 / std::sqrt(static_cast<double>(size_)))};
  QUELL_TRY(context.reserve(hadamard_family::scratch_floats(order_) * sizeof(float)));
  // Handing rows to another thread costs some microseconds; 16,384 elements take about as long.
  constexpr std::size_t kElementsPerGrain = 16384;
  const std::size_t grain = std::max<std::size_t>(1, kElementsPerGrain / x.cols());
  context.executor().run(x.rows(), grain, [&](std::size_t begin, std::size_t end, unsigned slot) {
    auto* scratch = reinterpret_cast<float*>(context.slot(slot).data());
    for (std::size_t t = begin; t < end; ++t) {
      transform(problem, x.row(t).data(), x.cols() / size_, scratch);
    }
  });
  return ok();
}

}  // namespace quell::kernels
