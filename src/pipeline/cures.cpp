// SPDX-License-Identifier: Apache-2.0

#include "pipeline/cures.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "linalg/linalg.hpp"
#include "pipeline/changed_models.hpp"
#include "quell/grid/quantized.hpp"
#include "quell/kernels/hadamard.hpp"

namespace quell::pipeline {
namespace {

// Columns kept: one in this many, at least one. A hundredth costs 0.12 bits a weight.
constexpr std::size_t kColumnsPerKept = 100;
constexpr std::uint32_t kFineGroup = 32;
// Exponents of the inputs' root mean square that smoothing tries, as AWQ's search does (Lin et al.
// 2024), coarser: the loss is flat around its minimum.
constexpr double kAlphas[] = {0.25, 0.5, 0.75, 1.0};
constexpr std::size_t kRotated = 128;  // widest block of a rotation, what online kernels serve
constexpr std::size_t kLossRows = 512;

std::uint64_t bytes_of(const QuantizedTensor& tensor) {
  return static_cast<std::uint64_t>(
      std::llround(tensor.bits_per_weight() / 8 * static_cast<double>(tensor.rows()) *
                   static_cast<double>(tensor.cols())));
}

std::optional<Format> finer(Format format) {
  switch (bits(format)) {
    case 2:
    case 3:
      return Format::int4;
    case 4:
      return Format::int8full;
    default:
      return std::nullopt;
  }
}

void transpose(MatrixView<float> square) {
  for (std::size_t i = 0; i < square.rows(); ++i) {
    for (std::size_t j = 0; j < i; ++j) std::swap(square(i, j), square(j, i));
  }
}

void scale_columns(MatrixView<float> x, const std::vector<float>& factors) {
  for (std::size_t r = 0; r < x.rows(); ++r) {
    const auto row = x.row(r);
    for (std::size_t c = 0; c < row.size(); ++c) row[c] *= factors[c];
  }
}

}  // namespace

double relative_error(const Matrix& weight, const Matrix& decoded) {
  double error = 0, norm = 0;
  for (std::size_t i = 0; i < weight.size(); ++i) {
    const double w = static_cast<double>(weight.data()[i]);
    const double difference = w - static_cast<double>(decoded.data()[i]);
    error += difference * difference;
    norm += w * w;
  }
  return norm > 0 ? std::sqrt(error / norm) : 0;
}

LinearStudy::LinearStudy(const Task& task, const quant::Quantizer& quantizer, const Matrix& weight,
                         const Matrix& moment, std::uint64_t tokens, Executor& executor)
    : task_(task),
      quantizer_(quantizer),
      weight_(weight),
      moment_(moment),
      tokens_(tokens),
      executor_(executor) {}

Result<Decoded> LinearStudy::quantize(const GridSpec& grid, const Matrix& weight,
                                      const Matrix& moment) const {
  quant::LayerProblem problem;
  problem.name = task_.linear->name;
  problem.weight = weight.view();
  problem.grid = grid;
  problem.scale = task_.scale;
  problem.keep_direction = !task_.open_direction;
  problem.second_moment = moment.view();
  problem.tokens = tokens_;
  QUELL_TRY(quantized, quantizer_.quantize(problem, executor_));
  Decoded decoded;
  QUELL_TRY(values, Matrix::uninitialized(weight.rows(), weight.cols()));
  QUELL_TRY(dequantize(quantized.tensor, values.view(), executor_));
  decoded.weight = std::move(values);
  decoded.bytes = bytes_of(quantized.tensor);
  decoded.tensor = std::move(quantized.tensor);
  return decoded;
}

Result<Decoded> LinearStudy::planned() const {
  return quantize(task_.grid, weight_, moment_);
}

Result<std::optional<Decoded>> LinearStudy::cured(Cure::Kind kind, const Decoded& planned) const {
  GridSpec grid = task_.grid;
  switch (kind) {
    case Cure::Kind::bits: {
      const auto format = finer(grid.format);
      if (!format) return std::optional<Decoded>();
      grid.format = *format;
      grid.two_level = false;  // no products of 8-bit codes
      break;
    }
    case Cure::Kind::direction:
      if (task_.open_direction) return std::optional<Decoded>();  // chosen already
      grid.per = grid.per == Channel::output ? Channel::input : Channel::output;
      break;
    case Cure::Kind::group: {
      const std::size_t run = grid.per == Channel::output ? weight_.cols() : weight_.rows();
      const std::size_t now = grid.group == 0 ? run : grid.group;
      if (now <= kFineGroup || run <= kFineGroup) return std::optional<Decoded>();
      grid.group = now > 128 ? 128 : kFineGroup;
      break;
    }
    case Cure::Kind::kept_columns: {
      QUELL_TRY(kept, keep_columns(planned));
      return std::optional<Decoded>(std::move(kept));
    }
    case Cure::Kind::rotation:
      return rotate();
    case Cure::Kind::smoothing:
      return smooth();
  }
  QUELL_TRY(decoded, quantize(grid, weight_, moment_));
  decoded.action = to_string(grid);
  return std::optional<Decoded>(std::move(decoded));
}

Result<Decoded> LinearStudy::keep_columns(const Decoded& planned) const {
  // By what each column adds to the loss where inputs are independent: H_cc |e_c|^2.
  const std::size_t cols = weight_.cols();
  std::vector<double> score(cols);
  for (std::size_t r = 0; r < weight_.rows(); ++r) {
    for (std::size_t c = 0; c < cols; ++c) {
      const double e =
          static_cast<double>(weight_(r, c)) - static_cast<double>(planned.weight(r, c));
      score[c] += e * e;
    }
  }
  for (std::size_t c = 0; c < cols; ++c) score[c] *= static_cast<double>(moment_(c, c));
  std::vector<std::size_t> order(cols);
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return score[a] > score[b]; });
  const std::size_t count = std::max<std::size_t>(1, cols / kColumnsPerKept);
  // The others are quantized without them, so that a large column no longer widens its groups.
  // Nor are they there for error feedback to lean on.
  QUELL_TRY(rest, copy_of(weight_.view()));
  QUELL_TRY(moment, copy_of(moment_.view()));
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t c = order[i];
    for (std::size_t r = 0; r < rest.rows(); ++r) rest(r, c) = 0;
    for (std::size_t j = 0; j < cols; ++j) moment(c, j) = moment(j, c) = 0;
  }
  QUELL_TRY(decoded, quantize(task_.grid, rest, moment));
  for (std::size_t i = 0; i < count; ++i) {
    for (std::size_t r = 0; r < rest.rows(); ++r) {
      decoded.weight(r, order[i]) = weight_(r, order[i]);
    }
  }
  decoded.bytes += count * (2 * weight_.rows() + sizeof(std::uint32_t));
  decoded.action =
      std::to_string(count) + (count == 1 ? " column" : " columns") + " kept in 16 bits";
  decoded.available = false;
  return decoded;
}

Result<std::optional<Decoded>> LinearStudy::rotate() const {
  std::size_t block = 1;
  while (block < kRotated && weight_.cols() % (2 * block) == 0) block *= 2;
  if (block < 8) return std::optional<Decoded>();  // nothing to spread an outlier over
  QUELL_TRY(weight, copy_of(weight_.view()));
  QUELL_TRY(moment, copy_of(moment_.view()));
  QUELL_TRY(rotation, kernels::Hadamard::of_size(block));
  kernels::Context context(executor_);
  QUELL_TRY(rotation.apply(weight.view(), context));
  QUELL_TRY(rotation.apply(moment.view(), context));
  transpose(moment.view());
  QUELL_TRY(rotation.apply(moment.view(), context));
  for (std::size_t i = 0; i < moment.rows(); ++i) {  // rounding differs between the triangles
    moment(i, i) = std::max(moment(i, i), 0.0F);
    for (std::size_t j = 0; j < i; ++j) moment(j, i) = moment(i, j);
  }
  QUELL_TRY(decoded, quantize(task_.grid, weight, moment));
  QUELL_TRY(rotation.apply(decoded.weight.view(), context));  // its own inverse
  decoded.action = "inputs rotated in blocks of " + std::to_string(block);
  decoded.available = false;
  return std::optional<Decoded>(std::move(decoded));
}

Result<std::optional<Decoded>> LinearStudy::smooth() const {
  const std::size_t cols = weight_.cols();
  std::vector<double> rms(cols);
  for (std::size_t c = 0; c < cols; ++c) rms[c] = std::sqrt(static_cast<double>(moment_(c, c)));
  const double high = *std::max_element(rms.begin(), rms.end());
  double low = high;
  for (const double each : rms) low = each > 0 ? std::min(low, each) : low;
  low = std::max(low, high * 1e-4);  // channels far below the loudest would be scaled to nothing
  std::optional<Decoded> best;
  double least = 0;
  for (const double alpha : kAlphas) {
    if (!(high > 0)) break;
    // s = rms^alpha over the geometric mean of its extremes; where nothing comes in, 1.
    std::vector<float> factors(cols, 1.0F), inverse(cols, 1.0F);
    const double middle = std::pow(low * high, alpha / 2);
    for (std::size_t c = 0; c < cols; ++c) {
      if (!(rms[c] > 0)) continue;
      factors[c] = static_cast<float>(std::pow(std::max(rms[c], low), alpha) / middle);
      inverse[c] = 1 / factors[c];
    }
    QUELL_TRY(weight, copy_of(weight_.view()));
    QUELL_TRY(moment, copy_of(moment_.view()));
    scale_columns(weight.view(), factors);
    for (std::size_t i = 0; i < cols; ++i) {
      for (std::size_t j = 0; j < cols; ++j) {
        // One product for both triangles, so that they stay equal.
        moment(i, j) *= inverse[std::min(i, j)];
        moment(i, j) *= inverse[std::max(i, j)];
      }
    }
    QUELL_TRY(decoded, quantize(task_.grid, weight, moment));
    scale_columns(decoded.weight.view(), inverse);
    QUELL_TRY(left, loss(decoded.weight));
    if (best && left >= least) continue;
    least = left;
    char text[48];
    std::snprintf(text, sizeof text, "smoothing, alpha %.2f", alpha);
    decoded.action = text;
    decoded.available = false;
    best = std::move(decoded);
  }
  return best;  // none where nothing comes in
}

Result<double> LinearStudy::loss(const Matrix& decoded) const {
  return loss_of(&decoded);
}

Result<double> LinearStudy::energy() const {
  return loss_of(nullptr);
}

Result<double> LinearStudy::loss_of(const Matrix* decoded) const {
  // Brought near 1, so that weights of any size neither overflow nor vanish in their squares; the
  // moment comes scaled already.
  float largest = 0;
  for (const float w : weight_.values()) largest = std::max(largest, std::abs(w));
  if (!(largest > 0)) return 0.0;
  const int exponent = std::ilogb(largest);
  const std::size_t rows = weight_.rows(), stride = (rows + kLossRows - 1) / kLossRows;
  const std::size_t count = (rows + stride - 1) / stride;
  QUELL_TRY(errors, Matrix::uninitialized(count, weight_.cols()));
  for (std::size_t i = 0; i < count; ++i) {
    const auto w = weight_.row(i * stride);
    const auto out = errors.row(i);
    for (std::size_t c = 0; c < out.size(); ++c) {
      const float q = decoded == nullptr ? 0 : (*decoded)(i * stride, c);
      out[c] = std::ldexp(w[c] - q, -exponent);
    }
  }
  std::vector<double> losses(count);
  kernels::Context context(executor_);
  QUELL_TRY(linalg::quadratic_losses(moment_.view(), errors.view(), losses, context));
  const double sum = std::accumulate(losses.begin(), losses.end(), 0.0);
  return std::ldexp(sum, 2 * exponent);
}

}  // namespace quell::pipeline
