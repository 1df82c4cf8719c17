// SPDX-License-Identifier: Apache-2.0

// gptq: order the inputs, factor their second moment, sweep (sweep.hpp), and keep rounding where it
// is better. Cost for r rows and d inputs: d^3 / 3 flops for the factor, r d^2 for the sweep and r
// d^2 to judge rounding; the sweep's own loss is free.
//
// The loss that the sweep adds up belongs to the factored matrix, H plus what was added to its
// diagonal. The difference is exact up to rounding unless nearly all of it is damping (few tokens:
// errors hide where H is zero); such rows, and those close to rounding's loss, are judged by H
// itself.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <memory>
#include <numeric>
#include <optional>
#include <string>
#include <vector>

#include "linalg/linalg.hpp"
#include "quant/descent.hpp"
#include "quant/problem.hpp"
#include "quant/quantizers/sweep.hpp"
#include "quell/core/bits.hpp"
#include "quell/grid/formats.hpp"
#include "quell/quant/methods.hpp"

namespace quell::quant {
namespace {

std::string number(double value) {
  char buffer[32];
  std::snprintf(buffer, sizeof buffer, "%.6g", value);
  return buffer;
}

/// R of H = R R^T, rows and columns in sweep order, and how it was obtained.
struct Factor {
  Matrix upper;              // [n, n]
  std::vector<float> added;  // [n], to the diagonal of unit * H
  double damping = 0;        // of the mean diagonal
  std::string steps;         // what was tried before; empty if the first try held
};

/// Channel at each position, the first to be quantized first.
std::vector<std::uint32_t> sweep_order(const MomentProfile& profile, bool act_order) {
  std::vector<std::uint32_t> order = profile.live;
  if (act_order) {
    std::stable_sort(order.begin(), order.end(), [&](std::uint32_t a, std::uint32_t b) {
      return profile.importance[a] > profile.importance[b];
    });
  }
  return order;
}

/// True if a conditional variance is lost in rounding: below four units in the last place of its
/// diagonal element it is noise, and feedback divided by it would be too.
bool is_degenerate(const Matrix& upper, std::span<const std::uint32_t> order,
                   const MomentProfile& profile, std::span<const float> added) {
  for (std::size_t p = 0; p < order.size(); ++p) {
    const float own = profile.importance[order[p]] + added[p];
    if (!(upper(p, p) * upper(p, p) > 0x1p-22F * own)) return true;
  }
  return false;
}

class Ladder {
 public:
  Ladder(MatrixView<const float> moment, const MomentProfile& profile,
         std::span<const std::uint32_t> order, linalg::Context& context)
      : moment_(moment),
        profile_(profile),
        order_(order),
        reversed_(order.rbegin(), order.rend()),
        context_(context) {}

  /// The asked damping, then ten times as much up to the mean of the diagonal, then in addition a
  /// rising floor under the diagonal. Error (numeric): nothing held.
  Result<Factor> climb(double damping) {
    const std::size_t n = order_.size();
    QUELL_TRY(upper, Matrix::uninitialized(n, n));
    Factor factor;
    factor.upper = std::move(upper);
    factor.added.resize(n);
    for (double step = damping;;) {
      QUELL_TRY(held, attempt(factor, step, 0));
      if (held) return factor;
      if (step >= 1) break;
      // From no damping at all the first step is a hundredth of the default.
      step = std::min(step > 0 ? 10 * step : 1e-4, 1.0);
    }
    float highest = 0, lowest = std::numeric_limits<float>::infinity();
    for (const std::uint32_t channel : order_) {
      highest = std::max(highest, profile_.importance[channel]);
      lowest = std::min(lowest, profile_.importance[channel]);
    }
    for (float share = 1e-6F; share < 1; share *= 10) {
      if (share * highest <= lowest) continue;
      QUELL_TRY(held, attempt(factor, std::max(damping, 1.0), share * highest));
      if (held) return factor;
    }
    return Error{ErrorCode::numeric, "the second moment could not be factored" + factor.steps};
  }

 private:
  Result<bool> attempt(Factor& factor, double damping, float floor) {
    const auto ridge = static_cast<float>(damping * profile_.mean);
    for (std::size_t p = 0; p < order_.size(); ++p) {
      factor.added[p] = std::max(ridge, floor - profile_.importance[order_[p]]);
    }
    // The upper factor is the lower one of the reversed order, reversed.
    const std::vector<float> added(factor.added.rbegin(), factor.added.rend());
    linalg::gather_lower(moment_, reversed_, profile_.unit, added, factor.upper.view(),
                         context_.executor());
    factor.damping = damping;
    Status done = linalg::cholesky_lower(factor.upper.view(), context_);
    if (!done && done.error().code != ErrorCode::numeric) return std::move(done).error();
    if (done) {
      linalg::reverse_both(factor.upper.view(), context_.executor());
      if (!is_degenerate(factor.upper, order_, profile_, factor.added)) return true;
    }
    factor.steps += factor.steps.empty() ? "; not positive definite with damping " : ", ";
    factor.steps += number(damping);
    if (floor > 0) factor.steps += " and diagonal floor " + number(static_cast<double>(floor));
    return false;
  }

  MatrixView<const float> moment_;
  const MomentProfile& profile_;
  std::span<const std::uint32_t> order_;
  std::vector<std::uint32_t> reversed_;
  linalg::Context& context_;
};

/// Losses of every row, in units of the profile.
struct RowLosses {
  std::vector<double> kept, rounding;
  std::vector<std::uint8_t> guarded;
  explicit RowLosses(std::size_t rows) : kept(rows), rounding(rows), guarded(rows) {}
};

constexpr std::size_t kPanelRows = 512;

/// One layer being solved: sweeps panels of rows and guards them.
class Solver {
 public:
  Solver(const LayerProblem& layer, const Sweep& sweep, const MomentProfile& profile,
         const QuantizedTensor& rounding, bool guard)
      : layer_(layer),
        sweep_(sweep),
        loss_(layer.second_moment, profile.unit),
        rounding_(rounding),
        guard_(guard),
        losses_(layer.weight.rows()),
        packed_(layer.weight.rows() * rounding.row_bytes()) {}

  Status run(Executor& executor) {
    const std::size_t rows = layer_.weight.rows();
    const GroupLayout& layout = sweep_.layout;
    // 512 rows are one block of gemm_dense, so factor and moment are packed once a panel. Groups
    // down columns that are fitted stay whole, sixteen of them to fill the lanes of a search.
    const bool down = sweep_.fit && layout.per == Channel::input;
    const std::size_t step = down ? layout.length : kStripLanes;
    panel_ = std::min(
        rows,
        panel_rows(rows, down ? std::max(kPanelRows, kStripLanes * layout.length) : kPanelRows,
                   step, executor.width()));
    const std::size_t panels = (rows + panel_ - 1) / panel_;
    std::vector<std::unique_ptr<Thread>> threads(executor.width());
    std::vector<std::optional<Error>> failures(panels);
    const auto solve = [&](std::size_t panel, unsigned slot, Executor& inner) -> Status {
      if (threads[slot] == nullptr) {
        QUELL_TRY(thread, make_thread(inner));
        threads[slot] = std::move(thread);
      }
      return solve_panel(*threads[slot], panel * panel_, std::min(panel_, rows - panel * panel_));
    };
    if (panels == 1) return solve(0, 0, executor);  // threads share the panel
    SerialExecutor serial;
    executor.run(panels, 1, [&](std::size_t begin, std::size_t end, unsigned slot) {
      for (std::size_t panel = begin; panel < end; ++panel) {
        if (Status done = solve(panel, slot, serial); !done) {
          failures[panel] = std::move(done).error();
        }
      }
    });
    for (std::optional<Error>& failure : failures) {
      if (failure) return *std::move(failure);
    }
    return ok();
  }

  RowLosses& losses() { return losses_; }
  std::vector<std::uint8_t>& packed() { return packed_; }

 private:
  struct Thread {
    Thread(Executor& executor, PanelSweep buffers, BasicMatrix<std::uint8_t> code_rows,
           Matrix error_rows)
        : context(executor),
          sweep(std::move(buffers)),
          codes(std::move(code_rows)),
          errors(std::move(error_rows)) {}
    linalg::Context context;
    PanelSweep sweep;
    BasicMatrix<std::uint8_t> codes;  // [panel, IC]
    Matrix errors;                    // [panel, IC]
  };

  Result<std::unique_ptr<Thread>> make_thread(Executor& executor) const {
    const std::size_t inputs = layer_.weight.cols();
    QUELL_TRY(sweep, PanelSweep::create(sweep_, panel_, executor));
    QUELL_TRY(codes, BasicMatrix<std::uint8_t>::uninitialized(panel_, inputs));
    QUELL_TRY(errors, Matrix::uninitialized(panel_, inputs));
    return std::make_unique<Thread>(executor, std::move(sweep), std::move(codes),
                                    std::move(errors));
  }

  Status solve_panel(Thread& thread, std::size_t first, std::size_t rows) {
    const std::span<double> kept(losses_.kept.data() + first, rows);
    std::vector<double> ridge(rows);
    QUELL_TRY(thread.sweep.run(sweep_, first, rows, thread.codes.view().rows_from(0, rows), kept,
                               ridge, thread.context));

    const auto part = thread.errors.view().rows_from(0, rows);
    loss_.gather(layer_.weight, &rounding_, first, 1, part, thread.context.executor());
    QUELL_TRY(loss_.judge(part, {losses_.rounding.data() + first, rows}, thread.context));

    std::vector<std::size_t> unclear;
    for (std::size_t r = 0; r < rows; ++r) {
      const double damped = kept[r];
      kept[r] -= ridge[r];
      if (!(kept[r] > 0.05 * damped && kept[r] < 0.999 * losses_.rounding[first + r])) {
        unclear.push_back(r);
      }
    }
    QUELL_TRY(judge_again(thread, first, unclear));
    guard(thread, first, rows);
    for (std::size_t r = 0; r < rows; ++r) {
      const std::span<std::uint8_t> to(packed_.data() + (first + r) * rounding_.row_bytes(),
                                       rounding_.row_bytes());
      pack_codes(thread.codes.row(r), bits(layer_.grid.format), to);
    }
    return ok();
  }

  /// Losses of some swept rows of a panel under H itself.
  Status judge_again(Thread& thread, std::size_t first, const std::vector<std::size_t>& which) {
    if (which.empty()) return ok();
    const std::size_t inputs = layer_.weight.cols();
    const auto part = thread.errors.view().rows_from(0, which.size());
    const auto& parameters = *sweep_.parameters;
    for (std::size_t c = 0; c < which.size(); ++c) {
      const std::size_t row = first + which[c];
      const auto weight = layer_.weight.row(row);
      const auto codes = thread.codes.row(which[c]);
      float* to = part.row(c).data();
      for (std::size_t k = 0; k < inputs; ++k) {
        const std::size_t group = sweep_.layout.index(row, k);
        const int zero =
            parameters.zeros.empty() ? symmetric_zero(layer_.grid.format) : parameters.zeros[group];
        const float value =
            code_level(layer_.grid.format, codes[k], zero) * parameters.scales[group];
        to[k] = (weight[k] - value) * loss_.error_scale();
      }
    }
    std::vector<double> losses(which.size());
    QUELL_TRY(loss_.judge(part, losses, thread.context));
    for (std::size_t c = 0; c < which.size(); ++c) losses_.kept[first + which[c]] = losses[c];
    return ok();
  }

  /// Rounding takes the rows where it is better, and those where the sweep left the range of
  /// float32. Fitted scales down a column are shared by a group of rows, which then stands or falls
  /// as one.
  void guard(Thread& thread, std::size_t first, std::size_t rows) {
    const bool down = sweep_.fit && sweep_.layout.per == Channel::input;
    const std::size_t step = down ? sweep_.layout.length : 1;
    for (std::size_t begin = 0; begin < rows; begin += step) {
      const std::size_t end = std::min(begin + step, rows);
      double kept = 0, rounding = 0;
      for (std::size_t r = first + begin; r < first + end; ++r) {
        kept += losses_.kept[r];
        rounding += losses_.rounding[r];
      }
      if (std::isfinite(kept) && !(guard_ && rounding < kept)) continue;
      for (std::size_t r = begin; r < end; ++r) keep_rounding(thread, first, r);
    }
  }

  void keep_rounding(Thread& thread, std::size_t first, std::size_t r) {
    const std::size_t row = first + r;
    rounding_.unpack_row(row, thread.codes.row(r));
    losses_.kept[row] = losses_.rounding[row];
    losses_.guarded[row] = 1;
    const GroupParameters& from = rounding_.parameters();
    GroupParameters& to = *sweep_.parameters;
    const std::size_t index_row =
        sweep_.layout.per == Channel::output ? row : row / sweep_.layout.length;
    // Rows of one group down a column copy the same parameters when they are fitted; else both are
    // equal.
    if (sweep_.layout.per == Channel::input && !sweep_.fit) return;
    for (std::size_t c = 0; c < to.cols; ++c) {
      const std::size_t index = index_row * to.cols + c;
      to.scales[index] = from.scales[index];
      if (!to.zeros.empty()) to.zeros[index] = from.zeros[index];
      if (!to.integers.empty()) to.integers[index] = from.integers[index];
    }
    if (!to.row_scales.empty()) to.row_scales[index_row] = from.row_scales[index_row];
  }

  const LayerProblem& layer_;
  const Sweep& sweep_;
  MomentLoss loss_;
  const QuantizedTensor& rounding_;
  bool guard_;
  RowLosses losses_;
  std::vector<std::uint8_t> packed_;  // codes of the whole weight
  std::size_t panel_ = 0;
};

class Gptq final : public Quantizer {
 public:
  explicit Gptq(GptqOptions options) : options_(options) {}
  std::string_view name() const override { return "gptq"; }
  Needs needs() const override { return Needs::second_moment; }

  Result<Quantized> quantize(const LayerProblem& layer, Executor& executor) const override {
    QUELL_TRY(check_problem(layer, true, executor));
    const MomentProfile profile = profile_moment(layer.second_moment);
    QUELL_TRY(rounding, round_layer(layer, profile.importance, executor));
    if (profile.live.empty()) {
      Quantized result(std::move(rounding));
      result.dead_inputs = profile.dead.size();
      result.fallback = "rounding: every input was zero in calibration";
      return result;
    }
    const std::vector<std::uint32_t> order = sweep_order(profile, options_.act_order);
    linalg::Context context(executor);
    auto factor = Ladder(layer.second_moment, profile, order, context).climb(options_.damping);
    if (!factor) {
      if (factor.error().code != ErrorCode::numeric) return std::move(factor).error();
      return fall_back(layer, "rounding: " + factor.error().message, executor);
    }

    Sweep sweep;
    sweep.weight = layer.weight;
    sweep.grid = layer.grid;
    sweep.layout = group_layout(layer.grid, layer.weight.rows(), layer.weight.cols());
    // Down a column all targets of a group are finished together, so even a sorted sweep can fit
    // them. The two levels of a row's scales hang together and are chosen beforehand.
    sweep.fit = layer.given == nullptr && !layer.grid.two_level &&
                (!options_.act_order || layer.grid.per == Channel::input);
    sweep.scale = layer.scale;
    sweep.order = order;
    sweep.dead = profile.dead;
    sweep.factor = factor->upper.view();
    sweep.added = factor->added;
    sweep.block = std::min<std::size_t>(options_.block, order.size());
    GroupParameters parameters = rounding.parameters();
    if (layer.given == nullptr && !sweep.fit) {
      std::vector<float> conditional(layer.weight.cols());
      for (std::size_t p = 0; p < order.size(); ++p) {
        conditional[order[p]] = factor->upper(p, p) * factor->upper(p, p);
      }
      QUELL_TRY(chosen, layer_scales(layer, conditional, executor));
      parameters = std::move(chosen);
    }
    sweep.parameters = &parameters;

    Solver solver(layer, sweep, profile, rounding, options_.guard);
    QUELL_TRY(solver.run(executor));
    QUELL_TRY(tensor, QuantizedTensor::create(layer.grid, layer.weight.rows(), layer.weight.cols(),
                                              std::move(solver.packed()), std::move(parameters)));
    RowLosses& losses = solver.losses();
    if (options_.refine > 0) {
      QUELL_TRY(descended, descend(layer, profile, tensor, options_.refine, executor));
      tensor = std::move(descended.tensor);
      for (std::size_t r = 0; r < losses.kept.size(); ++r) {
        losses.kept[r] = std::max(losses.kept[r] - descended.gains[r], 0.0);
      }
    }
    const auto total = [](const std::vector<double>& rows) {
      return std::accumulate(rows.begin(), rows.end(), 0.0);
    };
    Quantized result(std::move(tensor));
    QUELL_TRY(size, MomentLoss(layer.second_moment, profile.unit).zero_loss(layer.weight, context));
    if (size > 0) {
      result.objective = total(losses.kept) / size;
      result.objective_rtn = total(losses.rounding) / size;
    }
    result.damping = factor->damping;
    result.dead_inputs = profile.dead.size();
    result.guarded_rows = static_cast<std::uint64_t>(
        std::count(losses.guarded.begin(), losses.guarded.end(), std::uint8_t{1}));
    if (!factor->steps.empty()) {
      result.fallback = "damping raised to " + number(factor->damping) + factor->steps;
    }
    return result;
  }

 private:
  static Result<Quantized> fall_back(const LayerProblem& layer, std::string reason,
                                     Executor& executor) {
    QUELL_TRY(result, rtn()->quantize(layer, executor));
    result.fallback = std::move(reason);
    return result;
  }

  GptqOptions options_;
};

}  // namespace

std::unique_ptr<Quantizer> gptq(GptqOptions options) {
  options.block = std::max(options.block, 1U);
  return std::make_unique<Gptq>(options);
}

}  // namespace quell::quant
