// SPDX-License-Identifier: Apache-2.0

#include "quant/quantizers/sweep.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "linalg/strips.hpp"

namespace quell::quant {
namespace {

constexpr std::size_t kLanes = kStripLanes;
static_assert(kLanes == linalg::kStripRows);
// Positions of a strip that are done one after the other; more are halved.
constexpr std::size_t kSequential = 8;
// Positions whose feedback one product prepares where groups do not say it.
constexpr std::size_t kSegment = 64;

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
  linalg::SubtractStrip subtract = linalg::subtract_strip();

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
  std::uint8_t* strip_codes(std::size_t strip) const {
    return buffers.codes_.data() + strip * s.block * kLanes;
  }
  const float* coefficients(std::size_t i) const {
    return buffers.coefficients_.data() + i * s.block;
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

  /// Weights and targets of a range, rows into lanes.
  void load_range(std::size_t strip, std::size_t lo, std::size_t hi) const {
    const std::size_t n = hi - lo, count = rows_of(strip), row = first + strip * kLanes;
    float* const t = targets(strip);
    float* const w = weights(strip);
    const std::span<const std::uint32_t> channels = s.order.subspan(lo, n);
    if (buffers.ascending_ && channels.back() == channels.front() + n - 1) {  // none left out
      linalg::load_strip(s.weight.row(row).data() + channels.front(), s.weight.stride(), count, n,
                         w);
    } else {
      for (std::size_t i = 0; i < n; ++i) load_weights(strip, channels[i], w + i * kLanes);
    }
    linalg::load_strip(x.row(strip * kLanes).data() + lo, x.stride(), count, n, t);
    for (std::size_t i = 0; i < n; ++i) {
      const float inverse = buffers.inverse_[lo + i];
      for (std::size_t r = i * kLanes; r < (i + 1) * kLanes; ++r) t[r] = w[r] + t[r] * inverse;
    }
  }
  /// Errors and codes of a finished range, lanes into rows.
  void store_range(std::size_t strip, std::size_t lo, std::size_t hi) const {
    const std::size_t n = hi - lo, count = rows_of(strip);
    linalg::store_strip(targets(strip), count, n, x.row(strip * kLanes).data() + lo, x.stride());
    for (std::size_t r = 0; r < count; ++r) {
      const std::uint8_t* from = strip_codes(strip) + r;
      std::uint8_t* to = codes.row(strip * kLanes + r).data();
      for (std::size_t i = 0; i < n; ++i) to[s.order[lo + i]] = from[i * kLanes];
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
    std::size_t position = lo;  // natural order: channels ascend with positions
    for (std::size_t channel = begin; channel < end; ++channel) {
      float* to = values + (channel - begin) * kLanes;
      if (position < hi && s.order[position] == channel) {
        target(position, to);
        weights[channel - begin] = diagonal(position) * diagonal(position);
        ++position;
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
    float* target = targets(strip) + i * kLanes;
    const float* weight = weights(strip) + i * kLanes;
    load_parameters(strip, s.order[position], lanes);
    float value[kLanes];
    round_strip(s.grid, target, 1, lanes.scales, lanes.zeros, strip_codes(strip) + i * kLanes,
                value);
    const float root = diagonal(position);
    const float extra = s.added[position];
    for (std::size_t r = 0; r < kLanes; ++r) {
      const float miss = root * (target[r] - value[r]);
      const float error = weight[r] - value[r];
      target[r] = error;
      lanes.loss[r] += miss * miss;
      lanes.ridge[r] += extra * (error * error);
    }
  }

  void add_losses(std::size_t strip, const LaneState& lanes) {
    for (std::size_t r = 0; r < kLanes; ++r) {
      damped[strip * kLanes + r] += static_cast<double>(lanes.loss[r]);
      ridge[strip * kLanes + r] += static_cast<double>(lanes.ridge[r]);
    }
  }

  // Inside a leaf, positions are counted from its start: index i.

  /// Feedback of indices [from, to) into the targets of [begin, end), which come later.
  void add_feedback(std::size_t strip, std::size_t begin, std::size_t end, std::size_t from,
                    std::size_t to) const {
    float* const t = targets(strip);
    subtract(coefficients(begin) + from, s.block, end - begin, to - from, t + from * kLanes,
             t + begin * kLanes);
  }

  /// Indices [begin, end), which have all feedback from before `begin`.
  void solve_indices(std::size_t strip, std::size_t lo, std::size_t begin, std::size_t end,
                     LaneState& lanes) {
    if (end - begin <= kSequential) {
      for (std::size_t i = begin; i < end; ++i) {
        add_feedback(strip, i, i + 1, begin, i);
        round_target(strip, lo + i, i, lanes);
      }
      return;
    }
    const std::size_t middle = begin + round_up((end - begin) / 2, kSequential);
    solve_indices(strip, lo, begin, middle, lanes);
    add_feedback(strip, middle, end, begin, middle);
    solve_indices(strip, lo, middle, end, lanes);
  }

  /// Coefficients of the feedback inside [lo, hi), in squares: the factor has them by columns.
  void load_coefficients(std::size_t lo, std::size_t hi) {
    constexpr std::size_t kSquare = 16;
    const std::size_t n = hi - lo;
    for (std::size_t j0 = 0; j0 < n; j0 += kSquare) {
      for (std::size_t i0 = j0; i0 < n; i0 += kSquare) {
        for (std::size_t j = j0; j < std::min(j0 + kSquare, n); ++j) {
          const float* row = s.factor.row(lo + j).data() + lo;
          for (std::size_t i = std::max(i0, j + 1); i < std::min(i0 + kSquare, n); ++i) {
            buffers.coefficients_(i, j) = -(row[i] * buffers.inverse_[lo + i]);
          }
        }
      }
    }
  }

  /// Positions [lo, hi), no more than a block.
  void leaf(std::size_t lo, std::size_t hi) {
    load_coefficients(lo, hi);
    Executor& executor = context.executor();
    if (per_output()) {
      executor.run(strips(), 1, [&](std::size_t begin, std::size_t end, unsigned slot) {
        for (std::size_t strip = begin; strip < end; ++strip) leaf_strip(strip, lo, hi, slot);
      });
      return;
    }
    const auto for_strips = [&](auto function) {
      executor.run(strips(), 16, [&](std::size_t begin, std::size_t end, unsigned) {
        for (std::size_t strip = begin; strip < end; ++strip) function(strip);
      });
    };
    // A column's scales belong to all its rows: strips wait for each other.
    const std::size_t n = hi - lo;
    for_strips([&](std::size_t strip) { load_range(strip, lo, hi); });
    for (std::size_t start = 0; start < n; start += kSegment) {
      const std::size_t end = std::min(start + kSegment, n);
      for_strips([&](std::size_t strip) { add_feedback(strip, start, end, 0, start); });
      for (std::size_t i = start; i < end; ++i) {
        for_strips([&](std::size_t strip) { add_feedback(strip, i, i + 1, start, i); });
        if (s.fit) fit_column(s.order[lo + i], i);
        for_strips([&](std::size_t strip) {
          LaneState lanes;
          round_target(strip, lo + i, i, lanes);
          add_losses(strip, lanes);
        });
      }
    }
    for_strips([&](std::size_t strip) { store_range(strip, lo, hi); });
  }

  /// A leaf of one strip, groups along rows.
  void leaf_strip(std::size_t strip, std::size_t lo, std::size_t hi, unsigned slot) {
    load_range(strip, lo, hi);
    LaneState lanes;
    for (std::size_t start = 0, end = 0; start < hi - lo; start = end) {
      end = s.fit ? group_end(lo + start, hi) - lo : hi - lo;
      add_feedback(strip, start, end, 0, start);
      // A group that reaches beyond the leaf was fitted before it (fit_long_group).
      if (s.fit && is_whole_group(lo + start, lo + end)) {
        fit_strip(strip, lo + start, lo + end, slot, [&](std::size_t p, float* to) {
          std::memcpy(to, targets(strip) + (p - lo) * kLanes, kLanes * sizeof(float));
        });
      }
      solve_indices(strip, lo, start, end, lanes);
    }
    add_losses(strip, lanes);
    store_range(strip, lo, hi);
  }

  /// Where the group at position `lo` ends, `hi` at the latest.
  std::size_t group_end(std::size_t lo, std::size_t hi) const {
    const auto next = std::upper_bound(buffers.starts_.begin(), buffers.starts_.end(), lo);
    return next != buffers.starts_.end() && *next < hi ? *next : hi;
  }
  /// True if positions [lo, hi), all of one group, are all that the group has.
  bool is_whole_group(std::size_t lo, std::size_t hi) const {
    const bool starts = lo == 0 || group_of(lo - 1) != group_of(lo);
    const bool ends = hi == s.order.size() || group_of(hi) != group_of(lo);
    return starts && ends;
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
    return lo + round_up((hi - lo) / 2, s.block);
  }

  Status range(std::size_t lo, std::size_t hi) {
    if (hi - lo <= s.block) {
      leaf(lo, hi);
      return ok();
    }
    if (s.fit && per_output() && group_of(lo) == group_of(hi - 1) && is_whole_group(lo, hi)) {
      fit_long_group(lo, hi);
    }
    const std::size_t middle = cut(lo, hi);
    QUELL_TRY(range(lo, middle));
    QUELL_TRY(linalg::gemm_dense({{x.cols_from(lo, middle - lo)},
                                  {s.factor.block(lo, middle, middle - lo, hi - middle), true},
                                  x.cols_from(middle, hi - middle),
                                  linalg::Accumulate::add},
                                 context));
    return range(middle, hi);
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
        for (std::size_t r = 0; r < rows_of(strip); ++r) {
          codes(strip * kLanes + r, channel) = code[r];
        }
      }
    }
  }
};

Result<PanelSweep> PanelSweep::create(const Sweep& sweep, std::size_t rows, Executor& executor) {
  PanelSweep buffers;
  const std::size_t n = sweep.order.size();
  const std::size_t padded = round_up(rows, kLanes);
  QUELL_TRY(x, Matrix::uninitialized(rows, n));
  QUELL_TRY(targets, Matrix::uninitialized(padded, sweep.block));
  QUELL_TRY(weights, Matrix::uninitialized(padded, sweep.block));
  QUELL_TRY(coefficients, Matrix::uninitialized(sweep.block, sweep.block));
  buffers.x_ = std::move(x);
  buffers.targets_ = std::move(targets);
  buffers.weights_ = std::move(weights);
  buffers.codes_.resize(padded * sweep.block);
  buffers.coefficients_ = std::move(coefficients);
  buffers.ascending_ = std::is_sorted(sweep.order.begin(), sweep.order.end());
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
