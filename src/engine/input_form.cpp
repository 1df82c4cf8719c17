// SPDX-License-Identifier: Apache-2.0

#include "quell/engine/input_form.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

namespace quell::engine {
namespace {

// Below kTiny a quotient by the largest magnitude could overflow; values are lifted first, as
// quantize_rows does.
constexpr float kTiny = 0x1p-100f, kLift = 0x1p100f;
// 1.5 * 2^23: for |v| < 2^22, v + kMagic - kMagic is v rounded to a whole number, half to even,
// since numbers of that size have no room for fractions. Compilers do this on all lanes; nearbyint
// is a call on the oldest x86.
constexpr float kMagic = 12582912.0f;

void round_run(float* x, std::size_t n, float top) {
  float most = 0;
  for (std::size_t k = 0; k < n; ++k) {
    const float magnitude = std::fabs(x[k]);
    most = magnitude <= most ? most : magnitude;  // a NaN stays
    if (std::isnan(magnitude)) break;
  }
  if (most == 0) return;
  if (!(most <= std::numeric_limits<float>::max())) {
    std::fill_n(x, n, std::numeric_limits<float>::quiet_NaN());
    return;
  }
  const float lift = most < kTiny ? kLift : 1.0f;
  const float inverse = top / (most * lift), scale = most / top;
  for (std::size_t k = 0; k < n; ++k) {
    const float code = (x[k] * lift * inverse + kMagic) - kMagic;
    x[k] = code * scale;
  }
}

}  // namespace

Result<InputForm> InputForm::of(const io::ModulePlan& module, std::span<const std::uint32_t> kept) {
  InputForm form;
  if (module.rotation != 0) {
    auto rotation = Rotation::create(module.cols, module.rotation, module.rotation_seed);
    if (!rotation) {
      Error error = std::move(rotation).error();
      error.message = module.name + ": " + error.message;
      error.tensor = module.name;
      return error;
    }
    form.rotation.emplace(*std::move(rotation));
  }
  form.bits = module.activation_bits;
  form.group = module.activation_group;
  form.kept.assign(kept.begin(), kept.end());
  return form;
}

Status InputForm::apply(MatrixView<float> x, kernels::Context& context) const {
  if (rotation) QUELL_TRY(rotation->apply(x, context));
  if (bits == 0) return ok();
  const float top = bits == 8 ? 127.0F : 7.0F;
  const std::size_t run = group == 0 ? x.cols() : group;
  context.executor().run(x.rows(), 16, [&](std::size_t begin, std::size_t end, unsigned) {
    std::vector<float> aside(kept.size());
    for (std::size_t t = begin; t < end; ++t) {
      float* const row = x.row(t).data();
      for (std::size_t i = 0; i < kept.size(); ++i) {
        aside[i] = std::exchange(row[kept[i]], 0.0F);
      }
      for (std::size_t first = 0; first < x.cols(); first += run) {
        round_run(row + first, std::min(run, x.cols() - first), top);
      }
      for (std::size_t i = 0; i < kept.size(); ++i) row[kept[i]] = aside[i];
    }
  });
  return ok();
}

}  // namespace quell::engine
