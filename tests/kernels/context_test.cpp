// SPDX-License-Identifier: Apache-2.0

#include "quell/kernels/context.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <limits>
#include <utility>

namespace quell::kernels {
namespace {

TEST(Context, SlotsAreApartAlignedAndWritable) {
  const auto executor = make_openmp_executor(3);
  Context context(*executor);
  for (const std::size_t slot_bytes : {std::size_t{1}, std::size_t{100}, std::size_t{3} << 20}) {
    ASSERT_TRUE(context.reserve(slot_bytes, 1000));
    ASSERT_GE(context.shared().size(), 1000u);
    std::memset(context.shared().data(), 9, context.shared().size());
    for (unsigned i = 0; i < executor->width(); ++i) {
      ASSERT_GE(context.slot(i).size(), slot_bytes);
      EXPECT_EQ(reinterpret_cast<std::uintptr_t>(context.slot(i).data()) % 64, 0u);
      std::memset(context.slot(i).data(), static_cast<int>(i), context.slot(i).size());
    }
    EXPECT_EQ(context.shared().back(), std::byte{9});
    for (unsigned i = 0; i < executor->width(); ++i) {
      EXPECT_EQ(context.slot(i).front(), static_cast<std::byte>(i));
      EXPECT_EQ(context.slot(i).back(), static_cast<std::byte>(i));
    }
  }
}

TEST(Context, KeepsWhatItHas) {
  SerialExecutor serial;
  Context context(serial);
  ASSERT_TRUE(context.reserve(5000, 100));
  const std::byte* before = context.slot(0).data();
  ASSERT_TRUE(context.reserve(10, 50));
  ASSERT_TRUE(context.reserve(5000, 0));
  EXPECT_EQ(context.slot(0).data(), before);
  ASSERT_TRUE(context.reserve(0, 20000));
  EXPECT_GE(context.slot(0).size(), 5000u);
  EXPECT_GE(context.shared().size(), 20000u);
}

TEST(Context, MovesItsScratch) {
  SerialExecutor serial;
  Context first(serial);
  ASSERT_TRUE(first.reserve(100, 200));
  const std::byte* slot = first.slot(0).data();
  Context second(std::move(first));
  EXPECT_EQ(second.slot(0).data(), slot);
  EXPECT_EQ(first.slot(0).size(), 0u);  // NOLINT: documented to be empty
  ASSERT_TRUE(first.reserve(50));
  EXPECT_NE(first.slot(0).data(), slot);
  first = std::move(second);
  EXPECT_EQ(first.slot(0).data(), slot);
}

TEST(Context, ReportsScratchThatDoesNotFit) {
  SerialExecutor serial;
  Context context(serial);
  const Status status = context.reserve(std::numeric_limits<std::size_t>::max() - 10, 0);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::resource);
  EXPECT_FALSE(context.reserve(std::size_t{1} << 63, std::size_t{1} << 63));
  EXPECT_TRUE(context.reserve(100, 100));  // still usable
}

}  // namespace
}  // namespace quell::kernels
