// SPDX-License-Identifier: Apache-2.0

// The main job as a user runs it: results that verify, that do not depend on threads, instruction
// set or memory, and that can be evaluated.

#include <gtest/gtest.h>

#include <cmath>
#include <span>

#include "golden_hashes.hpp"
#include "program.hpp"
#include "quell/io/safetensors.hpp"

namespace quell::test {
namespace {

TEST(Quantize, WritesAFolderThatVerifiesAndEvaluates) {
  const SmallJob job;
  const io::Json done = quell_json(job.quantize("out"));
  EXPECT_EQ(done.find("schema")->as_integer(), 1);
  EXPECT_EQ(done.find("command")->as_string(), "quantize");
  EXPECT_EQ(done.find("modules")->items().size(), 21u);  // 7 linears in 3 blocks
  for (const io::Json& module : done.find("modules")->items()) {
    EXPECT_EQ(module.find("method")->as_string(), "balanced");
    EXPECT_EQ(module.find("grid")->as_string(), "int4:sym:oc:g32:bf16");
    EXPECT_LE(module.find("objective")->as_number(), module.find("objective_rtn")->as_number());
  }
  // 4 bits and one 16-bit scale for 32 weights, and the 16-byte shapes that compressed-tensors
  // keeps.
  EXPECT_NEAR(done.find("bits_per_weight")->as_number(), 4.5, 0.05);
  const io::Json verified = quell_json({"verify", job.path("out")});
  EXPECT_TRUE(verified.find("complete")->as_boolean());
  EXPECT_TRUE(verified.find("problems")->items().empty());
  const io::Json evaluated = quell_json({"eval", job.path("out"), "--against", job.model, "--text",
                                         job.text, "--context", "64", "--max-tokens", "1024"});
  EXPECT_GT(evaluated.find("against")->find("kl_mean")->as_number(), 0);
  EXPECT_EQ(evaluated.find("against")->find("layers")->items().size(), 3u);
}

TEST(Quantize, GptqIsCloserToTheOriginalThanRounding) {
  const SmallJob job;
  const auto kl = [&](const std::string& output) {
    return quell_json({"eval", job.path(output), "--against", job.model, "--text", job.text,
                       "--context", "64"})
        .find("against")
        ->find("kl_mean")
        ->as_number();
  };
  quell_json(job.quantize("gptq", {"--method", "gptq"}));
  quell_json(job.quantize("rtn", {"--method", "rtn"}));
  EXPECT_LT(kl("gptq"), kl("rtn"));
  quell_json(job.quantize("balanced", {"--method", "balanced"}));
  EXPECT_LT(kl("balanced"), kl("gptq"));
}

// Every scheme from text to a folder that records it, and back through the engine.
TEST(Quantize, SchemesRoundActivationsWhereTheResultRuns) {
  const SmallJob job;
  const auto quantized = [&](const std::string& output, std::vector<std::string> more) {
    return quell_json(job.quantize(output, std::move(more)));
  };
  const auto kl = [&](const std::string& output, std::vector<std::string> more = {}) {
    std::vector<std::string> arguments = {"eval",   job.path(output), "--against", job.model,
                                          "--text", job.text,         "--context", "64"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return quell_json(arguments).find("against")->find("kl_mean")->as_number();
  };
  const io::Json plain =
      quantized("a8", {"--scheme", "W8A8", "--group-size", "-1", "--keep-columns", "0"});
  for (const io::Json& module : plain.find("modules")->items()) {
    EXPECT_EQ(module.find("activation_bits")->as_integer(), 8);
    EXPECT_EQ(module.find("kept_columns")->as_integer(), 0);
  }
  // What engines run: int8 weights and a config that asks for int8 inputs.
  const std::string config = read_bytes(job.path("a8") + "/config.json");
  EXPECT_NE(config.find("int-quantized"), std::string::npos);
  EXPECT_NE(config.find("\"input_activations\": {"), std::string::npos);
  const double rounded = kl("a8");
  EXPECT_GT(rounded, kl("a8", {"--activations", "f32"}));
  // The kernels round as the reference does; only sums differ.
  EXPECT_NEAR(kl("a8", {"--kernels"}), rounded, 0.01 * rounded);

  const io::Json cured = quantized("kept", {"--scheme", "W8A8", "--group-size", "-1"});
  for (const io::Json& module : cured.find("modules")->items()) {
    // One of 128 channels, begun: of 64, and of the 160 of down.
    const bool wide = module.find("name")->as_string().ends_with("down_proj");
    EXPECT_EQ(module.find("kept_columns")->as_integer(), wide ? 2 : 1);
  }
  EXPECT_NEAR(kl("kept", {"--kernels"}), kl("kept"), 0.01 * rounded);
  quell_json({"verify", job.path("kept")});

  quantized("a4", {"--scheme", "W4A4", "--method", "gptq", "--to", "quell"});
  const io::Json turned = quantized("turned", {"--scheme", "W4A4"});
  EXPECT_EQ(turned.find("modules")->items()[0].find("method")->as_string(), "hadamard+balanced");
  EXPECT_NE(kl("turned"), kl("a4"));
  EXPECT_NEAR(kl("turned", {"--kernels"}), kl("turned"), 0.01 * kl("turned"));
  quell_json({"generate", job.path("turned"), "--prompt", "the sea", "--tokens", "3"});
  expect_error(quell({"quantize", job.path("turned"), "-o", job.path("again"), "--method", "rtn",
                      "--allow-requantize"}),
               3, {"rotated in blocks of", "original"});
}

TEST(Quantize, CuresThatCannotBeAreRefusedWithTheReason) {
  const SmallJob job;
  const auto refused = [&](std::vector<std::string> more, std::initializer_list<std::string> why) {
    expect_error(quell(job.quantize("out", std::move(more))), 2, why);
  };
  refused({"--keep-columns", "none"}, {"--keep-columns none", "auto"});
  refused({"--keep-columns", "65"}, {"--keep-columns 65 of 64"});
  refused({"--scheme", "W4A4", "--keep-columns", "1"}, {"exclude each other"});
  refused({"--scheme", "W8A8", "--rule", "*=int8:sym:ic:row"}, {"groups down input channels"});
  refused({"--scheme", "W4A8", "--to", "compressed-tensors"}, {"int-quantized"});
  refused({"--method", "hadamard+gptq", "--to", "compressed-tensors"}, {"rotated"});
  refused({"--scheme", "W4A8", "--keep-columns", "2", "--rule", "*=iq4:sym:oc:g32"}, {"no zero"});
  expect_error(quell({"quantize", job.model, "-o", job.path("out"), "--method", "rtn",
                      "--keep-columns", "1"}),
               2, {"--keep-columns 1", "--calib"});
  // Without text there is nothing to choose by: said, and not guessed.
  const Ended blind = quell(
      {"quantize", job.model, "-o", job.path("blind"), "--method", "rtn", "--scheme", "W8A8"});
  EXPECT_EQ(blind.code, 0) << blind.err;
  EXPECT_NE(blind.err.find("no columns are kept"), std::string::npos) << blind.err;
}

TEST(Quantize, StatisticsFromAFileKeepTheSameColumns) {
  const SmallJob job;
  const std::string file = job.path("a.stats");
  quell_json({"quantize", job.model, "--calib", job.text, "--seqlen", "64", "--samples", "4",
              "--save-stats", file});
  quell_json({"quantize", job.model, "-o", job.path("out"), "--stats", file, "--scheme", "W4A8"});
  const io::Json json = quell_json({"quantize", job.model, "-o", job.path("rounded"), "--stats",
                                    file, "--scheme", "W4A8", "--method", "rtn"});
  EXPECT_EQ(json.find("modules")->items()[0].find("kept_columns")->as_integer(), 1);
  // The same file, so the same columns: what rounding and feedback keep of them is equal too.
  const auto kept = [&](const std::string& output) {
    auto files = io::Checkpoint::open(job.path(output));
    EXPECT_TRUE(files.has_value());
    std::string all;
    for (const io::TensorInfo& tensor : files->tensors()) {
      if (tensor.name.find("_kept_") == std::string::npos) continue;
      std::string bytes(static_cast<std::size_t>(tensor.bytes), '\0');
      EXPECT_TRUE(files->read(tensor, std::as_writable_bytes(std::span(bytes))));
      all += tensor.name + bytes;
    }
    return all;
  };
  EXPECT_FALSE(kept("out").empty());
  EXPECT_EQ(kept("out"), kept("rounded"));
}

TEST(Quantize, GivesTheSameBitsForAnyThreadsAndInstructionSet) {
  const SmallJob job;
  for (const std::string method : {"gptq", "balanced"}) {
    const auto hash = [&](const std::string& output, const std::string& threads,
                          const Environment& environment) {
      return hash_of(quell_json(
          job.quantize(output + method, {"--threads", threads, "--method", method}), environment));
    };
    const std::string one = hash("one", "1", {});
    EXPECT_EQ(one.size(), 64u);
    EXPECT_EQ(hash("two", "2", {}), one) << method;
    EXPECT_EQ(hash("three", "3", {}), one) << method;
    EXPECT_EQ(hash("avx2", "2", {{"QUELL_ISA", "avx2"}}), one) << method;
    EXPECT_EQ(hash("scalar", "2", {{"QUELL_ISA", "scalar"}}), one) << method;
  }
}

TEST(Quantize, HiddenStatesOnDiskGiveTheSameBits) {
  SmallJob job;
  // balanced holds those of two models, and what o reads.
  for (const std::string method : {"gptq", "balanced"}) {
    job.method = method;
    const std::string free = hash_of(quell_json(job.quantize("free" + method)));
    const io::Json plan = quell_json(job.quantize("x", {"--dry-run", "--max-memory", "64GB"}));
    // Hidden states of 8 * 64 tokens of 64 channels are 131,072 bytes a model; one byte less than
    // all of it sends them to disk.
    const auto peak = plan.find("peak_memory_bytes")->as_integer();
    const io::Json tight =
        quell_json(job.quantize("tight" + method, {"--max-memory", std::to_string(peak - 1)}));
    EXPECT_EQ(hash_of(tight), free) << method;
  }
  expect_error(quell(job.quantize("less", {"--max-memory", "1MB"})), 4,
               {"--max-memory", "at least", "MiB"});
  EXPECT_FALSE(std::filesystem::exists(job.path("less")));
}

TEST(Quantize, StatisticsInPartsGiveTheBitsOfOneRun) {
  const SmallJob job;
  // 40 sequences of 64 tokens are two chunks of 2,048 tokens, one for each part.
  const std::vector<std::string> data = {"--calib", job.text, "--seqlen", "64", "--samples", "40"};
  const auto run = [&](std::vector<std::string> arguments, bool with_data) {
    arguments.insert(arguments.begin(), {"quantize", job.model});
    if (with_data) arguments.insert(arguments.end(), data.begin(), data.end());
    return quell_json(arguments);
  };
  run({"--save-stats", job.path("all.stats")}, true);
  run({"--save-stats", job.path("1.stats"), "--shard", "1/2"}, true);
  run({"--save-stats", job.path("2.stats"), "--shard", "2/2"}, true);
  quell_json(
      {"stats", "merge", job.path("merged.stats"), job.path("2.stats"), job.path("1.stats")});
  EXPECT_EQ(read_bytes(job.path("merged.stats")), read_bytes(job.path("all.stats")));
  const io::Json one = run({"-o", job.path("one"), "--stats", job.path("all.stats")}, false);
  const io::Json parts = run({"-o", job.path("parts"), "--stats", job.path("merged.stats")}, false);
  EXPECT_EQ(hash_of(one), hash_of(parts));

  expect_error(
      quell({"stats", "merge", job.path("twice"), job.path("1.stats"), job.path("1.stats")}), 2,
      {"part 1 of 2", "twice"});
  expect_error(
      quell({"quantize", job.model, "-o", job.path("half"), "--stats", job.path("1.stats")}), 2,
      {"1 of 2 parts", "merge"});
  make_model(job.folder / "other", {"1", "64", "4", "2", "160", "300", "1"});
  expect_error(
      quell({"quantize", job.path("other"), "-o", job.path("o"), "--stats", job.path("all.stats")}),
      3, {"made for model"});
}

/// |a - b| / |b| of two tensors of F64.
double relative_difference(const io::Checkpoint& a, const io::Checkpoint& b,
                           const std::string& name) {
  const auto values = [&](const io::Checkpoint& file) {
    const io::TensorInfo* info = file.find(name);
    EXPECT_NE(info, nullptr) << name;
    std::vector<double> read(info->bytes / sizeof(double));
    EXPECT_TRUE(file.read(*info, std::as_writable_bytes(std::span(read))));
    return read;
  };
  const std::vector<double> x = values(a), y = values(b);
  double difference = 0, norm = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    difference += (x[i] - y[i]) * (x[i] - y[i]);
    norm += y[i] * y[i];
  }
  return std::sqrt(difference / norm);
}

TEST(EnginePrecision, InBf16GivesMomentsNearThoseOfF32) {
  const SmallJob job;
  const auto save = [&](const std::string& name, std::vector<std::string> more) {
    std::vector<std::string> arguments = {"quantize",  job.model, "--save-stats", job.path(name),
                                          "--calib",   job.text,  "--seqlen",     "64",
                                          "--samples", "8"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    quell_json(arguments);
    return io::Checkpoint::open(job.path(name));
  };
  const auto f32 = save("f32", {});
  const auto bf16 = save("bf16", {"--engine-precision", "bf16", "--threads", "1"});
  ASSERT_TRUE(save("again", {"--engine-precision", "bf16", "--threads", "3"}));
  ASSERT_TRUE(f32 && bf16);
  EXPECT_EQ(read_bytes(job.path("again")), read_bytes(job.path("bf16")));
  // Nothing was multiplied with a weight before the first input.
  EXPECT_EQ(relative_difference(*bf16, *f32, "0.qkv_in.moment"), 0);
  // A value rounded to bfloat16 is off by up to 2^-8 of itself, less than 2^-9 in the mean square;
  // so, for random signs, is what a linear makes of many. Three blocks have twelve linears in a
  // row, and a moment is a square: 2 sqrt(12) 2^-9 = 0.0135. A pass that forgets to round gives
  // 1e-6.
  for (const char* name : {"0.o_in.moment", "0.mlp_in.moment", "0.down_in.moment",
                           "1.qkv_in.moment", "2.qkv_in.moment", "2.down_in.moment"}) {
    const double difference = relative_difference(*bf16, *f32, name);
    EXPECT_LT(difference, 0.0135) << name;
    EXPECT_GT(difference, 1e-5) << name;
  }
  expect_error(quell({"stats", "merge", job.path("both"), job.path("f32"), job.path("bf16")}), 2,
               {"--engine-precision"});
  const io::Json from_file =
      quell_json({"quantize", job.model, "-o", job.path("from-file"), "--stats", job.path("bf16")});
  EXPECT_EQ(from_file.find("engine_precision")->as_string(), "bf16");
}

TEST(EnginePrecision, StandsInTheResultAndDoesNotDependOnThreads) {
  const SmallJob job;
  const auto in_bf16 = [&](const std::string& output, const char* threads) {
    return quell_json(job.quantize(output, {"--engine-precision", "bf16", "--threads", threads}));
  };
  const io::Json one = in_bf16("one", "1");
  EXPECT_EQ(one.find("engine_precision")->as_string(), "bf16");
  EXPECT_EQ(hash_of(in_bf16("three", "3")), hash_of(one));
  EXPECT_EQ(quell_json(job.quantize("f32")).find("engine_precision")->as_string(), "f32");
  // Rounding looks at no text.
  EXPECT_TRUE(quell_json(job.quantize("rtn", {"--method", "rtn"}))
                  .find("engine_precision")
                  ->is(io::Json::Kind::null));
  expect_error(quell(job.quantize("bad", {"--engine-precision", "f16"})), 2, {"f16", "f32, bf16"});
  EXPECT_FALSE(std::filesystem::exists(job.path("bad")));
  write_bytes(job.folder / "recipe.json", R"({"recipe": 1, "engine_precision": "fast"})");
  expect_error(quell(job.quantize("bad", {"--recipe", job.path("recipe.json")})), 3,
               {"recipe.json", "fast", "f32, bf16"});
}

TEST(EnginePrecision, OfOutliersIsNearThatOfF32) {
  const SmallJob job;
  const auto largest = [&](std::vector<std::string> more) {
    std::vector<std::string> arguments = {"outliers", job.model, "--calib",   job.text,
                                          "--seqlen", "64",      "--samples", "4"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const io::Json found = quell_json(arguments);
    EXPECT_EQ(found.find("engine_precision")->as_string(), more.empty() ? "f32" : "bf16");
    double absmax = 0;
    for (const io::Json& tensor : found.find("tensors")->items()) {
      if (tensor.find("name")->as_string().find("2.down_in") != std::string::npos) {
        absmax = tensor.find("absmax")->as_number();
      }
    }
    return absmax;
  };
  const double f32 = largest({}), bf16 = largest({"--engine-precision", "bf16"});
  EXPECT_GT(f32, 0);
  EXPECT_NE(f32, bf16);
  // Twelve roundings of 2^-8 in a row would be 0.047, were they all of one sign.
  EXPECT_NEAR(bf16, f32, 0.047 * f32);
  expect_error(quell({"outliers", job.model, "--engine-precision", "f64"}), 2, {"f64"});
}

TEST(Quantize, RulesChooseMethodsAndGridsAndIgnoreKeeps) {
  const SmallJob job;
  const io::Json done =
      quell_json(job.quantize("out", {"--rule", "*.down_proj=rtn@int8:sym:oc:g32", "--rule",
                                      "*.0.mlp.*=keep", "--ignore", "*.q_proj"}));
  std::size_t rounded = 0;
  for (const io::Json& module : done.find("modules")->items()) {
    const std::string& name = module.find("name")->as_string();
    EXPECT_EQ(name.find("q_proj"), std::string::npos);
    EXPECT_EQ(name.find("layers.0.mlp"), std::string::npos);
    if (name.ends_with("down_proj")) {
      ++rounded;
      EXPECT_EQ(module.find("method")->as_string(), "rtn");
      EXPECT_EQ(module.find("grid")->as_string(), "int8:sym:oc:g32:bf16");
    }
  }
  EXPECT_EQ(rounded, 2u);
}

TEST(Quantize, EveryGridCanBeWrittenReadAndEvaluated) {
  const SmallJob job;
  const char* kGrids[] = {"int2:sym:oc:g32",      "int3:asym:oc:g32",  "int4:sym:ic:g16",
                          "int4:asym:oc:g48",     "int4n:sym:oc:row",  "int8:sym:oc:row:f32",
                          "int8full:asym:ic:row", "int4:asym:oc:g32",  "nf4:sym:oc:g64",
                          "iq4:sym:ic:g16",       "int4:sym:oc:g32:u4"};
  for (const char* grid : kGrids) {
    SCOPED_TRACE(grid);
    const std::string output = std::string("out-") + grid;
    quell_json(job.quantize(output, {"--rule", std::string("*=") + grid}));
    const io::Json result = quell_json({"eval", job.path(output), "--against", job.model, "--text",
                                        job.text, "--context", "64", "--max-tokens", "256"});
    EXPECT_LT(result.find("against")->find("kl_mean")->as_number(), 1.0);
  }
}

TEST(Quantize, GridsThatALayoutCannotHoldAreRefusedBeforeWorkStarts) {
  const SmallJob job;
  for (const std::string grid : {"nf4:sym:oc:g32", "int4:sym:oc:g32:f32:u4"}) {
    expect_error(quell(job.quantize("out", {"--rule", "*=" + grid, "--to", "compressed-tensors"})),
                 2, {"layers.0", grid, "--to quell"});
    EXPECT_FALSE(std::filesystem::exists(job.path("out")));
  }
  expect_error(quell(job.quantize("out", {"--rule", "*=nf4:asym"})), 2,
               {"nf4:asym", "symmetric only"});
  // Without --to the layout that can hold them is taken; scales of rows are f32.
  const io::Json done =
      quell_json(job.quantize("two", {"--method", "rtn", "--rule", "*=int4:sym:oc:g32:u4"}));
  for (const io::Json& module : done.find("modules")->items()) {
    EXPECT_EQ(module.find("grid")->as_string(), "int4:sym:oc:g32:f32:u4");
  }
}

TEST(Quantize, PerAutoIsAdadimAndWordsThatSettleTheDirectionContradictIt) {
  const SmallJob job;
  const auto words = [&](std::vector<std::string> more) {
    more.push_back("--dry-run");
    return quell_json(job.quantize("x", std::move(more)));
  };
  const io::Json by_per = words({"--per", "auto", "--method", "rtn"});
  const io::Json& module = by_per.find("modules")->items().front();
  EXPECT_EQ(module.find("method")->as_string(), "adadim+rtn");
  EXPECT_EQ(by_per.find("layout")->as_string(), "quell");
  // Groups of 48 cut 160 x 64 into 320 runs along rows and 256 down columns: the directions differ
  // in bytes, so nothing is left to choose. Of 64 x 64 they do not differ.
  const io::Json odd = words({"--method", "adadim+rtn", "--group-size", "48"});
  EXPECT_NE(odd.find("modules")->items()[0].find("per"), nullptr);
  EXPECT_EQ(odd.find("modules")->items()[4].find("per"), nullptr);  // gate
  EXPECT_NE(odd.find("notes")->items().front().as_string().find("along rows without a choice"),
            std::string::npos);
  expect_error(quell(job.quantize("x", {"--method", "adadim+rtn", "--per", "output"})), 2,
               {"adadim+rtn chooses the direction", "--per"});
  expect_error(quell(job.quantize("x", {"--per", "both"})), 2, {"both", "output, input or auto"});
  expect_error(quell(job.quantize("x", {"--method", "adadim+rtn", "--to", "compressed-tensors"})),
               2, {"layers.0"});
  expect_error(quell({"quantize", job.model, "-o", job.path("x"), "--method", "adadim+rtn"}), 2,
               {"adadim+rtn", "--calib"});
  expect_error(quell(job.quantize("x", {"--method", "gptq+adadim"})), 2, {"gptq holds no other"});
}

TEST(Quantize, AnUnknownArchitectureCanStillBeRounded) {
  const SmallJob job;
  const std::string config = job.model + "/config.json";
  std::string text = read_bytes(config);
  for (const std::string word : {"LlamaForCausalLM", "\"llama\""}) {
    text.replace(text.find(word), word.size(), word[0] == '"' ? "\"novel\"" : "NovelForCausalLM");
  }
  write_bytes(config, text);
  expect_error(quell(job.quantize("out")), 3,
               {"NovelForCausalLM", "LlamaForCausalLM", "--method rtn"});
  const io::Json done =
      quell_json({"quantize", job.model, "-o", job.path("rounded"), "--method", "rtn"});
  EXPECT_EQ(done.find("modules")->items().size(), 21u);
}

// The whole chain in four hashes: rounding, feedback with search, feedback in the native layout on
// an asymmetric ragged grid, the default. They change only when results change, which is then a
// decision.
TEST(Quantize, HashesOfFourSmallResultsAreGolden) {
  const SmallJob job;
  EXPECT_EQ(hash_of(quell_json(job.quantize("a", {"--method", "rtn"}))), QUELL_GOLDEN_RTN);
  EXPECT_EQ(hash_of(quell_json(job.quantize("b", {"--method", "gptq"}))), QUELL_GOLDEN_GPTQ);
  EXPECT_EQ(hash_of(quell_json(job.quantize(
                "c", {"--method", "gptq", "--asym", "--group-size", "48", "--to", "quell"}))),
            QUELL_GOLDEN_NATIVE);
  EXPECT_EQ(hash_of(quell_json(job.quantize("d"))), QUELL_GOLDEN_BALANCED);
}

}  // namespace
}  // namespace quell::test
