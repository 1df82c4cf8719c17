// SPDX-License-Identifier: Apache-2.0

// Chains of transforms and quantizers as a user runs them: kills, threads, statistics from files,
// and what is refused.

#include <gtest/gtest.h>

#include <csignal>
#include <cstdlib>

#include "program.hpp"
#include "support/golden_model.hpp"

namespace quell::test {
namespace {

double kl_of(const SmallJob& job, const std::string& output) {
  return quell_json({"eval", job.path(output), "--against", job.model, "--text", job.text,
                     "--context", "64", "--max-tokens", "1024"})
      .find("against")
      ->find("kl_mean")
      ->as_number();
}

// Norms, biases and layers kept in float are written as edited: one that is not would cost far more
// than 8 bits do.
TEST(Transforms, CostNothingThatEightBitsWouldNot) {
  const SmallJob job;
  quell_json(job.quantize("plain", {"--method", "rtn", "--bits", "8"}));
  const double plain = kl_of(job, "plain");
  for (const std::string chain :
       {"smoothquant", "awq", "norm_folding", "rotation", "rotation+awq", "smoothquant+awq"}) {
    SCOPED_TRACE(chain);
    quell_json(
        job.quantize(chain, {"--method", chain + "+rtn", "--bits", "8", "--ignore", "*.1.*_proj",
                             "--ignore", "*.2.self_attn.o_proj", "--ignore", "*.0.mlp.up_proj"}));
    // Rotated bfloat16 embeddings, heads and kept layers are rounded anew, which 8 bits also do.
    EXPECT_LT(kl_of(job, chain), 2 * plain);
    EXPECT_EQ(quell({"verify", job.path(chain)}).code, 0);
  }
}

TEST(Transforms, GiveTheSameBitsForAnyThreadsAndInstructionSet) {
  SmallJob job;
  job.method = "rotation+awq+balanced";
  const std::string one = hash_of(quell_json(job.quantize("one", {"--threads", "1"})));
  EXPECT_EQ(hash_of(quell_json(job.quantize("three", {"--threads", "3"}))), one);
  EXPECT_EQ(hash_of(quell_json(job.quantize("scalar"), {{"QUELL_ISA", "scalar"}})), one);
}

TEST(Transforms, AfterAKillGiveTheSameBytes) {
  SmallJob job;
  job.method = "smoothquant+awq+balanced";
  const std::vector<std::string> more = {"--ignore", "*.1.mlp.up_proj"};
  const std::string expected = hash_of(quell_json(job.quantize("whole", more)));
  const Environment base = {{"LD_PRELOAD", QUELL_FAULTS},
                            {"ASAN_OPTIONS", "verify_asan_link_order=0"},
                            {"QUELL_FAULT_CALL", "any"}};
  Environment counting = base;
  counting.insert({{"QUELL_FAULT_AT", "0"},
                   {"QUELL_FAULT_ACTION", "error"},
                   {"QUELL_FAULT_ERRNO", "EIO"},
                   {"QUELL_FAULT_COUNT", job.path("count")}});
  ASSERT_EQ(quell(job.quantize("counted", more), counting).code, 0);
  const long calls = std::strtol(read_bytes(job.path("count")).c_str(), nullptr, 10);
  ASSERT_GT(calls, 100);
  for (int k = 1; k < 4; ++k) {
    const long at = calls * k / 4;
    SCOPED_TRACE("killed before call " + std::to_string(at));
    const std::string output = "killed" + std::to_string(k);
    Environment killing = base;
    killing.insert({{"QUELL_FAULT_AT", std::to_string(at)},
                    {"QUELL_FAULT_ACTION", "kill"},
                    {"QUELL_FAULT_ERRNO", "EIO"}});
    EXPECT_EQ(quell(job.quantize(output, more), killing).signal, SIGKILL);
    EXPECT_EQ(hash_of(quell_json(job.quantize(output, more))), expected);
  }
}

TEST(Transforms, TakeStatisticsFromAFile) {
  const SmallJob job;
  quell_json({"quantize", job.model, "--save-stats", job.path("all.stats"), "--calib", job.text,
              "--seqlen", "64", "--samples", "8"});
  quell_json({"quantize", job.model, "-o", job.path("out"), "--stats", job.path("all.stats"),
              "--method", "awq+gptq", "--group-size", "32"});
  quell_json(job.quantize("rounded", {"--method", "rtn"}));
  EXPECT_LT(kl_of(job, "out"), kl_of(job, "rounded"));
  expect_error(quell({"quantize", job.model, "-o", job.path("o"), "--stats", job.path("all.stats"),
                      "--method", "rotation+gptq"}),
               2, {"rotation", "--calib"});
}

TEST(Transforms, AreRefusedWhereTheyCannotWork) {
  const SmallJob job;
  expect_error(quell(job.quantize("a", {"--method", "awq"})), 2, {"awq", "rtn"});
  expect_error(quell(job.quantize("b", {"--method", "awq+rotation+rtn"})), 2, {"put it first"});
  expect_error(quell(job.quantize("c", {"--rule", "*=awq+rtn@int4:sym:oc:g32"})), 2, {"--method"});
  expect_error(quell(job.quantize("d", {"--method", "bias_correction+rtn"})), 3, {"bias"});
  expect_error(quell({"quantize", job.model, "-o", job.path("e"), "--method", "awq+rtn"}), 2,
               {"--calib"});
  EXPECT_EQ(quell({"quantize", job.model, "-o", job.path("f"), "--method", "rotation+rtn"}).code,
            0);
}

TEST(Transforms, InTheWrongPlaceAreRefusedWithTheRightOne) {
  const SmallJob job;
  expect_error(quell(job.quantize("a", {"--method", "hadamard+awq+gptq"})), 2,
               {"hadamard+awq+gptq", "awq+hadamard+gptq"});
  expect_error(quell(job.quantize("b", {"--rule", "*=hadamard+awq+gptq@int4"})), 2,
               {"awq+hadamard+gptq"});
  expect_error(quell(job.quantize("c", {"--method", "awq"})), 2,
               {"awq is a transform", "awq+balanced"});
  expect_error(
      quell(job.quantize("d", {"--method", "awq+rtn", "--scheme", "W8A8", "--keep-columns", "2"})),
      2, {"--keep-columns 2", "before they are scaled"});
  expect_error(quell(job.quantize("e", {"--method", "rtn", "--activation-group", "32"})), 2,
               {"--activation-group 32", "W4A4"});
  // Without a number of columns none are kept, and that is said.
  const Ended none = quell(job.quantize("f", {"--method", "awq+rtn", "--scheme", "W8A8"}));
  EXPECT_EQ(none.code, 0) << none.err;
  EXPECT_NE(none.err.find("no columns are kept"), std::string::npos) << none.err;
}

// A tied head may stand in the file as well.
TEST(Transforms, UntieAHeadThatTheFileHoldsToo) {
  const TemporaryFolder folder;
  const test::GoldenModel golden = [] {
    test::GoldenModel made = test::read_golden("llama");
    test::GoldenTensor head = made.tensor("model.embed_tokens.weight");
    head.name = "lm_head.weight";
    made.put(std::move(head));
    made.config.set("tie_word_embeddings", true);
    return made;
  }();
  golden.write(folder / "model");
  const Ended ended =
      quell({"quantize", (folder / "model").string(), "-o", (folder / "out").string(), "--method",
             "rotation+rtn", "--bits", "8", "--group-size", "8", "--to", "quell"});
  EXPECT_EQ(ended.code, 0) << ended.err;
  EXPECT_EQ(quell({"verify", (folder / "out").string()}).code, 0);
}

}  // namespace
}  // namespace quell::test
