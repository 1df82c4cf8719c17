// SPDX-License-Identifier: Apache-2.0

// Sums per input of a linear layer, and their addition.

#include "quell/calib/statistics.hpp"

#include <algorithm>
#include <cmath>

#include "calib/peaks.hpp"
#include "linalg/linalg.hpp"
#include "quell/io/output.hpp"
#include "quell/kernels/gemm.hpp"
#include "quell/kernels/tensor_stats.hpp"

namespace quell::calib {

Status SiteStatistics::add(MatrixView<const float> x, bool with_moment, kernels::Context& context) {
  const std::size_t channels = x.cols();
  if (sum.empty()) {
    sum.assign(channels, 0);
    sum_squares.assign(channels, 0);
    sum_abs.assign(channels, 0);
    max_abs.assign(channels, 0);
    peaks.assign(channels, 0);
  }
  std::vector<kernels::PowerSums> columns(channels);
  kernels::column_sums(x, columns, context);
  for (std::size_t c = 0; c < channels; ++c) {
    if (columns[c].nonfinite != 0) {
      return Error{ErrorCode::numeric, std::to_string(columns[c].nonfinite) +
                                           " activations of channel " + std::to_string(c) +
                                           " are not finite; the model or its text is damaged"};
    }
    sum[c] += columns[c].sum;
    sum_squares[c] += columns[c].sum2;
    sum_abs[c] += columns[c].sum_abs;
    max_abs[c] = std::max(max_abs[c], columns[c].max_abs);
  }
  add_peak_shares(x, peaks, context.executor());
  if (with_moment) {
    if (moment.size() == 0) {
      QUELL_TRY(zeros, Matrix64::zeros(channels, channels));
      moment = std::move(zeros);
    }
    QUELL_TRY(linalg::accumulate_second_moment(x, moment.view(), context));
  }
  tokens += x.rows();
  return ok();
}

Status SiteStatistics::add_drift(MatrixView<float> original, MatrixView<const float> now,
                                 MatrixView<const float> x, kernels::Context& context) {
  const std::size_t channels = now.cols();
  if (original.rows() != x.rows() || now.rows() != x.rows() || original.cols() != channels) {
    return Error{ErrorCode::shape, "activations of the original model are " +
                                       std::to_string(original.rows()) + " x " +
                                       std::to_string(original.cols()) + ", expected " +
                                       std::to_string(x.rows()) + " x " + std::to_string(channels)};
  }
  for (std::size_t t = 0; t < x.rows(); ++t) {
    float* difference = original.row(t).data();
    const float* values = now.row(t).data();
    for (std::size_t c = 0; c < channels; ++c) {
      difference[c] -= values[c];
      if (std::isfinite(difference[c])) continue;
      return Error{ErrorCode::numeric, "an activation of channel " + std::to_string(c) +
                                           " of the original model is not finite; the model or "
                                           "its text is damaged"};
    }
  }
  if (drift.size() == 0) {
    QUELL_TRY(zeros, Matrix64::zeros(channels, x.cols()));
    drift = std::move(zeros);
  }
  // Chunks as for the moment: a longer sequence would be one sum of float32, and two copies.
  for (std::size_t t = 0; t < x.rows(); t += linalg::kMomentChunk) {
    const std::size_t count = std::min(linalg::kMomentChunk, x.rows() - t);
    QUELL_TRY(kernels::add_product({original.rows_from(t, count), true},
                                   {x.rows_from(t, count), true}, kernels::Triangle::full,
                                   drift.view(), context));
  }
  drift_tokens += x.rows();
  return ok();
}

Status SiteStatistics::merge(const SiteStatistics& other) {
  if (sum.size() != other.sum.size() || peaks.size() != other.peaks.size() ||
      moment.size() != other.moment.size() || drift.size() != other.drift.size()) {
    return Error{ErrorCode::shape, "statistics of " + std::to_string(sum.size()) + " and of " +
                                       std::to_string(other.sum.size()) +
                                       " channels cannot be added"};
  }
  tokens += other.tokens;
  drift_tokens += other.drift_tokens;
  for (std::size_t c = 0; c < sum.size(); ++c) {
    sum[c] += other.sum[c];
    sum_squares[c] += other.sum_squares[c];
    sum_abs[c] += other.sum_abs[c];
    max_abs[c] = std::max(max_abs[c], other.max_abs[c]);
  }
  for (std::size_t c = 0; c < peaks.size(); ++c) peaks[c] += other.peaks[c];
  for (std::size_t i = 0; i < moment.size(); ++i) moment.data()[i] += other.moment.data()[i];
  for (std::size_t i = 0; i < drift.size(); ++i) drift.data()[i] += other.drift.data()[i];
  return ok();
}

Result<Matrix> SiteStatistics::mean_moment() const {
  const std::size_t n = moment.rows();
  QUELL_TRY(mean, Matrix::uninitialized(n, n));
  const double scale = tokens == 0 ? 0.0 : 1.0 / static_cast<double>(tokens);
  // Blocks of 64 x 64 keep both the rows read and the columns mirrored in the first-level cache.
  constexpr std::size_t kBlock = 64;
  for (std::size_t i0 = 0; i0 < n; i0 += kBlock) {
    for (std::size_t j0 = 0; j0 <= i0; j0 += kBlock) {
      for (std::size_t i = i0; i < std::min(i0 + kBlock, n); ++i) {
        for (std::size_t j = j0; j < std::min(j0 + kBlock, i + 1); ++j) {
          const auto value = static_cast<float>(moment(i, j) * scale);
          mean(i, j) = value;
          mean(j, i) = value;
        }
      }
    }
  }
  return mean;
}

Result<Matrix> SiteStatistics::mean_drift() const {
  QUELL_TRY(mean, Matrix::uninitialized(drift.rows(), drift.cols()));
  const double scale = drift_tokens == 0 ? 0.0 : 1.0 / static_cast<double>(drift_tokens);
  for (std::size_t i = 0; i < mean.size(); ++i) {
    mean.data()[i] = static_cast<float>(drift.data()[i] * scale);
  }
  return mean;
}

Result<std::string> model_fingerprint(const model::Model& model) {
  // Reading all of a large model to name it would take as long as a pass over it; the first 4 KiB
  // of every tensor tell any two trainings apart.
  constexpr std::uint64_t kSample = 4096;
  std::string text = model.config().architecture;
  std::vector<std::byte> sample;
  for (const io::TensorInfo& tensor : model.checkpoint().tensors()) {
    text += '\n' + tensor.name + ' ' + std::string(to_string(tensor.dtype));
    for (const std::uint64_t dimension : tensor.shape) text += ' ' + std::to_string(dimension);
    sample.resize(static_cast<std::size_t>(std::min(tensor.bytes, kSample)));
    QUELL_TRY(model.checkpoint().read(tensor, 0, sample));
    text += ' ' + io::sha256_hex(sample);
  }
  return io::sha256_hex(text);
}

Result<StatisticsInfo> merged_info(std::span<const StatisticsInfo> parts) {
  if (parts.empty()) return Error{ErrorCode::usage, "no statistics to merge"};
  StatisticsInfo total = parts.front();
  for (const StatisticsInfo& part : parts.subspan(1)) {
    if (part.model_fingerprint != total.model_fingerprint) {
      return Error{ErrorCode::usage, "the statistics were made for different models: " +
                                         total.model_fingerprint.substr(0, 12) + " and " +
                                         part.model_fingerprint.substr(0, 12)};
    }
    if (part.corpus_fingerprint != total.corpus_fingerprint || part.parts != total.parts) {
      return Error{
          ErrorCode::usage,
          "the statistics are parts of different calibration data or of a different number of "
          "parts; make all parts with the same text and options"};
    }
    if (part.precision != total.precision) {
      return Error{ErrorCode::usage,
                   "the statistics were made with different --engine-precision: f32 and bf16; make "
                   "all parts with the same"};
    }
    if (part.peaks != total.peaks) {
      return Error{ErrorCode::usage,
                   "some of the statistics were made by an older version, which did not record the "
                   "peaks of channels; make all parts with the same"};
    }
    for (const std::uint32_t number : part.merged_parts) {
      if (std::binary_search(total.merged_parts.begin(), total.merged_parts.end(), number)) {
        return Error{ErrorCode::usage, "part " + std::to_string(number) + " of " +
                                           std::to_string(total.parts) + " is given twice"};
      }
    }
    if (part.channels != total.channels) {
      return Error{ErrorCode::usage, "the parts hold statistics of different inputs"};
    }
    total.merged_parts.insert(total.merged_parts.end(), part.merged_parts.begin(),
                              part.merged_parts.end());
    std::sort(total.merged_parts.begin(), total.merged_parts.end());
    total.tokens_fed += part.tokens_fed;
  }
  if (total.merged_parts.size() == total.parts) {
    total.parts = 1;
    total.merged_parts = {1};
  }
  return total;
}

Result<StatisticsInfo> merge_statistics(std::vector<StatisticsFile> parts,
                                        const std::filesystem::path& path) {
  std::sort(parts.begin(), parts.end(), [](const StatisticsFile& a, const StatisticsFile& b) {
    return a.info().merged_parts < b.info().merged_parts;
  });
  std::vector<StatisticsInfo> infos;
  for (const StatisticsFile& part : parts) infos.push_back(part.info());
  QUELL_TRY(total, merged_info(infos));
  QUELL_TRY(writer, StatisticsWriter::create(path, total));
  for (const auto& [key, channels] : total.channels) {
    QUELL_TRY(sum, parts.front().read(key));
    for (std::size_t p = 1; p < parts.size(); ++p) {
      QUELL_TRY(part, parts[p].read(key));
      QUELL_TRY(sum.merge(part));
    }
    QUELL_TRY(writer.add(key, sum));
  }
  QUELL_TRY(writer.commit());
  return total;
}

}  // namespace quell::calib
