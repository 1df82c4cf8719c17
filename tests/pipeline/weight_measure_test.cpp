// SPDX-License-Identifier: Apache-2.0

// Measuring a weight as its rows come by gives what the whole matrix gives: by sorting, by the
// separate sums, and by stats::find_outliers.

#include "pipeline/weight_measure.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "quell/core/half.hpp"
#include "quell/grid/scale.hpp"
#include "quell/kernels/isa.hpp"
#include "quell/kernels/tensor_stats.hpp"
#include "quell/model/model.hpp"
#include "quell/stats/moments.hpp"
#include "support/golden_model.hpp"
#include "support/matrices.hpp"
#include "support/same_bits.hpp"

namespace quell::pipeline {
namespace {

using Type = StoredRows::Type;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

/// The definitions, by the letter.
TensorOutliers by_the_letter(MatrixView<const float> x) {
  SerialExecutor serial;
  TensorOutliers result;
  result.rows = x.rows();
  result.cols = x.cols();
  std::vector<float> magnitudes;
  std::vector<double> row_max(x.rows()), column_max(x.cols());
  std::vector<double> row_sum(x.rows()), column_sum(x.cols());
  std::vector<std::size_t> row_count(x.rows()), column_count(x.cols());
  std::vector<char> row_bad(x.rows()), column_bad(x.cols());
  stats::QuantileSketch sketch;
  stats::Moments moments;
  bool any = false;
  for (std::size_t r = 0; r < x.rows(); ++r) {
    sketch.add(x.row(r));
    for (std::size_t c = 0; c < x.cols(); ++c) {
      const float magnitude = std::fabs(x(r, c));
      if (!std::isfinite(magnitude)) {
        ++result.nonfinite;
        row_bad[r] = column_bad[c] = 1;
        continue;
      }
      magnitudes.push_back(magnitude);
      moments.add(static_cast<double>(x(r, c)));
      const auto wide = static_cast<double>(magnitude);
      row_max[r] = std::max(row_max[r], wide);
      column_max[c] = std::max(column_max[c], wide);
      row_sum[r] += wide;
      column_sum[c] += wide;
      ++row_count[r];
      ++column_count[c];
      result.fp16_overflow += magnitude > 65504;
      result.fp16_subnormal += magnitude > 0 && wide < 1.0 / 16384;
      if (!any || magnitude > result.absmax) {
        result.absmax = magnitude;
        result.argmax_row = r;
        result.argmax_col = c;
        any = true;
      }
    }
  }
  for (std::size_t r = 0; r < x.rows(); ++r) {
    result.zero_rows += row_max[r] == 0 && row_bad[r] == 0;
    if (row_sum[r] > 0) {
      result.row_ratio =
          std::max(result.row_ratio, row_max[r] / (row_sum[r] / static_cast<double>(row_count[r])));
    }
  }
  for (std::size_t c = 0; c < x.cols(); ++c) {
    result.zero_columns += column_max[c] == 0 && column_bad[c] == 0;
    if (column_sum[c] > 0) {
      result.column_ratio =
          std::max(result.column_ratio,
                   column_max[c] / (column_sum[c] / static_cast<double>(column_count[c])));
    }
  }
  result.channel_max = column_max;
  const double middle = stats::median(column_max);
  if (middle > 0) {
    result.channel_ratio = *std::max_element(column_max.begin(), column_max.end()) / middle;
  }
  result.histogram = stats::LogHistogram(sketch);
  result.excess_kurtosis = moments.excess_kurtosis();
  result.marked = stats::find_outliers(x, {}, serial);
  if (magnitudes.empty()) return result;
  double sum = 0;
  for (const float magnitude : magnitudes) sum += static_cast<double>(magnitude);
  result.mean_abs = sum / static_cast<double>(magnitudes.size());
  std::sort(magnitudes.begin(), magnitudes.end());
  result.median_abs = static_cast<double>(magnitudes[magnitudes.size() / 2]);
  return result;
}

void expect_same_marks(const stats::MatrixOutliers& found, const stats::MatrixOutliers& expected,
                       const std::string& what) {
  const auto lines = [&](const auto& a, const auto& b) {
    ASSERT_EQ(a.size(), b.size()) << what;
    for (std::size_t i = 0; i < a.size(); ++i) {
      EXPECT_EQ(a[i].index, b[i].index) << what;
      EXPECT_EQ(a[i].ratio, b[i].ratio) << what;
    }
  };
  lines(found.rows, expected.rows);
  lines(found.columns, expected.columns);
  EXPECT_EQ(found.gap, expected.gap) << what;
  ASSERT_EQ(found.elements.size(), expected.elements.size()) << what;
  for (std::size_t i = 0; i < found.elements.size(); ++i) {
    EXPECT_EQ(found.elements[i].row, expected.elements[i].row) << what;
    EXPECT_EQ(found.elements[i].col, expected.elements[i].col) << what;
    EXPECT_EQ(found.elements[i].value, expected.elements[i].value) << what;
  }
}

/// `bits`: sums too are compared bit for bit, else to within the rounding of other orders.
void expect_same(const TensorOutliers& found, const TensorOutliers& expected, bool bits,
                 const std::string& what) {
  EXPECT_EQ(found.rows, expected.rows) << what;
  EXPECT_EQ(found.cols, expected.cols) << what;
  EXPECT_EQ(found.absmax, expected.absmax) << what;
  EXPECT_EQ(found.argmax_row, expected.argmax_row) << what;
  EXPECT_EQ(found.argmax_col, expected.argmax_col) << what;
  EXPECT_EQ(found.median_abs, expected.median_abs) << what;
  EXPECT_EQ(found.channel_max, expected.channel_max) << what;
  EXPECT_EQ(found.channel_ratio, expected.channel_ratio) << what;
  EXPECT_EQ(found.nonfinite, expected.nonfinite) << what;
  EXPECT_EQ(found.fp16_overflow, expected.fp16_overflow) << what;
  EXPECT_EQ(found.fp16_subnormal, expected.fp16_subnormal) << what;
  EXPECT_EQ(found.zero_rows, expected.zero_rows) << what;
  EXPECT_EQ(found.zero_columns, expected.zero_columns) << what;
  EXPECT_TRUE(found.histogram == expected.histogram) << what;
  expect_same_marks(found.marked, expected.marked, what);
  if (bits) {
    EXPECT_TRUE(test::same_bits(found.excess_kurtosis, expected.excess_kurtosis)) << what;
    EXPECT_TRUE(test::same_bits(found.mean_abs, expected.mean_abs)) << what;
    EXPECT_EQ(found.outlier_ratio, expected.outlier_ratio) << what;
    EXPECT_TRUE(test::same_bits(found.row_ratio, expected.row_ratio)) << what;
    EXPECT_TRUE(test::same_bits(found.column_ratio, expected.column_ratio)) << what;
    return;
  }
  // Sums of runs in float are off by 2e-6 of the absolute terms at most (quell/kernels/
  // tensor_stats.hpp); a ratio has two of them. The kurtosis is m_4 / m_2^2: of the sums, 2e-6 of
  // m_4 and twice of m_2, and with means of up to a quarter of the deviation the terms of m_4 are
  // at most 1 + 4 / 4 + 6 / 16 + 3 / 256, so 2.4 times, m_4: 9e-6. It is near zero as a difference,
  // so it is compared by what it is a part of.
  constexpr double kBound = 4e-6, kKurtosisBound = 9e-6;
  EXPECT_NEAR(found.excess_kurtosis, expected.excess_kurtosis,
              kKurtosisBound * (3 + std::fabs(expected.excess_kurtosis)))
      << what;
  EXPECT_NEAR(found.mean_abs, expected.mean_abs, kBound * expected.mean_abs) << what;
  EXPECT_NEAR(found.row_ratio, expected.row_ratio, kBound * expected.row_ratio) << what;
  EXPECT_NEAR(found.column_ratio, expected.column_ratio, kBound * expected.column_ratio) << what;
}

std::vector<std::uint16_t> words_of(const Matrix& x, Type type) {
  std::vector<std::uint16_t> words(x.size());
  if (type == Type::bf16) {
    float_to_bf16(x.values(), words);
  } else {
    float_to_f16(x.values(), words);
  }
  return words;
}

Matrix transposed(MatrixView<const float> x) {
  Matrix result = *Matrix::uninitialized(x.cols(), x.rows());
  for (std::size_t r = 0; r < x.rows(); ++r) {
    for (std::size_t c = 0; c < x.cols(); ++c) result(c, r) = x(r, c);
  }
  return result;
}

/// In all types, directions, numbers of threads and instruction sets.
void check(const Matrix& x, const std::string& name) {
  for (const Type type : {Type::f32, Type::bf16, Type::f16}) {
    // The values that the type has.
    Matrix rounded = *Matrix::uninitialized(x.rows(), x.cols());
    std::vector<std::uint16_t> words;
    if (type == Type::f32) {
      std::copy(x.values().begin(), x.values().end(), rounded.values().begin());
    } else {
      words = words_of(x, type);
      if (type == Type::bf16) {
        bf16_to_float(words, rounded.values());
      } else {
        f16_to_float(words, rounded.values());
      }
    }
    const std::string what = name + " type " + std::to_string(static_cast<int>(type));
    const MatrixView<const std::uint16_t> word_view(words.data(), x.rows(), x.cols());
    const StoredRows stored =
        type == Type::f32 ? rows_of(std::as_const(rounded).view()) : rows_of(word_view, type);
    SerialExecutor serial;
    const auto one = measure_weight(stored, serial);
    ASSERT_TRUE(one) << what;
    expect_same(*one, by_the_letter(rounded.view()), false, what);
    const auto three = make_openmp_executor(3);
    for (const kernels::Isa isa :
         {kernels::Isa::scalar, kernels::Isa::avx2, kernels::Isa::avx512}) {
      kernels::set_isa_cap(isa);
      const auto other = measure_weight(stored, *three);
      kernels::clear_isa_cap();
      ASSERT_TRUE(other) << what;
      expect_same(*other, *one, true, what);
    }
    if (type != Type::f32) continue;
    const Matrix turned = transposed(rounded.view());
    StoredRows stored_turned = rows_of(turned.view());
    stored_turned.transposed = true;
    const auto back = measure_weight(stored_turned, *three);
    ASSERT_TRUE(back) << what;
    expect_same(*back, by_the_letter(rounded.view()), false, what + " transposed");
  }
}

TEST(MeasureWeight, OfRaggedShapesEqualsTheWholeMatrix) {
  const std::pair<std::size_t, std::size_t> shapes[] = {{1, 1},     {1, 5000},  {3000, 1},
                                                        {2, 31},    {16, 16},   {17, 257},
                                                        {530, 333}, {1100, 64}, {3, 9000}};
  for (const auto& [rows, cols] : shapes) {
    check(test::student_matrix(rows, cols, 5, rows),
          std::to_string(rows) + "x" + std::to_string(cols));
  }
}

TEST(MeasureWeight, CountsWhatIsNotFiniteAndWhatHalfPrecisionLacks) {
  Matrix x = test::gaussian_matrix(600, 100, 3, 0.02F);
  x(3, 5) = kNan;
  x(599, 99) = kInfinity;
  x(0, 0) = -kInfinity;
  for (std::size_t c = 0; c < 100; ++c) x(17, c) = 0;
  for (std::size_t r = 0; r < 600; ++r) x(r, 42) = r % 2 == 0 ? 0.0F : -0.0F;
  for (std::size_t r = 0; r < 600; ++r) x(r, 43) = kNan;
  x(5, 1) = 65504;
  x(6, 1) = 65536;
  x(7, 1) = -1e30F;
  x(8, 1) = 3e-5F;
  x(9, 1) = -1e-40F;
  x(10, 1) = std::numeric_limits<float>::max();
  check(x, "planted");
  SerialExecutor serial;
  const auto found = measure_weight(rows_of(std::as_const(x).view()), serial);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->nonfinite, 603U);
  EXPECT_EQ(found->fp16_overflow, 3U);
  EXPECT_EQ(found->zero_columns, 1U);
  EXPECT_EQ(found->zero_rows, 0U);  // row 17 has a NaN in column 43
}

TEST(MeasureWeight, OfZerosAndConstantsAndNothingFinite) {
  check(test::zero_matrix(40, 50), "zero");
  check(test::constant_matrix(300, 40, -2.5F), "constant");
  check(test::constant_matrix(20, 30, kNan), "nan");
  Matrix mostly = test::zero_matrix(64, 64);  // the median is zero
  for (std::size_t i = 0; i < 64; ++i) mostly(i, i) = static_cast<float>(i);
  check(mostly, "diagonal");
  Matrix late = test::constant_matrix(600, 20, kNan);  // the first finite value is a zero
  late(550, 3) = 0;
  late(551, 3) = -0.0F;
  check(late, "late zero");
}

TEST(MeasureWeight, KnowsTheKurtosisOfValuesNearTheirMean) {
  for (const float mean : {0.2F, 0.3F, 1.0F, -30.0F, 1000.0F}) {
    Matrix x = test::student_matrix(300, 70, 5, 4);
    for (float& value : x.values()) value += mean;
    x(3, 5) = kNan;
    check(x, "mean " + std::to_string(mean));
  }
  check(test::constant_matrix(300, 70, 0.1F), "constant");
}

TEST(MeasureWeight, HoldsForWeightsOfAnySize) {
  for (const float scale : {1e-30F, 1e-8F, 1e8F, 1e30F}) {
    Matrix x = test::student_matrix(300, 70, 5, 5);
    for (float& value : x.values()) value *= scale;
    check(x, "scale " + std::to_string(scale));
  }
}

TEST(MeasureWeight, CountsWhatIsFarAboveTheMean) {
  // Mean magnitude (997 + 3 * 100) / 1000 = 1.297, and 13 times that is 16.9: three of a thousand.
  Matrix x = test::constant_matrix(25, 40, -1);
  for (std::size_t i = 0; i < 3; ++i) x(7 * i, 11 * i) = 100;
  SerialExecutor serial;
  const std::vector<std::uint16_t> words = words_of(x, Type::bf16);
  const MatrixView<const std::uint16_t> view(words.data(), 25, 40);
  EXPECT_DOUBLE_EQ(measure_weight(rows_of(view, Type::bf16), serial)->outlier_ratio, 0.3);
  EXPECT_DOUBLE_EQ(measure_weight(rows_of(std::as_const(x).view()), serial)->outlier_ratio, 0.3);
}

TEST(MeasureWeight, FindsPlantedLinesAndElements) {
  check(test::outlier_column_matrix(300, 80, 7, 30), "column");
  check(test::outlier_row_matrix(300, 80, 290, 30), "row");
  Matrix x = test::outlier_column_matrix(520, 120, 7, 30);
  for (std::size_t c = 0; c < 120; ++c) x(511, c) *= 50;
  x(4, 9) = -5000;
  x(515, 119) = 5000;
  check(x, "column, row and elements");
  // Most lines differ by more than the screen allows, so that nothing is proved by it.
  Matrix uneven = test::gaussian_matrix(200, 90, 8);
  for (std::size_t r = 0; r < 200; ++r) {
    for (float& value : uneven.row(r)) value *= std::exp2(static_cast<float>(r % 23) - 11);
  }
  check(uneven, "uneven rows");
  Matrix equal = test::gaussian_matrix(700, 40, 9);
  for (std::size_t i = 0; i < 5; ++i) equal(140 * i, 7 * i) = 900.0F;  // order by place
  check(equal, "equal elements");
}

TEST(MeasureWeight, NeedsTheLowBitsOfTheMedianOfFloats) {
  // All in one bin of bfloat16: only the sixteen low bits tell them apart. Both signs, since power
  // sums cannot say much about values that hardly differ.
  Matrix x = *Matrix::uninitialized(100, 37);
  for (std::size_t i = 0; i < x.size(); ++i) {
    const float value = 1 + static_cast<float>((i * 7919) % 3700) * 0x1p-22F;
    x.values()[i] = i % 2 == 0 ? value : -value;
  }
  check(x, "one bin");
}

// ------------------------------------------------------------------ of models

void expect_as_decoded(const model::Model& model) {
  SerialExecutor serial;
  for (const model::Block& block : model.blocks()) {
    for (const model::Site site : model::kSites) {
      for (const model::Linear* linear : linears_at(block, site)) {
        const auto stored = stored_rows(model, *linear);
        ASSERT_TRUE(stored) << stored.error().message;
        const auto found = measure_weight(*stored, serial);
        const auto matrix = model.weight(*linear, serial, true);
        ASSERT_TRUE(found && matrix) << linear->name;
        expect_same(*found, by_the_letter(matrix->view()), false, linear->name);
      }
    }
  }
}

TEST(StoredRows, OfEveryArchitectureAreItsWeights) {
  for (const char* name : {"llama", "qwen2", "gpt2"}) {  // gpt2 stores them transposed
    test::GoldenModel golden = test::read_golden(name);
    const test::TemporaryFolder folder;
    golden.write(folder.path());
    const auto model = model::Model::load(folder.path());
    ASSERT_TRUE(model) << model.error().message;
    expect_as_decoded(*model);
  }
}

TEST(StoredRows, OfQuantizedModelsAreDecoded) {
  SerialExecutor serial;
  for (const io::ExportLayout& layout : io::export_layouts()) {
    const GridSpec grid = *parse_grid("int4:sym:oc:g32");
    test::GoldenModel golden = test::read_golden("llama");
    const test::TemporaryFolder plain, packed;
    golden.write(plain.path());
    const auto original = model::Model::load(plain.path());
    ASSERT_TRUE(original) << original.error().message;
    std::vector<io::ModulePlan> plans;
    for (const model::Block& block : original->blocks()) {
      const model::Linear& linear = block.down;
      const io::ModulePlan plan{linear.name, grid, linear.rows, linear.cols};
      if (!layout.refuse(plan).empty()) continue;
      const auto weight = original->weight(linear, serial);
      auto scales = choose_scales(weight->view(), grid, ScaleMethod::absmax, {}, serial);
      const auto codes = quantize_to_grid(weight->view(), grid, *std::move(scales), serial);
      ASSERT_TRUE(codes);
      const auto bytes = layout.encode(*codes);
      golden.remove(linear.name + ".weight");
      const auto tensors = layout.tensors(plan);
      for (std::size_t i = 0; i < tensors.size(); ++i) {
        test::GoldenTensor stored;
        stored.name = tensors[i].name;
        stored.shape = tensors[i].shape;
        stored.dtype = to_string(tensors[i].dtype);
        stored.raw.assign(reinterpret_cast<const char*>((*bytes)[i].data()), (*bytes)[i].size());
        golden.put(stored);
      }
      plans.push_back(plan);
    }
    if (plans.empty()) continue;
    const std::vector<std::string> ignored = {"lm_head"};
    golden.config.set("quantization_config", layout.config(plans, ignored));
    golden.write(packed.path());
    const auto model = model::Model::load(packed.path());
    ASSERT_TRUE(model) << model.error().message;
    EXPECT_FALSE(model->quantized().empty());
    expect_as_decoded(*model);
  }
}

TEST(StoredRows, ThatCannotBeReadAreAnError) {
  StoredRows broken;
  broken.rows = broken.cols = 3000;
  broken.read = [](const StoredPart& part, std::byte* out) -> Status {
    if (part.first_row > 2000) return Error{ErrorCode::resource, "the disk is gone"};
    std::fill(out, out + part.rows * part.cols * sizeof(float), std::byte{0x3f});
    return ok();
  };
  const auto executor = make_openmp_executor(2);
  const auto found = measure_weight(broken, *executor);
  ASSERT_FALSE(found);
  EXPECT_EQ(found.error().message, "the disk is gone");
}

}  // namespace
}  // namespace quell::pipeline
