// SPDX-License-Identifier: Apache-2.0

// outlier_columns: the columns whose inputs hold most of the peaks of tokens. Without them a token
// has a smaller scale, and all its other channels a finer one. Of LLM.int8 (Dettmers and others,
// 2022) it takes the kept columns, not the fixed threshold of 6: what counts is what the scale
// loses by a channel, and how many columns there may be is the caller's budget.

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>
#include <vector>

#include "quell/core/half.hpp"
#include "quell/quant/methods.hpp"

namespace quell::quant {
namespace {

Error about(const SplitProblem& problem, ErrorCode code, const std::string& what) {
  return Error{code, problem.name + ": " + what, {}, problem.name};
}

class OutlierColumns final : public Split {
 public:
  std::string_view name() const override { return "outlier_columns"; }
  Needs needs() const override { return Needs::activation_ranges; }

  Result<Parts> split(const SplitProblem& problem) const override {
    const auto& w = problem.weight;
    if (problem.peaks.size() != w.cols()) {
      return about(problem, ErrorCode::shape,
                   std::to_string(problem.peaks.size()) +
                       " peaks of input channels, expected one for each of the " +
                       std::to_string(w.cols()) + " inputs of the weight");
    }
    if (problem.budget > w.cols()) {
      return about(problem, ErrorCode::shape,
                   std::to_string(problem.budget) + " columns to keep of a weight of " +
                       std::to_string(w.cols()));
    }
    for (std::size_t c = 0; c < w.cols(); ++c) {
      if (std::isfinite(problem.peaks[c]) && problem.peaks[c] >= 0) continue;
      return about(problem, ErrorCode::numeric,
                   "the peak of input channel " + std::to_string(c) +
                       " is not a finite number from 0 on; the statistics are damaged");
    }
    Parts parts;
    parts.kept.columns = columns(problem);
    QUELL_TRY(rest, Matrix::uninitialized(w.rows(), w.cols()));
    parts.kept.values.reserve(w.rows() * problem.budget);
    for (std::size_t r = 0; r < w.rows(); ++r) {
      const auto row = w.row(r);
      std::copy(row.begin(), row.end(), rest.row(r).begin());
      for (const std::uint32_t c : parts.kept.columns) {
        const std::uint16_t half = float_to_f16(row[c]);
        const float value = f16_to_float(half);
        if (!std::isfinite(value)) {
          return about(problem, ErrorCode::numeric,
                       "element [" + std::to_string(r) + ", " + std::to_string(c) +
                           "] of the weight, " + detail::number_text(static_cast<double>(row[c])) +
                           ", is not a finite number that f16 holds (up to 65504), so its column "
                           "cannot be kept; give --keep-columns 0");
        }
        parts.kept.values.push_back(half);
        // Exact: what f16 drops of 24 bits are at most 13 of them, or all of a tiny number. The
        // sign stays, so that the sum has that of a zero too.
        const float dropped = row[c] - value;
        rest(r, c) = dropped != 0 ? dropped : std::copysign(0.0F, row[c]);
      }
    }
    parts.rest = std::move(rest);
    return parts;
  }

 private:
  static std::vector<std::uint32_t> columns(const SplitProblem& problem) {
    std::vector<std::uint32_t> order(problem.peaks.size());
    std::iota(order.begin(), order.end(), 0u);
    std::stable_sort(order.begin(), order.end(), [&](std::uint32_t a, std::uint32_t b) {
      return problem.peaks[a] > problem.peaks[b];
    });
    order.resize(problem.budget);
    std::sort(order.begin(), order.end());
    return order;
  }
};

}  // namespace

std::unique_ptr<Split> outlier_columns() {
  return std::make_unique<OutlierColumns>();
}

}  // namespace quell::quant
