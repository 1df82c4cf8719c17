// SPDX-License-Identifier: Apache-2.0

// Second moments against sums by hand, and parts that add up.

#include "quell/calib/statistics.hpp"

#include <gtest/gtest.h>

#include <filesystem>

#include "quell/core/executor.hpp"
#include "quell/core/random.hpp"
#include "support/files.hpp"

namespace quell::calib {
namespace {

Matrix random_rows(std::size_t rows, std::size_t cols, std::uint64_t seed) {
  Matrix x = *Matrix::zeros(rows, cols);
  Random(seed).fill_normal(x.values());
  return x;
}

TEST(SiteStatistics, AreTheSumsTheyClaimToBe) {
  SerialExecutor executor;
  kernels::Context context(executor);
  const Matrix x = random_rows(50, 7, 1);
  SiteStatistics site;
  ASSERT_TRUE(site.add(x.view(), true, context));
  EXPECT_EQ(site.tokens, 50u);
  const Matrix mean = *site.mean_moment();
  for (std::size_t i = 0; i < 7; ++i) {
    double sum = 0, squares = 0, largest = 0;
    for (std::size_t t = 0; t < 50; ++t) {
      sum += static_cast<double>(x(t, i));
      squares += static_cast<double>(x(t, i)) * static_cast<double>(x(t, i));
      largest = std::max(largest, std::abs(static_cast<double>(x(t, i))));
    }
    EXPECT_NEAR(site.sum[i], sum, 1e-12);
    EXPECT_NEAR(site.sum_squares[i], squares, 1e-11);
    EXPECT_EQ(static_cast<double>(site.max_abs[i]), largest);
    for (std::size_t j = 0; j < 7; ++j) {
      double product = 0;
      for (std::size_t t = 0; t < 50; ++t)
        product += static_cast<double>(x(t, i)) * static_cast<double>(x(t, j));
      // One chunk of 50 products in float32: at most 50 * 2^-24 of the sum of magnitudes (about
      // 50).
      EXPECT_NEAR(static_cast<double>(mean(i, j)), product / 50, 50 * 0x1p-24);
      EXPECT_EQ(mean(i, j), mean(j, i));
    }
  }
}

// Of the token (2, -2, 0, 4), mean square 6, heights are (16 / 6)^4 = 4096 / 81 and twice
// (4 / 6)^4 = 16 / 81. The step from the first to the second is
// the last channel's alone, that to 0 falls to three.
TEST(SiteStatistics, SharePeaksAmongTheChannelsAboveEachStep) {
  SerialExecutor executor;
  kernels::Context context(executor);
  Matrix x = *Matrix::zeros(2, 4);
  const float values[] = {2, -2, 0, 4, 0, 0, 0, 0};  // a token of zeros has no peak
  std::copy(std::begin(values), std::end(values), x.values().begin());
  SiteStatistics site;
  ASSERT_TRUE(site.add(x.view(), false, context));
  const double low = 16.0 / 81, high = 4096.0 / 81;
  const double expected[] = {low / 3, low / 3, 0, low / 3 + (high - low)};
  ASSERT_EQ(site.peaks.size(), 4u);
  for (std::size_t c = 0; c < 4; ++c) {
    EXPECT_NEAR(site.peaks[c], expected[c], 1e-5) << c;  // sums are kept as float32
  }
}

// Shares add up to the peak, whatever its height: no token decides for the others.
TEST(SiteStatistics, PeaksDoNotDependOnTheSizeOfATokenNorOnThreads) {
  SerialExecutor executor;
  kernels::Context context(executor);
  Matrix x = random_rows(40, 20, 5);
  SiteStatistics plain, scaled;
  ASSERT_TRUE(plain.add(x.view(), false, context));
  for (std::size_t t = 0; t < 40; ++t) {
    for (float& value : x.row(t)) value *= t % 2 == 0 ? 1024.0F : 0.25F;
  }
  ASSERT_TRUE(scaled.add(x.view(), false, context));
  EXPECT_EQ(plain.peaks, scaled.peaks);
  double sum = 0, peaks = 0;
  for (const double share : plain.peaks) sum += share;
  for (std::size_t t = 0; t < 40; ++t) {
    double largest = 0, squares = 0;
    for (const float value : x.row(t)) {
      largest = std::max(largest, std::abs(static_cast<double>(value)));
      squares += static_cast<double>(value) * static_cast<double>(value);
    }
    peaks += std::pow(largest * largest / (squares / 20), 4);
  }
  EXPECT_NEAR(sum, peaks, 1e-6 * peaks);
  const std::unique_ptr<Executor> threads = make_openmp_executor(3);
  kernels::Context many(*threads);
  SiteStatistics again;
  ASSERT_TRUE(again.add(x.view(), false, many));
  EXPECT_EQ(again.peaks, scaled.peaks);
}

TEST(SiteStatistics, PartsAddUpToTheBitsOfOneRun) {
  SerialExecutor executor;
  kernels::Context context(executor);
  SiteStatistics whole, left, right;
  for (std::uint64_t chunk = 0; chunk < 6; ++chunk) {
    const Matrix x = random_rows(64, 33, chunk);
    ASSERT_TRUE(whole.add(x.view(), true, context));
    ASSERT_TRUE((chunk < 2 ? left : right).add(x.view(), true, context));
  }
  ASSERT_TRUE(left.merge(right));
  EXPECT_EQ(left.tokens, whole.tokens);
  EXPECT_EQ(left.peaks, whole.peaks);
  for (std::size_t i = 0; i < whole.moment.size(); ++i) {
    ASSERT_EQ(left.moment.data()[i], whole.moment.data()[i]) << i;
  }
}

TEST(SiteStatistics, RefuseActivationsThatAreNotFinite) {
  SerialExecutor executor;
  kernels::Context context(executor);
  Matrix x = random_rows(4, 5, 0);
  x(2, 3) = INFINITY;
  SiteStatistics site;
  const Status status = site.add(x.view(), true, context);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::numeric);
  EXPECT_NE(status.error().message.find("channel 3"), std::string::npos);
}

TEST(MergeStatistics, RefusesPartsOfDifferentThings) {
  StatisticsInfo a, b;
  a.model_fingerprint = b.model_fingerprint = "m";
  a.corpus_fingerprint = b.corpus_fingerprint = "c";
  a.parts = b.parts = 2;
  a.merged_parts = {1};
  b.merged_parts = {2};
  a.tokens_fed = 5;
  b.tokens_fed = 7;
  const auto merged = [](const StatisticsInfo& x, const StatisticsInfo& y) {
    const StatisticsInfo parts[] = {x, y};
    return merged_info(parts);
  };
  const auto good = merged(b, a);
  ASSERT_TRUE(good) << good.error().message;
  EXPECT_EQ(good->parts, 1u);
  EXPECT_EQ(good->tokens_fed, 12u);
  EXPECT_FALSE(merged(a, a));
  b.model_fingerprint = "other";
  EXPECT_FALSE(merged(a, b));
  b.model_fingerprint = "m";
  b.corpus_fingerprint = "other";
  EXPECT_FALSE(merged(a, b));
  b.corpus_fingerprint = "c";
  b.precision = engine::Precision::bf16;
  EXPECT_FALSE(merged(a, b));
  a.precision = engine::Precision::bf16;
  EXPECT_EQ(merged(a, b)->precision, engine::Precision::bf16);
  b.channels[{0, model::Site::qkv_in}] = 3;
  EXPECT_FALSE(merged(a, b));
}

TEST(StatisticsFile, AppearsWhenCompleteAndHoldsWhatWasAdded) {
  const test::TemporaryFolder folder;
  const auto path = folder / "a.stats";
  SerialExecutor serial;
  kernels::Context context(serial);
  const SiteKey key{3, model::Site::qkv_in};
  SiteStatistics site;
  const float x[] = {1, 2, 3, 4, 5, 6};
  ASSERT_TRUE(site.add({x, 2, 3}, true, context));
  StatisticsInfo info;
  info.merged_parts = {1};
  info.tokens_fed = 2;
  info.channels[key] = 3;
  {
    auto abandoned = StatisticsWriter::create(path, info);
    ASSERT_TRUE(abandoned);
    ASSERT_TRUE(abandoned->add(key, site));
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
  auto writer = StatisticsWriter::create(path, info);
  ASSERT_TRUE(writer);
  site.tokens = 1;
  EXPECT_FALSE(writer->add(key, site));
  site.tokens = 2;
  EXPECT_FALSE(writer->add({4, model::Site::qkv_in}, site));
  ASSERT_TRUE(writer->add(key, site));
  ASSERT_TRUE(writer->commit());
  const auto file = StatisticsFile::open(path);
  ASSERT_TRUE(file) << file.error().message;
  EXPECT_TRUE(file->check());
  const auto read = file->read(key);
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_EQ(read->tokens, 2u);
  EXPECT_EQ(read->sum, site.sum);
  EXPECT_EQ(read->max_abs, site.max_abs);
  EXPECT_EQ(read->moment(2, 0), 1 * 3 + 4 * 6);
  EXPECT_FALSE(file->read({4, model::Site::qkv_in}));
}

}  // namespace
}  // namespace quell::calib
