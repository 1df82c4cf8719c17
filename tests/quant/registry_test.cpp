// SPDX-License-Identifier: Apache-2.0

#include "quell/quant/registry.hpp"

#include <gtest/gtest.h>

#include <limits>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

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
  for (const Wrapper& wrapper : wrappers()) {
    EXPECT_TRUE(names.insert(std::string(wrapper.name)).second);
    EXPECT_FALSE(wrapper.help.empty());
    const auto chain = parse_chain(wrapper.name);
    ASSERT_TRUE(chain);
    const auto made = make_quantizer(wrapper.name);
    ASSERT_TRUE(made);
    EXPECT_EQ((*made)->name(), chain->name());
    EXPECT_EQ((*made)->needs(), chain->needs());
  }
  EXPECT_EQ(method_names(), "rtn, hqq, gptq, balanced, importance, adadim");
}

TEST(Chain, SplitsAtEveryPlus) {
  using Words = std::vector<std::string_view>;
  EXPECT_EQ(split_chain("rtn"), Words({"rtn"}));
  EXPECT_EQ(split_chain("awq+adadim+gptq"), Words({"awq", "adadim", "gptq"}));
  EXPECT_EQ(split_chain("+rtn+"), Words({"", "rtn", ""}));
  EXPECT_EQ(split_chain(""), Words({""}));
}

TEST(Chain, HoldsOneMethodInWrappers) {
  const auto chain = parse_chain("adadim+rtn");
  ASSERT_TRUE(chain);
  EXPECT_EQ(chain->name(), "adadim+rtn");
  EXPECT_EQ(chain->method->name, "rtn");
  EXPECT_TRUE(chain->chooses_direction());
  EXPECT_TRUE(includes(chain->needs(), Needs::second_moment));  // to choose by
  EXPECT_EQ(parse_chain("adadim")->name(), "adadim+gptq");
  const auto plain = parse_chain("rtn");
  ASSERT_TRUE(plain);
  EXPECT_FALSE(plain->chooses_direction());
  EXPECT_EQ(plain->needs(), Needs::weights_only);
  const std::pair<const char*, const char*> wrong[] = {{"rtn+adadim", "rtn holds no other method"},
                                                       {"adadim+adadim+rtn", "names adadim twice"},
                                                       {"adadim+", "there is no method ''"},
                                                       {"adadim+gtpq", "there is no method 'gtpq'"},
                                                       {"", "there is no method ''"}};
  for (const auto& [name, text] : wrong) {
    const auto refused = parse_chain(name);
    ASSERT_FALSE(refused) << name;
    EXPECT_EQ(refused.error().code, ErrorCode::usage);
    EXPECT_NE(refused.error().message.find(text), std::string::npos) << refused.error().message;
    EXPECT_FALSE(make_quantizer(name));
  }
}

TEST(Methods, UnknownNameListsTheKnownOnes) {
  EXPECT_EQ(find_method("gtpq"), nullptr);
  const auto made = make_quantizer("gtpq");
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().code, ErrorCode::usage);
  EXPECT_NE(made.error().message.find("'gtpq'; there are rtn, hqq, gptq"), std::string::npos);
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
