// SPDX-License-Identifier: Apache-2.0

// Models whose linears are codes on disk: in every layout of the table, loading them gives the
// network that the dequantized weights give.

#include <gtest/gtest.h>

#include <map>
#include <string>

#include "engine/running.hpp"
#include "quell/grid/scale.hpp"
#include "quell/io/export.hpp"
#include "support/compare.hpp"
#include "support/golden_model.hpp"

namespace quell {
namespace {

using engine::Engine;
using model::Model;

/// Every block linear of a golden model quantized on `grid` and stored in `layout`.
struct Quantized {
  Quantized(const char* name, const io::ExportLayout& layout, const GridSpec& grid) {
    test::GoldenModel golden = test::read_golden(name);
    golden.write(plain.path());
    auto loaded = Model::load(plain.path());
    EXPECT_TRUE(loaded.has_value()) << loaded.error().message;
    original = std::make_unique<Model>(*std::move(loaded));
    std::vector<io::ModulePlan> plans;
    SerialExecutor serial;
    for (const model::Block& block : original->blocks()) {
      for (const model::Site site : model::kSites) {
        for (const model::Linear* linear : linears_at(block, site)) {
          const io::ModulePlan plan{linear->name, grid, linear->rows, linear->cols};
          refused = layout.refuse(plan);
          if (!refused.empty()) return;
          auto weight = original->weight(*linear, serial);
          auto scales = choose_scales(weight->view(), grid, ScaleMethod::absmax, {}, serial);
          auto codes = quantize_to_grid(weight->view(), grid, *std::move(scales), serial);
          EXPECT_TRUE(codes.has_value());
          Matrix values = *Matrix::uninitialized(linear->rows, linear->cols);
          EXPECT_TRUE(dequantize(*codes, values.view(), serial).has_value());
          expected.emplace(linear->name, std::move(values));
          golden.remove(linear->name + ".weight");
          const auto tensors = layout.tensors(plan);
          const auto bytes = layout.encode(*codes);
          EXPECT_TRUE(bytes.has_value());
          for (std::size_t i = 0; i < tensors.size(); ++i) {
            test::GoldenTensor stored;
            stored.name = tensors[i].name;
            stored.shape = tensors[i].shape;
            stored.dtype = to_string(tensors[i].dtype);
            stored.raw.assign(reinterpret_cast<const char*>((*bytes)[i].data()),
                              (*bytes)[i].size());
            golden.put(stored);
          }
          plans.push_back(plan);
        }
      }
    }
    const std::vector<std::string> ignored = {"lm_head"};
    golden.config.set("quantization_config", layout.config(plans, ignored));
    golden.write(packed.path());
    ids = golden.ids;
  }
  test::TemporaryFolder plain, packed;
  std::unique_ptr<Model> original;
  std::map<std::string, Matrix> expected;
  std::vector<std::int32_t> ids;
  std::string refused;
};

class Dequantized final : public engine::WeightSource {
 public:
  explicit Dequantized(const std::map<std::string, Matrix>& weights) : weights_(weights) {}
  Result<Matrix> weight(const model::Linear& linear) override {
    const Matrix& from = weights_.at(linear.name);
    QUELL_TRY(copy, Matrix::uninitialized(from.rows(), from.cols()));
    std::copy(from.values().begin(), from.values().end(), copy.values().begin());
    return copy;
  }

 private:
  const std::map<std::string, Matrix>& weights_;
};

TEST(QuantizedModel, RunsAsItsDequantizedWeightsDoInEveryLayout) {
  SerialExecutor serial;
  for (const io::ExportLayout& layout : io::export_layouts()) {
    int ran = 0;
    for (const char* word :
         {"int4:sym:oc:g32", "int4:asym:oc:g32", "int8:sym:oc", "int3:sym:ic:g8"}) {
      const GridSpec grid = *parse_grid(word);
      for (const char* name : {"llama", "qwen2", "gpt2"}) {
        Quantized quantized(name, layout, grid);
        if (!quantized.refused.empty()) continue;  // a layout may not hold every grid
        SCOPED_TRACE(std::string(layout.name) + " " + word + " " + name);
        const auto model = Model::load(quantized.packed.path());
        ASSERT_TRUE(model.has_value()) << model.error().message;
        EXPECT_EQ(model->quantized().layout(), layout.name);
        EXPECT_TRUE(model->warnings().empty()) << model->warnings().front();
        EXPECT_EQ(model->parameters(), quantized.original->parameters());
        auto engine = Engine::create(*model, serial);
        auto reference = Engine::create(*quantized.original, serial);
        const std::vector<std::uint32_t> lengths = {17};
        Dequantized source(quantized.expected);
        const auto x = engine::hidden_states(*engine, quantized.ids, lengths);
        const auto y = engine::hidden_states(*reference, quantized.ids, lengths, &source);
        ASSERT_TRUE(x.has_value()) << x.error().message;
        ASSERT_TRUE(y.has_value()) << y.error().message;
        EXPECT_TRUE(test::same_bits(x->values(), y->values()));
        ++ran;
      }
    }
    EXPECT_GT(ran, 0) << layout.name;
  }
}

TEST(QuantizedModel, ShapesOfCodesAreCheckedToo) {
  Quantized quantized("llama", *io::find_export_layout("quell"), *parse_grid("int4:sym:oc:g32"));
  auto json = io::read_json(quantized.packed / "config.json");
  json->set("intermediate_size", 192);
  test::write_bytes(quantized.packed / "config.json", json->dump());
  const auto model = Model::load(quantized.packed.path());
  ASSERT_FALSE(model.has_value());
  EXPECT_NE(model.error().message.find("192"), std::string::npos) << model.error().message;
}

}  // namespace
}  // namespace quell
