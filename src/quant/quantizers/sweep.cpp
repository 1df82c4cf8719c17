// SPDX-License-Identifier: Apache-2.0

#include "quant/quantizers/sweep.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "linalg/lanes.hpp"

namespace quell::quant {
namespace {

using linalg::Lanes;
constexpr std::size_t kLanes = kStripLanes;
static_assert(kLanes == Lanes::kCount);

std::size_t round_up(std::size_t value, std::size_t step) {
  return (value + step - 1) / step * step;
}

void choose_strip(const Sweep& sweep, const float* values, const float* weights, std::size_t n,
                  float* scales, std::uint8_t* zeros) {
  switch (sweep.scale) {
    case ScaleMethod::absmax:
      return absmax_strip(sweep.grid, values, n, scales, zeros);
    case ScaleMethod::minmax:
      return minmax_strip(sweep.grid, values, n, scales, zeros);
    case ScaleMethod::search:
      return search_strip(sweep.grid, values, weights, n, scales, zeros);
  }
}

}  // namespace

/// One run: the panel's place, and the recursion.
struct PanelSweep::Panel {
  const Sweep& s;
  PanelSweep& buffers;
  std::size_t first, rows;
  MatrixView<std::uint8_t> codes;
  std::span<double> damped, ridge;
  linalg::Context& context;
  MatrixView<float> x;  // [rows, n]

  /// What the lanes of a strip carry through a range: scales for the group of a channel, remembered
  /// since neighbouring channels mostly share theirs, and the losses.
  struct LaneState {
    std::size_t group = static_cast<std::size_t>(-1);
    float scales[kLanes];
    std::uint8_t zeros[kLanes];
    // Of this range: up to a block of terms in float32, ranges in double. What leaves float32 at
    // either end shows as infinity or zero, and such rows are judged by H itself.
    float loss[kLanes] = {}, ridge[kLanes] = {};
  };

  std::size_t strips() const { return (rows + kLanes - 1) / kLanes; }
  bool per_output() const { return s.layout.per == Channel::output; }
  std::size_t group_of(std::size_t position) const {
    return s.order[position] / s.layout.length;  // per output channel
  }
  float diagonal(std::size_t p) const { return s.factor.data()[p * s.factor.stride() + p]; }
  float* targets(std::size_t strip) const {
    return buffers.targets_.data() + strip * s.block * kLanes;
  }
  float* weights(std::size_t strip) const {
    return buffers.weights_.data() + strip * s.block * kLanes;
  }
  std::size_t rows_of(std::size_t strip) const { return std::min(kLanes, rows - strip * kLanes); }
  float* tile(unsigned slot) const { return buffers.tiles_.data() + slot * buffers.tile_size_; }

  void load_parameters(std::size_t strip, std::size_t channel, LaneState& lanes) const {
    const std::size_t group = per_output() ? channel / s.layout.length : channel;
    if (group == lanes.group) return;
    lanes.group = group;
    for (std::size_t r = 0; r < kLanes; ++r) {
      const std::size_t row = strip * kLanes + r;
      lanes.scales[r] = 1;  // of lanes beyond the last row, whose weights are zero
      lanes.zeros[r] = symmetric_zero(s.grid.format);
      if (row >= rows) continue;
      const std::size_t index = s.layout.index(first + row, channel);
      lanes.scales[r] = s.parameters->scales[index];
      if (!s.parameters->zeros.empty()) lanes.zeros[r] = s.parameters->zeros[index];
    }
  }

  void store_parameters(std::size_t index, float scale, std::uint8_t zero) const {
    if (!std::isfinite(scale) || scale == 0) return;
    s.parameters->scales[index] = scale;
    if (!s.parameters->zeros.empty()) s.parameters->zeros[index] = zero;
  }

  void load_weights(std::size_t strip, std::size_t channel, float* to) const {
    const std::size_t count = rows_of(strip);
    const float* from = s.weight.row(first + strip * kLanes).data() + channel;
    for (std::size_t r = 0; r < count; ++r) to[r] = from[r * s.weight.stride()];
    for (std::size_t r = count; r < kLanes; ++r) to[r] = 0;
  }

  /// w + feedback of the finished ranges, one position.
  void load_target(std::size_t strip, std::size_t position, float* to) const {
    load_weights(strip, s.order[position], to);
    const float* feedback = x.row(strip * kLanes).data() + position;
    const float inverse = buffers.inverse_[position];
    for (std::size_t r = 0; r < rows_of(strip); ++r) to[r] += feedback[r * x.stride()] * inverse;
  }

  /// Weights and targets of a range, rows into lanes; index i is position hi - 1 - i.
  void load_range(std::size_t strip, std::size_t lo, std::size_t hi) const {
    float* t = targets(strip);
    float* w = weights(strip);
    const std::size_t count = rows_of(strip);
    if (count < kLanes) {
      std::fill_n(t, (hi - lo) * kLanes, 0.0F);
      std::fill_n(w, (hi - lo) * kLanes, 0.0F);
    }
    for (std::size_t r = 0; r < count; ++r) {
      const float* weight = s.weight.row(first + strip * kLanes + r).data();
      const float* feedback = x.row(strip * kLanes + r).data();
      for (std::size_t i = 0; i < hi - lo; ++i) {
        const std::size_t p = hi - 1 - i;
        w[i * kLanes + r] = weight[s.order[p]];
        t[i * kLanes + r] = weight[s.order[p]] + feedback[p] * buffers.inverse_[p];
      }
    }
  }
  void store_errors(std::size_t strip, std::size_t lo, std::size_t hi) const {
    const float* errors = targets(strip);
    for (std::size_t r = 0; r < rows_of(strip); ++r) {
      float* to = x.row(strip * kLanes + r).data();
      for (std::size_t i = 0; i < hi - lo; ++i) to[hi - 1 - i] = errors[i * kLanes + r];
    }
  }

  /// Fits one strip's scales of the group at positions [lo, hi), per output channel. `target(p,
  /// to)` gives a live channel's sixteen targets. Dead channels count with their weights, but not
  /// in a search.
  template <typename Target>
  void fit_strip(std::size_t strip, std::size_t lo, std::size_t hi, unsigned slot, Target target) {
    const std::size_t group = group_of(lo);
    const std::size_t begin = group * s.layout.length;
    const std::size_t end = std::min(begin + s.layout.length, s.weight.cols());
    float* values = tile(slot);
    float* weights = values + s.layout.length * kLanes;
    std::size_t position = hi;  // natural order: channels ascend as positions descend
    for (std::size_t channel = begin; channel < end; ++channel) {
      float* to = values + (channel - begin) * kLanes;
      if (position > lo && s.order[position - 1] == channel) {
        --position;
        target(position, to);
        weights[channel - begin] = diagonal(position) * diagonal(position);
      } else {
        load_weights(strip, channel, to);
        weights[channel - begin] = 0;
      }
    }
    float scales[kLanes];
    std::uint8_t zeros[kLanes];
    choose_strip(s, values, weights, end - begin, scales, zeros);
    for (std::size_t r = 0; r < kLanes && strip * kLanes + r < rows; ++r) {
      store_parameters(s.layout.index(first + strip * kLanes + r, begin), scales[r], zeros[r]);
    }
  }

  /// A group longer than a block, when the sweep reaches it.
  void fit_long_group(std::size_t lo, std::size_t hi) {
    context.executor().run(strips(), 1, [&](std::size_t begin, std::size_t end, unsigned slot) {
      for (std::size_t strip = begin; strip < end; ++strip) {
        fit_strip(strip, lo, hi, slot,
                  [&](std::size_t p, float* to) { load_target(strip, p, to); });
      }
    });
  }

  /// Groups down one column, targets finished: sixteen groups of rows in the lanes of a tile.
  void fit_column(std::size_t channel, std::size_t index) {
    const std::size_t length = s.layout.length;
    const std::size_t groups = (rows + length - 1) / length;
    const auto fit = [&](std::size_t begin, std::size_t end, unsigned slot) {
      float* values = tile(slot);
      for (std::size_t g0 = begin * kLanes; g0 < std::min(end * kLanes, groups); g0 += kLanes) {
        std::memset(values, 0, length * kLanes * sizeof(float));
        const std::size_t lanes = std::min(kLanes, groups - g0);
        for (std::size_t lane = 0; lane < lanes; ++lane) {
          const std::size_t row = (g0 + lane) * length;
          const std::size_t count = std::min(length, rows - row);
          for (std::size_t i = 0; i < count; ++i) {
            values[i * kLanes + lane] =
                targets((row + i) / kLanes)[index * kLanes + (row + i) % kLanes];
          }
        }
        float scales[kLanes];
        std::uint8_t zeros[kLanes];
        choose_strip(s, values, nullptr, length, scales, zeros);
        for (std::size_t lane = 0; lane < lanes; ++lane) {
          store_parameters(s.layout.index(first + (g0 + lane) * length, channel), scales[lane],
                           zeros[lane]);
        }
      }
    };
    context.executor().run((groups + kLanes - 1) / kLanes, 1, fit);
  }

  /// Rounds the finished targets of index i of a strip; leaves the errors in their place.
  void round_target(std::size_t strip, std::size_t position, std::size_t i, LaneState& lanes) {
    const std::size_t channel = s.order[position];
    float* target = targets(strip) + i * kLanes;
    const float* weight = weights(strip) + i * kLanes;
    load_parameters(strip, channel, lanes);
    std::uint8_t code[kLanes];
    float value[kLanes];
    round_strip(s.grid, target, 1, lanes.scales, lanes.zeros, code, value);
    const float root = diagonal(position);
    const float extra = s.added[position];
    for (std::size_t r = 0; r < kLanes; ++r) {
      const float miss = root * (target[r] - value[r]);
      const float error = weight[r] - value[r];
      target[r] = error;
      lanes.loss[r] += miss * miss;
      lanes.ridge[r] += extra * (error * error);
    }
    store_codes(strip, channel, code);
  }

  void store_codes(std::size_t strip, std::size_t channel, const std::uint8_t* code) {
    std::uint8_t* to = codes.row(strip * kLanes).data() + channel;
    for (std::size_t r = 0; r < rows_of(strip); ++r) to[r * codes.stride()] = code[r];
  }

  void add_losses(std::size_t strip, const LaneState& lanes) {
    for (std::size_t r = 0; r < kLanes; ++r) {
      damped[strip * kLanes + r] += static_cast<double>(lanes.loss[r]);
      ridge[strip * kLanes + r] += static_cast<double>(lanes.ridge[r]);
    }
  }

  /// Feedback of indices [from, to) of the range into the targets of index i.
  void add_feedback(float* t, std::size_t i, std::size_t from, std::size_t to) const {
    float* own = t + i * kLanes;
    const float* coefficients = buffers.coefficients_.data() + i * s.block;
    (Lanes::load(own) + linalg::weighted_sum(coefficients, t, from, to)).store(own);
  }

  /// Positions [lo, hi), no more than a block, from hi - 1 down.
  void leaf(std::size_t lo, std::size_t hi) {
    const std::size_t n = hi - lo;
    for (std::size_t i = 0; i < n; ++i) {
      const std::size_t p = hi - 1 - i;
      float* coefficients = buffers.coefficients_.data() + i * s.block;
      for (std::size_t j = 0; j < i; ++j) {
        coefficients[j] = s.factor(hi - 1 - j, p) * buffers.inverse_[p];
      }
    }
    Executor& executor = context.executor();
    if (per_output()) {
      executor.run(strips(), 1, [&](std::size_t begin, std::size_t end, unsigned slot) {
        for (std::size_t strip = begin; strip < end; ++strip) leaf_strip(strip, lo, hi, slot);
      });
      return;
    }
    executor.run(strips(), 16, [&](std::size_t begin, std::size_t end, unsigned) {
      for (std::size_t strip = begin; strip < end; ++strip) load_range(strip, lo, hi);
    });
    for (std::size_t i = 0; i < n; ++i) {
      const std::size_t p = hi - 1 - i;
      executor.run(strips(), 16, [&](std::size_t begin, std::size_t end, unsigned) {
        for (std::size_t strip = begin; strip < end; ++strip) {
          add_feedback(targets(strip), i, 0, i);
        }
      });
      if (s.fit) fit_column(s.order[p], i);
      executor.run(strips(), 16, [&](std::size_t begin, std::size_t end, unsigned) {
        for (std::size_t strip = begin; strip < end; ++strip) {
          LaneState lanes;
          round_target(strip, p, i, lanes);
          add_losses(strip, lanes);
        }
      });
    }
    executor.run(strips(), 16, [&](std::size_t begin, std::size_t end, unsigned) {
      for (std::size_t strip = begin; strip < end; ++strip) store_errors(strip, lo, hi);
    });
  }

  /// A leaf of one strip, groups along rows.
  void leaf_strip(std::size_t strip, std::size_t lo, std::size_t hi, unsigned slot) {
    load_range(strip, lo, hi);
    LaneState lanes;
    std::size_t start = 0;  // of the group at hand
    for (std::size_t i = 0; i < hi - lo; ++i) {
      const std::size_t p = hi - 1 - i;
      if (s.fit && i != 0 && group_of(p) != group_of(p + 1)) start = i;
      if (s.fit && i == start) fit_in_leaf(strip, lo, hi, i, slot);
      add_feedback(targets(strip), i, start, i);
      round_target(strip, p, i, lanes);
    }
    add_losses(strip, lanes);
    store_errors(strip, lo, hi);
  }

  /// The group that starts at index i of a leaf: feedback from the leaf's channels before it into
  /// all its targets, then its scales, if all of it lies in the leaf (else fit_long_group has been
  /// there).
  void fit_in_leaf(std::size_t strip, std::size_t lo, std::size_t hi, std::size_t i,
                   unsigned slot) {
    float* t = targets(strip);
    const std::size_t top = hi - 1 - i;
    std::size_t bottom = top + 1;
    while (bottom > lo && group_of(bottom - 1) == group_of(top)) {
      --bottom;
      add_feedback(t, hi - 1 - bottom, 0, i);
    }
    const bool starts = top + 1 == s.order.size() || group_of(top + 1) != group_of(top);
    const bool ends = bottom == 0 || group_of(bottom - 1) != group_of(top);
    if (!starts || !ends) return;
    fit_strip(strip, bottom, top + 1, slot, [&](std::size_t p, float* to) {
      std::memcpy(to, t + (hi - 1 - p) * kLanes, kLanes * sizeof(float));
    });
  }

  /// Where to halve [lo, hi): on a boundary of groups if there is one inside, else on a block.
  std::size_t cut(std::size_t lo, std::size_t hi) const {
    const std::size_t middle = lo + (hi - lo) / 2;
    if (s.fit && per_output()) {
      const auto& starts = buffers.starts_;
      const auto above = std::lower_bound(starts.begin(), starts.end(), middle);
      const std::size_t up = above != starts.end() && *above < hi ? *above : hi;
      const std::size_t down = above != starts.begin() && *(above - 1) > lo ? *(above - 1) : lo;
      if (up != hi || down != lo) {
        if (up == hi) return down;
        if (down == lo) return up;
        return up - middle < middle - down ? up : down;
      }
    }
    return hi - round_up((hi - lo) / 2, s.block);
  }

  Status range(std::size_t lo, std::size_t hi) {
    if (hi - lo <= s.block) {
      leaf(lo, hi);
      return ok();
    }
    if (s.fit && per_output() && group_of(lo) == group_of(hi - 1)) {
      const bool starts = hi == s.order.size() || group_of(hi) != group_of(lo);
      const bool ends = lo == 0 || group_of(lo - 1) != group_of(lo);
      if (starts && ends) fit_long_group(lo, hi);
    }
    const std::size_t middle = cut(lo, hi);
    QUELL_TRY(range(middle, hi));
    QUELL_TRY(linalg::gemm_dense({{x.cols_from(middle, hi - middle)},
                                  {s.factor.block(middle, lo, hi - middle, middle - lo), true},
                                  x.cols_from(lo, middle - lo),
                                  linalg::Accumulate::add},
                                 context));
    return range(lo, middle);
  }

  void round_dead() {
    for (std::size_t strip = 0; strip < strips(); ++strip) {
      LaneState lanes;
      for (const std::uint32_t channel : s.dead) {
        float weight[kLanes];
        std::uint8_t code[kLanes];
        load_weights(strip, channel, weight);
        load_parameters(strip, channel, lanes);
        round_strip(s.grid, weight, 1, lanes.scales, lanes.zeros, code, nullptr);
        store_codes(strip, channel, code);
      }
    }
  }
};

Result<PanelSweep> PanelSweep::create(const Sweep& sweep, std::size_t rows, Executor& executor) {
  PanelSweep buffers;
  const std::size_t n = sweep.order.size();
  const std::size_t padded = round_up(rows, kLanes);
  QUELL_TRY(x, Matrix::uninitialized(rows, n));
  buffers.x_ = std::move(x);
  buffers.targets_.resize(padded * sweep.block);
  buffers.weights_.resize(padded * sweep.block);
  buffers.coefficients_.resize(sweep.block * sweep.block);
  buffers.inverse_.resize(n);
  for (std::size_t p = 0; p < n; ++p) buffers.inverse_[p] = 1 / sweep.factor(p, p);
  if (sweep.fit) {
    buffers.tile_size_ = sweep.layout.length * (kLanes + 1);
    buffers.tiles_.resize(buffers.tile_size_ * executor.width());
  }
  if (sweep.fit && sweep.layout.per == Channel::output) {
    for (std::size_t p = 1; p < n; ++p) {
      const std::size_t length = sweep.layout.length;
      if (sweep.order[p] / length != sweep.order[p - 1] / length) {
        buffers.starts_.push_back(static_cast<std::uint32_t>(p));
      }
    }
  }
  return buffers;
}

Status PanelSweep::run(const Sweep& sweep, std::size_t first, std::size_t rows,
                       MatrixView<std::uint8_t> codes, std::span<double> damped,
                       std::span<double> ridge, linalg::Context& context) {
  const std::size_t padded = round_up(rows, kLanes);
  const MatrixView<float> x(x_.data(), rows, sweep.order.size());
  if (x.size() != 0) std::memset(x.data(), 0, x.size() * sizeof(float));
  std::vector<double> loss(padded), part(padded);
  Panel panel{sweep, *this, first, rows, codes, loss, part, context, x};
  if (!sweep.order.empty()) QUELL_TRY(panel.range(0, sweep.order.size()));
  panel.round_dead();
  std::copy_n(loss.begin(), rows, damped.begin());
  std::copy_n(part.begin(), rows, ridge.begin());
  return ok();
}

}  // namespace quell::quant
