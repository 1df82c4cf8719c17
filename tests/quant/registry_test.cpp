// SPDX-License-Identifier: Apache-2.0

#include "quell/quant/registry.hpp"

#include <gtest/gtest.h>

#include <limits>
#include <set>
#include <string>

namespace quell::quant {
namespace {

TEST(Methods, AreNamedAsTheyNameThemselves) {
  std::set<std::string> names;
  for (const Method& method : methods()) {
    EXPECT_TRUE(names.insert(std::string(method.name)).second);
    EXPECT_FALSE(method.help.empty());
    const auto made = make_quantizer(method.name);
    ASSERT_TRUE(made);
    EXPECT_EQ((*made)->name(), method.name);
    EXPECT_EQ((*made)->needs(), method.needs);
    EXPECT_EQ(find_method(method.name), &method);
  }
  EXPECT_EQ(method_names(), "rtn, gptq, balanced, importance");
}

TEST(Methods, UnknownNameListsTheKnownOnes) {
  EXPECT_EQ(find_method("gtpq"), nullptr);
  const auto made = make_quantizer("gtpq");
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().code, ErrorCode::usage);
  EXPECT_NE(made.error().message.find("'gtpq'; there are rtn, gptq"), std::string::npos);
}

TEST(Methods, DampingMustBeANumberAndNotNegative) {
  for (const double damping :
       {-0.01, std::numeric_limits<double>::infinity(), std::numeric_limits<double>::quiet_NaN()}) {
    const auto made = make_quantizer("gptq", {.damping = damping});
    ASSERT_FALSE(made);
    EXPECT_EQ(made.error().code, ErrorCode::usage);
  }
  EXPECT_TRUE(make_quantizer("gptq", {.damping = 0}));
}

}  // namespace
}  // namespace quell::quant
