// SPDX-License-Identifier: Apache-2.0

// Writes a Llama with random weights in bf16, as large as asked for, in shards, with a tokenizer:
// the model on which memory and time of the main job are measured. Weights come from a
// counter-based generator, so every machine writes the same bytes.
//
//   make_llama OUT LAYERS HIDDEN HEADS KV_HEADS INTERMEDIATE VOCABULARY SHARDS

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "quell/core/executor.hpp"
#include "quell/core/half.hpp"
#include "quell/core/random.hpp"
#include "quell/io/json.hpp"
#include "quell/io/safetensors.hpp"

namespace {

using quell::io::Json;

struct Shape {
  std::uint64_t layers, hidden, heads, kv_heads, intermediate, vocabulary, shards;
};

Json config(const Shape& shape) {
  Json json = Json::object();
  json.set("architectures", Json::array({"LlamaForCausalLM"}));
  json.set("model_type", "llama");
  json.set("hidden_size", shape.hidden);
  json.set("intermediate_size", shape.intermediate);
  json.set("num_hidden_layers", shape.layers);
  json.set("num_attention_heads", shape.heads);
  json.set("num_key_value_heads", shape.kv_heads);
  json.set("vocab_size", shape.vocabulary);
  json.set("max_position_embeddings", 2048);
  json.set("hidden_act", "silu");
  json.set("rms_norm_eps", 1e-5);
  json.set("rope_theta", 10000.0);
  json.set("tie_word_embeddings", false);
  json.set("bos_token_id", 256);
  json.set("torch_dtype", "bfloat16");
  return json;
}

void append_utf8(std::string& text, unsigned point) {
  if (point < 0x80) {
    text += static_cast<char>(point);
  } else {
    text += static_cast<char>(0xC0 | (point >> 6));
    text += static_cast<char>(0x80 | (point & 0x3F));
  }
}

// A byte-level BPE without merges: one token per byte, and a BOS in front.
Json tokenizer() {
  Json vocabulary = Json::object();
  unsigned next = 256;
  for (unsigned byte = 0; byte < 256; ++byte) {
    // The printable stand-ins of byte-level BPE: bytes that print are themselves, the rest follow.
    const bool prints =
        (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
    std::string piece;
    append_utf8(piece, prints ? byte : next++);
    vocabulary.set(piece, byte);
  }
  vocabulary.set("<|bos|>", 256);
  Json model =
      Json::object({{"type", "BPE"}, {"vocab", std::move(vocabulary)}, {"merges", Json::array()}});
  Json bos = Json::object({{"id", 256},
                           {"content", "<|bos|>"},
                           {"special", true},
                           {"normalized", false},
                           {"single_word", false},
                           {"lstrip", false},
                           {"rstrip", false}});
  const Json byte_level = Json::object({{"type", "ByteLevel"},
                                        {"add_prefix_space", false},
                                        {"trim_offsets", true},
                                        {"use_regex", true}});
  Json single = Json::array(
      {Json::object({{"SpecialToken", Json::object({{"id", "<|bos|>"}, {"type_id", 0}})}}),
       Json::object({{"Sequence", Json::object({{"id", "A"}, {"type_id", 0}})}})});
  Json specials = Json::object({{"<|bos|>", Json::object({{"id", "<|bos|>"},
                                                          {"ids", Json::array({256})},
                                                          {"tokens", Json::array({"<|bos|>"})}})}});
  Json post = Json::object({{"type", "TemplateProcessing"},
                            {"single", single},
                            {"pair", single},
                            {"special_tokens", std::move(specials)}});
  return Json::object({{"version", "1.0"},
                       {"added_tokens", Json::array({std::move(bos)})},
                       {"normalizer", Json()},
                       {"pre_tokenizer", byte_level},
                       {"post_processor", std::move(post)},
                       {"decoder", byte_level},
                       {"model", std::move(model)}});
}

// Bytes of one tensor. Matrices are the sum of two uniforms scaled to a deviation of 0.02, with
// every 97th input channel four times as wide, so that there is something for a quantizer to do;
// norms are 1.
void fill(const quell::io::TensorPlan& tensor, std::uint64_t stream,
          std::vector<std::uint16_t>& out, quell::Executor& executor) {
  const std::uint64_t count = tensor.bytes / 2;
  out.resize(count);
  if (tensor.shape.size() == 1) {
    std::fill(out.begin(), out.end(), quell::float_to_bf16(1.0f));
    return;
  }
  const std::uint64_t cols = tensor.shape[1];
  const quell::Random random(20260101, stream);
  executor.run(count, 1 << 16, [&](std::size_t begin, std::size_t end, unsigned) {
    for (std::size_t i = begin; i < end; i += 4) {
      const auto words = random.words(i / 4);
      for (std::size_t j = i; j < std::min(i + 4, end); ++j) {
        const std::uint32_t word = words[j - i];
        // Two 16-bit uniforms: mean 65535, deviation 26754.5.
        const float centred = static_cast<float>((word & 0xFFFF) + (word >> 16)) - 65535.0f;
        const float width = j % cols % 97 == 0 ? 4.0f : 1.0f;
        out[j] = quell::float_to_bf16(centred * (0.02f / 26754.5f) * width);
      }
    }
  });
}

int fail(const std::string& message) {
  std::fprintf(stderr, "make_llama: %s\n", message.c_str());
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 9) return fail("OUT LAYERS HIDDEN HEADS KV_HEADS INTERMEDIATE VOCABULARY SHARDS");
  std::uint64_t numbers[7];
  for (int i = 0; i < 7; ++i) numbers[i] = std::strtoull(argv[i + 2], nullptr, 10);
  const Shape s{numbers[0], numbers[1], numbers[2], numbers[3], numbers[4], numbers[5], numbers[6]};
  const std::filesystem::path folder = argv[1];
  std::filesystem::create_directories(folder);

  std::vector<quell::io::TensorPlan> tensors;
  const auto add = [&](const std::string& name, std::vector<std::uint64_t> shape) {
    tensors.push_back({name, quell::DType::bf16, std::move(shape)});
  };
  const std::uint64_t kv = s.hidden / s.heads * s.kv_heads;
  add("model.embed_tokens.weight", {s.vocabulary, s.hidden});
  for (std::uint64_t i = 0; i < s.layers; ++i) {
    const std::string block = "model.layers." + std::to_string(i) + ".";
    add(block + "input_layernorm.weight", {s.hidden});
    add(block + "self_attn.q_proj.weight", {s.hidden, s.hidden});
    add(block + "self_attn.k_proj.weight", {kv, s.hidden});
    add(block + "self_attn.v_proj.weight", {kv, s.hidden});
    add(block + "self_attn.o_proj.weight", {s.hidden, s.hidden});
    add(block + "post_attention_layernorm.weight", {s.hidden});
    add(block + "mlp.gate_proj.weight", {s.intermediate, s.hidden});
    add(block + "mlp.up_proj.weight", {s.intermediate, s.hidden});
    add(block + "mlp.down_proj.weight", {s.hidden, s.intermediate});
  }
  add("model.norm.weight", {s.hidden});
  add("lm_head.weight", {s.vocabulary, s.hidden});
  std::uint64_t total = 0;
  for (const auto& tensor : tensors) total += 2 * *quell::element_count(tensor.shape);
  // A twentieth more than an even share: shards are filled greedily and must not overflow into one
  // more.
  const std::uint64_t limit =
      s.shards <= 1 ? total + 1 : total / s.shards + total / (20 * s.shards);
  auto plan = quell::io::plan_folder(std::move(tensors), limit, {});
  if (!plan) return fail(plan.error().message);

  const std::unique_ptr<quell::Executor> executor = quell::make_openmp_executor();
  std::vector<std::uint16_t> values;
  for (std::uint32_t shard = 0; shard < plan->shards.size(); ++shard) {
    std::ofstream file(folder / plan->shards[shard].file_name, std::ios::binary);
    file.write(plan->shards[shard].header.data(),
               static_cast<std::streamsize>(plan->shards[shard].header.size()));
    for (std::size_t t = 0; t < plan->tensors.size(); ++t) {
      const quell::io::TensorPlan& tensor = plan->tensors[t];
      if (tensor.shard != shard) continue;
      fill(tensor, t, values, *executor);
      file.seekp(static_cast<std::streamoff>(tensor.offset));
      file.write(reinterpret_cast<const char*>(values.data()),
                 static_cast<std::streamsize>(tensor.bytes));
    }
    if (!file.flush()) return fail("writing failed");
  }
  if (!plan->index_json.empty())
    std::ofstream(folder / "model.safetensors.index.json") << plan->index_json;
  std::ofstream(folder / "config.json") << config(s).dump(2) << "\n";
  std::ofstream(folder / "tokenizer.json") << tokenizer().dump() << "\n";
  return 0;
}
