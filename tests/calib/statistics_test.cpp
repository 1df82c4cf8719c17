// SPDX-License-Identifier: Apache-2.0

// Second moments against sums by hand, and parts that add up.

#include "quell/calib/statistics.hpp"

#include <gtest/gtest.h>

#include <filesystem>

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
