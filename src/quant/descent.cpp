// SPDX-License-Identifier: Apache-2.0

// With e = w - q and the slope g = e H of a row, moving q_j by d changes the loss by
//
//     -2 d g_j + d^2 H_jj
//
// so the best place of code j given all others is q_j + g_j / H_jj, rounded to the grid. Moving the
// scale of a group, whose values are s c_k, by d changes it by
//
//     -2 d (c . g) + d^2 c H c
//
// (QuantEase, Behdin and others 2023, has the first; a scale for fixed codes is ordinary least
// squares.) Only g is carried, never e.
//
//   for each panel of rows                              (parallel)
//     g = (W - Q) H                                     one product
//     for each round
//       for each block of inputs
//         codes, then scales of the groups inside       g of the block kept up to date by hand
//         g += (change of e) H[block, :]                       one product
//       scales of groups that are longer than a block   one product for each
//
// Errors are multiplied by the profile's power of two, as in MomentLoss, so that g has the size of
// an error whatever the unit of H.

#include "quant/descent.hpp"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>
#include <vector>

#include "linalg/linalg.hpp"
#include "quell/core/bits.hpp"
#include "quell/grid/codebook.hpp"
#include "quell/grid/formats.hpp"
#include "quell/grid/groups.hpp"
#include "quell/grid/scale_type.hpp"

namespace quell::quant {
namespace {

// Rows of one panel: the products are then tall enough to run at full speed, and g of 4,096 inputs
// takes 4 MB.
constexpr std::size_t kPanelRows = 256;
// A gain below this share of the move's own d^2 h is noise of float32.
constexpr float kLeastGain = 1e-5F;

/// Memory of one thread.
struct Buffers {
  Matrix slopes;                    // [panel, IC]: g
  Matrix change;                    // [panel, block]: of the errors, scaled
  Matrix local;                     // [panel, block]: g of a block
  BasicMatrix<std::uint8_t> codes;  // [panel, IC]
  std::vector<float> moment;        // [block, block]: unit * H of a block
  std::vector<float> levels;        // of one group
  std::vector<float> product;       // of the same with a block of H
};

class Descent {
 public:
  Descent(const LayerProblem& layer, const MomentProfile& profile, const QuantizedTensor& start)
      : layer_(layer),
        start_(start),
        loss_(layer.second_moment, profile.unit),
        unit_(loss_.error_scale()),
        profile_unit_(profile.unit),
        grid_(start.grid()),
        layout_(group_layout(grid_, start.rows(), start.cols())),
        codebook_(info(grid_.format).codebook),
        range_(code_range(grid_)),
        parameters_(start.parameters()),
        packed_(start.rows() * start.row_bytes()),
        gains_(start.rows()) {
    // Whole groups, where they fit.
    const bool along = layout_.per == Channel::output;
    wide_ = along && layout_.length > kDescentBlock;
    block_ = along && !wide_ ? kDescentBlock / layout_.length * layout_.length : kDescentBlock;
  }

  Status run(unsigned rounds, Executor& executor) {
    const std::size_t rows = start_.rows();
    // Rows that share a scale stay together.
    const std::size_t step = layout_.per == Channel::input ? layout_.length : 1;
    const std::size_t panel =
        std::min(rows, panel_rows(rows, std::max(kPanelRows, step), step, executor.width()));
    const std::size_t panels = (rows + panel - 1) / panel;
    std::vector<std::optional<Error>> failures(panels);
    std::vector<Moves> moves(panels);
    const auto solve = [&](std::size_t p, Executor& inner) {
      linalg::Context context(inner);
      const std::size_t first = p * panel;
      Status done = descend_panel(first, std::min(panel, rows - first), rounds, moves[p], context);
      if (!done) failures[p] = std::move(done).error();
    };
    if (panels == 1) {
      solve(0, executor);  // threads share the products
    } else {
      SerialExecutor serial;
      executor.run(panels, 1, [&](std::size_t begin, std::size_t end, unsigned) {
        for (std::size_t p = begin; p < end; ++p) solve(p, serial);
      });
    }
    for (std::optional<Error>& failure : failures) {
      if (failure) return *std::move(failure);
    }
    for (const Moves& of_panel : moves) moves_ += of_panel;
    return ok();
  }

  Result<Descended> finish() {
    QUELL_TRY(tensor, QuantizedTensor::create(grid_, start_.rows(), start_.cols(),
                                              std::move(packed_), std::move(parameters_)));
    // Products of slopes and of `moment` hold one power of two, losses the profile's.
    const double unit = static_cast<double>(profile_unit_) / static_cast<double>(unit_);
    for (double& gain : gains_) gain *= unit;
    return Descended{std::move(tensor), moves_.codes, moves_.scales, std::move(gains_)};
  }

 private:
  struct Moves {
    std::uint64_t codes = 0, scales = 0;
    void operator+=(const Moves& other) {
      codes += other.codes;
      scales += other.scales;
    }
    bool operator==(const Moves&) const = default;
  };

  int zero_at(std::size_t index) const {
    return parameters_.zeros.empty() ? symmetric_zero(grid_.format) : parameters_.zeros[index];
  }

  Status descend_panel(std::size_t first, std::size_t rows, unsigned rounds, Moves& moved,
                       linalg::Context& context) {
    const std::size_t inputs = start_.cols();
    Buffers b;
    QUELL_TRY(errors, Matrix::uninitialized(rows, inputs));
    QUELL_TRY(slopes, Matrix::uninitialized(rows, inputs));
    QUELL_TRY(change, Matrix::uninitialized(rows, block_));
    QUELL_TRY(local, Matrix::uninitialized(rows, block_));
    QUELL_TRY(codes, BasicMatrix<std::uint8_t>::uninitialized(rows, inputs));
    b.slopes = std::move(slopes);
    b.change = std::move(change);
    b.local = std::move(local);
    b.codes = std::move(codes);
    b.moment.resize(block_ * block_);
    b.levels.resize(block_);
    b.product.resize(block_);
    loss_.gather(layer_.weight, &start_, first, 1, errors.view(), context.executor());
    QUELL_TRY(
        linalg::gemm_dense({{errors.view()}, {layer_.second_moment}, b.slopes.view()}, context));
    for (std::size_t r = 0; r < rows; ++r) start_.unpack_row(first + r, b.codes.row(r));

    for (unsigned round = 0; round < rounds; ++round) {
      Moves moves;
      for (std::size_t begin = 0; begin < inputs; begin += block_) {
        // In the last round nobody looks back at the slopes of blocks that are done.
        const bool looks_back = wide_ || round + 1 < rounds;
        QUELL_TRY(descend_block(b, first, rows, begin, std::min(block_, inputs - begin), looks_back,
                                moves, context));
      }
      if (wide_) {
        // The errors are done with: their memory takes the products.
        for (std::size_t begin = 0; begin < inputs; begin += layout_.length) {
          QUELL_TRY(refit_wide(b, first, rows, begin, std::min(layout_.length, inputs - begin),
                               errors, moves, context));
        }
      }
      if (moves == Moves()) break;
      moved += moves;
    }
    for (std::size_t r = 0; r < rows; ++r) {
      pack_codes(b.codes.row(r), bits(grid_.format),
                 {packed_.data() + (first + r) * start_.row_bytes(), start_.row_bytes()});
    }
    return ok();
  }

  Status descend_block(Buffers& b, std::size_t first, std::size_t rows, std::size_t begin,
                       std::size_t width, bool looks_back, Moves& moves, linalg::Context& context) {
    for (std::size_t i = 0; i < width; ++i) {
      const float* from = layer_.second_moment.row(begin + i).data() + begin;
      for (std::size_t j = 0; j < width; ++j) b.moment[i * block_ + j] = unit_ * from[j];
    }
    const Moves before = moves;
    for (std::size_t r = 0; r < rows; ++r) {
      std::copy_n(b.slopes.row(r).data() + begin, width, b.local.row(r).data());
      std::fill_n(b.change.row(r).data(), block_, 0.0F);
      move_codes(b, first, r, begin, width, moves);
    }
    if (layout_.per == Channel::input) {
      refit_down(b, first, rows, begin, width, moves);
    } else if (!wide_) {
      for (std::size_t r = 0; r < rows; ++r) refit_along(b, first, r, begin, width, moves);
    }
    if (moves == before) return ok();
    const std::size_t inputs = start_.cols(), from = looks_back ? 0 : begin + width;
    if (from == inputs) return ok();
    const MatrixView<const float>& h = layer_.second_moment;
    const MatrixView<const float> change(b.change.data(), rows, width, block_);
    const MatrixView<const float> ahead(h.row(begin).data() + from, width, inputs - from,
                                        h.stride());
    return linalg::gemm_dense({{change},
                               {ahead, true},
                               {b.slopes.data() + from, rows, inputs - from, inputs},
                               linalg::Accumulate::add},
                              context);
  }

  /// e_k of the panel's row r changes by `by` at block position j; slopes of the block follow.
  void change_error(Buffers& b, std::size_t r, std::size_t j, std::size_t width, float by) const {
    b.change.row(r)[j] += by * unit_;
    float* slopes = b.local.row(r).data();
    const float* h = b.moment.data() + j * block_;
    for (std::size_t k = 0; k < width; ++k) slopes[k] += by * h[k];
  }

  void move_codes(Buffers& b, std::size_t first, std::size_t r, std::size_t begin,
                  std::size_t width, Moves& moves) {
    const float* slopes = b.local.row(r).data();
    std::uint8_t* codes = b.codes.row(r).data() + begin;
    for (std::size_t j = 0; j < width; ++j) {
      const float h = b.moment[j * block_ + j];
      const std::size_t index = layout_.index(first + r, begin + j);
      const float scale = parameters_.scales[index];
      if (!(h > 0) || scale == 0) continue;  // a dead input keeps its rounding
      const float step = slopes[j] / h;
      // Half a step of an even grid is where it changes its mind.
      if (codebook_ == nullptr && std::fabs(step) <= 0.5F * std::fabs(scale)) continue;
      const int zero = zero_at(index);
      const float level = code_level(grid_.format, codes[j], zero);
      const int code = nearest(level + step / scale, zero);
      if (code == codes[j]) continue;
      const float by = (code_level(grid_.format, code, zero) - level) * scale;
      const float gain = by * (2 * slopes[j] - by * h);
      if (!(gain > kLeastGain * (by * by * h))) continue;
      codes[j] = static_cast<std::uint8_t>(code);
      gains_[first + r] += static_cast<double>(gain);
      change_error(b, r, j, width, -by);
      ++moves.codes;
    }
  }

  int nearest(float level, int zero) const {
    if (codebook_ != nullptr) return codebook_->nearest(level);
    const float lowest = static_cast<float>(range_.lowest - zero);
    const float highest = static_cast<float>(range_.highest - zero);
    return static_cast<int>(std::nearbyint(std::clamp(level, lowest, highest))) + zero;
  }

  /// The scale that index would take if it moved by `by`, or what it is if that is none.
  float moved_scale(std::size_t index, float by) const {
    const float old = parameters_.scales[index];
    if (grid_.two_level) {
      const float row = parameters_.row_scales[index / layout_.cols];
      const float integer = std::nearbyint((old + by) / row);
      constexpr float kHighest = static_cast<float>(kHighestGroupInteger);
      return integer >= 1 && integer <= kHighest ? row * integer : old;
    }
    const float scale = round_scale(old + by, grid_.scale_type);
    // A scale of the other sign would turn the grid around under codes that fit this one.
    return std::isfinite(scale) && scale * old > 0 ? scale : old;
  }
  void set_scale(std::size_t index, float scale) {
    parameters_.scales[index] = scale;
    if (grid_.two_level) {
      parameters_.integers[index] = static_cast<std::uint8_t>(
          std::nearbyint(scale / parameters_.row_scales[index / layout_.cols]));
    }
  }
  /// By how much to move a scale with slope c . g and curvature c H c: 0 if nothing is gained.
  float refit(std::size_t index, float slope, float curvature) {
    if (!(curvature > 0) || layer_.given != nullptr) return 0;
    const float scale = moved_scale(index, slope / curvature);
    const float by = scale - parameters_.scales[index];
    if (!(by * (2 * slope - by * curvature) > kLeastGain * (by * by * curvature))) return 0;
    set_scale(index, scale);
    return by;
  }

  /// Groups of row r inside a block.
  void refit_along(Buffers& b, std::size_t first, std::size_t r, std::size_t begin,
                   std::size_t width, Moves& moves) {
    float* slopes = b.local.row(r).data();
    float* change = b.change.row(r).data();
    const std::uint8_t* codes = b.codes.row(r).data() + begin;
    for (std::size_t from = 0; from < width; from += layout_.length) {
      const std::size_t to = std::min(from + layout_.length, width);
      const std::size_t index = layout_.index(first + r, begin + from);
      const int zero = zero_at(index);
      // c of the group times the block of H.
      std::fill_n(b.product.begin(), width, 0.0F);
      float slope = 0, curvature = 0;
      for (std::size_t k = from; k < to; ++k) {
        const float c = code_level(grid_.format, codes[k], zero);
        b.levels[k] = c;
        slope += c * slopes[k];
        const float* h = b.moment.data() + k * block_;
        for (std::size_t i = 0; i < width; ++i) b.product[i] += c * h[i];
      }
      for (std::size_t k = from; k < to; ++k) curvature += b.levels[k] * b.product[k];
      const float by = refit(index, slope, curvature);
      if (by == 0) continue;
      gains_[first + r] += static_cast<double>(by * (2 * slope - by * curvature));
      for (std::size_t i = 0; i < width; ++i) slopes[i] -= by * b.product[i];
      for (std::size_t k = from; k < to; ++k) {
        change[k] -= by * b.levels[k] * unit_;
      }
      ++moves.scales;
    }
  }

  /// Groups of rows in one input channel: losses of rows add up.
  void refit_down(Buffers& b, std::size_t first, std::size_t rows, std::size_t begin,
                  std::size_t width, Moves& moves) {
    for (std::size_t from = 0; from < rows; from += layout_.length) {
      const std::size_t to = std::min(from + layout_.length, rows);
      for (std::size_t j = 0; j < width; ++j) {
        const std::size_t index = layout_.index(first + from, begin + j);
        const int zero = zero_at(index);
        float slope = 0, squares = 0;
        for (std::size_t r = from; r < to; ++r) {
          const float c = code_level(grid_.format, b.codes(r, begin + j), zero);
          slope += c * b.local(r, j);
          squares += c * c;
        }
        const float by = refit(index, slope, squares * b.moment[j * block_ + j]);
        if (by == 0) continue;
        for (std::size_t r = from; r < to; ++r) {
          const float c = code_level(grid_.format, b.codes(r, begin + j), zero);
          if (c == 0) continue;
          const float move = by * c;
          gains_[first + r] +=
              static_cast<double>(move * (2 * b.local(r, j) - move * b.moment[j * block_ + j]));
          change_error(b, r, j, width, -move);
        }
        ++moves.scales;
      }
    }
  }

  /// One group of every row, longer than a block. `product` is memory of [rows, IC].
  Status refit_wide(Buffers& b, std::size_t first, std::size_t rows, std::size_t begin,
                    std::size_t length, Matrix& product, Moves& moves, linalg::Context& context) {
    const std::size_t inputs = start_.cols();
    QUELL_TRY(levels, Matrix::uninitialized(rows, length));
    for (std::size_t r = 0; r < rows; ++r) {
      const int zero = zero_at(layout_.index(first + r, begin));
      for (std::size_t k = 0; k < length; ++k) {
        levels(r, k) = code_level(grid_.format, b.codes(r, begin + k), zero);
      }
    }
    QUELL_TRY(linalg::gemm_dense({{levels.view()},
                                  {layer_.second_moment.rows_from(begin, length), true},
                                  {product.data(), rows, inputs, inputs}},
                                 context));
    for (std::size_t r = 0; r < rows; ++r) {
      float* slopes = b.slopes.row(r).data();
      double slope = 0, curvature = 0;
      for (std::size_t k = 0; k < length; ++k) {
        const double c = static_cast<double>(levels(r, k));
        slope += c * static_cast<double>(slopes[begin + k]);
        curvature += c * static_cast<double>(product(r, begin + k));
      }
      const auto bent = unit_ * static_cast<float>(curvature);
      const float by = refit(layout_.index(first + r, begin), static_cast<float>(slope), bent);
      if (by == 0) continue;
      gains_[first + r] += static_cast<double>(by * (2 * static_cast<float>(slope) - by * bent));
      const float scaled = by * unit_;
      for (std::size_t i = 0; i < inputs; ++i) slopes[i] -= scaled * product(r, i);
      ++moves.scales;
    }
    return ok();
  }

  const LayerProblem& layer_;
  const QuantizedTensor& start_;
  MomentLoss loss_;
  float unit_;  // of errors and of H where they meet
  float profile_unit_;
  GridSpec grid_;
  GroupLayout layout_;
  const Codebook* codebook_;
  CodeRange range_;
  GroupParameters parameters_;
  std::vector<std::uint8_t> packed_;
  std::vector<double> gains_;  // [OC]
  std::size_t block_ = 0;
  bool wide_ = false;  // groups along a row are longer than a block
  Moves moves_;
};

}  // namespace

Result<Descended> descend(const LayerProblem& layer, const MomentProfile& profile,
                          const QuantizedTensor& start, unsigned rounds, Executor& executor) {
  if (!start.kept().columns.empty()) {
    return Error{ErrorCode::unsupported,
                 layer.name + ": coordinate descent does not know kept columns"};
  }
  Descent descent(layer, profile, start);
  QUELL_TRY(descent.run(rounds, executor));
  return descent.finish();
}

}  // namespace quell::quant
