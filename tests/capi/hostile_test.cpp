// SPDX-License-Identifier: Apache-2.0

// Arguments that make no sense, memory that is not there, and threads that do not keep their part:
// a status and a sentence each, no crash, nothing leaked.

#include <gtest/gtest.h>

#include <climits>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "capi/codes_of.hpp"
#include "capi/in_c.h"
#include "quell/core/tensor.hpp"
#include "quell/quell.h"
#include "support/files.hpp"
#include "support/quantized.hpp"

namespace quell {
namespace {

const QuantizedTensor& small_weight() {
  static const QuantizedTensor weight =
      test::random_quantized(*parse_grid("int4:asym:oc:g32"), 64, 64, 1);
  return weight;
}

template <typename T>
T sized() {
  T made = {};
  made.struct_size = sizeof made;
  return made;
}

class HostileC : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(quell_context_create(nullptr, &context_), QUELL_OK);
    test::Codes codes(small_weight());
    ASSERT_EQ(quell_weight_from_codes(context_, &codes.c, &weight_), QUELL_OK);
    ASSERT_EQ(quell_pack(context_, weight_, QUELL_INT8, &packed_), QUELL_OK);
  }
  void TearDown() override {
    quell_packed_free(packed_);
    quell_weight_free(weight_);
    quell_context_free(context_);
  }
  /// The status, which must come with a sentence that holds `words`.
  void expect(quell_status found, quell_status wanted, const char* words) {
    EXPECT_EQ(found, wanted) << quell_message(context_);
    EXPECT_NE(std::string(quell_message(context_)).find(words), std::string::npos)
        << quell_message(context_) << " does not say: " << words;
  }
  /// Expects that the codes are refused, and no handle made.
  void refuse(const quell_codes& codes, quell_status wanted, const char* words) {
    auto* weight = reinterpret_cast<quell_weight*>(&context_);  // to be set to null
    expect(quell_weight_from_codes(context_, &codes, &weight), wanted, words);
    EXPECT_EQ(weight, nullptr);
  }

  quell_context* context_ = nullptr;
  quell_weight* weight_ = nullptr;
  quell_packed* packed_ = nullptr;
  std::vector<float> x_ = std::vector<float>(2 * 64, 1.0f), y_ = std::vector<float>(2 * 64);
};

TEST_F(HostileC, NullIsRefusedEverywhere) {
  quell_weight* weight = nullptr;
  quell_packed* packed = nullptr;
  quell_checkpoint* checkpoint = nullptr;
  std::size_t bytes = 0;
  auto weight_info = sized<quell_weight_info>();
  auto packed_info = sized<quell_packed_info>();
  test::Codes codes(small_weight());

  EXPECT_EQ(quell_context_create(nullptr, nullptr), QUELL_USAGE);
  EXPECT_EQ(quell_gemm(nullptr, packed_, x_.data(), 1, 64, y_.data(), 64), QUELL_USAGE);
  EXPECT_STREQ(quell_message(nullptr), "the context is null");
  expect(quell_weight_from_codes(context_, nullptr, &weight), QUELL_USAGE, "null");
  expect(quell_weight_from_codes(context_, &codes.c, nullptr), QUELL_USAGE, "null");
  expect(quell_weight_from_floats(context_, nullptr, 2, 2, 2, nullptr, &weight), QUELL_USAGE,
         "values of 2 x 2 is null");
  expect(quell_weight_from_floats(context_, x_.data(), 2, 2, 2, nullptr, nullptr), QUELL_USAGE,
         "null");
  expect(quell_weight_describe(context_, nullptr, &weight_info), QUELL_USAGE, "null");
  expect(quell_weight_describe(context_, weight_, nullptr), QUELL_USAGE, "null");
  expect(quell_weight_values(context_, nullptr, y_.data(), 64), QUELL_USAGE, "null");
  expect(quell_weight_values(context_, weight_, nullptr, 64), QUELL_USAGE, "null");
  expect(quell_pack(context_, nullptr, QUELL_F32, &packed), QUELL_USAGE, "null");
  expect(quell_pack(context_, weight_, QUELL_F32, nullptr), QUELL_USAGE, "null");
  expect(quell_packed_bytes(context_, nullptr, QUELL_F32, &bytes), QUELL_USAGE, "null");
  expect(quell_packed_bytes(context_, weight_, QUELL_F32, nullptr), QUELL_USAGE, "null");
  expect(quell_pack_into(context_, weight_, QUELL_F32, nullptr, 100, &packed), QUELL_USAGE, "null");
  expect(quell_packed_view(context_, nullptr, 100, &packed), QUELL_USAGE, "null");
  expect(quell_packed_describe(context_, nullptr, &packed_info), QUELL_USAGE, "null");
  expect(quell_packed_describe(context_, packed_, nullptr), QUELL_USAGE, "null");
  expect(quell_gemm(context_, nullptr, x_.data(), 1, 64, y_.data(), 64), QUELL_USAGE, "null");
  expect(quell_gemm(context_, packed_, nullptr, 1, 64, y_.data(), 64), QUELL_USAGE, "x of 1 x 64");
  expect(quell_gemm(context_, packed_, x_.data(), 1, 64, nullptr, 64), QUELL_USAGE, "y of 1 x 64");
  std::int8_t rounded[64];
  float scale = 0;
  expect(quell_quantize_rows(context_, nullptr, 1, 64, 64, rounded, 64, &scale), QUELL_USAGE, "x");
  expect(quell_quantize_rows(context_, x_.data(), 1, 64, 64, nullptr, 64, &scale), QUELL_USAGE,
         "codes");
  expect(quell_quantize_rows(context_, x_.data(), 1, 64, 64, rounded, 64, nullptr), QUELL_USAGE,
         "scales");
  expect(quell_explain(context_, nullptr, nullptr), QUELL_USAGE, "null");
  expect(quell_checkpoint_open(context_, nullptr, &checkpoint), QUELL_USAGE, "null");
  expect(quell_checkpoint_open(context_, "x", nullptr), QUELL_USAGE, "null");
  expect(quell_checkpoint_weight(context_, nullptr, "x", &weight), QUELL_USAGE, "null");
  EXPECT_EQ(quell_checkpoint_count(nullptr), 0u);
  quell_weight_free(nullptr);
  quell_packed_free(nullptr);
  quell_checkpoint_free(nullptr);
  quell_context_free(nullptr);
}

TEST_F(HostileC, SizesAreCheckedBeforeAnythingIsRead) {
  const std::size_t huge = SIZE_MAX / 2;
  quell_weight* weight = nullptr;
  quell_packed* packed = nullptr;
  expect(quell_gemm(context_, packed_, x_.data(), 2, 63, y_.data(), 64), QUELL_SHAPE, "63");
  expect(quell_gemm(context_, packed_, x_.data(), 2, 64, y_.data(), 7), QUELL_SHAPE, "7");
  expect(quell_gemm(context_, packed_, x_.data(), huge, 64, y_.data(), 64), QUELL_SHAPE,
         "does not fit");
  expect(quell_gemm(context_, packed_, x_.data(), 3, huge, y_.data(), 64), QUELL_SHAPE,
         "does not fit");
  expect(quell_weight_from_floats(context_, x_.data(), huge, huge, huge, nullptr, &weight),
         QUELL_SHAPE, "does not fit");
  expect(quell_weight_from_floats(context_, x_.data(), 0, 5, 5, "int4", &weight), QUELL_SHAPE,
         "no elements");
  expect(quell_weight_from_floats(context_, x_.data(), 2, 2, 2, "int5", &weight), QUELL_USAGE,
         "int5");
  for (const int wrong : {9, -1, INT_MIN, INT_MAX}) {
    expect(quell_pack(context_, weight_, static_cast<quell_activations>(wrong), &packed),
           QUELL_USAGE, std::to_string(wrong).c_str());
    EXPECT_STREQ(quell_status_name(static_cast<quell_status>(wrong)),
                 wrong == 9 ? "interrupted" : "unknown");
  }
}

TEST_F(HostileC, NoTokensAreNoWork) {
  EXPECT_EQ(quell_gemm(context_, packed_, nullptr, 0, 0, nullptr, 0), QUELL_OK);
  EXPECT_EQ(quell_quantize_rows(context_, nullptr, 0, 5, 5, nullptr, 5, nullptr), QUELL_OK);
}

TEST_F(HostileC, CodesAndParametersAreChecked) {
  test::Codes good(small_weight());
  quell_codes bad = good.c;
  bad.grid = nullptr;
  refuse(bad, QUELL_USAGE, "grid is null");
  bad = good.c;
  bad.codes = nullptr;
  refuse(bad, QUELL_USAGE, "codes of 64 x 64 is null");
  bad = good.c;
  bad.rows = 0;
  refuse(bad, QUELL_SHAPE, "no elements");
  bad = good.c;
  bad.rows = SIZE_MAX;
  refuse(bad, QUELL_SHAPE, "does not fit");
  bad = good.c;
  bad.scale_count -= 1;
  refuse(bad, QUELL_SHAPE, "scales: 127, expected 128");
  bad = good.c;
  bad.scales = nullptr;
  refuse(bad, QUELL_USAGE, "scales is null");
  bad = good.c;
  bad.zeros = nullptr;
  bad.zero_count = 0;
  refuse(bad, QUELL_SHAPE, "zeros: 0, expected 128");
  bad = good.c;
  bad.integer_count = SIZE_MAX;
  refuse(bad, QUELL_SHAPE, "integers of groups");
  bad = good.c;
  bad.grid = "int4:sym:oc:g32";
  refuse(bad, QUELL_SHAPE, "zeros: 128, expected 0");

  for (const float scale : {NAN, INFINITY, 0.0f, -1.0f, 1.0f + 0x1p-20f}) {
    test::Codes codes(small_weight());
    codes.parameters().scales[3] = scale;
    refuse(codes.c, QUELL_NUMERIC, "scale [1, 1]");
  }
  test::Codes codes(small_weight());
  codes.codes()[65] = 16;
  refuse(codes.c, QUELL_NUMERIC, "code [1, 1] is 16");
  test::Codes zeros(small_weight());
  zeros.parameters().zeros[0] = 16;
  refuse(zeros.c, QUELL_NUMERIC, "zero [0, 0]");
  const float values[4] = {1, NAN, 2, 3};
  quell_weight* weight = nullptr;
  expect(quell_weight_from_floats(context_, values, 2, 2, 2, "int4", &weight), QUELL_NUMERIC,
         "NaN at row 0, column 1");
}

TEST_F(HostileC, StructuresOfOtherVersionsAreToldApart) {
  test::Codes codes(small_weight());
  for (const std::size_t size :
       {std::size_t{0}, std::size_t{8}, sizeof(quell_codes) - 1, SIZE_MAX}) {
    codes.c.struct_size = size;
    refuse(codes.c, QUELL_USAGE, "struct_size");
  }
  // A later version: its fields may be zero, and are refused if they ask for something.
  struct Later {
    quell_codes known;
    std::uint64_t more;
  } later = {codes.c, 0};
  later.known.struct_size = sizeof later;
  quell_weight* weight = nullptr;
  ASSERT_EQ(quell_weight_from_codes(context_, &later.known, &weight), QUELL_OK);
  quell_weight_free(weight);
  later.more = 1;
  refuse(later.known, QUELL_UNSUPPORTED, "does not know");
  struct LaterInfo {
    quell_packed_info known;
    std::uint64_t more;
  } info = {{}, 7};
  info.known.struct_size = sizeof info;
  ASSERT_EQ(quell_packed_describe(context_, packed_, &info.known), QUELL_OK);
  EXPECT_EQ(info.more, 0u);
  EXPECT_EQ(info.known.struct_size, sizeof info);
  info.known.struct_size = 8;
  expect(quell_packed_describe(context_, packed_, &info.known), QUELL_USAGE, "struct_size");

  quell_context* context = nullptr;
  auto options = sized<quell_context_options>();
  options.struct_size = 3;
  EXPECT_EQ(quell_context_create(&options, &context), QUELL_USAGE);
  options = sized<quell_context_options>();
  auto allocator = sized<quell_allocator>();
  options.allocator = &allocator;  // without functions
  EXPECT_EQ(quell_context_create(&options, &context), QUELL_USAGE);
  EXPECT_EQ(context, nullptr);
}

TEST_F(HostileC, FilesThatAreNoCheckpointsAreRefused) {
  const test::TemporaryFolder folder;
  quell_checkpoint* checkpoint = nullptr;
  expect(quell_checkpoint_open(context_, (folder / "absent").c_str(), &checkpoint), QUELL_MISSING,
         "absent");
  test::write_bytes(folder / "model.safetensors", "no header");
  expect(quell_checkpoint_open(context_, folder.path().c_str(), &checkpoint), QUELL_PARSE,
         "model.safetensors");
  const std::string header =
      "{\"m.weight\":{\"dtype\":\"I32\",\"shape\":[1],\"data_offsets\":[0,4]}}";
  std::string file(8, '\0');
  file[0] = static_cast<char>(header.size());
  test::write_bytes(folder / "model.safetensors", file + header + std::string(4, '\0'));
  ASSERT_EQ(quell_checkpoint_open(context_, folder.path().c_str(), &checkpoint), QUELL_OK)
      << quell_message(context_);
  quell_weight* weight = nullptr;
  expect(quell_checkpoint_weight(context_, checkpoint, "m.weight", &weight), QUELL_UNSUPPORTED,
         "m.weight");
  expect(quell_checkpoint_weight(context_, checkpoint, "m\n.weight", &weight), QUELL_MISSING, "m");
  quell_checkpoint_free(checkpoint);
  const std::string endless =
      "{\"m.weight\":{\"dtype\":\"F32\",\"shape\":[281474976710655,0],\"data_offsets\":[0,0]}}";
  file[0] = static_cast<char>(endless.size());
  test::write_bytes(folder / "model.safetensors", file + endless);
  ASSERT_EQ(quell_checkpoint_open(context_, folder.path().c_str(), &checkpoint), QUELL_OK)
      << quell_message(context_);
  expect(quell_checkpoint_weight(context_, checkpoint, "m.weight", &weight), QUELL_SHAPE,
         "no elements");
  quell_checkpoint_free(checkpoint);
  test::write_bytes(folder / "config.json",
                    "{\"quantization_config\":{\"quant_method\":\"other\"}}");
  expect(quell_checkpoint_open(context_, folder.path().c_str(), &checkpoint), QUELL_UNSUPPORTED,
         "other");
  EXPECT_EQ(checkpoint, nullptr);
  expect(quell_set_isa_cap(context_, "avx1024"), QUELL_USAGE, "scalar");
}

TEST(HostileMemory, EveryAllocationMayFail) {
  test::Codes codes(small_weight());
  const std::vector<float> x(2 * 64, 1.0f);
  std::vector<float> y(2 * 64);
  char kernel[64];
  std::size_t failures = 0;
  for (std::size_t fail_at = 1;; ++fail_at) {
    counting_memory memory = {};
    memory.fail_at = fail_at;
    const quell_allocator allocator = counting_allocator(&memory);
    auto options = sized<quell_context_options>();
    options.allocator = &allocator;
    quell_context* context = nullptr;
    quell_status status = quell_context_create(&options, &context);
    if (status == QUELL_OK) {
      status = in_c_multiply(context, &codes.c, QUELL_INT8, x.data(), 2, y.data(), kernel);
      if (status != QUELL_OK) {
        EXPECT_NE(std::string(quell_message(context)).find("out of memory"), std::string::npos);
      }
    }
    quell_context_free(context);
    EXPECT_EQ(memory.bytes_held, 0u) << "leaked when allocation " << fail_at << " failed";
    EXPECT_EQ(memory.taken, memory.given_back);
    if (status == QUELL_OK) break;
    ASSERT_EQ(status, QUELL_RESOURCE);
    ++failures;
  }
  EXPECT_EQ(failures, 5u) << "context, weight, packed bytes, packed handle, scratch";
}

TEST(HostileMemory, AtAnOddPlaceIsGivenBack) {
  counting_memory memory = {};
  quell_allocator allocator = counting_allocator(&memory);
  static void* (*const take)(void*, std::size_t, std::size_t) = allocator.allocate;
  static void (*const give_back)(void*, void*, std::size_t) = allocator.release;
  allocator.allocate = [](void* state, std::size_t bytes, std::size_t alignment) -> void* {
    return static_cast<char*>(take(state, bytes + 4, alignment)) + 4;
  };
  allocator.release = [](void* state, void* place, std::size_t bytes) {
    give_back(state, static_cast<char*>(place) - 4, bytes + 4);
  };
  auto options = sized<quell_context_options>();
  options.allocator = &allocator;
  quell_context* context = nullptr;
  EXPECT_EQ(quell_context_create(&options, &context), QUELL_RESOURCE);
  EXPECT_EQ(context, nullptr);
  EXPECT_EQ(memory.taken, 1u);
  EXPECT_EQ(memory.bytes_held, 0u);
}

TEST_F(HostileC, NoExceptionOfTheHostLeaves) {
  const auto thrower = [](void*, const quell_kernel*) -> int { throw 7; };
  expect(quell_explain(context_, thrower, nullptr), QUELL_RESOURCE, "exception");
}

TEST(HostileThreads, MayBeGivenNothing) {
  test::Codes codes(small_weight());
  const std::vector<float> x(64, 1.0f);
  std::vector<float> y(64);
  char kernel[64];
  auto executor = sized<quell_executor>();
  executor.width = 3;
  executor.run = [](void*, std::size_t n, std::size_t, quell_range range, void* work) {
    range(work, 0, n, 0);
    range(work, n, n, 1);  // what is left for the others
    range(work, n, n, 2);
  };
  auto options = sized<quell_context_options>();
  options.executor = &executor;
  quell_context* context = nullptr;
  ASSERT_EQ(quell_context_create(&options, &context), QUELL_OK);
  EXPECT_EQ(in_c_multiply(context, &codes.c, QUELL_INT8, x.data(), 1, y.data(), kernel), QUELL_OK)
      << quell_message(context);
  quell_context_free(context);
}

TEST(HostileThreads, ThatDoNotKeepTheirPartAreToldSo) {
  test::Codes codes(small_weight());
  const std::vector<float> x(64, 1.0f);
  std::vector<float> y(64);
  char kernel[64];
  using RunFunction = void (*)(void*, std::size_t, std::size_t, quell_range, void*);
  const RunFunction bad[] = {
      [](void*, std::size_t, std::size_t, quell_range, void*) {},  // does nothing
      [](void*, std::size_t n, std::size_t, quell_range range, void* work) {
        range(work, 0, n, 9);
      },
      [](void*, std::size_t n, std::size_t, quell_range range, void* work) {
        range(work, 0, n + 1, 0);
      },
      [](void*, std::size_t n, std::size_t, quell_range range, void* work) {
        range(work, 0, n, 0);
        range(work, 0, n, 1);  // twice
      },
  };
  for (const RunFunction run : bad) {
    auto executor = sized<quell_executor>();
    executor.width = 2;
    executor.run = run;
    auto options = sized<quell_context_options>();
    options.executor = &executor;
    quell_context* context = nullptr;
    ASSERT_EQ(quell_context_create(&options, &context), QUELL_OK);
    EXPECT_EQ(in_c_multiply(context, &codes.c, QUELL_F32, x.data(), 1, y.data(), kernel),
              QUELL_USAGE);
    EXPECT_NE(std::string(quell_message(context)).find("executor"), std::string::npos);
    quell_context_free(context);
  }
  auto options = sized<quell_context_options>();
  auto executor = sized<quell_executor>();
  options.executor = &executor;  // width 0, no function
  quell_context* context = nullptr;
  EXPECT_EQ(quell_context_create(&options, &context), QUELL_USAGE);
}

}  // namespace
}  // namespace quell
