// SPDX-License-Identifier: Apache-2.0
// Quantized folders of other writers, and configs that disagree with the tensors beside them.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "io/checkpoint_maker.hpp"
#include "quell/io/export.hpp"
#include "support/files.hpp"

namespace quell::io {
namespace {

using test::bytes_of;
using test::HandTensor;

constexpr std::string_view kWeights4 =
    R"({"num_bits":4,"type":"int","symmetric":true,"strategy":"group","group_size":8})";
constexpr std::string_view kWeights8 =
    R"({"num_bits":8,"type":"int","symmetric":true,"strategy":"channel"})";

std::string group(std::string_view name, std::string_view targets, std::string_view weights,
                  std::string_view extra = "") {
  return "\"" + std::string(name) + R"(":{"targets":)" + std::string(targets) + R"(,"weights":)" +
         std::string(weights) + std::string(extra) + "}";
}

std::string config_of(const std::string& groups, const std::string& format = "pack-quantized",
                      const std::string& extra = "") {
  return R"({"quantization_config":{"quant_method":"compressed-tensors","format":")" + format +
         R"(","config_groups":{)" + groups + "}" + extra + "}}";
}

class Foreign : public ::testing::Test {
 protected:
  // One packed weight of 2 x 16 with 4 bits in groups of 8 and bf16 scales.
  static std::vector<HandTensor> packed(const std::string& name) {
    return {{name + ".weight_packed",
             DType::i32,
             {2, 2},
             bytes_of<std::uint32_t>({0x76543210, 0xFEDCBA98, 0x88888888, 0x0F0F0F0F})},
            {name + ".weight_scale",
             DType::bf16,
             {2, 2},
             bytes_of<std::uint16_t>({0x3F80, 0x4000, 0x3F00, 0xBF80})},
            {name + ".weight_shape", DType::i64, {2}, bytes_of<std::uint64_t>({2, 16})}};
  }
  // One int8 weight of 2 x 3.
  static std::vector<HandTensor> int8(const std::string& name) {
    return {{name + ".weight", DType::i8, {2, 3}, bytes_of<std::int8_t>({-128, 0, 127, 1, 2, 3})},
            {name + ".weight_scale",
             DType::f32,
             {2, 1},
             bytes_of<std::uint32_t>({0x3F800000, 0x40000000})}};
  }
  static void append(std::vector<HandTensor>& to, std::vector<HandTensor> from) {
    for (HandTensor& tensor : from) to.push_back(std::move(tensor));
  }

  struct Parsed {
    Checkpoint checkpoint;
    Result<QuantizedModules> modules;
  };
  Parsed parse(const std::vector<HandTensor>& tensors, const std::string& config) {
    auto checkpoint = test::make_checkpoint(folder_ / std::to_string(count_++), tensors);
    const auto json = parse_json(config, "config.json");
    EXPECT_TRUE(json.has_value()) << json.error().message;
    auto modules = QuantizedModules::parse(*json, "config.json", checkpoint);
    return {std::move(checkpoint), std::move(modules)};
  }
  void expect_refused(const std::vector<HandTensor>& tensors, const std::string& config,
                      ErrorCode code, const std::string& text) {
    const Parsed parsed = parse(tensors, config);
    ASSERT_FALSE(parsed.modules.has_value()) << text;
    const Error& error = parsed.modules.error();
    EXPECT_EQ(to_string(error.code), to_string(code)) << error.message;
    EXPECT_NE(error.message.find(text), std::string::npos) << error.message;
  }

  test::TemporaryFolder folder_;
  int count_ = 0;
};

TEST_F(Foreign, ReadsPackedWeightsWithoutOurNotes) {
  const auto parsed =
      parse(packed("a.proj"), config_of(group("group_0", R"(["Linear"])", kWeights4)));
  ASSERT_TRUE(parsed.modules.has_value()) << parsed.modules.error().message;
  ASSERT_EQ(parsed.modules->modules().size(), 1U);
  const ModulePlan& plan = parsed.modules->modules()[0];
  EXPECT_EQ(to_string(plan.grid), "int4:sym:oc:g8:bf16");
  EXPECT_EQ(plan.activation_bits, 0U);
  const auto tensor = parsed.modules->read(plan, parsed.checkpoint);
  ASSERT_TRUE(tensor.has_value()) << tensor.error().message;
  std::vector<float> row(16);
  tensor->dequantize_row(0, row);
  // Codes 0 .. 15 minus 8, the first eight with scale 1, the others with 2.
  for (int i = 0; i < 16; ++i)
    EXPECT_EQ(row[static_cast<std::size_t>(i)], (i - 8) * (i < 8 ? 1 : 2));
  tensor->dequantize_row(1, row);
  EXPECT_EQ(row[0], 0.0F);
  EXPECT_EQ(row[8], -7.0F);  // code 15 with the scale -1
  EXPECT_EQ(row[9], 8.0F);
}

TEST_F(Foreign, ReadsSignedBytesIncludingTheLowest) {
  const auto parsed =
      parse(int8("a"), config_of(group("g", R"(["Linear"])", kWeights8,
                                       R"(,"input_activations":{"num_bits":8,"type":"int",)"
                                       R"("symmetric":true,"strategy":"token","dynamic":true})"),
                                 "int-quantized"));
  ASSERT_TRUE(parsed.modules.has_value()) << parsed.modules.error().message;
  EXPECT_EQ(parsed.modules->layout(), "compressed-tensors:int-quantized");
  const ModulePlan& plan = parsed.modules->modules()[0];
  EXPECT_EQ(to_string(plan.grid), "int8full:sym:oc:row:f32");
  EXPECT_EQ(plan.activation_bits, 8U);
  const auto tensor = parsed.modules->read(plan, parsed.checkpoint);
  ASSERT_TRUE(tensor.has_value()) << tensor.error().message;
  std::vector<float> row(3);
  tensor->dequantize_row(0, row);
  EXPECT_EQ(row, (std::vector<float>{-128, 0, 127}));
}

TEST_F(Foreign, ReadsVariantsOfScalesAndZeros) {
  // One scale for the matrix, 16-bit scales, a flat vector of scales, zeros that say zero.
  auto one = int8("a");
  one[1] = {"a.weight_scale", DType::bf16, {1}, bytes_of<std::uint16_t>({0x4000})};
  const std::string tensor_wise = R"({"num_bits":8,"symmetric":true,"strategy":"tensor"})";
  const auto spread = parse(one, config_of(group("g", R"(["a"])", tensor_wise), "int-quantized"));
  ASSERT_TRUE(spread.modules.has_value()) << spread.modules.error().message;
  const auto first = spread.modules->read(spread.modules->modules()[0], spread.checkpoint);
  ASSERT_TRUE(first.has_value()) << first.error().message;
  EXPECT_EQ(first->parameters().scales, (std::vector<float>{2, 2}));

  auto flat = int8("a");
  flat[1].shape = {2};
  flat.push_back({"a.weight_zero_point", DType::i8, {2, 1}, bytes_of<std::int8_t>({0, 0})});
  const auto vector = parse(flat, config_of(group("g", R"(["a"])", kWeights8), "int-quantized"));
  ASSERT_TRUE(vector.modules.has_value()) << vector.modules.error().message;
  EXPECT_TRUE(vector.modules->read(vector.modules->modules()[0], vector.checkpoint).has_value());

  flat.back().bytes[1] = std::byte{5};
  const auto odd = parse(flat, config_of(group("g", R"(["a"])", kWeights8), "int-quantized"));
  ASSERT_TRUE(odd.modules.has_value());
  const auto refused = odd.modules->read(odd.modules->modules()[0], odd.checkpoint);
  ASSERT_FALSE(refused.has_value());
  EXPECT_NE(refused.error().message.find("zero points other than 0"), std::string::npos);
}

TEST_F(Foreign, ReadsZerosOfAsymmetricBytes) {
  auto tensors = int8("a");
  tensors.push_back({"a.weight_zero_point", DType::i8, {2, 1}, bytes_of<std::int8_t>({-128, 3})});
  const std::string weights = R"({"num_bits":8,"symmetric":false,"strategy":"channel"})";
  const auto parsed = parse(tensors, config_of(group("g", R"(["a"])", weights), "int-quantized"));
  ASSERT_TRUE(parsed.modules.has_value()) << parsed.modules.error().message;
  const auto tensor = parsed.modules->read(parsed.modules->modules()[0], parsed.checkpoint);
  ASSERT_TRUE(tensor.has_value()) << tensor.error().message;
  std::vector<float> row(3);
  tensor->dequantize_row(0, row);
  EXPECT_EQ(row, (std::vector<float>{0, 128, 255}));
  tensor->dequantize_row(1, row);
  EXPECT_EQ(row, (std::vector<float>{-4, -2, 0}));
}

TEST_F(Foreign, PrefersNamesThenPatternsThenTheClass) {
  std::vector<HandTensor> tensors = packed("m.a");
  append(tensors, packed("m.b"));
  append(tensors, packed("m.c"));
  const std::string wide = R"({"num_bits":4,"symmetric":true,"strategy":"group","group_size":16})";
  // m.a by name, m.b by pattern, m.c by class; scales of m.a and m.b are [2, 2]: groups of 8.
  const auto parsed = parse(tensors, config_of(group("g0", R"(["Linear"])", kWeights4) + "," +
                                               group("g1", R"x(["re:.*\\.(a|b)$"])x", kWeights4) +
                                               "," + group("g2", R"(["m.a"])", kWeights4)));
  ASSERT_TRUE(parsed.modules.has_value()) << parsed.modules.error().message;
  EXPECT_EQ(parsed.modules->modules().size(), 3U);
  // The wide groups do not fit the tensors, which shows which one was taken.
  expect_refused(tensors,
                 config_of(group("g0", R"(["Linear"])", kWeights4) + "," +
                           group("g1", R"(["re:.*\\.b$"])", wide)),
                 ErrorCode::shape, "m.b.weight_scale");
  expect_refused(
      tensors,
      config_of(group("g1", R"(["re:.*"])", kWeights4) + "," + group("g2", R"(["m.a"])", wide)),
      ErrorCode::shape, "m.a.weight_scale");
}

TEST_F(Foreign, RefusesOtherMethodsByName) {
  for (const char* const method : {"gptq", "awq", "fp8", "bitsandbytes"}) {
    expect_refused(packed("a"),
                   R"({"quantization_config":{"quant_method":")" + std::string(method) + "\"}}",
                   ErrorCode::unsupported, method);
  }
  expect_refused(packed("a"), R"({"quantization_config":{}})", ErrorCode::unsupported, "not given");
  expect_refused(packed("a"), R"({"quantization_config":7})", ErrorCode::parse,
                 "quantization_config");
}

TEST_F(Foreign, RefusesSchemesItDoesNotReadByName) {
  const auto weights = [](const std::string& text) {
    return config_of(group("g", R"(["Linear"])", text));
  };
  const auto refused = [&](const std::string& text, const std::string& why) {
    expect_refused(packed("a"), weights(text), ErrorCode::unsupported, why);
  };
  refused(R"({"num_bits":3,"strategy":"channel"})", "3 bits");
  refused(R"({"num_bits":8,"type":"float","strategy":"channel"})", "type float");
  refused(R"({"num_bits":4,"strategy":"block"})", "strategy block");
  expect_refused(packed("a"),
                 config_of(group("g", R"(["Linear"])", kWeights4), "nvfp4-pack-quantized"),
                 ErrorCode::unsupported, "nvfp4-pack-quantized");
  expect_refused(int8("a"),
                 config_of(group("g", R"(["Linear"])", R"({"num_bits":4})"), "int-quantized"),
                 ErrorCode::unsupported, "codes of 4 bits in a byte each");
  expect_refused(packed("a"), config_of(group("g", R"x(["re:(?!a)"])x", kWeights4)),
                 ErrorCode::unsupported, "(?!a)");
  expect_refused(packed("a"),
                 config_of(group("g", R"(["Linear"])", kWeights4), "pack-quantized",
                           R"(,"transform_config":{"config_groups":{"R1":{}}})"),
                 ErrorCode::unsupported, "transform_config");
  expect_refused(packed("a"),
                 config_of(group("g", R"(["Linear"])", kWeights4), "pack-quantized",
                           R"(,"sparsity_config":{"format":"sparse-24-bitmask"})"),
                 ErrorCode::unsupported, "sparse-24-bitmask");
  expect_refused(packed("a"),
                 config_of(group("g", R"(["Linear"])", kWeights4,
                                 R"(,"input_activations":{"num_bits":8,"type":"float"})")),
                 ErrorCode::unsupported, "input_activations");
}

TEST_F(Foreign, ReadsTheUsualOrderOfGroupsAndRefusesAnother) {
  auto tensors = packed("a");
  std::vector<std::uint32_t> order(16);
  for (std::size_t i = 0; i < 16; ++i) order[i] = static_cast<std::uint32_t>(i / 8);
  tensors.push_back({"a.weight_g_idx", DType::i32, {16}, bytes_of(order)});
  const std::string config = config_of(group("g", R"(["Linear"])", kWeights4));
  EXPECT_TRUE(parse(tensors, config).modules.has_value());
  std::swap(order[0], order[15]);
  tensors.back().bytes = bytes_of(order);
  expect_refused(tensors, config, ErrorCode::unsupported, "column 0 into group 1");
}

TEST_F(Foreign, RefusesTensorsThatDoNotFitTheConfig) {
  const std::string config = config_of(group("g", R"(["Linear"])", kWeights4));
  auto tensors = packed("a");
  tensors[1] = {"a.weight_scale", DType::bf16, {2, 1}, bytes_of<std::uint16_t>({1, 2})};
  expect_refused(tensors, config, ErrorCode::shape, "has shape [2, 1], expected [2, 2]");

  tensors = packed("a");
  tensors[2].bytes = bytes_of<std::uint64_t>({2, 17});
  expect_refused(tensors, config, ErrorCode::shape, "expected [2, 3]");
  tensors[2].bytes = bytes_of<std::uint64_t>({2, std::uint64_t{1} << 62});
  expect_refused(tensors, config, ErrorCode::parse, "4611686018427387904");
  tensors[2].bytes = bytes_of<std::uint64_t>({0, 16});
  expect_refused(tensors, config, ErrorCode::parse, "holds 0");

  tensors = packed("a");
  tensors.erase(tensors.begin() + 1);
  expect_refused(tensors, config, ErrorCode::missing, "a.weight_scale");
  tensors = packed("a");
  tensors.pop_back();
  expect_refused(tensors, config, ErrorCode::missing, "a.weight_shape");
  tensors = packed("a");
  tensors.push_back({"a.weight", DType::bf16, {1}, std::vector<std::byte>(2)});
  expect_refused(tensors, config, ErrorCode::parse, "beside an unquantized weight");

  const std::string asymmetric =
      R"({"num_bits":4,"symmetric":false,"strategy":"group","group_size":8})";
  expect_refused(packed("a"), config_of(group("g", R"(["Linear"])", asymmetric)),
                 ErrorCode::missing, "a.weight_zero_point");
  expect_refused(packed("a"), config_of(group("g", R"(["b.c"])", kWeights4)), ErrorCode::parse,
                 "no group of the config covers");
  expect_refused(
      packed("a"),
      config_of(group("g", R"(["Linear"])", kWeights4), "pack-quantized", R"(,"ignore":["a"])"),
      ErrorCode::parse, "ignores");
  expect_refused(packed("x.a"), config_of(group("g", R"(["x.a","x.b"])", kWeights4)),
                 ErrorCode::missing, "x.b");
}

TEST_F(Foreign, ScalesThatAreNotNumbersAreRefusedWithTheModule) {
  auto tensors = packed("layer.q");
  tensors[1].bytes = bytes_of<std::uint16_t>({0x3F80, 0x7FC0, 0x3F00, 0x3F00});
  const auto parsed = parse(tensors, config_of(group("g", R"(["Linear"])", kWeights4)));
  ASSERT_TRUE(parsed.modules.has_value());
  const auto tensor = parsed.modules->read(parsed.modules->modules()[0], parsed.checkpoint);
  ASSERT_FALSE(tensor.has_value());
  EXPECT_EQ(tensor.error().code, ErrorCode::numeric);
  EXPECT_NE(tensor.error().message.find("layer.q"), std::string::npos) << tensor.error().message;
}

TEST_F(Foreign, OurNotesMayNotContradictTheScheme) {
  const std::string groups = group("g", R"(["Linear"])", kWeights4);
  const auto noted = [&](const std::string& word) {
    return config_of(groups, "pack-quantized", R"(,"quell_grids":{"g":)" + word + "}");
  };
  const auto fits = parse(packed("a"), noted(R"("int4:sym:oc:g8")"));
  EXPECT_TRUE(fits.modules.has_value());
  for (const char* const word :
       {R"("int8:sym:oc:g8")", R"("int4:asym:oc:g8")", R"("int4:sym:ic:g8")", R"("int4:sym:oc:g4")",
        R"("nonsense")", "4"}) {
    expect_refused(packed("a"), noted(word), ErrorCode::parse, "quell_grids");
  }
  // The codes hold -8, which the narrow form has not.
  const auto narrow = parse(packed("a"), noted(R"("int4n:sym:oc:g8")"));
  ASSERT_TRUE(narrow.modules.has_value());
  EXPECT_FALSE(narrow.modules->read(narrow.modules->modules()[0], narrow.checkpoint).has_value());
}

TEST_F(Foreign, NativeConfigsMustAgreeWithTheirTensors) {
  const auto weight = test::random_quantized(*parse_grid("int4:sym:oc:g8"), 2, 16);
  const auto tensors = test::encoded(*find_export_layout("quell"), "a", weight);
  const auto config = [](const std::string& entry, int version = 1) {
    return R"({"quantization_config":{"quant_method":"quell","version":)" +
           std::to_string(version) + R"(,"modules":{"a":)" + entry + "}}}";
  };
  EXPECT_TRUE(
      parse(tensors, config(R"({"grid":"int4:sym:oc:g8","shape":[2,16]})")).modules.has_value());
  expect_refused(tensors, config(R"({"grid":"int4:sym:oc:g8","shape":[2,18]})"), ErrorCode::shape,
                 "a.weight_codes");
  expect_refused(tensors, config(R"({"grid":"int4:sym:oc:g4","shape":[2,16]})"), ErrorCode::shape,
                 "a.weight_scales");
  expect_refused(tensors, config(R"({"grid":"int4:sym:oc:g8:f32","shape":[2,16]})"),
                 ErrorCode::parse, "F16");
  expect_refused(tensors, config(R"({"grid":"int4:asym:oc:g8","shape":[2,16]})"),
                 ErrorCode::missing, "a.weight_zeros");
  expect_refused(tensors, config(R"({"grid":"int9","shape":[2,16]})"), ErrorCode::unsupported,
                 "int9");
  expect_refused(tensors, config(R"({"grid":"int4:sym:oc:g8","shape":[2]})"), ErrorCode::parse,
                 "modules.a.shape");
  expect_refused(tensors, config(R"({"grid":"int4:sym:oc:g8","shape":[2,-16]})"), ErrorCode::parse,
                 "-16");
  expect_refused(tensors, config("3"), ErrorCode::parse, "modules.a");
  expect_refused(tensors, config(R"({"grid":"int4","shape":[2,16]})", 2), ErrorCode::unsupported,
                 "version is 2");
}

}  // namespace
}  // namespace quell::io
