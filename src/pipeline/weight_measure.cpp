// SPDX-License-Identifier: Apache-2.0

// One pass over the rows takes the sums of both directions, counts magnitudes, keeps the largest
// elements and collects the proof that no line is an outlier (quell/stats/outlier_scan.hpp). Other
// passes follow only where they are needed: of floats, for the sixteen bits of the median that the
// first count leaves open; for the kurtosis of values that lie near their mean, which sums of
// powers do not show (quell/kernels/tensor_stats.hpp: they are off by 2e-6); and where lines may be
// outliers, for the medians of the lines (line_medians.cpp) and the largest elements on other
// lines.

#include "pipeline/weight_measure.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <span>
#include <utility>
#include <vector>

#include "pipeline/line_medians.hpp"
#include "pipeline/magnitude_count.hpp"
#include "pipeline/stored_bands.hpp"
#include "pipeline/tensor_measure.hpp"
#include "quell/core/half.hpp"
#include "quell/kernels/tensor_stats.hpp"
#include "quell/stats/moments.hpp"

namespace quell::pipeline {
namespace {

using kernels::LineSums;
using kernels::PowerSums;
using stats::LargestElements;
using stats::OutlierElement;
using stats::ScreenCounts;
using stats::ScreenLevels;
using Type = StoredRows::Type;

constexpr std::size_t kBlock = LineSums::kRows;
// What waits to be merged in order, over all threads.
constexpr std::size_t kWaitingBytes = std::size_t{32} << 20;

/// What one pass gathers of the whole matrix, in the directions in which it is stored.
struct Gathered {
  Gathered(std::size_t row_count, std::size_t col_count, std::size_t most)
      : rows(row_count),
        columns(col_count),
        row_screen(row_count),
        column_screen(col_count),
        largest(most) {}

  std::vector<PowerSums> rows, columns;
  ScreenCounts row_screen, column_screen;
  MagnitudeCount magnitudes;
  HalfRange half;              // of floats
  std::uint32_t low_bits = 0;  // of floats: any of the lower sixteen bits that is set in some value
  LargestElements largest;
};

/// One block of rows on its way.
struct Block {
  Block(std::size_t cols, std::size_t most) : lines(cols), column_screen(cols), largest(most) {}

  LineSums lines;
  ScreenCounts column_screen;
  LargestElements largest;
  HalfRange half;
  std::uint32_t low_bits = 0;
  Status status = ok();
};

/// Words of floats, and what is counted of them beside; values stay below 2^32 in number.
void count_floats(std::span<const float> values, WordCount& words, Block& block) {
  constexpr std::size_t kTogether = 1024;
  std::uint16_t buffer[kTogether];
  for (std::size_t first = 0; first < values.size(); first += kTogether) {
    const auto some = values.subspan(first, std::min(kTogether, values.size() - first));
    std::uint32_t low_bits = 0;
    std::uint32_t overflow = 0, subnormal = 0;
    for (std::size_t i = 0; i < some.size(); ++i) {
      const std::uint32_t bits = std::bit_cast<std::uint32_t>(some[i]) & 0x7FFF'FFFFu;
      buffer[i] = MagnitudeCount::word_of(some[i]);
      low_bits |= bits;
      overflow += bits > std::bit_cast<std::uint32_t>(65504.0F) && bits < 0x7F80'0000u;
      subnormal += bits != 0 && bits < std::bit_cast<std::uint32_t>(0x1p-14F);
    }
    words.add({buffer, some.size()});
    block.low_bits |= low_bits & 0xFFFF;
    block.half.overflow += overflow;
    block.half.subnormal += subnormal;
  }
}

float as_float(float value) {
  return value;
}
float as_float(std::uint16_t bf16) {
  return bf16_to_float(bf16);
}

/// Elements of row `r`, whose largest magnitude is known, that may be among the largest.
template <typename T>
void keep_largest(std::span<const T> row, std::size_t r, float most, bool transposed,
                  const std::vector<char>* skip_cols, LargestElements& largest) {
  if (most < largest.floor()) return;
  for (std::size_t c = 0; c < row.size(); ++c) {
    const float value = as_float(row[c]);
    if (std::fabs(value) < largest.floor() || !std::isfinite(value)) continue;
    if (skip_cols != nullptr && (*skip_cols)[c] != 0) continue;
    largest.add(transposed ? OutlierElement{c, r, value} : OutlierElement{r, c, value});
  }
}

class FirstPass {
 public:
  FirstPass(const StoredRows& stored, const ScreenLevels& levels, std::size_t most,
            Executor& executor)
      : stored_(stored),
        levels_(levels),
        most_(most),
        executor_(executor),
        gathered_(stored.rows, stored.cols, most),
        words_(executor.width()) {}

  Result<Gathered> run() {
    const std::size_t blocks = (stored_.rows + kBlock - 1) / kBlock;
    const std::size_t bytes = LineSums::bytes(stored_.cols) + 8 * stored_.cols;
    const std::size_t together =
        std::clamp<std::size_t>(kWaitingBytes / bytes, 1, 2 * std::size_t{executor_.width()});
    std::vector<Block> waiting;
    for (std::size_t i = 0; i < std::min(together, blocks); ++i)
      waiting.emplace_back(stored_.cols, most_);
    for (std::size_t first = 0; first < blocks; first += together) {
      const std::size_t count = std::min(together, blocks - first);
      executor_.run(count, 1, [&](std::size_t begin, std::size_t end, unsigned slot) {
        Bands bands(stored_);
        for (std::size_t i = begin; i < end; ++i) {
          waiting[i].status = add_block((first + i) * kBlock, bands, words_[slot], waiting[i]);
        }
      });
      for (std::size_t i = 0; i < count; ++i) QUELL_TRY(std::move(waiting[i].status));
      merge({waiting.data(), count});
    }
    return std::move(gathered_);
  }

 private:
  Status add_block(std::size_t first_row, Bands& bands, WordCount& words, Block& block) {
    block.lines.clear();
    block.column_screen = ScreenCounts(stored_.cols);
    block.largest = LargestElements(most_, gathered_.largest.floor());
    block.half = {};
    block.low_bits = 0;
    const std::size_t end = std::min(first_row + kBlock, stored_.rows);
    for (std::size_t r = first_row; r < end; r += bands.rows()) {
      const std::size_t count = std::min(bands.rows(), end - r);
      QUELL_TRY(bands.read(r, count));
      const std::span<PowerSums> sums = std::span(gathered_.rows).subspan(r, count);
      if (stored_.type == Type::bf16) {
        block.lines.add(bands.words(), sums, words.counts());
        add_band(bands.words(), r, block);
        continue;
      }
      block.lines.add(bands.floats(), sums);
      add_band(bands.floats(), r, block);
      if (stored_.type == Type::f32) {
        count_floats(bands.all_floats(), words, block);
      } else {
        words.add(bands.all_words());
      }
    }
    return ok();
  }

  template <typename T>
  void add_band(MatrixView<const T> band, std::size_t first_row, Block& block) {
    const std::span<const PowerSums> sums =
        std::span(gathered_.rows).subspan(first_row, band.rows());
    stats::screen(band, levels_,
                  std::span(gathered_.row_screen.at_least_low).subspan(first_row, band.rows()),
                  std::span(gathered_.row_screen.at_most_high).subspan(first_row, band.rows()),
                  block.column_screen);
    for (std::size_t r = 0; r < band.rows(); ++r) {
      keep_largest<T>(band.row(r), first_row + r, sums[r].max_abs, stored_.transposed, nullptr,
                      block.largest);
    }
  }

  void merge(std::span<const Block> blocks) {
    // Columns in parallel, the blocks of each in order.
    constexpr std::size_t kColumns = 1024;
    executor_.run(stored_.cols, kColumns, [&](std::size_t begin, std::size_t end, unsigned) {
      for (std::size_t i = 0; i < blocks.size(); ++i) {
        blocks[i].lines.merge_into(std::span(gathered_.columns).subspan(begin, end - begin), begin);
        for (std::size_t c = begin; c < end; ++c) {
          gathered_.column_screen.at_least_low[c] += blocks[i].column_screen.at_least_low[c];
          gathered_.column_screen.at_most_high[c] += blocks[i].column_screen.at_most_high[c];
        }
      }
    });
    for (const Block& block : blocks) {
      gathered_.largest.merge(block.largest);
      gathered_.half.overflow += block.half.overflow;
      gathered_.half.subnormal += block.half.subnormal;
      gathered_.low_bits |= block.low_bits;
    }
    for (WordCount& words : words_) gathered_.magnitudes.take(words);
  }

  const StoredRows& stored_;
  const ScreenLevels levels_;
  const std::size_t most_;
  Executor& executor_;
  Gathered gathered_;
  std::vector<WordCount> words_;
};

/// Of the finite floats whose word is `wanted`, the one of this rank among them.
Result<float> float_of_rank(const StoredRows& stored, std::uint16_t wanted, std::uint64_t rank,
                            Executor& executor) {
  const MagnitudeCount::BitRange range = MagnitudeCount::range_of(wanted);
  std::vector<std::vector<std::uint32_t>> parts(executor.width());
  QUELL_TRY(for_each_band(stored, executor, [&](const Bands& bands, std::size_t, unsigned slot) {
    std::vector<std::uint32_t>& part = parts[slot];
    part.resize(std::size_t{1} << 16);
    for (const float value : bands.all_floats()) {
      const std::uint32_t bits = std::bit_cast<std::uint32_t>(value) & 0x7FFF'FFFFu;
      if (bits - range.first < range.count) ++part[bits - range.first];
    }
  }));
  std::vector<std::uint64_t> counts(std::size_t{1} << 16);
  for (const auto& part : parts) {
    for (std::size_t i = 0; i < part.size(); ++i) counts[i] += part[i];
  }
  return std::bit_cast<float>(range.first +
                              static_cast<std::uint32_t>(bin_of_rank(counts, rank).bin));
}

/// Histogram, median and half-precision dangers, of words of a sixteen-bit type.
template <typename Decode>
void read_words(std::span<const std::uint64_t> counts, std::uint64_t finite, Decode decode,
                TensorOutliers& found) {
  stats::QuantileSketch sketch;
  HalfRange half;
  for (std::size_t word = 0; word < counts.size(); ++word) {
    const float value = decode(static_cast<std::uint16_t>(word));
    sketch.add(value, counts[word]);
    if (std::isfinite(value)) half.add(value, counts[word]);
  }
  found.histogram = stats::LogHistogram(sketch);
  found.outlier_ratio = outlier_percent(sketch, found.mean_abs);
  found.fp16_overflow = half.overflow;
  found.fp16_subnormal = half.subnormal;
  if (finite == 0) return;
  found.median_abs =
      static_cast<double>(decode(static_cast<std::uint16_t>(bin_of_rank(counts, finite / 2).bin)));
}

Status read_float_words(const StoredRows& stored, const Gathered& gathered, std::uint64_t finite,
                        Executor& executor, TensorOutliers& found) {
  const std::span<const std::uint64_t> counts = gathered.magnitudes.counts();
  const auto bins = counts.first(MagnitudeCount::kZero);
  const std::uint64_t zeros = counts[MagnitudeCount::kZero];
  stats::QuantileSketch sketch;
  sketch.add(0, zeros);
  sketch.add(std::numeric_limits<float>::infinity(), counts[MagnitudeCount::kNotFinite]);
  for (std::size_t bin = 0; bin < bins.size(); ++bin) {
    // Any value of the bin stands for all.
    const std::uint32_t bits = MagnitudeCount::range_of(static_cast<std::uint16_t>(bin)).first;
    sketch.add(std::bit_cast<float>(bits), bins[bin]);
  }
  found.histogram = stats::LogHistogram(sketch);
  found.outlier_ratio = outlier_percent(sketch, found.mean_abs);
  found.fp16_overflow = gathered.half.overflow;
  found.fp16_subnormal = gathered.half.subnormal;
  const std::uint64_t rank = finite / 2;
  if (rank < zeros || finite == 0) return ok();
  const RankedBin middle = bin_of_rank(bins, rank - zeros);
  const auto word = static_cast<std::uint16_t>(middle.bin);
  if (gathered.low_bits == 0) {
    found.median_abs = static_cast<double>(bf16_to_float(word));
    return ok();
  }
  QUELL_TRY(value, float_of_rank(stored, word, rank - zeros - middle.before, executor));
  found.median_abs = static_cast<double>(value);
  return ok();
}

/// Outlier lines of one direction: none where that is proved, else by their medians.
Result<std::vector<stats::OutlierLine>> lines_of(const StoredRows& stored, stats::Lines lines,
                                                 std::span<const PowerSums> sums,
                                                 const ScreenCounts& screen,
                                                 const ScreenLevels& levels, double ratio,
                                                 Executor& executor) {
  const std::size_t length = lines == stats::Lines::rows ? stored.cols : stored.rows;
  if (length < stats::kShortestLine) return std::vector<stats::OutlierLine>();
  if (screen.prove_ordinary(levels, [&](std::size_t i) { return sums[i].count; })) {
    return std::vector<stats::OutlierLine>();
  }
  QUELL_TRY(medians, line_medians(stored, lines, executor));
  return stats::outlier_lines(medians, ratio);
}

Result<stats::MatrixOutliers> marked_of(const StoredRows& stored, const Gathered& gathered,
                                        const ScreenLevels& levels, const stats::OutlierRule& rule,
                                        Executor& executor) {
  QUELL_TRY(rows, lines_of(stored, stats::Lines::rows, gathered.rows, gathered.row_screen, levels,
                           rule.line_ratio, executor));
  QUELL_TRY(columns, lines_of(stored, stats::Lines::columns, gathered.columns,
                              gathered.column_screen, levels, rule.line_ratio, executor));
  std::vector<OutlierElement> top = gathered.largest.sorted();
  if (!rows.empty() || !columns.empty()) {
    std::vector<char> skip_row(stored.rows), skip_col(stored.cols);
    for (const stats::OutlierLine& line : rows) skip_row[line.index] = 1;
    for (const stats::OutlierLine& line : columns) skip_col[line.index] = 1;
    std::vector<LargestElements> parts(executor.width(), LargestElements(rule.most_elements + 1));
    const auto add = [&](const Bands& bands, std::size_t first_row, unsigned slot) {
      const auto add_rows = [&](auto band) {
        for (std::size_t r = 0; r < band.rows(); ++r) {
          if (skip_row[first_row + r] != 0) continue;
          keep_largest(band.row(r), first_row + r, gathered.rows[first_row + r].max_abs,
                       stored.transposed, &skip_col, parts[slot]);
        }
      };
      if (stored.type == Type::bf16) {
        add_rows(bands.words());
      } else {
        add_rows(bands.floats());
      }
    };
    QUELL_TRY(for_each_band(stored, executor, add));
    for (std::size_t i = 1; i < parts.size(); ++i) parts[0].merge(parts[i]);
    top = parts[0].sorted();
  }
  stats::MatrixOutliers found;
  found.rows = std::move(stored.transposed ? columns : rows);
  found.columns = std::move(stored.transposed ? rows : columns);
  stats::outlier_elements(std::move(top), stored.rows * stored.cols, rule, found);
  return found;
}

/// Sums of runs in float are off by up to 2e-6, of which the kurtosis has about (mean /
/// deviation)^4 times as much: up to a quarter that is nothing.
bool near_their_mean(const PowerSums& all) {
  if (all.count == 0) return false;
  const double n = static_cast<double>(all.count), mean = all.sum / n;
  return mean * mean > (all.sum2 / n - mean * mean) / 16;
}

/// Of values that lie near their mean, by central moments in double: another pass.
Result<double> careful_kurtosis(const StoredRows& stored, Executor& executor) {
  const std::size_t rows = Bands(stored).rows();
  std::vector<stats::Moments> parts((stored.rows + rows - 1) / rows);
  QUELL_TRY(for_each_band(stored, executor, [&](const Bands& bands, std::size_t first, unsigned) {
    std::vector<float> finite;
    const auto gather = [&](auto values) {
      for (const auto value : values) {
        if (std::isfinite(as_float(value))) finite.push_back(as_float(value));
      }
    };
    if (stored.type == Type::bf16) {
      gather(bands.all_words());
    } else {
      gather(bands.all_floats());
    }
    parts[first / rows].add(finite);
  }));
  stats::Moments all;
  for (const stats::Moments& part : parts) all.merge(part);
  return all.excess_kurtosis();
}

/// Largest max |x| / mean |x| of a line.
double largest_ratio(std::span<const PowerSums> lines) {
  double largest = 0;
  for (const PowerSums& line : lines) {
    if (line.sum_abs <= 0) continue;
    const double mean = line.sum_abs / static_cast<double>(line.count);
    largest = std::max(largest, static_cast<double>(line.max_abs) / mean);
  }
  return largest;
}

/// Row and column of the first finite element in the order of the weight's rows; there is one.
Result<std::pair<std::size_t, std::size_t>> first_finite(const StoredRows& stored,
                                                         Executor& executor) {
  using Place = std::pair<std::size_t, std::size_t>;
  std::vector<Place> parts(executor.width(), Place(stored.rows + stored.cols, 0));
  QUELL_TRY(for_each_band(
      stored, executor, [&](const Bands& bands, std::size_t first_row, unsigned slot) {
        const auto look = [&](auto band) {
          for (std::size_t r = 0; r < band.rows(); ++r) {
            for (std::size_t c = 0; c < band.cols(); ++c) {
              if (!std::isfinite(as_float(band(r, c)))) continue;
              const std::size_t row = first_row + r;
              parts[slot] =
                  std::min(parts[slot], stored.transposed ? Place(c, row) : Place(row, c));
            }
          }
        };
        if (stored.type == Type::bf16) {
          look(bands.words());
        } else {
          look(bands.floats());
        }
      }));
  return *std::min_element(parts.begin(), parts.end());
}

std::size_t zero_lines(std::span<const PowerSums> lines) {
  return static_cast<std::size_t>(std::count_if(
      lines.begin(), lines.end(),
      [](const PowerSums& line) { return line.max_abs == 0 && line.nonfinite == 0; }));
}

/// Returns the sums of all elements.
PowerSums read_sums(const Gathered& gathered, bool transposed, TensorOutliers& found) {
  const std::vector<PowerSums>& rows = transposed ? gathered.columns : gathered.rows;
  const std::vector<PowerSums>& columns = transposed ? gathered.rows : gathered.columns;
  found.rows = rows.size();
  found.cols = columns.size();
  found.row_ratio = largest_ratio(rows);
  found.column_ratio = largest_ratio(columns);
  found.zero_rows = zero_lines(rows);
  found.zero_columns = zero_lines(columns);
  for (const PowerSums& column : columns) {
    found.channel_max.push_back(static_cast<double>(column.max_abs));
  }
  found.channel_ratio = channel_ratio(found.channel_max);
  PowerSums all;
  for (const PowerSums& line : gathered.columns) all.merge(line, 0);
  found.excess_kurtosis = excess_kurtosis(all);
  found.absmax = all.max_abs;
  found.mean_abs = all.count == 0 ? 0 : all.sum_abs / static_cast<double>(all.count);
  found.nonfinite = all.nonfinite;
  if (const auto top = gathered.largest.sorted(); !top.empty()) {
    found.argmax_row = top.front().row;
    found.argmax_col = top.front().col;
  }
  return all;
}

}  // namespace

Result<TensorOutliers> measure_weight(const StoredRows& stored, Executor& executor) {
  TensorOutliers found;
  found.rows = stored.transposed ? stored.cols : stored.rows;
  found.cols = stored.transposed ? stored.rows : stored.cols;
  if (stored.rows == 0 || stored.cols == 0) return found;
  const stats::OutlierRule rule;
  QUELL_TRY(about, median_of_some_rows(stored));
  const ScreenLevels levels(about, rule.line_ratio);
  QUELL_TRY(gathered, FirstPass(stored, levels, rule.most_elements + 1, executor).run());
  if (near_their_mean(read_sums(gathered, stored.transposed, found))) {
    QUELL_TRY(kurtosis, careful_kurtosis(stored, executor));
    found.excess_kurtosis = kurtosis;
  }
  const std::uint64_t finite =
      std::uint64_t{stored.rows} * std::uint64_t{stored.cols} - found.nonfinite;
  // Zeros alone are not among the largest elements, whose first is the place of the maximum.
  if (found.absmax == 0 && finite > 0 && found.nonfinite > 0) {
    QUELL_TRY(place, first_finite(stored, executor));
    found.argmax_row = place.first;
    found.argmax_col = place.second;
  }
  switch (stored.type) {
    case Type::bf16:
      read_words(
          gathered.magnitudes.counts(), finite, [](std::uint16_t w) { return bf16_to_float(w); },
          found);
      break;
    case Type::f16:
      read_words(
          gathered.magnitudes.counts(), finite, [](std::uint16_t w) { return f16_to_float(w); },
          found);
      break;
    case Type::f32:
      QUELL_TRY(read_float_words(stored, gathered, finite, executor, found));
      break;
  }
  QUELL_TRY(marked, marked_of(stored, gathered, levels, rule, executor));
  found.marked = std::move(marked);
  return found;
}

}  // namespace quell::pipeline
