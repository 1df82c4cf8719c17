// SPDX-License-Identifier: Apache-2.0

// What C gets is what C++ gets: the same bits, from the caller's memory and on the caller's
// threads. The public header comes first: it compiles alone as C++ too.

#include "quell/quell.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "capi/codes_of.hpp"
#include "capi/in_c.h"
#include "io/checkpoint_maker.hpp"
#include "quell/core/random.hpp"
#include "quell/grid/scale.hpp"
#include "quell/kernels/gemm.hpp"
#include "quell/kernels/quantize_rows.hpp"
#include "quell/version.hpp"

namespace quell {
namespace {

QuantizedTensor weight_on(const std::string& word, std::size_t rows, std::size_t cols) {
  return test::random_quantized(*parse_grid(word), rows, cols, 3);
}

std::vector<float> normal(std::size_t n, std::uint64_t seed) {
  std::vector<float> values(n);
  Random(seed).fill_normal(values);
  return values;
}

/// y [tokens, OC] of the C++ path.
std::vector<float> expected_product(const QuantizedTensor& weight, kernels::Activations activations,
                                    const std::vector<float>& x) {
  SerialExecutor serial;
  kernels::Context context(serial);
  const auto packed = kernels::pack(weight, activations, serial);
  EXPECT_TRUE(packed) << packed.error().message;
  const std::size_t tokens = x.size() / weight.cols();
  std::vector<float> y(tokens * weight.rows());
  EXPECT_TRUE(kernels::gemm({x.data(), tokens, weight.cols()}, *packed,
                            {y.data(), tokens, weight.rows()}, context));
  return y;
}

bool equal(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

/// A context that counts its memory, with threads that run everything backwards.
class CApi : public testing::Test {
 protected:
  void SetUp() override {
    quell_context_options options = {};
    options.struct_size = sizeof options;
    options.allocator = &allocator_;
    options.executor = &executor_;
    ASSERT_EQ(quell_context_create(&options, &context_), QUELL_OK);
  }
  void TearDown() override {
    quell_context_free(context_);
    EXPECT_EQ(memory_.taken, memory_.given_back);
    EXPECT_EQ(memory_.bytes_held, 0u);
  }
  quell_weight* make(const QuantizedTensor& weight) {
    quell_weight* made = nullptr;
    EXPECT_EQ(quell_weight_from_codes(context_, test::Codes(weight).as_c(), &made), QUELL_OK)
        << quell_message(context_);
    return made;
  }

  counting_memory memory_ = {};
  backward_threads threads_ = {};
  quell_allocator allocator_ = counting_allocator(&memory_);
  quell_executor executor_ = backward_executor(&threads_, 3);
  quell_context* context_ = nullptr;
};

TEST_F(CApi, MultipliesWithTheBitsOfCppOnEveryKindOfGrid) {
  for (const char* word :
       {"int4:sym:oc:g32", "int4:asym:oc:g64:bf16", "int3:asym:oc:row:f32", "int8:sym:oc:row",
        "int8full:asym:ic:g32", "int4n:sym:oc:g32:u4", "int4:sym:ic:g32:u4", "nf4:sym:oc:g64",
        "iq4:sym:oc:g6", "int2:sym:ic"}) {
    for (const auto& [activations, in_c] : {std::pair(kernels::Activations::f32, QUELL_F32),
                                            std::pair(kernels::Activations::int8, QUELL_INT8),
                                            std::pair(kernels::Activations::bf16, QUELL_BF16)}) {
      const QuantizedTensor weight = weight_on(word, 70, 130);
      const std::vector<float> x = normal(4 * 130, 1);
      std::vector<float> y(4 * 70, -1.0f);
      char kernel[64] = "";
      const quell_status status =
          in_c_multiply(context_, test::Codes(weight).as_c(), in_c, x.data(), 4, y.data(), kernel);
      SerialExecutor serial;
      const auto packed = kernels::pack(weight, activations, serial);
      if (!packed) {
        EXPECT_EQ(status, QUELL_UNSUPPORTED) << word;
        EXPECT_EQ(quell_message(context_), packed.error().message);
        continue;
      }
      ASSERT_EQ(status, QUELL_OK) << word << ": " << quell_message(context_);
      EXPECT_STREQ(quell_message(context_), "");
      EXPECT_EQ(kernel, packed->kernel());
      EXPECT_TRUE(equal(y, expected_product(weight, activations, x))) << word << " " << kernel;
    }
  }
  EXPECT_GT(threads_.runs, 20u) << "the host's threads were not asked";
}

TEST_F(CApi, RoundsFloatsAsCppDoes) {
  const std::vector<float> values = normal(33 * 70, 2);  // rows of 64 at a stride of 70
  SerialExecutor serial;
  const MatrixView<const float> view(values.data(), 33, 64, 70);
  for (const char* word : {"int4:sym:oc:g16", "int8:asym:ic:g8", "nf4"}) {
    const GridSpec grid = *parse_grid(word);
    auto scales = choose_scales(view, grid, ScaleMethod::absmax, {}, serial);
    const auto codes = quantize_to_grid(view, grid, *std::move(scales), serial);
    std::vector<float> meant(33 * 64), found(33 * 65, 9.0f);
    ASSERT_TRUE(dequantize(*codes, {meant.data(), 33, 64}, serial));
    quell_weight* weight = nullptr;
    ASSERT_EQ(quell_weight_from_floats(context_, values.data(), 33, 64, 70, word, &weight),
              QUELL_OK);
    quell_weight_info info = {};
    info.struct_size = sizeof info;
    ASSERT_EQ(quell_weight_describe(context_, weight, &info), QUELL_OK);
    EXPECT_EQ(info.rows, 33u);
    EXPECT_EQ(info.cols, 64u);
    EXPECT_EQ(info.grid, to_string(grid));
    EXPECT_EQ(info.bits_per_weight, codes->bits_per_weight());
    ASSERT_EQ(quell_weight_values(context_, weight, found.data(), 65), QUELL_OK);
    for (std::size_t r = 0; r < 33; ++r) {
      EXPECT_EQ(std::memcmp(&meant[r * 64], &found[r * 65], 64 * sizeof(float)), 0) << r;
      EXPECT_EQ(found[r * 65 + 64], 9.0f) << "written past the row";
    }
    quell_weight_free(weight);
  }
}

TEST_F(CApi, KeepsFloatsAsTheyAre) {
  const std::vector<float> values = normal(20 * 30, 2), x = normal(2 * 30, 3);
  SerialExecutor serial;
  kernels::Context context(serial);
  const auto packed_in_cpp = kernels::pack({values.data(), 20, 30}, serial);
  std::vector<float> expected(2 * 20), y(2 * 20);
  ASSERT_TRUE(kernels::gemm({x.data(), 2, 30}, *packed_in_cpp, {expected.data(), 2, 20}, context));
  quell_weight* weight = nullptr;
  quell_packed* packed = nullptr;
  ASSERT_EQ(quell_weight_from_floats(context_, values.data(), 20, 30, 30, nullptr, &weight),
            QUELL_OK);
  EXPECT_EQ(quell_pack(context_, weight, QUELL_INT8, &packed), QUELL_UNSUPPORTED);
  EXPECT_EQ(packed, nullptr);
  ASSERT_EQ(quell_pack(context_, weight, QUELL_F32, &packed), QUELL_OK);
  quell_weight_free(weight);  // a packed weight needs it no longer
  ASSERT_EQ(quell_gemm(context_, packed, x.data(), 2, 30, y.data(), 20), QUELL_OK);
  EXPECT_TRUE(equal(y, expected));
  quell_packed_free(packed);
}

TEST_F(CApi, PacksIntoMemoryOfTheCallerAndLooksAtItAgain) {
  const QuantizedTensor weight = weight_on("int4:asym:ic:g32", 64, 96);
  const std::vector<float> x = normal(3 * 96, 1);
  quell_weight* made = make(weight);
  std::size_t bytes = 0;
  ASSERT_EQ(quell_packed_bytes(context_, made, QUELL_INT8, &bytes), QUELL_OK);
  auto memory = AlignedBytes::allocate(bytes);
  quell_packed *packed = nullptr, *seen = nullptr;
  const std::size_t held = memory_.bytes_held;
  EXPECT_EQ(quell_pack_into(context_, made, QUELL_INT8, memory->data(), bytes - 1, &packed),
            QUELL_SHAPE);
  EXPECT_NE(std::string(quell_message(context_)).find(std::to_string(bytes - 1)),
            std::string::npos);
  ASSERT_EQ(quell_pack_into(context_, made, QUELL_INT8, memory->data(), bytes, &packed), QUELL_OK);
  EXPECT_LT(memory_.bytes_held, held + 1000) << "a handle and nothing else";
  quell_packed_info info = {};
  info.struct_size = sizeof info;
  ASSERT_EQ(quell_packed_describe(context_, packed, &info), QUELL_OK);
  EXPECT_EQ(info.memory, memory->data());
  EXPECT_EQ(info.bytes, bytes);
  ASSERT_EQ(quell_packed_view(context_, info.memory, info.bytes, &seen), QUELL_OK);
  EXPECT_EQ(quell_set_isa_cap(context_, "scalar"), QUELL_OK);
  quell_packed* plain = nullptr;
  ASSERT_EQ(quell_packed_view(context_, info.memory, info.bytes, &plain), QUELL_OK);
  EXPECT_EQ(quell_set_isa_cap(context_, nullptr), QUELL_OK);
  const auto expected = expected_product(weight, kernels::Activations::int8, x);
  for (const quell_packed* one : {packed, seen, plain}) {
    std::vector<float> y(3 * 64);
    ASSERT_EQ(quell_gemm(context_, one, x.data(), 3, 96, y.data(), 64), QUELL_OK);
    EXPECT_TRUE(equal(y, expected));
  }
  quell_packed* refused = packed;
  EXPECT_EQ(quell_packed_view(context_, info.memory, bytes - 64, &refused), QUELL_PARSE);
  EXPECT_EQ(refused, nullptr);
  for (quell_packed* one : {packed, seen, plain}) quell_packed_free(one);
  quell_weight_free(made);
}

TEST_F(CApi, ScratchGrowsOnceForASize) {
  const QuantizedTensor weight = weight_on("int8:sym:oc:row", 64, 96);
  quell_weight* made = make(weight);
  quell_packed* packed = nullptr;
  ASSERT_EQ(quell_pack(context_, made, QUELL_INT8, &packed), QUELL_OK);
  const std::vector<float> x = normal(40 * 96, 1);
  std::vector<float> y(40 * 64);
  ASSERT_EQ(quell_gemm(context_, packed, x.data(), 40, 96, y.data(), 64), QUELL_OK);
  const std::size_t before = memory_.allocations;
  for (const std::size_t tokens : {40, 1, 17, 40}) {
    ASSERT_EQ(quell_gemm(context_, packed, x.data(), tokens, 96, y.data(), 64), QUELL_OK);
  }
  EXPECT_EQ(memory_.allocations, before);
  EXPECT_TRUE(equal(y, expected_product(weight, kernels::Activations::int8, x)));
  quell_packed_free(packed);
  quell_weight_free(made);
}

TEST_F(CApi, RoundsRowsAsCppDoes) {
  std::vector<float> x = normal(5 * 77, 1);
  x[80] = NAN;
  std::vector<std::int8_t> expected(5 * 77), codes(5 * 80, 3);
  std::vector<float> expected_scales(5), scales(5);
  SerialExecutor serial;
  ASSERT_TRUE(
      kernels::quantize_rows({x.data(), 5, 77}, {expected.data(), 5, 77}, expected_scales, serial));
  ASSERT_EQ(quell_quantize_rows(context_, x.data(), 5, 77, 77, codes.data(), 80, scales.data()),
            QUELL_OK);
  for (std::size_t r = 0; r < 5; ++r) {
    EXPECT_EQ(std::memcmp(&codes[r * 80], &expected[r * 77], 77), 0);
    EXPECT_EQ(codes[r * 80 + 77], 3);
    EXPECT_EQ(std::isnan(scales[r]), r == 1);
    if (r != 1) {
      EXPECT_EQ(scales[r], expected_scales[r]);
    }
  }
}

TEST_F(CApi, ExplainsEveryFamilyAndChoosesOneOfEach) {
  std::size_t kernels = 0, chosen = 0, capped = 0;
  ASSERT_EQ(in_c_count_kernels(context_, &kernels, &chosen), QUELL_OK);
  EXPECT_GE(chosen, 10u);
  EXPECT_GE(kernels, chosen);
  ASSERT_EQ(quell_set_isa_cap(context_, "scalar"), QUELL_OK);
  ASSERT_EQ(in_c_count_kernels(context_, &kernels, &capped), QUELL_OK);
  ASSERT_EQ(quell_set_isa_cap(context_, nullptr), QUELL_OK);
  EXPECT_EQ(capped, chosen) << "scalar entries stand in";
  EXPECT_STREQ(quell_version(), QUELL_VERSION);
  EXPECT_STREQ(quell_status_name(QUELL_NUMERIC), "numeric");
  EXPECT_STREQ(quell_status_name(static_cast<quell_status>(77)), "unknown");
}

TEST_F(CApi, ReadsWhatEachLayoutWrites) {
  for (const char* layout_name : {"quell", "compressed-tensors"}) {
    const io::ExportLayout& layout = *io::find_export_layout(layout_name);
    const test::TemporaryFolder folder;
    const QuantizedTensor weight = weight_on("int4:sym:oc:g32", 64, 96);
    const io::ModulePlan module{"layers.0.up", weight.grid(), 64, 96};
    auto tensors = test::encoded(layout, module.name, weight);
    const std::vector<float> norm = normal(96, 9);
    const auto* bytes = reinterpret_cast<const std::byte*>(norm.data());
    tensors.push_back({"layers.0.norm.weight", DType::f32, {96}, {bytes, bytes + 96 * 4}});
    test::make_checkpoint(folder.path(), tensors);
    io::Json config;
    config.set("quantization_config", layout.config(std::span(&module, 1), {}));
    test::write_bytes(folder / "config.json", config.dump());

    quell_checkpoint* checkpoint = nullptr;
    ASSERT_EQ(quell_checkpoint_open(context_, folder.path().c_str(), &checkpoint), QUELL_OK)
        << quell_message(context_);
    ASSERT_EQ(quell_checkpoint_count(checkpoint), 2u);
    quell_tensor_info info = {};
    info.struct_size = sizeof info;
    ASSERT_EQ(quell_checkpoint_describe(context_, checkpoint, 1, &info), QUELL_OK);
    EXPECT_STREQ(info.name, "layers.0.up.weight");
    EXPECT_STREQ(info.grid, "int4:sym:oc:g32");
    EXPECT_STREQ(info.dtype, "");
    ASSERT_EQ(info.dimensions, 2u);
    EXPECT_EQ(info.shape[1], 96u);
    ASSERT_EQ(quell_checkpoint_describe(context_, checkpoint, 0, &info), QUELL_OK);
    EXPECT_STREQ(info.name, "layers.0.norm.weight");
    EXPECT_STREQ(info.dtype, "F32");
    EXPECT_STREQ(info.grid, "");
    EXPECT_EQ(quell_checkpoint_describe(context_, checkpoint, 2, &info), QUELL_USAGE);

    quell_weight *codes = nullptr, *floats = nullptr, *none = nullptr;
    quell_packed* packed = nullptr;
    ASSERT_EQ(quell_checkpoint_weight(context_, checkpoint, "layers.0.up.weight", &codes),
              QUELL_OK);
    ASSERT_EQ(quell_checkpoint_weight(context_, checkpoint, "layers.0.norm.weight", &floats),
              QUELL_OK);
    EXPECT_EQ(quell_checkpoint_weight(context_, checkpoint, "layers.0.up.weight_codes", &none),
              QUELL_MISSING);
    quell_checkpoint_free(checkpoint);
    const std::vector<float> x = normal(96, 4);
    std::vector<float> y(64), same(96);
    ASSERT_EQ(quell_pack(context_, codes, QUELL_INT8, &packed), QUELL_OK);
    ASSERT_EQ(quell_gemm(context_, packed, x.data(), 1, 96, y.data(), 64), QUELL_OK);
    EXPECT_TRUE(equal(y, expected_product(weight, kernels::Activations::int8, x)));
    ASSERT_EQ(quell_weight_values(context_, floats, same.data(), 96), QUELL_OK);
    EXPECT_TRUE(equal(same, norm));
    quell_packed_free(packed);
    quell_weight_free(codes);
    quell_weight_free(floats);
  }
}

TEST_F(CApi, HandlesOutliveTheirContext) {
  counting_memory memory = {};
  const quell_allocator allocator = counting_allocator(&memory);
  quell_context_options options = {};
  options.struct_size = sizeof options;
  options.allocator = &allocator;
  quell_context* context = nullptr;
  ASSERT_EQ(quell_context_create(&options, &context), QUELL_OK);
  const QuantizedTensor weight = weight_on("int4:sym:oc:g32", 64, 96);
  quell_weight* made = nullptr;
  quell_packed* packed = nullptr;
  ASSERT_EQ(quell_weight_from_codes(context, test::Codes(weight).as_c(), &made), QUELL_OK);
  ASSERT_EQ(quell_pack(context, made, QUELL_F32, &packed), QUELL_OK);
  quell_context_free(context);
  quell_weight_free(made);
  const std::vector<float> x = normal(96, 4);
  std::vector<float> y(64);
  ASSERT_EQ(quell_gemm(context_, packed, x.data(), 1, 96, y.data(), 64), QUELL_OK);
  EXPECT_TRUE(equal(y, expected_product(weight, kernels::Activations::f32, x)));
  quell_packed_free(packed);
  EXPECT_EQ(memory.bytes_held, 0u);
}

}  // namespace
}  // namespace quell
