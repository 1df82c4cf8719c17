// SPDX-License-Identifier: Apache-2.0

// What users get wrong and what they are told. The names in the test cases are those of the list of
// bad inputs.

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstring>

#include "program.hpp"
#include "support/safetensors_text.hpp"

namespace quell::test {
namespace {

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const std::size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return at == std::string::npos ? text : text.replace(at, from.size(), to);
}

std::string npy(const std::string& type, const std::string& shape, const std::string& data) {
  std::string header =
      "{'descr': '" + type + "', 'fortran_order': False, 'shape': " + shape + ", }";
  while ((10 + header.size() + 1) % 64 != 0) header += ' ';
  header += '\n';
  std::string bytes("\x93NUMPY\x01\x00", 8);
  bytes += static_cast<char>(header.size() & 0xFF);
  bytes += static_cast<char>(header.size() >> 8);
  return bytes + header + data;
}

std::string int32s(std::initializer_list<std::int32_t> values) {
  std::string data;
  for (const std::int32_t value : values) data.append(reinterpret_cast<const char*>(&value), 4);
  return data;
}

TEST(Usage, NamesWhatIsMissingOrMisspelt) {
  const SmallJob job;
  expect_error(quell({}), 2, {"--help"});
  expect_error(quell({"quantise", job.model}), 2, {"quantize"});
  expect_error(quell({"quantize", job.model, "-o", job.path("out"), "--methd", "rtn"}), 2,
               {"--methd", "--method"});
  expect_error(quell({"quantize", job.model, "-o", job.path("out")}), 2,
               {"give --calib", "--method rtn"});
  expect_error(quell({"quantize", job.model, "-o", job.path("out"), "--method", "gptqq"}), 2,
               {"gptqq", "gptq", "rtn"});
  expect_error(quell(job.quantize("out", {"--bits", "5"})), 2, {"5", "2, 3, 4 and 8"});
  expect_error(quell(job.quantize("out", {"--max-memory", "lots"})), 2, {"lots", "1500MB"});
  expect_error(quell(job.quantize("out", {"--to", "gguf"})), 2,
               {"gguf", "compressed-tensors", "quell"});
  expect_error(quell({"eval", job.model}), 2, {"--text"});
  expect_error(quell({"inspect", job.path("nowhere")}), 3, {"nowhere"});
  EXPECT_FALSE(std::filesystem::exists(job.path("out")));
}

TEST(Usage, ErrorsAreJsonWhereJsonWasAskedFor) {
  const SmallJob job;
  const Ended ended = quell({"inspect", job.path("nowhere"), "--json"});
  EXPECT_EQ(ended.code, 3);
  auto json = io::parse_json(ended.out, "stdout");
  ASSERT_TRUE(json) << ended.out;
  EXPECT_EQ(json->find("schema")->as_integer(), 1);
  EXPECT_EQ(json->find("error")->find("code")->as_string(), "missing");
  EXPECT_NE(json->find("error")->find("message")->as_string().find("nowhere"), std::string::npos);
}

TEST(C01, ConfigAbsentEmptyOrNotJson) {
  const SmallJob job;
  const std::string config = job.model + "/config.json";
  const std::string good = read_bytes(config);
  std::filesystem::remove(config);
  expect_error(quell(job.quantize("out")), 3, {"config.json"});
  write_bytes(config, "");
  expect_error(quell(job.quantize("out")), 3, {"config.json"});
  write_bytes(config, "not json");
  expect_error(quell(job.quantize("out")), 3, {"config.json"});
  write_bytes(config, good);
  EXPECT_EQ(quell({"inspect", job.model}).code, 0);
}

TEST(C02, ConfigNumbersThatAreNone) {
  const SmallJob job;
  const std::string config = job.model + "/config.json";
  const std::string good = read_bytes(config);
  for (const std::string value :
       {"\"64\"", "-64", "64.5", "1e400", "null", "0", "99999999999999999999"}) {
    SCOPED_TRACE(value);
    write_bytes(config, replaced(good, "\"hidden_size\": 64", "\"hidden_size\": " + value));
    expect_error(quell({"inspect", job.model}), 3, {"config.json"});
  }
}

TEST(C03, ConfigThatDisagreesWithTheWeights) {
  const SmallJob job;
  const std::string config = job.model + "/config.json";
  const std::string good = read_bytes(config);
  const auto with = [&](const std::string& from, const std::string& to) {
    write_bytes(config, replaced(good, from, to));
    return quell({"inspect", job.model});
  };
  expect_error(with("\"hidden_size\": 64", "\"hidden_size\": 128"), 3, {"128", "64"});
  expect_error(with("\"num_hidden_layers\": 3", "\"num_hidden_layers\": 4"), 3, {"layers.3"});
  expect_error(with("\"num_hidden_layers\": 3", "\"num_hidden_layers\": 2"), 3, {"2"});
  expect_error(with("\"num_key_value_heads\": 2", "\"num_key_value_heads\": 3"), 3, {"3", "4"});
}

TEST(C06, RecipesSayWhereTheyAreWrong) {
  const SmallJob job;
  const std::string file = job.path("recipe.json");
  const auto with = [&](const std::string& text) {
    write_bytes(file, text);
    return quell(job.quantize("out", {"--recipe", file}));
  };
  expect_error(with("{\"recipe\": 1,\n \"metod\": \"gptq\"}"), 3,
               {"recipe.json:2:", "metod", "\"method\""});
  expect_error(with("{\"recipe\": 1, \"method\": \"gptqq\"}"), 3, {"gptqq", "gptq"});
  expect_error(with("{\"recipe\": 1, \"bits\": \"4\"}"), 3, {"bits", "whole number"});
  expect_error(with("{\"recipe\": 1, \"bits\": 4, \"bits\": 8}"), 3, {"bits"});
  expect_error(with("{\"recipe\": 2}"), 3, {"version 2"});
  expect_error(with("{}"), 3, {"\"recipe\": 1"});
  expect_error(with("[1]"), 3, {"object"});
  expect_error(with("{\"recipe\": 1, \"rules\": [\"*.nothing=keep\"]}"), 2,
               {"*.nothing", "q_proj"});
  expect_error(with("{\"recipe\": 1, \"ignore\": [\"*\"]}"), 2, {"nothing is left"});
  expect_error(with("{\"recipe\": 1, \"rules\": [\"" + std::string(5000, 'a') + "=keep\"]}"), 3,
               {"1024"});
  EXPECT_EQ(with("{\"recipe\": 1, \"method\": \"rtn\", \"bits\": 8, \"group_size\": 32}").code, 0);
}

TEST(C07, IdsBeyondTheEmbeddingAreRefused) {
  const SmallJob job;
  const std::string file = job.model + "/tokenizer.json";
  const std::string good = read_bytes(file);
  std::filesystem::remove(file);
  expect_error(quell(job.quantize("out")), 3, {"tokenizer"});
  // The letter a gets an id for which the embedding of 300 rows has none.
  write_bytes(file, replaced(good, "\"a\":97", "\"a\":5000"));
  expect_error(quell(job.quantize("out")), 3, {"5000", "300"});
  EXPECT_FALSE(std::filesystem::exists(job.path("out")));
}

TEST(C09, PickledWeightsAreNotRead) {
  const SmallJob job;
  const TemporaryFolder other;
  std::filesystem::copy(job.model + "/config.json", other / "config.json");
  write_bytes(other / "pytorch_model.bin", "\x80\x02}q");
  expect_error(quell({"inspect", other.path().string()}), 3, {"pickled", "safetensors"});
}

// A model of one block whose q_proj can be given any values.
std::filesystem::path float_model(const std::filesystem::path& folder,
                                  void (*change)(std::vector<float>&)) {
  make_model(folder, {"1", "64", "4", "2", "160", "300", "1"});
  const std::filesystem::path file = folder / "model.safetensors";
  std::string bytes = read_bytes(file);
  std::uint64_t header_size = 0;
  std::memcpy(&header_size, bytes.data(), 8);
  auto header = io::parse_json(bytes.substr(8, header_size), "header");
  EXPECT_TRUE(header);
  const io::Json* offsets =
      header->find("model.layers.0.self_attn.q_proj.weight")->find("data_offsets");
  const std::size_t begin =
      8 + header_size + static_cast<std::size_t>(offsets->items()[0].as_integer());
  std::vector<float> values(64 * 64);
  for (std::size_t i = 0; i < values.size(); ++i) {
    std::uint16_t half = 0;
    std::memcpy(&half, bytes.data() + begin + 2 * i, 2);
    const std::uint32_t word = static_cast<std::uint32_t>(half) << 16;
    std::memcpy(&values[i], &word, 4);
  }
  change(values);
  for (std::size_t i = 0; i < values.size(); ++i) {
    std::uint32_t word = 0;
    std::memcpy(&word, &values[i], 4);
    const auto half = static_cast<std::uint16_t>(word >> 16);
    std::memcpy(bytes.data() + begin + 2 * i, &half, 2);
  }
  write_bytes(file, bytes);
  return folder;
}

TEST(W01, WeightsThatAreNotFinite) {
  for (const float bad : {NAN, INFINITY, -INFINITY}) {
    const SmallJob job;
    static float value;
    value = bad;
    const std::string model = float_model(job.folder / "bad", [](std::vector<float>& w) {
                                w[3 * 64 + 5] = value;
                              }).string();
    const std::vector<std::string> rtn = {"quantize",      model,      "-o",
                                          job.path("out"), "--method", "rtn"};
    expect_error(quell(rtn), 3, {"q_proj", "[3, 5]", "--nonfinite"});
    expect_error(quell({"eval", model, "--text", job.text, "--context", "64"}), 3,
                 {"q_proj", "[3, 5]"});
    EXPECT_EQ(quell({"inspect", model}).code, 0);
    auto zero = rtn;
    zero.insert(zero.end(), {"--nonfinite", "zero", "--force"});
    EXPECT_EQ(quell(zero).code, 0);
    auto skip = rtn;
    skip.insert(skip.end(), {"--nonfinite", "skip", "--force"});
    const io::Json skipped = quell_json(skip);
    EXPECT_EQ(skipped.find("modules")->items().size(), 6u);
  }
}

TEST(W02AndW03AndW05, ZeroConstantAndHugeWeights) {
  void (*const changes[])(std::vector<float>&) = {
      [](std::vector<float>& w) { std::fill(w.begin(), w.end(), 0.0f); },
      [](std::vector<float>& w) { std::fill(w.begin(), w.begin() + 64, 0.0f); },
      [](std::vector<float>& w) {
        for (std::size_t i = 0; i < 64; ++i) w[i * 64] = 0;
      },
      [](std::vector<float>& w) { std::fill(w.begin(), w.end(), 0.5f); },
      [](std::vector<float>& w) { w[100] = 1e30f; },
  };
  for (auto* change : changes) {
    const SmallJob job;
    const std::string model = float_model(job.folder / "odd", change).string();
    for (const std::string method : {"rtn", "gptq"}) {
      for (const std::string symmetry : {"--sym", "--asym"}) {
        const Ended ended = quell({"quantize", model, "-o", job.path("out"), "--method", method,
                                   symmetry, "--calib", job.text, "--seqlen", "64", "--samples",
                                   "4", "--group-size", "32", "--force"});
        EXPECT_EQ(ended.code, 0) << ended.err;
        EXPECT_EQ(quell({"verify", job.path("out")}).code, 0);
      }
    }
  }
}

TEST(W06, ScalesThatF16CannotHoldAreRefusedWithAFix) {
  const SmallJob job;
  const std::string model =
      float_model(job.folder / "huge", [](std::vector<float>& w) { w[7] = 3e6f; }).string();
  expect_error(
      quell({"quantize", model, "-o", job.path("out"), "--method", "rtn", "--scale-type", "f16"}),
      5, {"q_proj", "f32"});
  EXPECT_EQ(quell({"quantize", model, "-o", job.path("ok"), "--method", "rtn"}).code,
            0);  // bf16 holds them
}

TEST(W09, AQuantizedModelIsNotQuantizedAgainUnasked) {
  const SmallJob job;
  EXPECT_EQ(quell(job.quantize("once")).code, 0);
  const std::vector<std::string> again = {"quantize",        job.path("once"), "-o",
                                          job.path("twice"), "--method",       "rtn"};
  expect_error(quell(again), 3, {"compressed-tensors", "--allow-requantize"});
  auto allowed = again;
  allowed.push_back("--allow-requantize");
  EXPECT_EQ(quell(allowed).code, 0);
}

TEST(W10, GroupsThatDoNotDivideTheRow) {
  const SmallJob job;
  expect_error(quell(job.quantize("out", {"--group-size", "48", "--to", "compressed-tensors"})), 2,
               {"48", "64"});
  EXPECT_EQ(quell(job.quantize("native", {"--group-size", "48"})).code, 0);
  EXPECT_EQ(quell(job.quantize("long", {"--group-size", "1000", "--to", "quell"})).code, 0);
  EXPECT_EQ(quell(job.quantize("row", {"--group-size", "-1"})).code, 0);
  EXPECT_EQ(quell(job.quantize("one", {"--group-size", "1", "--to", "quell"})).code, 0);
  expect_error(quell(job.quantize("bad", {"--group-size", "-2"})), 2, {"-2", "whole row"});
}

TEST(H01AndX06, TextThatIsTooShort) {
  const SmallJob job;
  for (const std::string text : {"", " ", "\n"}) {
    const std::string file = job.path("short.txt");
    write_bytes(file, text);
    const Ended ended =
        quell({"quantize", job.model, "-o", job.path("out"), "--calib", file, "--seqlen", "64"});
    if (text.empty()) {
      expect_error(ended, 3, {"short.txt", "need at least 2 tokens"});
    } else {
      EXPECT_EQ(ended.code, 0) << ended.err;  // BOS and one token are a sequence, if a poor one
      std::filesystem::remove_all(job.path("out"));
    }
  }
  expect_error(quell({"eval", job.model, "--text", job.path("absent.txt")}), 3, {"absent.txt"});
}

TEST(H02, TextThatIsNotText) {
  const SmallJob job;
  const std::string file = job.path("binary.txt");
  write_bytes(file, std::string("abc\0def", 7));
  expect_error(quell({"eval", job.model, "--text", file, "--context", "64"}), 3,
               {"binary.txt", "offset 3"});
  write_bytes(file, "mixed\r\nline\rends\n\xFF\xFE and broken bytes " + std::string(200, 'x'));
  EXPECT_EQ(quell({"eval", job.model, "--text", file, "--context", "64"}).code, 0);
}

TEST(H12AndH13, IdsAndLengthsThatDoNotFit) {
  const SmallJob job;
  const std::string ids = job.path("ids.npy"), lengths = job.path("lengths.npy");
  const auto eval = [&](bool with_lengths) {
    std::vector<std::string> arguments = {"eval", job.model, "--ids", ids, "--context", "64"};
    if (with_lengths) arguments.insert(arguments.end(), {"--lengths", lengths});
    return quell(arguments);
  };
  write_bytes(ids, npy("<i4", "(3,)", int32s({1, 2, 300})));
  expect_error(eval(false), 3, {"300", "position 2"});
  write_bytes(ids, npy("<i4", "(3,)", int32s({1, -2, 3})));
  expect_error(eval(false), 3, {"-2", "position 1"});
  write_bytes(ids, npy("<i8", "(1,)", std::string(8, '\0')));
  expect_error(eval(false), 3, {"ids.npy", "int64"});
  write_bytes(ids, npy("<i4", "(4,)", int32s({1, 2, 3, 4})));
  write_bytes(lengths, npy("<i4", "(2,)", int32s({4, 0})));
  expect_error(eval(true), 3, {"length 0"});
  write_bytes(lengths, npy("<i4", "(1,)", int32s({3})));
  expect_error(eval(true), 3, {"sum to 3", "4 ids"});
  write_bytes(lengths, npy("<i4", "(1,)", int32s({5000})));
  expect_error(eval(true), 3, {"5000", "2048"});
  write_bytes(lengths, npy("<i4", "(1,)", int32s({4})));
  EXPECT_EQ(eval(true).code, 0);
  expect_error(quell({"eval", job.model, "--text", job.text, "--context", "4096"}), 2,
               {"4096", "2048"});
}

TEST(O03AndO04AndO05, PlacesThatCannotBeWritten) {
  const SmallJob job;
  const std::string before = read_bytes(job.model + "/model-00001-of-00002.safetensors");
  expect_error(quell({"quantize", job.model, "-o", job.model, "--method", "rtn"}), 2,
               {"own folder"});
  expect_error(quell({"quantize", job.model, "-o", job.model + "/inside", "--method", "rtn"}), 2,
               {"own folder"});
  expect_error(quell({"quantize", job.model, "-o", job.folder.path().string(), "--method", "rtn"}),
               2, {"holds the other"});
  std::filesystem::create_directory_symlink(job.model, job.folder / "link");
  expect_error(quell({"quantize", job.model, "-o", job.path("link"), "--method", "rtn"}), 2,
               {"own folder"});
  write_bytes(job.path("file"), "x");
  expect_error(quell({"quantize", job.model, "-o", job.path("file"), "--method", "rtn"}), 2,
               {"file"});
  expect_error(quell({"quantize", job.model, "-o", job.path("no/such/parent"), "--method", "rtn"}),
               2, {"no/such"});
  EXPECT_EQ(quell({"quantize", job.model, "-o", job.path("out"), "--method", "rtn"}).code, 0);
  expect_error(quell({"quantize", job.model, "-o", job.path("out"), "--method", "rtn"}), 2,
               {"--force"});
  EXPECT_EQ(
      quell({"quantize", job.model, "-o", job.path("out"), "--method", "rtn", "--force"}).code, 0);
  EXPECT_EQ(read_bytes(job.model + "/model-00001-of-00002.safetensors"), before);
}

TEST(X05, VerifyNamesWhatIsWrong) {
  const SmallJob job;
  EXPECT_EQ(quell(job.quantize("out")).code, 0);
  const std::filesystem::path out = job.path("out");
  const std::string weights = read_bytes(out / "model.safetensors"),
                    config = read_bytes(out / "config.json");
  std::string flipped = weights;
  flipped[flipped.size() / 2] = static_cast<char>(flipped[flipped.size() / 2] ^ 1);
  write_bytes(out / "model.safetensors", flipped);
  expect_error(quell({"verify", out.string()}), 6, {"model.safetensors"});
  write_bytes(out / "model.safetensors", "");
  expect_error(quell({"verify", out.string()}), 6, {"model.safetensors"});
  write_bytes(out / "model.safetensors", weights);
  write_bytes(out / "config.json", config + " ");
  expect_error(quell({"verify", out.string()}), 6, {"config.json"});
  write_bytes(out / "config.json", config);
  EXPECT_EQ(quell({"verify", out.string()}).code, 0);
  std::filesystem::remove(out / "quell.manifest");
  expect_error(quell({"verify", out.string()}), 6, {"manifest"});
}

TEST(X08, AModelAgainstItselfHasNoDivergence) {
  const SmallJob job;
  const io::Json result = quell_json(
      {"eval", job.model, "--against", job.model, "--text", job.text, "--context", "64"});
  EXPECT_EQ(result.find("against")->find("kl_mean")->as_number(), 0.0);
  EXPECT_EQ(result.find("against")->find("kl_max")->as_number(), 0.0);
  EXPECT_EQ(result.find("against")->find("top1_agreement")->as_number(), 1.0);
}

TEST(Gate, AMeanDivergenceAboveTheLimitExitsWith6) {
  const SmallJob job;
  EXPECT_EQ(quell(job.quantize("out")).code, 0);
  const std::vector<std::string> eval = {"eval",    job.path("out"), "--against", job.model,
                                         "--text",  job.text,        "--context", "64",
                                         "--max-kl"};
  auto strict = eval, loose = eval;
  strict.push_back("1e-9");
  loose.push_back("100");
  expect_error(quell(strict), 6, {"--max-kl"});
  EXPECT_EQ(quell(loose).code, 0);
}

TEST(G21, StatisticsThatAreDamaged) {
  const SmallJob job;
  const std::string file = job.path("a.stats");
  quell_json({"quantize", job.model, "--calib", job.text, "--seqlen", "64", "--samples", "4",
              "--save-stats", file});
  const std::string good = read_bytes(file);
  const auto use = [&] {
    return quell({"quantize", job.model, "-o", job.path("out"), "--stats", file, "--force"});
  };
  EXPECT_EQ(use().code, 0);
  write_bytes(file, replaced(good, "\\\"schema\\\":2", "\\\"schema\\\":9"));
  expect_error(use(), 3, {"schema 9"});
  std::string nan = good;
  const double value = NAN;
  std::memcpy(nan.data() + nan.size() - 8, &value, 8);
  write_bytes(file, nan);
  expect_error(use(), 3, {"a.stats"});
  write_bytes(file, good.substr(0, good.size() - 100));
  expect_error(use(), 3, {"a.stats"});
  write_bytes(file, replaced(good, "\\\"tokens_fed\\\":256", "\\\"tokens_fed\\\":255"));
  expect_error(use(), 3, {"counts other tokens"});
}

}  // namespace
}  // namespace quell::test
