// SPDX-License-Identifier: Apache-2.0

#include "pipeline/life_cycle.hpp"

#include <algorithm>
#include <cmath>

#include "quell/stats/magnitude.hpp"

namespace quell::pipeline {
namespace {

// A value is followed if it is this many times the median: largest values of small models without
// outliers reach 14 times.
constexpr double kFollowed = 20;
constexpr double kBorn = 4;  // times what stood there before
constexpr double kGrown = 1.5;
constexpr double kCancelled = 0.25;  // of what stood there before

Result<Matrix> copy_of(MatrixView<const float> x, std::size_t rows) {
  QUELL_TRY(copy, Matrix::uninitialized(std::min(rows, x.rows()), x.cols()));
  for (std::size_t r = 0; r < copy.rows(); ++r) {
    std::copy_n(x.row(r).data(), x.cols(), copy.row(r).data());
  }
  return copy;
}

struct Place {
  std::size_t position = 0, channel = 0;
  double magnitude = 0;
};

Place largest(const Matrix& x) {
  Place most;
  for (std::size_t r = 0; r < x.rows(); ++r) {
    for (std::size_t c = 0; c < x.cols(); ++c) {
      const auto magnitude = static_cast<double>(std::fabs(x(r, c)));
      if (std::isfinite(magnitude) && magnitude > most.magnitude) most = {r, c, magnitude};
    }
  }
  return most;
}

/// Whether a value is so far above the rest that it is worth following.
bool is_followed(const Matrix& x, double magnitude) {
  std::vector<float> values;
  for (const float value : x.values()) {
    if (std::isfinite(value)) values.push_back(std::fabs(value));
  }
  if (values.empty()) return false;
  return magnitude > kFollowed * stats::quantile_in_place(values, 0.5);
}

}  // namespace

Status LifeCycle::residual(MatrixView<const float> first_sequence) {
  QUELL_TRY(copy, copy_of(first_sequence, kPositions));
  before_ = std::move(after_);
  after_ = std::move(copy);
  return ok();
}

Status LifeCycle::inner(MatrixView<const float> first_sequence) {
  QUELL_TRY(copy, copy_of(first_sequence, kPositions));
  inner_ = std::move(copy);
  return ok();
}

Status LifeCycle::finish_block(const model::Model& model, std::uint32_t layer, Executor& executor,
                               std::vector<LifeCycleEvent>& events) {
  if (before_.rows() != after_.rows() || inner_.rows() != after_.rows()) return ok();
  std::vector<LifeCycleEvent> found;
  const auto at = [&](const Place& place, LifeCycleEvent::Kind kind) {
    LifeCycleEvent event;
    event.kind = kind;
    event.layer = layer;
    event.channel = place.channel;
    event.position = place.position;
    event.before = before_(place.position, place.channel);
    event.after = after_(place.position, place.channel);
    found.push_back(event);
  };
  const Place now = largest(after_), then = largest(before_);
  if (is_followed(after_, now.magnitude)) {
    const auto old = static_cast<double>(std::fabs(before_(now.position, now.channel)));
    if (now.magnitude > kBorn * old) {
      at(now, LifeCycleEvent::Kind::born);
    } else if (now.magnitude > kGrown * old) {
      at(now, LifeCycleEvent::Kind::grown);
    }
  }
  const auto left = static_cast<double>(std::fabs(after_(then.position, then.channel)));
  if (left < kCancelled * then.magnitude && is_followed(before_, then.magnitude)) {
    at(then, LifeCycleEvent::Kind::cancelled);
  }
  if (found.empty()) return ok();
  QUELL_TRY(down, model.weight(model.blocks()[layer].down, executor, true));
  for (LifeCycleEvent& event : found) {
    // Of the terms W_down[channel, f] x[f] of the change, the largest in its direction.
    const double change = static_cast<double>(event.after) - static_cast<double>(event.before);
    double most = 0;
    for (std::size_t f = 0; f < down.cols(); ++f) {
      const double weight = static_cast<double>(down(event.channel, f));
      const double value = static_cast<double>(inner_(event.position, f));
      const double share = weight * value / change;
      if (!(share > most)) continue;
      most = share;
      event.neuron = f;
      event.neuron_value = static_cast<float>(value);
      event.weight = static_cast<float>(weight);
    }
    event.share = most;
    events.push_back(event);
  }
  return ok();
}

}  // namespace quell::pipeline
