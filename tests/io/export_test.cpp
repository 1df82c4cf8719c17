// SPDX-License-Identifier: Apache-2.0
// Layouts against bytes worked out by hand, against the package that defines compressed-tensors
// (tests/golden/export), and against themselves for every grid.
#include "quell/io/export.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <string>

#include "io/checkpoint_maker.hpp"
#include "quell/core/half.hpp"
#include "quell/grid/scale.hpp"
#include "support/files.hpp"
#include "support/matrices.hpp"

namespace quell::io {
namespace {

using test::encoded;
using test::HandTensor;
using test::random_quantized;
using test::TemporaryFolder;

const ExportLayout& layout(std::string_view name) {
  const ExportLayout* const found = find_export_layout(name);
  EXPECT_NE(found, nullptr) << name;
  return *found;
}

GridSpec grid(const std::string& word) {
  const auto parsed = parse_grid(word);
  EXPECT_TRUE(parsed.has_value()) << parsed.error().message;
  return *parsed;
}

std::vector<std::string> all_grids() {
  std::vector<std::string> words;
  for (const FormatInfo& format : kFormats) {
    for (const char* const symmetry : {"sym", "asym"}) {
      for (const char* const per : {"oc", "ic"}) {
        for (const char* const group : {"row", "g1", "g4", "g5", "g64"}) {
          for (const char* const scale : {"f16", "bf16", "f32", "f16:u4", "bf16:u4", "f32:u4"}) {
            std::string word = std::string(format.name) + ":" + symmetry;
            word = word + ":" + per + ":" + group + ":" + scale;
            if (parse_grid(word).has_value()) words.push_back(std::move(word));
          }
        }
      }
    }
  }
  return words;
}

QuantizedTensor from_codes(const std::string& word, std::size_t rows, std::size_t cols,
                           const std::vector<std::uint8_t>& codes, std::vector<float> scales,
                           std::vector<std::uint8_t> zeros = {}) {
  const GridSpec spec = grid(word);
  const unsigned width = bits(spec.format);
  const std::size_t row_bytes = packed_size(cols, width);
  std::vector<std::uint8_t> packed(rows * row_bytes);
  for (std::size_t row = 0; row < rows; ++row) {
    pack_codes(std::span(codes).subspan(row * cols, cols), width,
               std::span(packed).subspan(row * row_bytes, row_bytes));
  }
  const GroupLayout groups = group_layout(spec, rows, cols);
  auto tensor = QuantizedTensor::create(
      spec, rows, cols, packed, {groups.rows, groups.cols, std::move(scales), std::move(zeros)});
  EXPECT_TRUE(tensor.has_value()) << tensor.error().message;
  return *std::move(tensor);
}

TEST(ExportLayouts, AreFoundByTheWordOfTheCommandLine) {
  EXPECT_EQ(export_layouts().size(), 3U);
  for (const ExportLayout& entry : export_layouts()) {
    EXPECT_EQ(find_export_layout(entry.name)->name, entry.name);
    EXPECT_FALSE(entry.help.empty());
  }
  EXPECT_EQ(find_export_layout("gguf"), nullptr);
  EXPECT_EQ(find_export_layout(""), nullptr);
}

// Signed codes -8 .. -1 are stored codes 0 .. 7: the word 0x76543210, so bytes 10 32 54 76.
TEST(PackQuantized, PutsTheFirstCodeIntoTheLowestBits) {
  const auto weight = from_codes("int4:sym:oc:row", 1, 8, {0, 1, 2, 3, 4, 5, 6, 7}, {1.0F});
  const auto tensors = encoded(layout("compressed-tensors"), "m", weight);
  ASSERT_EQ(tensors.size(), 3U);
  EXPECT_EQ(tensors[0].name, "m.weight_packed");
  EXPECT_EQ(tensors[0].shape, (std::vector<std::uint64_t>{1, 1}));
  EXPECT_EQ(tensors[0].bytes, test::bytes_of<std::uint32_t>({0x76543210}));
  EXPECT_EQ(tensors[1].bytes, test::bytes_of<std::uint16_t>({0x3C00}));
  EXPECT_EQ(tensors[2].bytes, test::bytes_of<std::uint64_t>({1, 8}));
}

// Nine rows of one group: zeros 0 .. 8 fill one word and begin another, down the output channels.
TEST(PackQuantized, PacksZerosAlongTheOutputChannels) {
  const auto weight = from_codes("int4:asym:oc:row", 9, 1, {0, 0, 0, 0, 0, 0, 0, 0, 0},
                                 std::vector<float>(9, 1.0F), {0, 1, 2, 3, 4, 5, 6, 7, 8});
  const auto tensors = encoded(layout("compressed-tensors"), "m", weight);
  ASSERT_EQ(tensors.size(), 4U);
  EXPECT_EQ(tensors[3].name, "m.weight_zero_point");
  EXPECT_EQ(tensors[3].shape, (std::vector<std::uint64_t>{2, 1}));
  EXPECT_EQ(tensors[3].bytes, test::bytes_of<std::uint32_t>({0x76543210, 0x00000008}));
}

TEST(IntQuantized, StoresSignedBytes) {
  const auto weight = from_codes("int8:sym:oc:row", 1, 4, {1, 127, 128, 255}, {0.5F});
  const auto tensors = encoded(layout("compressed-tensors:int-quantized"), "m", weight);
  ASSERT_EQ(tensors.size(), 2U);
  EXPECT_EQ(tensors[0].name, "m.weight");
  EXPECT_EQ(tensors[0].dtype, DType::i8);
  EXPECT_EQ(tensors[0].bytes, test::bytes_of<std::int8_t>({-127, -1, 0, 127}));
  EXPECT_EQ(tensors[1].dtype, DType::f32);
  EXPECT_EQ(tensors[1].bytes, test::bytes_of<std::uint32_t>({0x3F000000}));
}

TEST(NativeLayout, StoresTheArraysAsTheyAre) {
  // Five 3-bit codes: 1 | 2 << 3 | 3 << 6 | 4 << 9 | 5 << 12 = 0x58D1.
  const auto weight = from_codes("int3:asym:ic:row", 1, 5, {1, 2, 3, 4, 5},
                                 {1.0F, 2.0F, 0.5F, 0.25F, 4.0F}, {7, 0, 3, 1, 2});
  const auto tensors = encoded(layout("quell"), "m", weight);
  ASSERT_EQ(tensors.size(), 3U);
  EXPECT_EQ(tensors[0].name, "m.weight_codes");
  EXPECT_EQ(tensors[0].shape, (std::vector<std::uint64_t>{1, 2}));
  EXPECT_EQ(tensors[0].bytes, test::bytes_of<std::uint8_t>({0xD1, 0x58}));
  EXPECT_EQ(tensors[1].name, "m.weight_scales");
  EXPECT_EQ(tensors[1].shape, (std::vector<std::uint64_t>{1, 5}));
  EXPECT_EQ(tensors[1].bytes,
            test::bytes_of<std::uint16_t>({0x3C00, 0x4000, 0x3800, 0x3400, 0x4400}));
  EXPECT_EQ(tensors[2].name, "m.weight_zeros");
  EXPECT_EQ(tensors[2].bytes, test::bytes_of<std::uint8_t>({7, 0, 3, 1, 2}));
}

TEST(NativeLayout, StoresTwoLevelsAsRowScalesAndPackedIntegers) {
  // One row of five groups of one weight; integers 1 15 2 3 4 in nibbles, the last byte half used.
  const GridSpec spec = grid("int4:sym:oc:g1:u4");
  GroupParameters parameters{1, 5, {}, {}, {0.5F}, {1, 15, 2, 3, 4}};
  multiply_levels(parameters);
  const auto weight = QuantizedTensor::create(spec, 1, 5, {0x98, 0xBA, 0x0C}, parameters);
  ASSERT_TRUE(weight.has_value()) << weight.error().message;
  const auto tensors = encoded(layout("quell"), "m", *weight);
  ASSERT_EQ(tensors.size(), 3U);
  EXPECT_EQ(tensors[0].bytes, test::bytes_of<std::uint8_t>({0x98, 0xBA, 0x0C}));
  EXPECT_EQ(tensors[1].name, "m.weight_row_scales");
  EXPECT_EQ(tensors[1].shape, (std::vector<std::uint64_t>{1}));
  EXPECT_EQ(tensors[1].bytes, test::bytes_of<std::uint16_t>({0x3800}));
  EXPECT_EQ(tensors[2].name, "m.weight_group_integers");
  EXPECT_EQ(tensors[2].dtype, DType::u8);
  EXPECT_EQ(tensors[2].shape, (std::vector<std::uint64_t>{1, 3}));
  EXPECT_EQ(tensors[2].bytes, test::bytes_of<std::uint8_t>({0xF1, 0x32, 0x04}));
}

// What a damaged or hostile file may hold where the two levels stand.
TEST(NativeLayout, RefusesTwoLevelsThatCannotBe) {
  const ExportLayout& to = layout("quell");
  const ModulePlan module{"model.m", grid("int4:sym:oc:g4:u4"), 2, 12};
  const auto bytes = to.encode(random_quantized(module.grid, 2, 12));
  ASSERT_TRUE(bytes.has_value());
  const auto refusal = [&](std::size_t tensor, auto damage) {
    auto damaged = *bytes;
    damage(damaged[tensor]);
    const auto back = to.decode(module, damaged);
    return back.has_value() ? std::string() : back.error().message;
  };
  using Bytes = std::vector<std::byte>;
  EXPECT_EQ(refusal(2, [](Bytes&) {}), "");
  // The second row's second group gets the integer 0.
  EXPECT_NE(refusal(2, [](Bytes& b) { b[2] &= std::byte{0x0F}; })
                .find("integer of group [1, 1] is 0, expected 1 to 15"),
            std::string::npos);
  // The half byte after the last group means nothing.
  EXPECT_EQ(refusal(2, [](Bytes& b) { b[3] |= std::byte{0xF0}; }), "");
  EXPECT_NE(refusal(2, [](Bytes& b) { b.pop_back(); }).find("model.m.weight_group_integers"),
            std::string::npos);
  EXPECT_NE(
      refusal(1, [](Bytes& b) { b.push_back(std::byte{0}); }).find("model.m.weight_row_scales"),
      std::string::npos);
  const auto row_scale = [](std::uint16_t bits) {
    return [bits](Bytes& b) {
      b[0] = static_cast<std::byte>(bits & 255);
      b[1] = static_cast<std::byte>(bits >> 8);
    };
  };
  // 0, -1, infinity and NaN in f16.
  for (const std::uint16_t bits : {std::uint16_t{0x0000}, std::uint16_t{0xBC00},
                                   std::uint16_t{0x7C00}, std::uint16_t{0x7E00}}) {
    EXPECT_NE(refusal(1, row_scale(bits)).find("row scale 0 is"), std::string::npos) << bits;
  }
}

TEST(NativeLayout, RefusesGridsThatCannotBeWhenItReadsTheConfig) {
  const TemporaryFolder folder;
  const ModulePlan module{"m", grid("nf4:sym:oc:g4"), 2, 8};
  const auto checkpoint = test::make_checkpoint(
      folder.path(), encoded(layout("quell"), "m", random_quantized(module.grid, 2, 8)));
  const std::string good = layout("quell").config(std::span(&module, 1), {}).dump();
  for (const char* word : {"nf5:sym:oc:g4", "nf4:asym:oc:g4", "nf4:sym:oc:g4:u4",
                           "int4:sym:oc:g4:u5", "int8:sym:oc:g4:u4"}) {
    std::string text = good;
    const std::size_t at = text.find("nf4:sym:oc:g4");
    ASSERT_NE(at, std::string::npos);
    text.replace(at, std::string_view("nf4:sym:oc:g4").size(), word);
    const auto json = parse_json(text, "config.json");
    ASSERT_TRUE(json.has_value());
    Json config;
    config.set("quantization_config", *json);
    const auto modules = QuantizedModules::parse(config, "config.json", checkpoint);
    ASSERT_FALSE(modules.has_value()) << word;
    EXPECT_EQ(modules.error().code, ErrorCode::unsupported) << word;
    EXPECT_NE(modules.error().message.find("modules.m.grid"), std::string::npos)
        << modules.error().message;
  }
  // A grid of two levels whose tensors are those of one.
  std::string text = good;
  text.replace(text.find("nf4:sym:oc:g4"), std::string_view("nf4:sym:oc:g4").size(),
               "int4:sym:oc:g4:u4");
  const auto json = parse_json(text, "config.json");
  Json config;
  config.set("quantization_config", *json);
  const auto modules = QuantizedModules::parse(config, "config.json", checkpoint);
  ASSERT_FALSE(modules.has_value());
  EXPECT_NE(modules.error().message.find("weight_row_scales"), std::string::npos)
      << modules.error().message;
}

TEST(NativeLayout, CarriesKeptColumns) {
  SerialExecutor executor;
  const Matrix weight = test::gaussian_matrix(5, 12, 7);
  const std::vector<std::uint32_t> columns = {2, 11};
  for (const char* const word : {"int4:sym:oc:g4", "int3:asym:ic:g2:f32", "int4:sym:oc:g4:u4"}) {
    const auto tensor =
        quantize_keeping(weight.view(), grid(word), ScaleMethod::absmax, {}, columns, executor);
    ASSERT_TRUE(tensor.has_value()) << tensor.error().message;
    const ModulePlan module{"model.m", grid(word), 5, 12, 0, 2};
    const auto bytes = layout("quell").encode(*tensor);
    ASSERT_TRUE(bytes.has_value());
    const auto plan = layout("quell").tensors(module);
    ASSERT_EQ(plan.size(), bytes->size());
    EXPECT_EQ((*bytes)[bytes->size() - 2], test::bytes_of<std::uint32_t>({2, 11}));
    std::vector<HandTensor> tensors;
    for (std::size_t i = 0; i < plan.size(); ++i) {
      tensors.push_back({plan[i].name, plan[i].dtype, plan[i].shape, (*bytes)[i]});
    }
    const TemporaryFolder folder;
    const auto checkpoint = test::make_checkpoint(folder.path(), tensors);
    Json config;
    config.set("quantization_config", layout("quell").config(std::span(&module, 1), {}));
    const auto modules = QuantizedModules::parse(config, "config.json", checkpoint);
    ASSERT_TRUE(modules.has_value()) << modules.error().message;
    const auto back = modules->read(modules->modules()[0], checkpoint);
    ASSERT_TRUE(back.has_value()) << back.error().message;
    test::expect_equal(*back, *tensor, word);

    auto damaged = *bytes;
    damaged[damaged.size() - 2] = test::bytes_of<std::uint32_t>({11, 2});
    EXPECT_FALSE(layout("quell").decode(module, damaged).has_value());
    damaged = *bytes;
    damaged.pop_back();
    EXPECT_FALSE(layout("quell").decode(module, damaged).has_value());
    // A config that names more columns than the tensors hold.
    ModulePlan more = module;
    more.kept_columns = 3;
    config.set("quantization_config", layout("quell").config(std::span(&more, 1), {}));
    EXPECT_FALSE(QuantizedModules::parse(config, "config.json", checkpoint).has_value());
    more.kept_columns = 13;
    config.set("quantization_config", layout("quell").config(std::span(&more, 1), {}));
    EXPECT_FALSE(QuantizedModules::parse(config, "config.json", checkpoint).has_value());
  }
  const ModulePlan module{"m", grid("int4:sym:oc:g4"), 5, 12, 0, 2};
  EXPECT_NE(layout("compressed-tensors").refuse(module).find("2 columns are kept in f16"),
            std::string::npos);
}

TEST(NativeLayout, CarriesWhatIsDoneToInputs) {
  const TemporaryFolder folder;
  ModulePlan module{"m", grid("int4:sym:oc:g4"), 2, 24};
  const auto checkpoint = test::make_checkpoint(
      folder.path(), encoded(layout("quell"), "m", random_quantized(module.grid, 2, 24)));
  const auto parse = [&](const std::string& text) {
    Json config;
    config.set("quantization_config", *parse_json(text, "config.json"));
    return QuantizedModules::parse(config, "config.json", checkpoint);
  };
  module.activation_bits = 4;
  module.activation_group = 12;
  module.rotation = 8;
  module.rotation_seed = (std::uint64_t{1} << 53) - 1;
  EXPECT_EQ(layout("quell").refuse(module), "");
  const std::string text = layout("quell").config(std::span(&module, 1), {}).dump();
  const auto modules = parse(text);
  ASSERT_TRUE(modules.has_value()) << modules.error().message;
  const ModulePlan& back = modules->modules()[0];
  EXPECT_EQ(back.activation_bits, 4u);
  EXPECT_EQ(back.activation_group, 12u);
  EXPECT_EQ(back.rotation, 8u);
  EXPECT_EQ(back.rotation_seed, module.rotation_seed);
  // Each of these would be computed wrongly, or not at all.
  for (const auto& [good, bad, why] :
       {std::array<const char*, 3>{"\"activation_bits\":4", "\"activation_bits\":5", "5 bits"},
        {"\"activation_bits\":4", "\"activation_bits\":8", "only inputs of 4 bits"},
        {"\"activation_group\":12", "\"activation_group\":0", "activation_group"},
        {"\"rotation\":8", "\"rotation\":7", "do not divide 24"},
        {"\"rotation\":8", "\"rotation\":-8", "rotation"},
        {"\"rotation\":8", "\"rotation\":8,\"kept_columns\":2", "kept columns"}}) {
    std::string changed = text;
    const std::size_t at = changed.find(good);
    ASSERT_NE(at, std::string::npos) << good;
    changed.replace(at, std::string_view(good).size(), bad);
    const auto refused = parse(changed);
    ASSERT_FALSE(refused.has_value()) << bad;
    EXPECT_NE(refused.error().message.find(why), std::string::npos) << refused.error().message;
  }
  ModulePlan down = module;
  down.grid = grid("int4:sym:ic:g2");
  EXPECT_NE(layout("quell").refuse(down).find("input channels"), std::string::npos);
  EXPECT_NE(layout("compressed-tensors").refuse(module).find("rotated"), std::string::npos);
}

// ------------------------------------------------------------------ against the package

std::vector<std::uint64_t> numbers(const Json& item, std::string_view name) {
  std::vector<std::uint64_t> out;
  const Json* const list = item.find(name);
  if (list == nullptr) return out;
  for (const Json& value : list->items()) {
    out.push_back(static_cast<std::uint64_t>(value.as_integer()));
  }
  return out;
}

template <typename T>
std::vector<T> narrowed(const std::vector<std::uint64_t>& from) {
  std::vector<T> to;
  for (const std::uint64_t value : from) to.push_back(static_cast<T>(value));
  return to;
}

TEST(CompressedTensors, EqualsThePackageThatDefinesIt) {
  const auto golden = read_json(std::filesystem::path(QUELL_SOURCE_DIR) /
                                "tests/golden/export/compressed_tensors.json");
  ASSERT_TRUE(golden.has_value()) << golden.error().message;
  const auto& cases = golden->find("cases")->items();
  ASSERT_EQ(cases.size(), 11U);
  for (const Json& c : cases) {
    const bool packed = c.find("format")->as_string() == "pack-quantized";
    const bool symmetric = c.find("symmetric")->as_boolean();
    const auto width = c.find("bits")->as_integer();
    const auto group = c.find("group")->as_integer();
    const auto rows = static_cast<std::size_t>(c.find("rows")->as_integer());
    const auto cols = static_cast<std::size_t>(c.find("cols")->as_integer());
    const std::string type = c.find("scale_type")->as_string();
    // The package uses all codes: int8 is int8full here.
    std::string word = "int" + std::to_string(width) + (width == 8 && symmetric ? "full" : "");
    word += symmetric ? ":sym:oc:" : ":asym:oc:";
    word += group == 0 ? "row" : "g" + std::to_string(group);
    word += type == "F16" ? ":f16" : type == "BF16" ? ":bf16" : ":f32";
    std::vector<float> scales;
    for (const std::uint64_t value : numbers(c, "scales")) {
      if (type == "F16") {
        scales.push_back(f16_to_float(static_cast<std::uint16_t>(value)));
      } else if (type == "BF16") {
        scales.push_back(bf16_to_float(static_cast<std::uint16_t>(value)));
      } else {
        scales.push_back(std::bit_cast<float>(static_cast<std::uint32_t>(value)));
      }
    }
    const auto weight = from_codes(word, rows, cols, narrowed<std::uint8_t>(numbers(c, "codes")),
                                   scales, narrowed<std::uint8_t>(numbers(c, "zeros")));
    const ExportLayout& to =
        layout(packed ? "compressed-tensors" : "compressed-tensors:int-quantized");
    const auto tensors = encoded(to, "m", weight);
    if (packed) {
      EXPECT_EQ(tensors[0].bytes,
                test::bytes_of(narrowed<std::uint32_t>(numbers(c, "weight_packed"))))
          << word;
      EXPECT_EQ(tensors[2].bytes, test::bytes_of(numbers(c, "weight_shape"))) << word;
    } else {
      EXPECT_EQ(tensors[0].bytes, test::bytes_of(narrowed<std::uint8_t>(numbers(c, "weight"))))
          << word;
    }
    if (!symmetric) {
      const auto zeros = numbers(c, "weight_zero_point");
      EXPECT_EQ(tensors.back().bytes, packed ? test::bytes_of(narrowed<std::uint32_t>(zeros))
                                             : test::bytes_of(narrowed<std::uint8_t>(zeros)))
          << word;
    }
    std::vector<float> values(cols);
    const auto expected = numbers(c, "values");
    for (std::size_t row = 0; row < rows; ++row) {
      weight.dequantize_row(row, values);
      for (std::size_t col = 0; col < cols; ++col) {
        // The package may give -0 where the product is zero; as numbers they are equal.
        EXPECT_EQ(values[col],
                  std::bit_cast<float>(static_cast<std::uint32_t>(expected[row * cols + col])))
            << word << " at " << row << ", " << col;
      }
    }
  }
}

// ------------------------------------------------------------------ every grid

TEST(ExportLayouts, GiveBackWhatTheyTook) {
  const std::pair<std::size_t, std::size_t> shapes[] = {{1, 1}, {3, 20}, {9, 40}, {33, 5}, {2, 7}};
  for (const ExportLayout& to : export_layouts()) {
    int held = 0;
    for (const std::string& word : all_grids()) {
      for (const auto& [rows, cols] : shapes) {
        const ModulePlan module{"m", grid(word), rows, cols};
        const std::string what = std::string(to.name) + " " + word + " " + std::to_string(rows) +
                                 "x" + std::to_string(cols);
        const auto weight = random_quantized(module.grid, rows, cols);
        if (!to.refuse(module).empty()) {
          EXPECT_NE(to.name, "quell") << what << to.refuse(module);
          continue;
        }
        ++held;
        const auto bytes = to.encode(weight);
        ASSERT_TRUE(bytes.has_value()) << what << bytes.error().message;
        const auto back = to.decode(module, *bytes);
        ASSERT_TRUE(back.has_value()) << what << back.error().message;
        test::expect_equal(*back, weight, what);
      }
    }
    EXPECT_GT(held, 30) << to.name;
  }
}

TEST(ExportLayouts, RefuseBytesOfTheWrongSize) {
  for (const ExportLayout& to : export_layouts()) {
    const auto weight = random_quantized(grid("int8:asym:oc:row"), 4, 6);
    const ModulePlan module{"model.m", weight.grid(), 4, 6};
    auto bytes = to.encode(weight);
    ASSERT_TRUE(bytes.has_value());
    bytes->back().pop_back();
    const auto shorter = to.decode(module, *bytes);
    ASSERT_FALSE(shorter.has_value());
    EXPECT_EQ(shorter.error().code, ErrorCode::shape);
    EXPECT_NE(shorter.error().message.find("model.m."), std::string::npos);
    bytes->pop_back();
    EXPECT_FALSE(to.decode(module, *bytes).has_value());
  }
}

// Read back from a folder. The file does not say which type int8 scales had before they were f32.
TEST(QuantizedModules, ReadsEveryLayoutFromAFolder) {
  for (const ExportLayout& to : export_layouts()) {
    for (const std::string& word : all_grids()) {
      const ModulePlan module{"model.layers.0.proj", grid(word), 6, 20};
      if (!to.refuse(module).empty()) continue;
      const TemporaryFolder folder;
      const auto weight = random_quantized(module.grid, 6, 20);
      auto tensors = encoded(to, module.name, weight);
      tensors.push_back({"model.norm.weight", DType::f32, {1}, std::vector<std::byte>(4)});
      const auto checkpoint = test::make_checkpoint(folder.path(), tensors);
      Json config;
      config.set("quantization_config", to.config(std::span(&module, 1), {}));
      const auto modules = QuantizedModules::parse(config, "config.json", checkpoint);
      ASSERT_TRUE(modules.has_value()) << to.name << " " << word << modules.error().message;
      EXPECT_EQ(modules->layout(), to.name);
      ASSERT_EQ(modules->modules().size(), 1U);
      const ModulePlan* const plan = modules->find(module.name);
      ASSERT_NE(plan, nullptr);
      EXPECT_EQ(modules->find("model.layers.0"), nullptr);
      const auto back = modules->read(*plan, checkpoint);
      ASSERT_TRUE(back.has_value()) << back.error().message;
      EXPECT_EQ(back->parameters().scales, weight.parameters().scales);
      EXPECT_EQ(back->parameters().zeros, weight.parameters().zeros);
      EXPECT_TRUE(std::equal(back->packed_codes().begin(), back->packed_codes().end(),
                             weight.packed_codes().begin(), weight.packed_codes().end()));
      EXPECT_EQ(back->grid().format, weight.grid().format) << word;
      if (to.name == "quell") {
        EXPECT_EQ(to_string(plan->grid), to_string(module.grid));
      }
    }
  }
}

TEST(QuantizedModules, IsEmptyWithoutQuantizationConfig) {
  const TemporaryFolder folder;
  const auto checkpoint = test::make_checkpoint(
      folder.path(), {{"a.weight", DType::f32, {1}, std::vector<std::byte>(4)}});
  Json config;
  config.set("model_type", "llama");
  const auto modules = QuantizedModules::parse(config, "config.json", checkpoint);
  ASSERT_TRUE(modules.has_value());
  EXPECT_TRUE(modules->empty());
  EXPECT_EQ(modules->layout(), "");
}

// ------------------------------------------------------------------ refusals and config

void expect_reason(std::string_view to, const ModulePlan& module, const std::string& text) {
  const std::string reason = layout(to).refuse(module);
  EXPECT_NE(reason.find(text), std::string::npos) << to << ": " << reason;
}

TEST(ExportLayouts, SayWithNumbersWhatTheyCannotHold) {
  expect_reason("compressed-tensors", {"m", grid("int4:sym:ic:g8"), 16, 16}, "int4:sym:ic:g8");
  expect_reason("compressed-tensors", {"m", grid("int4:sym:oc:g128"), 4, 172},
                "rows of 172 are not a multiple of the group 128 (the last one would have 44)");
  expect_reason("compressed-tensors", {"m", grid("int3:sym:oc:row"), 4, 32}, "3-bit");
  expect_reason("compressed-tensors", {"m", grid("nf4:sym:oc:g32"), 4, 32},
                "nf4 is a codebook (nf4:sym:oc:g32)");
  expect_reason("compressed-tensors", {"m", grid("int4:sym:oc:g32:u4"), 4, 32},
                "scales have two levels (int4:sym:oc:g32:u4)");
  expect_reason("compressed-tensors", {"m", grid("int4:sym:oc:row:f32"), 4, 32},
                "choose --scale-type f16 or bf16");
  expect_reason("compressed-tensors", {"m", grid("int4"), 4, 32, 8}, "inputs");
  expect_reason("compressed-tensors:int-quantized", {"m", grid("int4"), 4, 32}, "4 bits");
  expect_reason("compressed-tensors:int-quantized", {"m", grid("int8:sym:oc:g16"), 4, 32},
                "groups of 16");
  for (const ExportLayout& to : export_layouts()) {
    expect_reason(to.name, {"m", grid("int8"), 0, 32}, "0 x 32");
  }
  // A group as long as the row, or longer, is the row.
  EXPECT_EQ(layout("compressed-tensors").refuse({"m", grid("int4:sym:oc:g128"), 4, 64}), "");
}

constexpr std::string_view kUniform =
    R"({"quant_method":"compressed-tensors","format":"pack-quantized",)"
    R"("quantization_status":"compressed","global_compression_ratio":null,"kv_cache_scheme":null,)"
    R"("ignore":["lm_head"],"config_groups":{"group_0":{"targets":["Linear"],)"
    R"("weights":{"num_bits":4,"type":"int","symmetric":true,"strategy":"group","group_size":32,)"
    R"("dynamic":false,"actorder":null,"block_structure":null,"observer":"minmax",)"
    R"("observer_kwargs":{}},"input_activations":null,"output_activations":null}},)"
    R"("quell_grids":{"group_0":"int4:sym:oc:g32"}})";

TEST(CompressedTensors, ConfigOfOneSchemeTargetsLinear) {
  const std::vector<ModulePlan> modules = {{"a", grid("int4:sym:oc:g32"), 4, 64},
                                           {"b", grid("int4:sym:oc:g32:bf16"), 8, 32}};
  const std::vector<ModulePlan> same = {modules[0], {"b", modules[1].grid, 8, 64}};
  const std::vector<std::string> ignored = {"lm_head"};
  EXPECT_EQ(layout("compressed-tensors").config(same, ignored).dump(), kUniform);
  // A tied head has no tensors, so nobody names it; readers would quantize it as a Linear.
  EXPECT_EQ(layout("compressed-tensors").config(same, {}).dump(), kUniform);
}

TEST(CompressedTensors, ConfigDoesNotIgnoreAQuantizedHead) {
  const std::vector<ModulePlan> modules = {{"lm_head", grid("int4:sym:oc:g32"), 4, 64}};
  EXPECT_TRUE(layout("compressed-tensors").config(modules, {}).find("ignore")->items().empty());
}

TEST(CompressedTensors, ConfigOfSeveralSchemesNamesEveryModuleOnce) {
  const std::vector<ModulePlan> modules = {{"x.a", grid("int4:sym:oc:g32"), 4, 64},
                                           {"x.b", grid("int8:sym:oc:row"), 4, 64},
                                           {"x.c", grid("int4:sym:oc:g32"), 4, 64},
                                           {"x.d", grid("int4:sym:oc:g64"), 4, 64},
                                           {"x.e", grid("int4:asym:oc:g32"), 4, 64}};
  const Json config = layout("compressed-tensors").config(modules, {});
  const Json* const groups = config.find("config_groups");
  ASSERT_EQ(groups->members().size(), 4U);
  EXPECT_EQ(groups->find("group_0")->find("targets")->dump(), R"(["x.a","x.c"])");
  EXPECT_EQ(groups->find("group_1")->find("targets")->dump(), R"(["x.b"])");
  EXPECT_EQ(groups->find("group_1")->find("weights")->find("strategy")->as_string(), "channel");
  EXPECT_TRUE(groups->find("group_1")->find("weights")->find("group_size")->is(Json::Kind::null));
  // g64 of rows of 64 is one group per row.
  EXPECT_EQ(groups->find("group_2")->find("weights")->find("strategy")->as_string(), "channel");
  EXPECT_FALSE(groups->find("group_3")->find("weights")->find("symmetric")->as_boolean());
}

TEST(IntQuantized, ConfigSaysWhetherInputsAreQuantized) {
  const ModulePlan plain{"a", grid("int8:sym:oc:row:f32"), 4, 64};
  ModulePlan active = plain;
  active.activation_bits = 8;
  const ExportLayout& to = layout("compressed-tensors:int-quantized");
  EXPECT_EQ(to.refuse(active), "");
  const auto group = [&](const ModulePlan& module) {
    return to.config(std::span(&module, 1), {}).find("config_groups")->find("group_0")->dump();
  };
  EXPECT_NE(group(plain).find(R"("input_activations":null)"), std::string::npos);
  EXPECT_NE(group(active).find(R"("input_activations":{"num_bits":8,"type":"int","symmetric":true,)"
                               R"("strategy":"token","group_size":null,"dynamic":true)"),
            std::string::npos);
  // Readers that derive the format from the scheme need to be told; others must not see the member.
  EXPECT_NE(group(plain).find(R"("format":"int-quantized")"), std::string::npos);
  EXPECT_EQ(group(active).find("format"), std::string::npos);
}

}  // namespace
}  // namespace quell::io
