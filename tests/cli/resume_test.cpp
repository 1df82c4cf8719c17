// SPDX-License-Identifier: Apache-2.0

// Killed, interrupted and failing runs: what is left is either complete or resumable, and the end
// has the bytes of an undisturbed run.

#include <gtest/gtest.h>

#include <csignal>
#include <cstdlib>

#include "program.hpp"

namespace quell::test {
namespace {

Environment fault(const std::string& call, long at, const std::string& action,
                  const std::string& error = "EIO") {
  return {{"LD_PRELOAD", QUELL_FAULTS},   {"ASAN_OPTIONS", "verify_asan_link_order=0"},
          {"QUELL_FAULT_CALL", call},     {"QUELL_FAULT_AT", std::to_string(at)},
          {"QUELL_FAULT_ACTION", action}, {"QUELL_FAULT_ERRNO", error}};
}

bool has_temporary_files(const std::filesystem::path& folder) {
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    const bool known =
        name.ends_with(".safetensors") || name.ends_with(".json") || name == "quell.manifest";
    if (!known) return true;
  }
  return false;
}

long counted_calls(const SmallJob& job, const std::string& output) {
  const std::string file = job.path("count");
  Environment environment = fault("any", 0, "error");
  environment["QUELL_FAULT_COUNT"] = file;
  const Ended ended = quell(job.quantize(output), environment);
  EXPECT_EQ(ended.code, 0) << ended.err;
  return std::strtol(read_bytes(file).c_str(), nullptr, 10);
}

// SIGKILL before system calls spread over the whole run. Each kill is followed by a resume that
// must give the hash of the run that nobody disturbed. The method is one that walks two models.
TEST(Resume, AfterAKillAtAnyMomentGivesTheSameBytes) {
  SmallJob job;
  job.method = "balanced";
  const std::string expected = hash_of(quell_json(job.quantize("whole")));
  const long calls = counted_calls(job, "counted");
  ASSERT_GT(calls, 100);
  constexpr int kKills = 20;
  for (int k = 0; k < kKills; ++k) {
    // Odd steps of a number prime to most, so that kills fall on different kinds of calls.
    const long at = 1 + (calls - 1) * k / (kKills - 1) - (k % 3 == 1 && k > 1 ? 7 : 0);
    SCOPED_TRACE("killed before call " + std::to_string(at) + " of " + std::to_string(calls));
    const std::string output = "killed" + std::to_string(k);
    const Ended killed = quell(job.quantize(output), fault("any", at, "kill"));
    EXPECT_EQ(killed.signal, SIGKILL) << killed.err;
    const Ended verified = quell({"verify", job.path(output)});
    const bool complete = verified.code == 0;
    if (!complete) {
      EXPECT_EQ(hash_of(quell_json(job.quantize(output))), expected);
    }
    EXPECT_EQ(quell({"verify", job.path(output)}).code, 0);
    EXPECT_FALSE(has_temporary_files(job.path(output)));
    EXPECT_EQ(read_bytes(job.path(output) + "/config.json"),
              read_bytes(job.path("whole") + "/config.json"));
  }
}

// Columns are chosen from statistics of inputs that went through the layers before, with their
// inputs rounded: all of that comes back from files.
TEST(Resume, OfSchemesThatRoundActivationsGivesTheSameBytes) {
  SmallJob job;
  for (const char* scheme : {"W4A8", "W4A4"}) {
    SCOPED_TRACE(scheme);
    const auto more = [&](const std::string& output) {
      return job.quantize(output, {"--scheme", scheme});
    };
    const std::string whole = std::string("whole") + scheme, cut = std::string("cut") + scheme;
    const std::string expected = hash_of(quell_json(more(whole)));
    const std::string file = job.path("count");
    Environment counting = fault("any", 0, "error");
    counting["QUELL_FAULT_COUNT"] = file;
    ASSERT_EQ(quell(more("counted" + std::string(scheme)), counting).code, 0);
    const long calls = std::strtol(read_bytes(file).c_str(), nullptr, 10);
    EXPECT_EQ(quell(more(cut), fault("any", calls * 2 / 3, "kill")).signal, SIGKILL);
    const io::Json resumed = quell_json(more(cut));
    EXPECT_GE(resumed.find("resumed_modules")->as_integer(), 6);
    EXPECT_EQ(hash_of(resumed), expected);
  }
}

// A method that asks for no statistics gets none, whether or not a neighbour that asks for them is
// still to be done.
TEST(Resume, OfAModuleBesideAnotherMethodGivesTheSameBytes) {
  const SmallJob job;
  const auto mixed = [&](const std::string& output) {
    return job.quantize(
        output, {"--method", "gptq", "--scale", "search", "--rule", "*v_proj=rtn@int3:sym:oc:g32"});
  };
  const std::string expected = hash_of(quell_json(mixed("whole")));
  const std::string file = job.path("count");
  Environment counting = fault("any", 0, "error");
  counting["QUELL_FAULT_COUNT"] = file;
  ASSERT_EQ(quell(mixed("counted"), counting).code, 0);
  const long calls = std::strtol(read_bytes(file).c_str(), nullptr, 10);
  bool between = false;
  for (int k = 1; k <= 12; ++k) {
    const std::string output = "cut" + std::to_string(k);
    SCOPED_TRACE(output);
    EXPECT_EQ(quell(mixed(output), fault("any", calls * k / 13, "kill")).signal, SIGKILL);
    const io::Json resumed = quell_json(mixed(output));
    const std::int64_t done = resumed.find("resumed_modules")->as_integer();
    between |= done % 7 == 2;  // q and k of a block, and not v
    EXPECT_EQ(hash_of(resumed), expected);
  }
  EXPECT_TRUE(between);
}

TEST(Resume, AtMostOneModuleIsLost) {
  const SmallJob job;
  const long calls = counted_calls(job, "counted");
  quell(job.quantize("out"), fault("any", calls * 3 / 4, "kill"));
  const io::Json resumed = quell_json(job.quantize("out"));
  // Three quarters of the calls of a run of 21 modules and some overhead at both ends.
  EXPECT_GE(resumed.find("resumed_modules")->as_integer(), 12);
}

TEST(Resume, IsRefusedForAnotherPlanNamingTheDifference) {
  const SmallJob job;
  const long calls = counted_calls(job, "counted");
  quell(job.quantize("out"), fault("any", calls / 2, "kill"));
  expect_error(quell(job.quantize("out", {"--damp-percent", "0.05"})), 4, {"damp_percent"});
  expect_error(quell(job.quantize("out", {"--seed", "7"})), 4, {"calibration"});
  EXPECT_EQ(quell(job.quantize("out", {"--damp-percent", "0.05", "--force"})).code, 0);
}

TEST(Resume, AFullDiskIsAResourceErrorAndTheRunCanGoOn) {
  const SmallJob job;
  const std::string expected = hash_of(quell_json(job.quantize("whole")));
  const long calls = counted_calls(job, "counted");
  for (const char* call : {"write", "sync", "rename", "reserve"}) {
    for (const long at : {1L, 2L, 9L, calls / 6}) {
      SCOPED_TRACE(std::string(call) + " " + std::to_string(at));
      const std::string output = std::string("out-") + call + std::to_string(at);
      Environment environment =
          fault(call, at, "error", std::string(call) == "sync" ? "EIO" : "ENOSPC");
      environment["QUELL_FAULT_PATH"] = job.path(output);
      const Ended failed = quell(job.quantize(output), environment);
      if (failed.code != 0) {
        EXPECT_EQ(failed.code, 4) << failed.err;
        EXPECT_NE(quell({"verify", job.path(output)}).code, 0);
        EXPECT_EQ(hash_of(quell_json(job.quantize(output))), expected);
      }
      EXPECT_EQ(quell({"verify", job.path(output)}).code, 0);
    }
  }
}

TEST(Resume, AnInterruptFinishesTheModuleAndExitsWith130) {
  const SmallJob job;
  const std::string expected = hash_of(quell_json(job.quantize("whole")));
  const long calls = counted_calls(job, "counted");
  const Ended ended = quell(job.quantize("out"), fault("any", calls / 2, "interrupt"));
  expect_error(ended, 130, {"again to continue"});
  const io::Json resumed = quell_json(job.quantize("out"));
  EXPECT_GE(resumed.find("resumed_modules")->as_integer(), 6);
  EXPECT_EQ(hash_of(resumed), expected);
}

// The direction of groups is known only once a layer is solved; the file was laid out before.
TEST(Resume, OfChosenDirectionsGivesTheSameBytes) {
  SmallJob job;
  job.method = "adadim+rtn";
  const io::Json plan = quell_json(job.quantize("x", {"--dry-run"}));
  const io::Json whole = quell_json(job.quantize("whole"));
  EXPECT_EQ(whole.find("bits_per_weight")->as_number(), 4.5);
  EXPECT_EQ(plan.find("bits_per_weight")->as_number(), 4.5);
  std::size_t along = 0, down = 0;
  for (const io::Json& module : whole.find("modules")->items()) {
    EXPECT_EQ(module.find("method")->as_string(), "adadim+rtn");
    EXPECT_LE(module.find("objective")->as_number(),
              module.find("objective_other_direction")->as_number());
    const std::string grid = module.find("grid")->as_string();
    along += grid == "int4:sym:oc:g32:bf16" ? 1u : 0u;
    down += grid == "int4:sym:ic:g32:bf16" ? 1u : 0u;
  }
  EXPECT_EQ(along + down, 21u);
  EXPECT_GT(along, 0u);
  EXPECT_GT(down, 0u);
  for (const io::Json& module : plan.find("modules")->items()) {
    EXPECT_EQ(module.find("per")->as_string(), "auto");
  }
  const long calls = counted_calls(job, "counted");
  quell(job.quantize("out"), fault("any", calls * 2 / 3, "kill"));
  const io::Json resumed = quell_json(job.quantize("out"));
  EXPECT_GE(resumed.find("resumed_modules")->as_integer(), 6);
  EXPECT_EQ(hash_of(resumed), hash_of(whole));
  EXPECT_EQ(read_bytes(job.path("out") + "/config.json"),
            read_bytes(job.path("whole") + "/config.json"));
  EXPECT_EQ(quell({"verify", job.path("out")}).code, 0);
  const io::Json evaluated =
      quell_json({"eval", job.path("out"), "--against", job.model, "--text", job.text, "--context",
                  "64", "--max-tokens", "1024", "--kernels"});
  EXPECT_LT(evaluated.find("against")->find("kl_mean")->as_number(), 0.1);
}

TEST(Resume, TwoRunsOnOneFolderDoNotMeet) {
  const SmallJob job;
  std::string command =
      "out=$1; shift; \"$@\" >/dev/null 2>&1 & pid=$!; "
      "for i in $(seq 400); do ls $out/.quell-lock >/dev/null 2>&1 && break; sleep 0.005; done; "
      "\"$@\"; code=$?; wait $pid; exit $code";
  std::vector<std::string> arguments = {"/bin/bash",     "-c",         command, "bash",
                                        job.path("out"), QUELL_PROGRAM};
  const std::vector<std::string> more = job.quantize("out", {"--samples", "40"});
  arguments.insert(arguments.end(), more.begin(), more.end());
  const Ended second = run_process(arguments);
  // Either it met the owner (4), or the owner was done already (2: the folder is complete).
  EXPECT_TRUE(second.code == 4 || second.code == 2) << second.code << second.err;
  if (second.code == 4) {
    EXPECT_NE(second.err.find("by process"), std::string::npos) << second.err;
  }
}

}  // namespace
}  // namespace quell::test
