// SPDX-License-Identifier: Apache-2.0

// Token ids of the shared models, as the reference implementation of each gave them: the samples in
// reference/reference.json hold texts and ids with the tokens around them.

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "quell/io/json.hpp"
#include "quell/tokenizer/tokenizer.hpp"
#include "support/shared.hpp"

namespace quell::tokenizer {
namespace {

class ReferenceSamples : public testing::TestWithParam<const char*> {};

TEST_P(ReferenceSamples, GiveTheSameIds) {
  const auto folder = test::shared_path(std::string("models/") + GetParam());
  if (!folder) GTEST_SKIP() << "the shared model " << GetParam() << " is not here";
  const auto tokenizer = Tokenizer::read(*folder);
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  const auto reference = io::read_json(*folder / "reference" / "reference.json");
  ASSERT_TRUE(reference) << reference.error().message;
  const io::Json* samples = reference->find("tokenizer_samples");
  if (samples == nullptr) samples = reference->find("tokenizer");
  ASSERT_NE(samples, nullptr);
  ASSERT_GE(samples->items().size(), 5u);
  for (const io::Json& sample : samples->items()) {
    const std::string& text = sample.find("text")->as_string();
    std::vector<std::int32_t> expected;
    for (const io::Json& id : sample.find("ids")->items()) {
      expected.push_back(static_cast<std::int32_t>(id.as_integer()));
    }
    const auto ids = tokenizer->encode(text);
    ASSERT_TRUE(ids) << ids.error().message;
    EXPECT_EQ(*ids, expected) << "text: " << text;
    for (const std::int32_t id : *ids) EXPECT_LT(static_cast<std::uint32_t>(id), tokenizer->size());
  }
}

INSTANTIATE_TEST_SUITE_P(SharedModels, ReferenceSamples,
                         testing::Values("stories260K", "tiny1m", "babyllama105", "books7m",
                                         "minilm-l6"),
                         [](const auto& each) {
                           std::string name = each.param;
                           for (char& c : name) c = c == '-' ? '_' : c;
                           return name;
                         });

}  // namespace
}  // namespace quell::tokenizer
