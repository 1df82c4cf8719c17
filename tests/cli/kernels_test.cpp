// SPDX-License-Identifier: Apache-2.0

// Quantized models run by the kernels that an inference engine uses: `eval --kernels`,
// `--activations`, `generate`.

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <set>
#include <string>
#include <utility>

#include "cli/program.hpp"
#include "quell/core/executor.hpp"
#include "quell/core/tensor.hpp"
#include "quell/grid/scale.hpp"
#include "quell/io/export.hpp"
#include "quell/io/safetensors.hpp"
#include "support/safetensors_text.hpp"

namespace quell::test {
namespace {

std::string demonstration() {
  return std::string(QUELL_SOURCE_DIR) + "/examples/models/books7m";
}
std::string demonstration_text() {
  return std::string(QUELL_SOURCE_DIR) + "/examples/text/evaluation.txt";
}

/// The input channels with the largest weights, one in `every`, ascending.
std::vector<std::uint32_t> largest_columns(MatrixView<const float> weight, std::size_t every) {
  std::vector<double> norms(weight.cols());
  for (std::size_t r = 0; r < weight.rows(); ++r) {
    for (std::size_t c = 0; c < weight.cols(); ++c) {
      norms[c] += static_cast<double>(weight(r, c)) * static_cast<double>(weight(r, c));
    }
  }
  std::vector<std::uint32_t> columns(weight.cols());
  std::iota(columns.begin(), columns.end(), 0u);
  std::stable_sort(columns.begin(), columns.end(),
                   [&](std::uint32_t a, std::uint32_t b) { return norms[a] > norms[b]; });
  columns.resize(weight.cols() / every);
  std::sort(columns.begin(), columns.end());
  return columns;
}

/// The demonstration model with every linear of its blocks on `grid`, one in `every` of its columns
/// kept. The program runs such models; what makes them is the library.
void write_keeping(const std::filesystem::path& folder, const GridSpec& grid, std::size_t every) {
  SerialExecutor serial;
  const io::ExportLayout& layout = *io::find_export_layout("quell");
  const auto original = io::Checkpoint::open(demonstration());
  ASSERT_TRUE(original) << original.error().message;
  std::vector<io::ModulePlan> plans;
  std::string header, data;
  const auto add = [&](const std::string& name, DType dtype,
                       const std::vector<std::uint64_t>& shape, std::span<const std::byte> bytes) {
    std::string sizes;
    for (const std::uint64_t size : shape)
      sizes += (sizes.empty() ? "" : ",") + std::to_string(size);
    header += (header.empty() ? "{" : ",") + entry(name, to_string(dtype), "[" + sizes + "]",
                                                   data.size(), data.size() + bytes.size());
    data.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  };
  for (const io::TensorInfo& tensor : original->tensors()) {
    if (!tensor.name.ends_with("_proj.weight")) {
      std::vector<std::byte> bytes(tensor.bytes);
      ASSERT_TRUE(original->read(tensor, bytes));
      add(tensor.name, tensor.dtype, tensor.shape, bytes);
      continue;
    }
    const auto weight = original->read_floats(tensor.name);
    ASSERT_TRUE(weight);
    const std::vector<std::uint32_t> columns = largest_columns(weight->view(), every);
    const auto codes =
        quantize_keeping(weight->view(), grid, ScaleMethod::absmax, {}, columns, serial);
    ASSERT_TRUE(codes) << codes.error().message;
    const std::string name = tensor.name.substr(0, tensor.name.size() - 7);
    plans.push_back({name, grid, weight->rows(), weight->cols(), 0, columns.size()});
    const auto bytes = layout.encode(*codes);
    ASSERT_TRUE(bytes);
    const auto tensors = layout.tensors(plans.back());
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      add(tensors[i].name, tensors[i].dtype, tensors[i].shape, (*bytes)[i]);
    }
  }
  std::filesystem::create_directories(folder);
  write_bytes(folder / "model.safetensors", safetensors_bytes(header + "}", data));
  auto config = io::read_json(demonstration() + "/config.json");
  ASSERT_TRUE(config);
  config->set("quantization_config", layout.config(plans, {}));
  write_bytes(folder / "config.json", config->dump());
  std::filesystem::copy_file(demonstration() + "/tokenizer.json", folder / "tokenizer.json");
}

class Quantized : public testing::Test {
 protected:
  static std::string quantized(const std::filesystem::path& folder,
                               std::vector<std::string> options) {
    const std::string out = (folder / "out").string();
    options.insert(options.begin(),
                   {"quantize", demonstration(), "-o", out, "--method", "rtn", "--to", "quell"});
    const Ended ended = quell(options);
    EXPECT_EQ(ended.code, 0) << ended.err;
    return out;
  }
  static io::Json evaluated(const std::string& model, const std::vector<std::string>& options,
                            const Environment& environment = {}) {
    std::vector<std::string> arguments = {
        "eval",      model, "--against",    demonstration(), "--text", demonstration_text(),
        "--context", "256", "--max-tokens", "1024"};
    arguments.insert(arguments.end(), options.begin(), options.end());
    return quell_json(arguments, environment);
  }
  static double kl(const io::Json& json) {
    return json.find("against")->find("kl_mean")->as_number();
  }

  TemporaryFolder folder_;
};

TEST_F(Quantized, IsTheSameModelWhenItsCodesAreMultiplied) {
  const std::vector<std::vector<std::string>> schemes = {
      {"--scheme", "W4A16", "--group-size", "32"},
      {"--scheme", "W8A16", "--group-size", "-1"},
      {"--scheme", "W3A16", "--group-size", "64", "--asym"},
      {"--scheme", "W4A16", "--group-size", "32", "--per", "input"},
      {"--rule", "*=int4:sym:oc:g32:u4"},
      {"--rule", "*=iq4:sym:oc:g32"}};
  for (const auto& scheme : schemes) {
    TemporaryFolder folder;
    const std::string model = quantized(folder.path(), scheme);
    const double reference = kl(evaluated(model, {}));
    // The same weights: logits differ by rounding of float32, a millionth of a nat at most here.
    EXPECT_NEAR(kl(evaluated(model, {"--kernels"})), reference, 1e-6) << scheme[1];
    // Rounding activations to 8 bits adds noise, far less than rounding weights to 3 or 4.
    const double rounded = kl(evaluated(model, {"--activations", "int8"}));
    EXPECT_NE(rounded, reference) << scheme[1];
    EXPECT_NEAR(rounded, reference, 0.15 * reference + 0.003) << scheme[1];
  }
}

// On a small model: the plain C++ entries call a function for each fused multiplication.
TEST_F(Quantized, GivesTheSameBitsOnEveryInstructionSetAndNumberOfThreads) {
  const std::string original = make_model(folder_.path() / "original").string();
  const std::string model = (folder_.path() / "out").string();
  const std::string text = make_text(folder_.path() / "text.txt", 400).string();
  const Ended ended = quell({"quantize", original, "-o", model, "--method", "rtn", "--to", "quell",
                             "--scheme", "W4A16", "--group-size", "32", "--asym"});
  ASSERT_EQ(ended.code, 0) << ended.err;
  for (const char* activations : {"f32", "int8"}) {
    const auto with = [&](const char* threads, const Environment& environment) {
      return kl(
          quell_json({"eval", model, "--against", original, "--text", text, "--context", "64",
                      "--max-tokens", "256", "--activations", activations, "--threads", threads},
                     environment));
    };
    const double first = with("1", {});
    for (const char* isa : {"scalar", "avx2", "avx512"}) {
      EXPECT_EQ(first, with("3", {{"QUELL_ISA", isa}})) << activations << " " << isa;
    }
  }
}

// Codes and kept columns in one product, with both kinds of activations, against the weights
// written out.
TEST_F(Quantized, IsTheSameModelWithColumnsKeptBesideItsCodes) {
  const std::string model = (folder_ / "kept").string();
  write_keeping(model, *parse_grid("int4:sym:oc:g32"), 50);
  const double reference = kl(evaluated(model, {}));
  EXPECT_GT(reference, 0.001);
  EXPECT_NEAR(kl(evaluated(model, {"--kernels"})), reference, 1e-6);
  const double rounded = kl(evaluated(model, {"--activations", "int8"}));
  EXPECT_NE(rounded, reference);
  EXPECT_NEAR(rounded, reference, 0.15 * reference + 0.003);
  const auto generated = [&](const char* threads, const Environment& environment) {
    const Ended ended = quell({"generate", model, "--prompt", "The sea was", "--tokens", "24",
                               "--activations", "int8", "--threads", threads, "--json"},
                              environment);
    EXPECT_EQ(ended.code, 0) << ended.err;
    // No note that weights do not take int8 activations.
    EXPECT_EQ(ended.err.find("int8"), std::string::npos) << ended.err;
    return io::parse_json(ended.out, "standard output")->find("text")->as_string();
  };
  const std::string text = generated("2", {});
  EXPECT_EQ(text.substr(0, 11), "The sea was");
  EXPECT_EQ(generated("1", {{"QUELL_ISA", "avx2"}}), text);
}

TEST_F(Quantized, GeneratesText) {
  const std::string model = quantized(folder_.path(), {"--scheme", "W4A16", "--group-size", "32"});
  const std::vector<std::string> arguments = {"generate",    model,      "--prompt",
                                              "The sea was", "--tokens", "24"};
  const io::Json plain = quell_json(arguments);
  EXPECT_EQ(plain.find("tokens")->as_integer(), 24);
  EXPECT_EQ(plain.find("text")->as_string().substr(0, 11), "The sea was");
  EXPECT_GT(plain.find("decode_tokens_per_second")->as_number(), 0);
  std::vector<std::string> small = arguments;
  small.insert(small.end(), {"--activations", "int8", "--head", "int8:sym:oc:g32"});
  const io::Json first = quell_json(small);
  small.insert(small.end(), {"--threads", "1"});
  EXPECT_EQ(first.find("text")->as_string(),
            quell_json(small, {{"QUELL_ISA", "avx2"}}).find("text")->as_string());
}

// How far predictions move when keys and values are rounded. Measured over 2,040 tokens: less than
// 5e-6 nats with f16, 2e-5 with int8, 0.005 with int4; the bounds are some five times that.
TEST_F(Quantized, KeepsItsPredictionsOverASmallCache) {
  const auto with = [&](const char* cache) {
    const io::Json json = quell_json({"eval", demonstration(), "--against", demonstration(),
                                      "--text", demonstration_text(), "--context", "256",
                                      "--max-tokens", "512", "--cache", cache});
    EXPECT_EQ(json.find("cache")->as_string(), cache);
    return kl(json);
  };
  const double f16 = with("f16"), int8 = with("int8"), int4 = with("int4");
  EXPECT_GT(f16, 0);
  EXPECT_LT(f16, 1e-5);
  EXPECT_GT(int8, f16);
  EXPECT_LT(int8, 1e-4);
  EXPECT_GT(int4, int8);
  EXPECT_LT(int4, 0.025);
}

TEST_F(Quantized, GeneratesOverEveryCache) {
  std::string text;
  std::int64_t bytes = 0;
  for (const char* cache : {"f32", "f16", "int8", "int4"}) {
    const auto with = [&](const char* threads, const Environment& environment) {
      return quell_json({"generate", demonstration(), "--prompt", "The sea was", "--tokens", "40",
                         "--cache", cache, "--threads", threads},
                        environment);
    };
    const io::Json json = with("2", {});
    EXPECT_EQ(json.find("cache")->as_string(), cache);
    const std::int64_t size = json.find("cache_bytes_per_token")->as_integer();
    if (bytes != 0) {
      EXPECT_LT(size, bytes) << cache;
    }
    bytes = size;
    const std::string found = json.find("text")->as_string();
    EXPECT_EQ(with("1", {{"QUELL_ISA", "avx2"}}).find("text")->as_string(), found) << cache;
    if (text.empty()) text = found;
    if (std::string_view(cache) == "f16") {
      EXPECT_EQ(found, text);
    }
  }
}

TEST_F(Quantized, SaysWhichWeightsDoNotTakeInt8Activations) {
  const std::string model = quantized(folder_.path(), {"--rule", "*=nf4:sym:oc:g64"});
  for (const std::vector<std::string>& verb :
       {std::vector<std::string>{"generate", model, "--prompt", "a", "--tokens", "2"},
        std::vector<std::string>{"eval", model, "--text", demonstration_text(), "--context", "64",
                                 "--max-tokens", "128"}}) {
    std::vector<std::string> arguments = verb;
    EXPECT_EQ(quell(arguments).err.find("int8"), std::string::npos) << quell(arguments).err;
    arguments.insert(arguments.end(), {"--activations", "int8"});
    const Ended ended = quell(arguments);
    EXPECT_EQ(ended.code, 0) << ended.err;
    EXPECT_NE(ended.err.find("nf4:sym:oc:g64"), std::string::npos) << ended.err;
    EXPECT_NE(ended.err.find("codebook"), std::string::npos) << ended.err;
  }
}

TEST_F(Quantized, RefusesWhatItCannotDo) {
  const std::vector<std::string> start = {"generate", demonstration(), "--prompt", "a"};
  const auto with = [&](std::vector<std::string> options) {
    options.insert(options.begin(), start.begin(), start.end());
    return quell(options);
  };
  expect_error(with({"--head", "int4:sym:ic:g32"}), 2, {"head", "int4:sym:ic:g32", "(oc)"});
  expect_error(with({"--head", "int5"}), 2, {"int5", "int4"});
  expect_error(with({"--activations", "f16"}), 2, {"--activations", "f32", "int8"});
  expect_error(with({"--cache", "int5"}), 2, {"--cache", "int5", "f16", "int4"});
}

TEST(Bench, MeasuresTheShapesOfAModelBesideTheLimitsOfTheMachine) {
  const TemporaryFolder folder;
  const std::string model = make_model(folder / "model").string();
  const io::Json json = quell_json({"bench", "--model", model, "--max-memory", "3MB"});
  std::set<std::string> limits;
  for (const io::Json& limit : json.find("limits")->items()) {
    limits.insert(std::string(limit.find("name")->as_string()));
  }
  EXPECT_EQ(limits, (std::set<std::string>{"dram_read_gbs", "f32_gflops", "int8_gops"}));
  std::set<std::pair<double, double>> shapes;
  for (const io::Json& result : json.find("results")->items()) {
    shapes.emplace(result.find("n")->as_number(), result.find("k")->as_number());
    EXPECT_EQ(result.find("family")->as_string(), "gemm_w16a16");
    EXPECT_EQ(result.find("grid")->as_string(), "bf16");
    const double seconds = result.find("seconds")->as_number();
    EXPECT_GT(seconds, 0);
    EXPECT_NEAR(result.find("gops")->as_number() * seconds * 1e9,
                2 * result.find("m")->as_number() * result.find("n")->as_number() *
                    result.find("k")->as_number(),
                1);
  }
  // q and o, k and v, gate and up, down.
  EXPECT_EQ(shapes,
            (std::set<std::pair<double, double>>{{64, 64}, {32, 64}, {160, 64}, {64, 160}}));
}

TEST(Bench, NamesAModelThatIsNotThere) {
  expect_error(quell({"bench", "--model", "/nowhere"}), 3, {"/nowhere"});
}

}  // namespace
}  // namespace quell::test
