// SPDX-License-Identifier: Apache-2.0

// The scalings stretch the angles so that longer sequences reuse the range of angles seen in
// training. linear: Chen et al. 2023. dynamic (NTK by length) and yarn: Peng et al. 2023, "YaRN",
// sections 3.1 to 3.3. longrope: Ding et al. 2024. llama3: as published with Llama 3.1.

#include "engine/rope.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace quell::engine {
namespace {

using model::Rope;
using Scaling = model::Rope::Scaling;

/// Long waves are divided by the factor, short ones kept, those between blended by how many times
/// they turn within the trained length.
double llama3(const Rope& rope, double theta) {
  const double turns = rope.original_positions * theta / (2 * std::numbers::pi);
  if (turns > rope.high_frequency_factor) return theta;
  if (turns < rope.low_frequency_factor) return theta / rope.factor;
  const double blend = (turns - rope.low_frequency_factor) /
                       (rope.high_frequency_factor - rope.low_frequency_factor);
  return (1 - blend) * theta / rope.factor + blend * theta;
}

/// The ramp of yarn over the index t: 0 below `low` (kept), 1 above `high` (divided by the factor).
struct Ramp {
  double low = 0, high = 0;
  double operator()(double t) const { return std::clamp((t - low) / (high - low), 0.0, 1.0); }
};

Ramp yarn_ramp(const Rope& rope) {
  // The index whose wave turns `turns` times within the trained length.
  const auto index = [&](double turns) {
    return rope.dims * std::log(rope.original_positions / (turns * 2 * std::numbers::pi)) /
           (2 * std::log(rope.base));
  };
  double low = index(rope.beta_fast), high = index(rope.beta_slow);
  if (rope.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, rope.dims - 1.0);
  if (low == high) high += 0.001;  // a step instead of a division by zero
  return {low, high};
}

}  // namespace

std::vector<double> rope_frequencies(const Rope& rope, std::uint32_t length) {
  const double dims = rope.dims;
  double base = rope.base;
  if (rope.scaling == Scaling::dynamic && length > rope.original_positions) {
    const double stretch = rope.factor * length / rope.original_positions - (rope.factor - 1);
    base *= std::pow(stretch, dims / (dims - 2));
  }
  const std::vector<double>& divisors =
      length > rope.original_positions ? rope.long_factor : rope.short_factor;
  const Ramp ramp = rope.scaling == Scaling::yarn ? yarn_ramp(rope) : Ramp{};

  std::vector<double> frequencies(rope.dims / 2);
  for (std::size_t t = 0; t < frequencies.size(); ++t) {
    const double theta = std::pow(base, -2.0 * static_cast<double>(t) / dims);
    switch (rope.scaling) {
      case Scaling::none:
      case Scaling::dynamic:
        frequencies[t] = theta;
        break;
      case Scaling::linear:
        frequencies[t] = theta / rope.factor;
        break;
      case Scaling::llama3:
        frequencies[t] = llama3(rope, theta);
        break;
      case Scaling::longrope:
        frequencies[t] = theta / divisors[t];
        break;
      case Scaling::yarn: {
        const double part = ramp(static_cast<double>(t));
        frequencies[t] = theta * (1 - part) + theta / rope.factor * part;
        break;
      }
    }
  }
  return frequencies;
}

bool rope_depends_on_length(const Rope& rope) noexcept {
  return rope.scaling == Scaling::dynamic || rope.scaling == Scaling::longrope;
}

std::uint32_t RopeTables::key(std::uint32_t length) const noexcept {
  if (!rope_depends_on_length(*rope_) || length <= rope_->original_positions) return 0;
  return rope_->scaling == Scaling::dynamic ? length : 1;
}

Status RopeTables::prepare(std::uint32_t length) {
  if (key_ == key(length) && length <= cosine_.rows()) return ok();
  // Grown by doubling, so that a sequence extended token by token rebuilds them rarely.
  std::size_t rows = length;
  if (key_ == key(length)) rows = std::max(rows, 2 * cosine_.rows());
  const std::vector<double> frequencies = rope_frequencies(*rope_, length);
  QUELL_TRY(cosine, Matrix::uninitialized(rows, frequencies.size()));
  QUELL_TRY(sine, Matrix::uninitialized(rows, frequencies.size()));
  for (std::size_t position = 0; position < rows; ++position) {
    for (std::size_t t = 0; t < frequencies.size(); ++t) {
      const double angle = static_cast<double>(position) * frequencies[t];
      cosine(position, t) = static_cast<float>(std::cos(angle) * rope_->attention_factor);
      sine(position, t) = static_cast<float>(std::sin(angle) * rope_->attention_factor);
    }
  }
  cosine_ = std::move(cosine);
  sine_ = std::move(sine);
  key_ = key(length);
  return ok();
}

}  // namespace quell::engine
