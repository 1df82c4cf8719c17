// SPDX-License-Identifier: Apache-2.0

// A model of the size of a small real one, in a budget: the peak stays below it and the bytes are
// those of an unlimited run. Two blocks in every test run; all 22 where the argument says so. And
// matrices of any size, of which outliers are found in less than 300 MB.

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include "program.hpp"
#include "quell/io/safetensors.hpp"

namespace quell::test {
namespace {

void quantize_in_budget(const std::string& layers, const std::string& budget, double budget_bytes) {
  const TemporaryFolder folder;
  const std::string model =
      make_model(folder / "model", {layers, "2048", "32", "4", "5632", "32000", "4"}).string();
  const std::string text = make_text(folder / "text.txt", 4000).string();
  const auto arguments = [&](const std::string& output) {
    return std::vector<std::string>{"quantize", model, "-o",        (folder / output).string(),
                                    "--calib",  text,  "--samples", "8",
                                    "--seqlen", "512"};
  };
  auto tight = arguments("tight");
  tight.insert(tight.end(), {"--max-memory", budget});
  const io::Json limited = quell_json(tight);
  std::filesystem::remove_all(folder / "tight");
#if defined(QUELL_LARGE_MODEL)
  // Of small models cli_quantize_test tells it.
  const io::Json free = quell_json(arguments("free"));
  EXPECT_EQ(hash_of(limited), hash_of(free));
#endif
  const double peak = limited.find("peak_rss_bytes")->as_number();
  EXPECT_LT(peak, budget_bytes);
  std::printf("%s blocks: %.1f s, peak %.0f MB of %s, phases %s\n", layers.c_str(),
              limited.find("seconds")->as_number(), peak / 1e6, budget.c_str(),
              limited.find("phases")->dump().c_str());
  const io::Json plan = [&] {
    auto dry = tight;
    dry.push_back("--dry-run");
    return quell_json(dry);
  }();
  // The promise of the plan: never more than 5 % above the prediction.
  EXPECT_LT(peak, 1.05 * plan.find("peak_memory_bytes")->as_number());
}

/// A Llama of one block whose tensors are holes in the file, but for one matrix of random numbers.
void make_sparse_llama(const std::filesystem::path& folder, std::uint64_t hidden,
                       std::uint64_t intermediate, DType dtype, const std::string& filled) {
  make_model(folder, {"1", "64", "4", "2", "160", "300", "1"});
  const std::string config_file = (folder / "config.json").string();
  auto config = io::parse_json(read_bytes(config_file), config_file);
  ASSERT_TRUE(config);
  config->set("hidden_size", hidden);
  config->set("intermediate_size", intermediate);
  config->set("num_attention_heads", 64);
  config->set("num_key_value_heads", 1);
  write_bytes(config_file, config->dump());
  const std::string block = "model.layers.0.";
  const std::uint64_t head = hidden / 64;
  const auto plan =
      io::plan_folder({{"model.embed_tokens.weight", dtype, {300, hidden}},
                       {block + "input_layernorm.weight", dtype, {hidden}},
                       {block + "self_attn.q_proj.weight", dtype, {hidden, hidden}},
                       {block + "self_attn.k_proj.weight", dtype, {head, hidden}},
                       {block + "self_attn.v_proj.weight", dtype, {head, hidden}},
                       {block + "self_attn.o_proj.weight", dtype, {hidden, hidden}},
                       {block + "post_attention_layernorm.weight", dtype, {hidden}},
                       {block + "mlp.gate_proj.weight", dtype, {intermediate, hidden}},
                       {block + "mlp.up_proj.weight", dtype, {intermediate, hidden}},
                       {block + "mlp.down_proj.weight", dtype, {hidden, intermediate}},
                       {"model.norm.weight", dtype, {hidden}},
                       {"lm_head.weight", dtype, {300, hidden}}},
                      std::uint64_t{1} << 40, {});
  ASSERT_TRUE(plan) << plan.error().message;
  const std::filesystem::path file = folder / plan->shards[0].file_name;
  std::ofstream out(file, std::ios::binary | std::ios::trunc);
  out << plan->shards[0].header;
  for (const io::TensorPlan& tensor : plan->tensors) {
    if (tensor.name != block + filled) continue;
    out.seekp(static_cast<std::streamoff>(tensor.offset));
    // Uniform numbers of one megabyte, over and over.
    std::string bytes;
    unsigned state = 1;
    while (bytes.size() < (std::size_t{1} << 20)) {
      state = state * 1664525u + 1013904223u;
      const float value = static_cast<float>(static_cast<int>(state >> 8) - (1 << 23)) * 0x1p-26F;
      const auto* from = reinterpret_cast<const char*>(&value);
      if (dtype == DType::f32) bytes.append(from, 2);
      bytes.append(from + 2, 2);
    }
    for (std::uint64_t done = 0; done < tensor.bytes; done += bytes.size()) out << bytes;
  }
  out.close();
  std::filesystem::resize_file(file, plan->shards[0].bytes);
}

void find_outliers_in_little_memory(std::uint64_t intermediate, DType dtype,
                                    const std::string& filled) {
  const TemporaryFolder folder;
  const std::string model = (folder / "model").string();
  make_sparse_llama(model, 8192, intermediate, dtype, "mlp." + filled + ".weight");
  const io::Json found = quell_json({"outliers", model});
  const double peak = found.find("peak_rss_bytes")->as_number();
  std::printf("matrices of %.0f MB: %.1f s, peak %.0f MB\n",
              8192 * static_cast<double>(intermediate) * static_cast<double>(bits(dtype)) / 8e6,
              found.find("seconds")->as_number(), peak / 1e6);
  EXPECT_LT(peak, 300e6);
  bool any = false;
  for (const io::Json& tensor : found.find("tensors")->items()) {
    const bool is_filled = tensor.find("name")->as_string() == "model.layers.0.mlp." + filled;
    any |= is_filled;
    EXPECT_EQ(tensor.find("zero_rows")->as_integer() == 0, is_filled);
    if (!is_filled) continue;
    // Uniform in [-1/8, 1/8); of bfloat16 the lower bits are cut off.
    EXPECT_NEAR(tensor.find("median")->as_number(), 1.0 / 16, 1e-3);
    EXPECT_NEAR(tensor.find("excess_kurtosis")->as_number(), -1.2, 0.02);
  }
  EXPECT_TRUE(any);
}

#if defined(QUELL_LARGE_MODEL)
TEST(Memory, OutliersOfMatricesOfAGigabyteAreFoundInLittleMemory) {
  find_outliers_in_little_memory(28672, DType::f32, "down_proj");
}

TEST(Memory, AModelOfABillionParametersFitsInItsBudget) {
  quantize_in_budget("22", "1500MB", 1.5e9);
}
#else
TEST(Memory, AModelOfWideBlocksFitsInItsBudget) {
  // A little more than the least; without a limit the plan is 1470 MB.
  quantize_in_budget("2", "1375MB", 1.375e9);
}

TEST(Memory, OutliersOfMatricesOf256MegabytesAreFoundInLittleMemory) {
  find_outliers_in_little_memory(16384, DType::bf16, "up_proj");
}
#endif

}  // namespace
}  // namespace quell::test
