// SPDX-License-Identifier: Apache-2.0

// Where the time of the reference forward pass goes, at 512 tokens. One block of a real shape runs
// as the engine runs it (`block`); then its parts run alone, on the same data and threads, each as
// often as the block needs it. Times are wall times, the smallest of a few runs: the parts are
// compared with each other, and a neighbour on the machine only ever adds.
//
//   linears          the seven products        share_of_dense = their rate / that of gemm_dense on
//   the
//                                               same shapes, which has to pack the weights every
//                                               time
//   attention        scores, softmax, sum of values, with its softmax counted below as well
//   softmax / norms / activation / rest         rest: rotations and residual sums
//
// `elementwise_share` is softmax, norms, activation and rest over the whole block.

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "engine/attention.hpp"
#include "quell/core/random.hpp"
#include "quell/engine/engine.hpp"
#include "quell/kernels/elementwise.hpp"

namespace {

using namespace quell;  // NOLINT: a program
using Clock = std::chrono::steady_clock;

constexpr std::size_t kTokens = 512;

struct Shape {
  const char* name;
  std::size_t hidden, intermediate, heads, kv_heads, head_dim;
};
constexpr Shape kShapes[] = {{"llama1.1b", 2048, 5632, 32, 4, 64},
                             {"llama8b", 4096, 14336, 32, 8, 128},
                             {"books7m", 256, 768, 4, 2, 64}};

template <typename T>
T must(Result<T> result) {
  if (!result) {
    std::fprintf(stderr, "engine_bench: %s\n", result.error().message.c_str());
    std::exit(1);
  }
  return std::move(*result);
}

Matrix random_matrix(std::size_t rows, std::size_t cols, float scale, std::uint64_t seed) {
  Matrix matrix = must(Matrix::uninitialized(rows, cols));
  Random(seed).fill_uniform(matrix.values());
  for (float& value : matrix.values()) value = (2 * value - 1) * scale;
  return matrix;
}

/// A model folder of one block whose weights are a hole in the file; the bench gives its own.
std::filesystem::path write_hollow_model(const Shape& shape) {
  const std::filesystem::path folder =
      std::filesystem::temp_directory_path() / (std::string("quell-engine-bench-") + shape.name);
  std::filesystem::create_directories(folder);
  const std::size_t q = shape.heads * shape.head_dim, kv = shape.kv_heads * shape.head_dim;
  std::string header = "{";
  std::uint64_t end = 0;
  const auto tensor = [&](const std::string& name, std::vector<std::size_t> sizes) {
    std::string text;
    std::uint64_t bytes = 2;
    for (const std::size_t size : sizes) {
      text += (text.empty() ? "" : ",") + std::to_string(size);
      bytes *= size;
    }
    header += (header.size() > 1 ? ",\"" : "\"") + name + "\":{\"dtype\":\"BF16\",\"shape\":[" +
              text + "],\"data_offsets\":[" + std::to_string(end) + "," +
              std::to_string(end + bytes) + "]}";
    end += bytes;
  };
  const std::string layer = "model.layers.0.";
  tensor("model.embed_tokens.weight", {64, shape.hidden});
  tensor("model.norm.weight", {shape.hidden});
  tensor(layer + "input_layernorm.weight", {shape.hidden});
  tensor(layer + "post_attention_layernorm.weight", {shape.hidden});
  tensor(layer + "self_attn.q_proj.weight", {q, shape.hidden});
  tensor(layer + "self_attn.k_proj.weight", {kv, shape.hidden});
  tensor(layer + "self_attn.v_proj.weight", {kv, shape.hidden});
  tensor(layer + "self_attn.o_proj.weight", {shape.hidden, q});
  tensor(layer + "mlp.gate_proj.weight", {shape.intermediate, shape.hidden});
  tensor(layer + "mlp.up_proj.weight", {shape.intermediate, shape.hidden});
  tensor(layer + "mlp.down_proj.weight", {shape.hidden, shape.intermediate});
  header += "}";
  header.append((8 - header.size() % 8) % 8, ' ');
  {
    std::ofstream file(folder / "model.safetensors", std::ios::binary);
    for (int i = 0; i < 8; ++i) file.put(static_cast<char>((header.size() >> (8 * i)) & 255));
    file << header;
  }
  std::filesystem::resize_file(folder / "model.safetensors", 8 + header.size() + end);
  std::ofstream config(folder / "config.json");
  config << R"({"architectures":["LlamaForCausalLM"],"num_hidden_layers":1,"vocab_size":64,)"
         << R"("max_position_embeddings":2048,"tie_word_embeddings":true,"hidden_size":)"
         << shape.hidden << ",\"intermediate_size\":" << shape.intermediate
         << ",\"num_attention_heads\":" << shape.heads
         << ",\"num_key_value_heads\":" << shape.kv_heads << ",\"head_dim\":" << shape.head_dim
         << "}";
  return folder;
}

class RandomWeights final : public engine::WeightSource {
 public:
  Result<Matrix> weight(const model::Linear& linear) override {
    // Variance 1 / cols keeps activations near 1.
    const float scale = 1.7f / std::sqrt(static_cast<float>(linear.cols));
    return random_matrix(linear.rows, linear.cols, scale, linear.rows + linear.cols);
  }
};

/// Seconds of the quickest of a few runs, at least 0.4 s of them.
template <typename F>
double quickest(F&& run) {
  double best = 1e30, total = 0;
  for (int i = 0; i < 3 || (total < 0.4 && i < 200); ++i) {
    const auto begin = Clock::now();
    run();
    const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    best = std::min(best, seconds);
    total += seconds;
  }
  return best;
}

struct Parts {
  double block = 0, linears = 0, dense = 0, attention = 0;
  double softmax = 0, norms = 0, activation = 0, rest = 0;
  double linear_flops = 0;
};

Parts measure(const Shape& shape, unsigned threads) {
  const std::filesystem::path folder = write_hollow_model(shape);
  const auto executor = make_openmp_executor(threads);
  const model::Model model = must(model::Model::load(folder));
  engine::Engine engine = must(engine::Engine::create(model, *executor));
  RandomWeights source;
  engine::BlockWeights block = must(engine.load_block(0, &source));
  for (Matrix* norm : {&block.attention_norm, &block.mlp_norm}) {
    std::fill(norm->values().begin(), norm->values().end(), 1.0f);
  }
  kernels::Context& context = engine.context();

  const std::size_t q = shape.heads * shape.head_dim, kv = shape.kv_heads * shape.head_dim;
  const std::uint32_t length = kTokens;
  Matrix x = random_matrix(kTokens, shape.hidden, 1, 1);
  const Matrix start = random_matrix(kTokens, shape.hidden, 1, 1);
  Parts parts;
  parts.block = quickest([&] {
    std::memcpy(x.data(), start.data(), x.size() * sizeof(float));
    must(engine.run_block(block, {&length, 1}, x.view()));
  });

  Matrix narrow = random_matrix(kTokens, shape.hidden, 1, 2);
  Matrix heads = random_matrix(kTokens, q + 2 * kv, 1, 3);
  Matrix gate = random_matrix(kTokens, shape.intermediate, 1, 4);
  Matrix up = random_matrix(kTokens, shape.intermediate, 1, 5);
  Matrix attended = random_matrix(kTokens, q, 1, 6);
  const auto queries = heads.view().cols_from(0, q), keys = heads.view().cols_from(q, kv),
             values = heads.view().cols_from(q + kv, kv);
  struct Product {
    const kernels::PackedWeights* weights;
    MatrixView<const float> x;
    MatrixView<float> y;
  };
  const std::vector<Product> products = {{&block.qkv[0].weight, start.view(), queries},
                                         {&block.qkv[1].weight, start.view(), keys},
                                         {&block.qkv[2].weight, start.view(), values},
                                         {&block.o.weight, attended.view(), narrow.view()},
                                         {&block.gate_up[0].weight, start.view(), gate.view()},
                                         {&block.gate_up[1].weight, start.view(), up.view()},
                                         {&block.down.weight, up.view(), narrow.view()}};
  parts.linears = quickest([&] {
    for (const Product& p : products) must(kernels::gemm(p.x, *p.weights, p.y, context));
  });
  for (const Product& p : products) {
    parts.linear_flops +=
        2.0 * kTokens * static_cast<double>(p.weights->rows() * p.weights->cols());
    const Matrix weight = random_matrix(p.weights->rows(), p.weights->cols(), 1, 7);
    const kernels::DenseProduct product{{p.x, false}, {weight.view(), false}, p.y};
    parts.dense += quickest([&] { must(kernels::gemm_dense(product, context)); });
  }

  // Inputs as large as after the products: softmax of scores near 1, not of zeros.
  Random(8).fill_uniform(heads.values());
  engine::Attention attention(*executor);
  const engine::AttentionItem item{queries, keys, values, attended.view()};
  engine::AttentionShape attention_shape;
  attention_shape.heads = shape.heads;
  attention_shape.kv_heads = shape.kv_heads;
  attention_shape.head_dim = shape.head_dim;
  attention_shape.scale = 0.125f;
  parts.attention = quickest([&] { must(attention.run({&item, 1}, attention_shape)); });
  // The same tiles of scores as inside attention: 128 queries, the keys up to the last of them.
  std::vector<Matrix> tiles;
  for (unsigned slot = 0; slot < executor->width(); ++slot) {
    tiles.push_back(random_matrix(128, kTokens, 1, slot));
  }
  parts.softmax = quickest([&] {
    executor->run(shape.heads, 1, [&](std::size_t begin, std::size_t end, unsigned slot) {
      for (std::size_t head = begin; head < end; ++head) {
        for (std::size_t row = 0; row < kTokens; row += 128) {
          kernels::attention_softmax(tiles[slot].view().cols_from(0, row + 128), 0.125f, 0,
                                     {row, 0, true});
        }
      }
    });
  });
  parts.norms =
      2 * quickest([&] {
        kernels::rms_norm(start.view(), block.mlp_norm.values(), 1e-5f, narrow.view(), context);
      });
  parts.activation = quickest([&] {
    kernels::activate_and_multiply(kernels::Activation::silu, gate.view(), up.view(), context);
  });
  const Matrix cosine = random_matrix(kTokens, shape.head_dim / 2, 1, 9);
  parts.rest = quickest([&] {
    kernels::rotate(queries, shape.heads, shape.head_dim, cosine.view(), cosine.view(), context);
    kernels::rotate(keys, shape.kv_heads, shape.head_dim, cosine.view(), cosine.view(), context);
    kernels::add(x.view(), narrow.view(), context);
    kernels::add(x.view(), narrow.view(), context);
  });
  std::filesystem::remove_all(folder);
  return parts;
}

void run_case(benchmark::State& state, const Shape& shape, unsigned threads) {
  Parts parts;
  for (auto _ : state) {
    parts = measure(shape, threads);
    state.SetIterationTime(parts.block);
  }
  const double elementwise = parts.softmax + parts.norms + parts.activation + parts.rest;
  state.counters["linears_GFLOPs"] = parts.linear_flops / parts.linears * 1e-9;
  state.counters["share_of_dense"] = parts.dense / parts.linears;
  state.counters["linears_ms"] = 1e3 * parts.linears;
  state.counters["attention_ms"] = 1e3 * parts.attention;
  state.counters["softmax_ms"] = 1e3 * parts.softmax;
  state.counters["norms_ms"] = 1e3 * parts.norms;
  state.counters["activation_ms"] = 1e3 * parts.activation;
  state.counters["rest_ms"] = 1e3 * parts.rest;
  state.counters["elementwise_share"] = elementwise / parts.block;
  state.counters["block_GFLOPs"] = parts.linear_flops / parts.block * 1e-9;
}

}  // namespace

int main(int argc, char** argv) {
  for (const Shape& shape : kShapes) {
    for (const unsigned threads : {1u, 2u}) {
      const std::string name =
          std::string("engine/block/") + shape.name + "/T512/threads" + std::to_string(threads);
      benchmark::RegisterBenchmark(
          name.c_str(),
          [&shape, threads](benchmark::State& state) { run_case(state, shape, threads); })
          ->UseManualTime()
          ->Iterations(1)
          ->Unit(benchmark::kMillisecond);
    }
  }
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
