// SPDX-License-Identifier: Apache-2.0

// What `inspect` and `outliers` make of models that are meant to harm or are damaged: names that
// are markup or terminal commands, weights and activations that are not finite or far too large.
// The cases have the numbers of the reliability plan.

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "cli/program.hpp"
#include "quell/core/half.hpp"

namespace quell::test {
namespace {

const std::string kProjection = "model.layers.0.self_attn.q_proj";

/// A Llama of one block in one file of bfloat16, whose header and values can be changed.
struct ChangedModel {
  ChangedModel() : path(make_model(folder / "model", {"1", "64", "4", "2", "160", "300", "1"})) {
    const std::string file = read_bytes(path / "model.safetensors");
    std::uint64_t size = 0;
    std::memcpy(&size, file.data(), 8);
    header = *io::parse_json(file.substr(8, size), "header");
    data = file.substr(8 + size);
  }
  void set(const std::string& tensor, std::size_t element, float value) {
    const io::Json* offsets = header.find(tensor)->find("data_offsets");
    const auto begin = static_cast<std::size_t>(offsets->items()[0].as_integer());
    const std::uint16_t word = float_to_bf16(value);
    std::memcpy(data.data() + begin + 2 * element, &word, 2);
  }
  void add(const std::string& tensor) {
    const auto begin = static_cast<std::uint64_t>(data.size());
    data.append(8, '\0');
    header.set(tensor, io::Json::object({{"dtype", "BF16"},
                                         {"shape", io::Json::array({2, 2})},
                                         {"data_offsets", io::Json::array({begin, begin + 8})}}));
  }
  std::string write() const {
    std::string text = header.dump();
    while (text.size() % 8 != 0) text += ' ';
    std::string file(8, '\0');
    const std::uint64_t size = text.size();
    std::memcpy(file.data(), &size, 8);
    write_bytes(path / "model.safetensors", file + text + data);
    return path.string();
  }

  TemporaryFolder folder;
  std::filesystem::path path;
  io::Json header;
  std::string data;
};

const io::Json* tensor_of(const io::Json& report, const std::string& name) {
  for (const io::Json& tensor : report.find("tensors")->items()) {
    if (tensor.find("name")->as_string() == name) return &tensor;
  }
  ADD_FAILURE() << name << " is not in the report";
  return nullptr;
}

/// No byte of it moves a cursor, changes a colour or turns the direction of the text.
void expect_harmless(const std::string& text, const std::string& what) {
  for (const char c : text) {
    EXPECT_TRUE(c == '\n' || static_cast<unsigned char>(c) >= 0x20) << what << ": " << text;
  }
  EXPECT_EQ(text.find("\xE2\x80\xAE"), std::string::npos) << what;
}

TEST(X09, HostileTensorNamesAreShownEscaped) {
  const std::string names[] = {"<script>alert(1)</script>", "a\"b'c&d",    "\xF0\x9F\x98\x80 face",
                               std::string(10000, 'x'),     "\x1b[31mred", "line\nbreak",
                               "\xE2\x80\xAE turned"};
  for (const std::string& name : names) {
    ChangedModel model;
    model.add(name);
    const std::string path = model.write();
    const Ended text = quell({"inspect", path});
    EXPECT_EQ(text.code, 0) << text.err;
    EXPECT_NE(text.out.find("Warning"), std::string::npos);
    expect_harmless(text.out, "inspect");
    for (std::size_t begin = 0; begin < text.out.size();) {
      const std::size_t end = text.out.find('\n', begin);
      EXPECT_LT(end - begin, 1000U) << "a name of ten thousand bytes is cut";
      begin = end + 1;
    }
    EXPECT_EQ(quell_json({"inspect", path}).find("warnings")->items().size(), 1U);

    const std::string html_file = (model.folder / "report.html").string();
    const Ended outliers = quell({"outliers", path, "--verbose", "--html", html_file});
    EXPECT_EQ(outliers.code, 0) << outliers.err;
    expect_harmless(outliers.out, "outliers");
    const std::string html = read_bytes(html_file);
    EXPECT_EQ(html.find("<script"), std::string::npos);
    EXPECT_EQ(html.find("http"), std::string::npos);  // nothing is fetched
  }
}

TEST(X09, HostileFolderNamesAreShownEscaped) {
  const ChangedModel model;
  model.write();
  const std::string hostile = (model.folder / "<script>alert(1)<img src=x>&\"").string();
  std::filesystem::rename(model.path, hostile);
  const std::string html_file = (model.folder / "report.html").string();
  const Ended outliers = quell({"outliers", hostile, "--verbose", "--html", html_file});
  EXPECT_EQ(outliers.code, 0) << outliers.err;
  const std::string html = read_bytes(html_file);
  EXPECT_EQ(html.find("<script"), std::string::npos);
  EXPECT_EQ(html.find("<img"), std::string::npos);
}

TEST(W01, WeightsThatAreNotFiniteAreCounted) {
  ChangedModel model;
  model.set(kProjection + ".weight", 3 * 64 + 5, std::nanf(""));
  model.set(kProjection + ".weight", 4 * 64 + 5, INFINITY);
  model.set(kProjection + ".weight", 5 * 64 + 6, -INFINITY);
  const std::string path = model.write();
  EXPECT_EQ(quell({"inspect", path}).code, 0);
  const io::Json report = quell_json({"outliers", path});
  EXPECT_EQ(tensor_of(report, kProjection)->find("nonfinite")->as_integer(), 3);
  EXPECT_EQ(tensor_of(report, "model.layers.0.self_attn.o_proj")->find("nonfinite")->as_integer(),
            0);
  // What is left is ordinary.
  const double kurtosis = tensor_of(report, kProjection)->find("excess_kurtosis")->as_number();
  EXPECT_TRUE(std::isfinite(kurtosis));
  const Ended text = quell({"outliers", path, "--verbose"});
  EXPECT_EQ(text.code, 0);
  EXPECT_NE(text.out.find("3 values not finite"), std::string::npos) << text.out;
}

TEST(W05, OneHugeWeightIsTheOutlierAndSpoilsNoNumber) {
  ChangedModel model;
  for (std::size_t i = 0; i < 64 * 64; ++i) {
    model.set(kProjection + ".weight", i, (i % 2 == 0 ? 1e-3F : -1e-3F) * (1 + i % 7 * 0.25F));
  }
  model.set(kProjection + ".weight", 9 * 64 + 33, 1e30F);
  model.set(kProjection + ".weight", 10 * 64, 1e-6F);
  const io::Json report = quell_json({"outliers", model.write()});
  const io::Json* tensor = tensor_of(report, kProjection);
  const io::Json& elements = *tensor->find("marked")->find("elements");
  ASSERT_EQ(elements.items().size(), 1U);
  EXPECT_EQ(elements.items()[0].find("row")->as_integer(), 9);
  EXPECT_EQ(elements.items()[0].find("col")->as_integer(), 33);
  EXPECT_NEAR(elements.items()[0].find("value")->as_number(), 1e30, 0.01e30);
  EXPECT_EQ(tensor->find("fp16_overflow")->as_integer(), 1);
  EXPECT_EQ(tensor->find("fp16_subnormal")->as_integer(), 1);
  // Of n values with one that is all of them: n - 3 + 1 / n - ..., within the rounding to bfloat16.
  EXPECT_NEAR(tensor->find("excess_kurtosis")->as_number(), 4096 - 3, 2);
  EXPECT_NEAR(tensor->find("median")->as_number(), 1.75e-3, 1e-5);
}

struct Overflowing : ChangedModel {
  /// Only the token "z" has something in channel 3, and the norm's weight takes it to infinity.
  Overflowing() {
    for (std::size_t token = 0; token < 300; ++token) {
      set("model.embed_tokens.weight", token * 64 + 3, token == 'z' ? 100.0F : 0.0F);
    }
    set("model.layers.0.input_layernorm.weight", 3, 3e38F);
  }
  /// `outliers` on documents of which the second has the token.
  std::vector<std::string> arguments(std::size_t documents) const {
    std::string words;
    for (std::size_t i = 0; i < documents; ++i) {
      words += i == 1 ? "a z\n<|endoftext|>\n" : "the river ran down to the sea\n<|endoftext|>\n";
    }
    const std::string text = (folder / "text.txt").string();
    write_bytes(text, words);
    return {"outliers", write(), "--calib", text, "--documents", "--samples", "1000"};
  }
};

TEST(H07, SequencesThatAreNotFiniteAreNamedCountedAndLeftOut) {
  const Overflowing model;
  const io::Json report = quell_json(model.arguments(100));
  ASSERT_EQ(report.find("excluded")->items().size(), 1U);
  EXPECT_EQ(report.find("excluded")->items()[0].find("sequence")->as_integer(), 1);
  EXPECT_EQ(report.find("excluded")->items()[0].find("place")->as_string(), "layers.0.qkv_in");
  EXPECT_EQ(report.find("sequences")->as_integer(), 99);
  const io::Json* input = tensor_of(report, "layers.0.qkv_in");
  EXPECT_EQ(input->find("nonfinite")->as_integer(), 0);
  EXPECT_LT(input->find("absmax")->as_number(), 100);
  const Ended text = quell(model.arguments(100));
  EXPECT_EQ(text.code, 0);
  EXPECT_NE(text.err.find("1 of 100 sequences"), std::string::npos) << text.err;
}

TEST(H07, MoreThanOneInAHundredIsAnError) {
  const Ended ended = quell(Overflowing().arguments(99));
  EXPECT_EQ(ended.code, 5);
  EXPECT_NE(ended.err.find("1 of 99 sequences"), std::string::npos) << ended.err;
  EXPECT_NE(ended.err.find("layers.0.qkv_in"), std::string::npos) << ended.err;
  EXPECT_EQ(ended.out, "");
}

TEST(H08, OneMassiveActivationIsReportedAndKeptFromTheFirstToken) {
  ChangedModel model;
  model.set("model.embed_tokens.weight", 'z' * 64 + 3, 1e6F);
  const std::string path = model.write(), text = (model.folder / "text.txt").string();
  std::string words;
  for (int i = 0; i < 40; ++i) words += "the river ran down to the sea ";
  write_bytes(text, words + "z " + words);
  const io::Json report =
      quell_json({"outliers", path, "--calib", text, "--seqlen", "64", "--samples", "1000"});
  const io::Json* embedding = tensor_of(report, "embedding");
  EXPECT_NEAR(embedding->find("absmax")->as_number(), 1e6, 1e4);
  EXPECT_NEAR(embedding->find("rest_absmax")->as_number(), 1e6, 1e4);
  EXPECT_LT(embedding->find("first_token_absmax")->as_number(), 10);
  bool found = false;
  for (const io::Json& hit : report.find("systematic")->items()) {
    if (hit.find("kind")->as_string() != "massive_activation") continue;
    if (hit.find("place")->as_string() != "embedding") continue;
    found = true;
    EXPECT_EQ(hit.find("channel")->as_integer(), 3);
    EXPECT_EQ(hit.find("token")->as_string(), "z");
    EXPECT_GT(hit.find("token_position")->as_integer(), 0);
    EXPECT_EQ(hit.find("sequences")->as_integer(), 1);
  }
  EXPECT_TRUE(found);
}

}  // namespace
}  // namespace quell::test
