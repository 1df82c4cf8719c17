// SPDX-License-Identifier: Apache-2.0

// An encoder from text to a quantized folder and back: what each verb says and does, and what
// verbs that need predictions answer instead.

#include <gtest/gtest.h>

#include <string>

#include "program.hpp"
#include "support/golden_model.hpp"
#include "support/shared.hpp"

namespace quell::test {
namespace {

/// A tokenizer.json for the words of make_text and single letters; ids stay below 131.
std::string tokenizer_json() {
  std::string vocabulary = R"("[PAD]":0,"[UNK]":1,"[CLS]":2,"[SEP]":3,".":4)";
  int id = 5;
  for (const char* word : {"the", "small", "river", "ran", "down", "to", "grey", "sea", "and",
                           "nobody", "spoke", "until", "night"}) {
    vocabulary += std::string(",\"") + word + "\":" + std::to_string(id++);
  }
  for (char c = 'a'; c <= 'z'; ++c) {
    vocabulary += std::string(",\"") + c + "\":" + std::to_string(id++);
    vocabulary += std::string(",\"##") + c + "\":" + std::to_string(id++);
  }
  return R"({"version":"1.0","added_tokens":[{"id":2,"content":"[CLS]","special":true},)"
         R"({"id":3,"content":"[SEP]","special":true}],"normalizer":{"type":"BertNormalizer",)"
         R"("clean_text":true,"handle_chinese_chars":true,"strip_accents":null,"lowercase":true},)"
         R"("pre_tokenizer":{"type":"BertPreTokenizer"},"post_processor":{"type":"BertProcessing",)"
         R"("cls":["[CLS]",2],"sep":["[SEP]",3]},"decoder":{"type":"WordPiece","prefix":"##"},)"
         R"("model":{"type":"WordPiece","unk_token":"[UNK]","continuing_subword_prefix":"##",)"
         R"("max_input_chars_per_word":100,"vocab":{)" +
         vocabulary + "}}}";
}

/// A random BERT of two layers with a tokenizer, and twelve short documents.
struct EncoderJob {
  explicit EncoderJob(const GoldenModel& golden = read_golden("bert")) {
    golden.write(folder / "model");
    write_bytes(folder / "model/tokenizer.json", tokenizer_json());
    write_bytes(folder / "model/pooling.json",
                R"({"word_embedding_dimension":96,"pooling_mode_mean_tokens":true})");
    const std::string words = read_bytes(make_text(folder / "words.txt", 300));
    std::string documents;
    for (std::size_t at = 0, line = 0; at < words.size(); ++line) {
      const std::size_t end = words.find('\n', at);
      if (end == std::string::npos) break;
      documents += words.substr(at, end + 1 - at) + "<|endoftext|>\n";
      at = end + 1;
    }
    write_bytes(folder / "texts.txt", documents);
  }
  std::string path(const std::string& name) const { return (folder / name).string(); }
  std::vector<std::string> quantize(const std::string& output,
                                    std::vector<std::string> more) const {
    std::vector<std::string> arguments = {"quantize",    model,          "-o",
                                          path(output),  "--calib",      text,
                                          "--documents", "--group-size", "32"};
    // Work this small only waits for a second thread.
    arguments.insert(arguments.end(), {"--threads", "1"});
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }
  std::vector<std::string> compare(const std::string& other) const {
    return {"eval", path(other),   "--against", model, "--text",
            text,   "--documents", "--threads", "1"};
  }

  TemporaryFolder folder;
  std::string model = path("model"), text = path("texts.txt");
};

double number(const io::Json& json, const char* name) {
  const io::Json* against = json.find("against");
  EXPECT_NE(against, nullptr);
  const io::Json* value = against == nullptr ? nullptr : against->find(name);
  EXPECT_NE(value, nullptr) << name;
  return value == nullptr ? -1 : value->as_number();
}

TEST(Encoder, IsInspected) {
  const EncoderJob job;
  const io::Json json = quell_json({"inspect", job.model});
  EXPECT_EQ(json.find("architecture")->as_string(), "BertModel");
  EXPECT_EQ(json.find("tokenizer")->as_string(), "WordPiece");
  EXPECT_TRUE(json.find("tied_head")->is(io::Json::Kind::null));
  EXPECT_EQ(json.find("pooling")->as_string(), "mean");
  EXPECT_EQ(json.find("layers")->as_integer(), 2);
  EXPECT_TRUE(json.find("warnings")->items().empty());
  const Ended ended = quell({"inspect", job.model});
  EXPECT_EQ(ended.code, 0) << ended.err;
  EXPECT_NE(ended.out.find("an encoder"), std::string::npos) << ended.out;
}

TEST(Encoder, WritesNoText) {
  const EncoderJob job;
  expect_error(quell({"generate", job.model, "--prompt", "the sea"}), 3,
               {"BertModel is an encoder", "embeddings"});
}

TEST(Encoder, IsMeasuredAgainstItsOriginalOnly) {
  const EncoderJob job;
  expect_error(quell({"eval", job.model, "--text", job.text}), 2,
               {"encoder", "--against", "cosine error", "nearest neighbour"});
  const std::string decoder = make_model(job.folder / "decoder").string();
  expect_error(quell({"eval", job.model, "--text", job.text, "--against", decoder}), 2,
               {"model (BertModel) is an encoder", "LlamaForCausalLM"});
  expect_error(quell({"eval", decoder, "--text", job.text, "--against", job.model}), 2,
               {"model (BertModel) is an encoder", "LlamaForCausalLM"});
  std::vector<std::string> limited = job.compare("model");
  limited.insert(limited.end(), {"--max-kl", "0.1"});
  expect_error(quell(limited), 2, {"--max-kl", "BertModel"});
  expect_error(quell({"run", job.model, "-o", job.path("run"), "--calib", job.path("words.txt"),
                      "--text", job.text, "--max-kl", "0.1"}),
               2, {"--max-kl", "BertModel"});
}

TEST(Encoder, EqualsItself) {
  const EncoderJob job;
  const io::Json json = quell_json(job.compare("model"));
  EXPECT_EQ(json.find("texts")->as_integer(), 27);
  EXPECT_EQ(number(json, "cosine_error_mean"), 0);
  EXPECT_EQ(number(json, "cosine_error_max"), 0);
  EXPECT_EQ(number(json, "hidden_relative_error"), 0);
  EXPECT_EQ(number(json, "nearest_neighbour_agreement"), 1);
  EXPECT_EQ(json.find("against")->find("layers")->items().size(), 2u);
  EXPECT_EQ(json.find("nll"), nullptr);
  EXPECT_EQ(json.find("perplexity"), nullptr);
  // One text has no neighbour.
  write_bytes(job.folder / "one.txt", "the sea");
  const io::Json one = quell_json({"eval", job.model, "--against", job.model, "--documents",
                                   "--text", job.path("one.txt"), "--threads", "1"});
  EXPECT_EQ(one.find("tokens")->as_integer(), 4);  // [CLS] the sea [SEP]
  EXPECT_TRUE(one.find("against")->find("nearest_neighbour_agreement")->is(io::Json::Kind::null));
}

TEST(Encoder, IsQuantizedIntoEitherLayoutAndReadBackTheSame) {
  const EncoderJob job;
  for (const std::string method : {"rtn", "gptq"}) {
    SCOPED_TRACE(method);
    double errors[2] = {};
    int i = 0;
    for (const std::string layout : {"quell", "compressed-tensors"}) {
      SCOPED_TRACE(layout);
      const std::string out = method + "-" + layout;
      const io::Json made =
          quell_json(job.quantize(out, {"--method", method, "--to", layout, "--bits", "4"}));
      EXPECT_EQ(made.find("modules")->items().size(), 12u);
      EXPECT_TRUE(quell_json({"verify", job.path(out)}).find("complete")->as_boolean());
      EXPECT_TRUE(std::filesystem::exists(job.folder / out / "pooling.json"));
      errors[i++] = number(quell_json(job.compare(out)), "cosine_error_mean");
    }
    EXPECT_EQ(errors[0], errors[1]);
    EXPECT_GT(errors[0], 1e-5);
    EXPECT_LT(errors[0], 0.05);
  }
  // What other programs need to know: the pooler is a linear layer that was left alone.
  const auto config = io::read_json(job.folder / "gptq-compressed-tensors" / "config.json");
  ASSERT_TRUE(config) << config.error().message;
  const io::Json* ignored = config->find("quantization_config")->find("ignore");
  ASSERT_NE(ignored, nullptr);
  const auto& items = ignored->items();
  EXPECT_TRUE(std::any_of(items.begin(), items.end(),
                          [](const io::Json& name) { return name.as_string() == "pooler.dense"; }));
}

TEST(Encoder, StreamsAreCalibrationTextToo) {
  const EncoderJob job;
  const Ended ended =
      quell({"quantize", job.model, "-o", job.path("out"), "--calib", job.path("words.txt"),
             "--seqlen", "16", "--group-size", "32", "--threads", "1"});
  EXPECT_EQ(ended.code, 0) << ended.err;
  expect_error(quell({"quantize", job.model, "-o", job.path("out2"), "--calib",
                      job.path("words.txt"), "--seqlen", "2", "--group-size", "32"}),
               2, {"at least 3 tokens"});
  const Ended run =
      quell({"run", job.model, "-o", job.path("run"), "--calib", job.path("words.txt"), "--text",
             job.text, "--seqlen", "16", "--group-size", "32", "--threads", "1"});
  EXPECT_EQ(run.code, 0) << run.err;
  EXPECT_NE(run.out.find("cosine error"), std::string::npos) << run.out;
  EXPECT_EQ(run.out.find("quell generate"), std::string::npos) << run.out;
}

// Plain rounding (scale = absmax / top code, symmetric, f16 scales), from a separate float64
// forward pass over the first ten of the model's reference texts, 1,153 tokens.
struct KnownError {
  const char *name, *grid;
  double mean, max, hidden, neighbours;
};

class MiniLm : public ::testing::TestWithParam<KnownError> {};

TEST_P(MiniLm, RoundingHasItsKnownErrors) {
  const auto model = shared_path("models/minilm-l6");
  if (!model) GTEST_SKIP() << "the shared model minilm-l6 is not here";
  const KnownError& known = GetParam();
  const TemporaryFolder folder;
  const std::string out = (folder / "out").string();
  quell_json({"quantize", model->string(), "-o", out, "--method", "rtn", "--rule",
              std::string("*=") + known.grid, "--scale-type", "f16", "--to", "quell", "--threads",
              "1"});
  const auto reference = *model / "reference";
  const io::Json json = quell_json({"eval", out, "--against", model->string(), "--ids",
                                    (reference / "sentence_ids.npy").string(), "--lengths",
                                    (reference / "sentence_lengths.npy").string(), "--max-tokens",
                                    "1153", "--threads", "1"});
  EXPECT_EQ(json.find("texts")->as_integer(), 10);
  EXPECT_EQ(json.find("tokens")->as_integer(), 1153);
  // Codes are the same; float32 and float64 sums then differ by about 1e-5 of a state, far below
  // the errors.
  EXPECT_NEAR(number(json, "cosine_error_mean"), known.mean, 0.005 * known.mean);
  EXPECT_NEAR(number(json, "cosine_error_max"), known.max, 0.01 * known.max);
  EXPECT_NEAR(number(json, "hidden_relative_error"), known.hidden, 0.005 * known.hidden);
  EXPECT_NEAR(number(json, "nearest_neighbour_agreement"), known.neighbours, 1e-9);
}

INSTANTIATE_TEST_SUITE_P(Models, MiniLm,
                         ::testing::Values(KnownError{"W8", "int8:sym:oc:row", 5.469541e-4,
                                                      1.162806e-3, 3.193667e-2, 1},
                                           KnownError{"W4", "int4n:sym:oc:g32", 5.239553e-2,
                                                      7.031580e-2, 2.855467e-1, 0.6}),
                         [](const auto& each) { return std::string(each.param.name); });

}  // namespace
}  // namespace quell::test
