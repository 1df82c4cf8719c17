// SPDX-License-Identifier: Apache-2.0
#include "quell/io/output.hpp"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <map>
#include <set>
#include <string>

#include "io/folder_work.hpp"
#include "quell/io/safetensors.hpp"
#include "support/files.hpp"

namespace quell::io {
namespace {

using test::do_work;
using test::TemporaryFolder;
using test::Work;

std::set<std::string> names_in(const std::filesystem::path& folder) {
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    names.insert(entry.path().filename().string());
  }
  return names;
}

const std::set<std::string> kFinishedNames = {"config.json",
                                              "model-00001-of-00003.safetensors",
                                              "model-00002-of-00003.safetensors",
                                              "model-00003-of-00003.safetensors",
                                              "model.safetensors.index.json",
                                              "quell.manifest",
                                              "report.txt",
                                              "tokenizer.json"};

// The only file of the folder whose name ends so.
std::filesystem::path only(const std::filesystem::path& folder, const std::string& ending) {
  std::filesystem::path found;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().string().ends_with(ending)) {
      EXPECT_TRUE(found.empty()) << ending;
      found = entry.path();
    }
  }
  EXPECT_FALSE(found.empty()) << ending;
  return found;
}

void flip_bit(const std::filesystem::path& file, std::size_t at) {
  std::string bytes = test::read_bytes(file);
  ASSERT_LT(at, bytes.size());
  bytes[at] = static_cast<char>(bytes[at] ^ 1);
  test::write_bytes(file, bytes);
}

// Runs until `modules` of the five are finished and stops as a killed run would.
void leave_unfinished(const std::filesystem::path& out, int modules) {
  const auto stopped = do_work(out, {.stop_after = modules});
  ASSERT_TRUE(stopped.has_value()) << stopped.error().message;
  ASSERT_TRUE(stopped->empty());
}

void expect_refused(const Result<std::string>& result, ErrorCode code, const std::string& text) {
  ASSERT_FALSE(result.has_value());
  EXPECT_EQ(to_string(result.error().code), to_string(code)) << result.error().message;
  EXPECT_NE(result.error().message.find(text), std::string::npos) << result.error().message;
}

TEST(OutputFolder, HoldsExactlyWhatWasPlanned) {
  const TemporaryFolder base;
  const auto out = base / "out";
  const auto hash = do_work(out);
  ASSERT_TRUE(hash.has_value()) << hash.error().message;
  EXPECT_EQ(names_in(out), kFinishedNames);
  const auto plan = test::work_plan();
  ASSERT_TRUE(plan.has_value());
  const auto checkpoint = Checkpoint::open(out);
  ASSERT_TRUE(checkpoint.has_value()) << checkpoint.error().message;
  EXPECT_EQ(checkpoint->tensors().size(), plan->tensors.size());
  EXPECT_TRUE(checkpoint->warnings().empty());
  for (const TensorPlan& planned : plan->tensors) {
    const TensorInfo* const info = checkpoint->find(planned.name);
    ASSERT_NE(info, nullptr) << planned.name;
    std::vector<std::byte> bytes(info->bytes);
    ASSERT_TRUE(checkpoint->read(*info, bytes).has_value());
    EXPECT_EQ(bytes, test::work_bytes(planned)) << planned.name;
  }
  EXPECT_EQ(test::read_bytes(out / "config.json"), "{\"model_type\":\"llama\"}\n");
  EXPECT_EQ(test::read_bytes(out / "model.safetensors.index.json"), plan->index_json);
}

TEST(OutputFolder, FilesHaveMode0644LessTheUmask) {
  const TemporaryFolder base;
  const mode_t before = ::umask(027);
  const auto hash = do_work(base / "out");
  ::umask(before);
  ASSERT_TRUE(hash.has_value());
  for (const auto& entry : std::filesystem::directory_iterator(base / "out")) {
    struct stat status = {};
    ASSERT_EQ(::stat(entry.path().c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 0777U, 0640U) << entry.path();
  }
}

TEST(OutputFolder, EqualWorkHasAnEqualHashWhateverTheReportSays) {
  const TemporaryFolder base;
  const auto first = do_work(base / "a");
  const auto second = do_work(base / "b", {.report = "took 7 seconds\n"});
  ASSERT_TRUE(first.has_value() && second.has_value());
  EXPECT_EQ(*first, *second);
  EXPECT_EQ(first->size(), 64U);
}

TEST(OutputFolder, ShowsNoFinalNameBeforeTheEnd) {
  const TemporaryFolder base;
  const auto out = base / "out";
  leave_unfinished(out, 3);
  for (const std::string& name : names_in(out)) EXPECT_TRUE(name.starts_with(".quell-")) << name;
  EXPECT_FALSE(names_in(out).contains(".quell-lock"));
}

TEST(OutputFolder, ResumesWithTheSameBytes) {
  const TemporaryFolder base;
  const auto whole = do_work(base / "whole");
  ASSERT_TRUE(whole.has_value());
  for (int modules = 0; modules < test::kModules; ++modules) {
    const auto out = base / ("out" + std::to_string(modules));
    leave_unfinished(out, modules);
    std::size_t resumed = 99;
    const auto hash = do_work(out, {}, &resumed);
    ASSERT_TRUE(hash.has_value()) << hash.error().message;
    EXPECT_EQ(resumed, static_cast<std::size_t>(modules));
    EXPECT_EQ(*hash, *whole);
    EXPECT_EQ(names_in(out), kFinishedNames);
  }
}

TEST(OutputFolder, ReturnsRecordsAndTensorsOfFinishedModules) {
  const TemporaryFolder base;
  const auto out = base / "out";
  leave_unfinished(out, 2);
  const auto plan = test::work_plan();
  ASSERT_TRUE(plan.has_value());
  const auto folder = OutputFolder::open(out, *plan, test::work_identity(), {});
  ASSERT_TRUE(folder.has_value());
  const auto* const finished = folder->find_finished("layers.1");
  ASSERT_NE(finished, nullptr);
  EXPECT_EQ(finished->record.find("error")->as_number(), 0.5);
  EXPECT_EQ(folder->find_finished("layers.2"), nullptr);
  for (const TensorPlan& planned : plan->tensors) {
    const bool there = planned.name.starts_with("layers.0") || planned.name.starts_with("layers.1");
    const auto bytes = folder->read(planned.name);
    ASSERT_EQ(bytes.has_value(), there) << planned.name;
    if (there) {
      EXPECT_EQ(*bytes, test::work_bytes(planned));
    }
  }
}

TEST(OutputFolder, ForgetsAModuleWhoseBytesWereDamaged) {
  const TemporaryFolder base;
  const auto whole = do_work(base / "whole");
  const auto out = base / "out";
  leave_unfinished(out, 3);
  const auto plan = test::work_plan();
  ASSERT_TRUE(whole.has_value() && plan.has_value());
  // Modules 0 and 1 are in the first shard; a bit of module 1 is flipped.
  const auto damaged = std::find_if(plan->tensors.begin(), plan->tensors.end(),
                                    [](const auto& t) { return t.name == "layers.1.codes"; });
  flip_bit(only(out, "-00001.part"), damaged->offset + 17);
  std::size_t resumed = 0;
  const auto hash = do_work(out, {}, &resumed);
  ASSERT_TRUE(hash.has_value());
  EXPECT_EQ(resumed, 2U);
  EXPECT_EQ(*hash, *whole);
}

TEST(OutputFolder, RepairsADamagedHeaderAndASizeThatIsWrong) {
  const TemporaryFolder base;
  const auto whole = do_work(base / "whole");
  const auto out = base / "out";
  leave_unfinished(out, 3);
  flip_bit(only(out, "-00001.part"), 20);
  std::filesystem::resize_file(only(out, "-00002.part"), 100);
  std::size_t resumed = 0;
  const auto hash = do_work(out, {}, &resumed);
  ASSERT_TRUE(hash.has_value()) << hash.error().message;
  EXPECT_EQ(resumed, 2U);
  EXPECT_EQ(*hash, *whole);
}

TEST(OutputFolder, RecomputesWhatADeletedShardHeld) {
  const TemporaryFolder base;
  const auto whole = do_work(base / "whole");
  const auto out = base / "out";
  leave_unfinished(out, 4);
  std::filesystem::remove(only(out, "-00001.part"));
  std::size_t resumed = 0;
  const auto hash = do_work(out, {}, &resumed);
  ASSERT_TRUE(hash.has_value()) << hash.error().message;
  EXPECT_EQ(resumed, 2U);
  EXPECT_EQ(*hash, *whole);
}

TEST(OutputFolder, EveryPrefixOfTheJournalResumesOrIsRefused) {
  const TemporaryFolder base;
  const auto whole = do_work(base / "whole");
  const auto out = base / "out";
  leave_unfinished(out, 2);
  const std::string journal = test::read_bytes(out / ".quell-journal");
  const std::size_t header = journal.find('\n') + 1;
  const auto copy = base / "copy";
  for (std::size_t length = 0; length <= journal.size(); length += length < header + 3 ? 7 : 31) {
    std::filesystem::remove_all(copy);
    std::filesystem::copy(out, copy);
    test::write_bytes(copy / ".quell-journal", journal.substr(0, length));
    const auto hash = do_work(copy);
    if (length < header) {
      expect_refused(hash, ErrorCode::resource, "journal is damaged");
      continue;
    }
    ASSERT_TRUE(hash.has_value()) << length << ": " << hash.error().message;
    EXPECT_EQ(*hash, *whole) << length;
  }
}

TEST(OutputFolder, IgnoresADamagedRecordInTheMiddle) {
  const TemporaryFolder base;
  const auto whole = do_work(base / "whole");
  const auto out = base / "out";
  leave_unfinished(out, 3);
  const std::string journal = test::read_bytes(out / ".quell-journal");
  flip_bit(out / ".quell-journal", journal.find("layers.1") + 7);
  std::size_t resumed = 0;
  const auto hash = do_work(out, {}, &resumed);
  ASSERT_TRUE(hash.has_value());
  EXPECT_EQ(resumed, 2U);
  EXPECT_EQ(*hash, *whole);
}

TEST(OutputFolder, RefusesAnotherPlanByTheFieldThatDiffers) {
  const TemporaryFolder base;
  const auto out = base / "out";
  leave_unfinished(out, 2);
  const auto before = names_in(out);
  expect_refused(do_work(out, {.bits = 8}), ErrorCode::resource,
                 "options.bits was 4 and is now 8; give --force");
  EXPECT_EQ(names_in(out), before);
  const auto forced = do_work(out, {.options = {.force = true}, .bits = 8});
  ASSERT_TRUE(forced.has_value()) << forced.error().message;
  EXPECT_EQ(names_in(out), kFinishedNames);
}

TEST(OutputFolder, NamesFieldsThatAppearOrDisappear) {
  const TemporaryFolder base;
  const auto plan = test::work_plan();
  ASSERT_TRUE(plan.has_value());
  Json identity = test::work_identity();
  {
    const auto first = OutputFolder::open(base / "out", *plan, identity, {});
    ASSERT_TRUE(first.has_value());
  }
  Json more = identity;
  more.set("seed", 7);
  const auto added = OutputFolder::open(base / "out", *plan, more, {});
  ASSERT_FALSE(added.has_value());
  EXPECT_NE(added.error().message.find("seed was absent and is now 7"), std::string::npos)
      << added.error().message;
  Json less;
  less.set("model", *identity.find("model"));
  const auto removed = OutputFolder::open(base / "out", *plan, less, {});
  ASSERT_FALSE(removed.has_value());
  EXPECT_NE(removed.error().message.find("and is now absent"), std::string::npos)
      << removed.error().message;
}

TEST(OutputFolder, RefusesAnotherLayoutOfTheSamePlan) {
  const TemporaryFolder base;
  leave_unfinished(base / "out", 1);
  const auto other = plan_folder({{"a.codes", DType::u8, {4}}}, 1000, {});
  ASSERT_TRUE(other.has_value());
  const auto opened = OutputFolder::open(base / "out", *other, test::work_identity(), {});
  ASSERT_FALSE(opened.has_value());
  EXPECT_EQ(opened.error().code, ErrorCode::resource);
  EXPECT_NE(opened.error().message.find("tensors or files"), std::string::npos);
}

TEST(OutputFolder, StartsAgainWhereResumingIsNotWanted) {
  const TemporaryFolder base;
  const auto out = base / "out";
  leave_unfinished(out, 3);
  std::size_t resumed = 99;
  const auto hash = do_work(out, {.options = {.resume = false}}, &resumed);
  ASSERT_TRUE(hash.has_value()) << hash.error().message;
  EXPECT_EQ(resumed, 0U);
  EXPECT_EQ(names_in(out), kFinishedNames);
}

TEST(OutputFolder, RefusesAFinishedOutputWithoutForce) {
  const TemporaryFolder base;
  const auto out = base / "out";
  ASSERT_TRUE(do_work(out).has_value());
  const std::string manifest = test::read_bytes(out / "quell.manifest");
  expect_refused(do_work(out), ErrorCode::usage, "already holds a finished output; give --force");
  EXPECT_EQ(names_in(out), kFinishedNames);
  EXPECT_EQ(test::read_bytes(out / "quell.manifest"), manifest);
}

TEST(OutputFolder, ReplacesAFinishedOutputOnlyWhenTheNewOneIsComplete) {
  const TemporaryFolder base;
  const auto out = base / "out";
  // The older output has a file that the new one has not.
  const auto small = plan_folder({{"a.codes", DType::u8, {4}}}, 1000, {});
  ASSERT_TRUE(small.has_value());
  {
    auto folder = OutputFolder::open(out, *small, Json::object(), {});
    ASSERT_TRUE(folder.has_value());
    ASSERT_TRUE(folder->write("a.codes", std::vector<std::byte>(4)).has_value());
    ASSERT_TRUE(folder->add_file("old.txt", "old").has_value());
    ASSERT_TRUE(folder->complete("{}").has_value());
  }
  test::write_bytes(out / "notes.txt", "mine");
  const auto stopped = do_work(out, {.options = {.force = true}, .stop_after = 2});
  ASSERT_TRUE(stopped.has_value()) << stopped.error().message;
  EXPECT_TRUE(names_in(out).contains("model.safetensors"));
  EXPECT_TRUE(names_in(out).contains("quell.manifest"));
  EXPECT_TRUE(names_in(out).contains("old.txt"));
  std::size_t resumed = 0;
  const auto hash = do_work(out, {}, &resumed);
  ASSERT_TRUE(hash.has_value()) << hash.error().message;
  EXPECT_EQ(resumed, 2U);
  auto expected = kFinishedNames;
  expected.insert("notes.txt");
  EXPECT_EQ(names_in(out), expected);
  EXPECT_EQ(test::read_bytes(out / "notes.txt"), "mine");
}

TEST(OutputFolder, NeverReplacesAFileThatItDoesNotKnow) {
  const TemporaryFolder base;
  const auto out = base / "out";
  std::filesystem::create_directory(out);
  test::write_bytes(out / "model-00002-of-00003.safetensors", "precious");
  expect_refused(do_work(out), ErrorCode::usage, "holds files that quell did not write");
  expect_refused(do_work(out, {.options = {.force = true}}), ErrorCode::usage, "is in the way");
  EXPECT_EQ(names_in(out), std::set<std::string>{"model-00002-of-00003.safetensors"});
  EXPECT_EQ(test::read_bytes(out / "model-00002-of-00003.safetensors"), "precious");
  std::filesystem::rename(out / "model-00002-of-00003.safetensors", out / "other.bin");
  ASSERT_TRUE(do_work(out, {.options = {.force = true}}).has_value());
  EXPECT_EQ(test::read_bytes(out / "other.bin"), "precious");
}

TEST(OutputFolder, DoesNotWriteThroughLinks) {
  const TemporaryFolder base;
  const auto out = base / "out";
  test::write_bytes(base / "input.safetensors", "input");
  std::filesystem::create_directory(out);
  std::filesystem::create_symlink(base / "input.safetensors",
                                  out / "model-00001-of-00003.safetensors");
  expect_refused(do_work(out, {.options = {.force = true}}), ErrorCode::usage, "is in the way");
  std::filesystem::remove(out / "model-00001-of-00003.safetensors");
  std::filesystem::create_symlink(base / "input.safetensors", out / ".quell-lock");
  EXPECT_FALSE(do_work(out).has_value());
  EXPECT_EQ(test::read_bytes(base / "input.safetensors"), "input");
}

TEST(OutputFolder, TakesAnEmptyFolderAndStaleTemporaryFiles) {
  const TemporaryFolder base;
  std::filesystem::create_directory(base / "out");
  test::write_bytes(base / "out" / ".quell-0123456789abcdef-00001.part", "stale");
  ASSERT_TRUE(do_work(base / "out").has_value());
  EXPECT_EQ(names_in(base / "out"), kFinishedNames);
}

TEST(OutputFolder, RefusesPathsThatCannotBeFolders) {
  const TemporaryFolder base;
  test::write_bytes(base / "file", "x");
  expect_refused(do_work(base / "file"), ErrorCode::usage, "is a file");
  EXPECT_EQ(test::read_bytes(base / "file"), "x");
  expect_refused(do_work(base / "file/below"), ErrorCode::usage, "does not exist");
  expect_refused(do_work(base / "no/such/parent"), ErrorCode::usage, "does not exist");
  expect_refused(do_work(base / std::string(300, 'n')), ErrorCode::usage, "too long");
  expect_refused(do_work(base / "bad\xff"), ErrorCode::usage, "UTF-8");
  expect_refused(do_work(std::filesystem::path()), ErrorCode::usage, "no name");
  std::filesystem::create_symlink(base / "nowhere", base / "link");
  expect_refused(do_work(base / "link"), ErrorCode::usage, "link to nothing");
}

TEST(OutputFolder, SaysHowManyBytesAreMissing) {
  const TemporaryFolder base;
  // 2^46 bytes, close to the most that the format allows in a file.
  const auto plan = plan_folder({{"a.codes", DType::u8, {std::uint64_t{1} << 34, 4096}}},
                                std::uint64_t{1} << 60, {});
  ASSERT_TRUE(plan.has_value()) << plan.error().message;
  const auto opened = OutputFolder::open(base / "out", *plan, Json::object(), {});
  ASSERT_FALSE(opened.has_value());
  EXPECT_EQ(opened.error().code, ErrorCode::resource);
  EXPECT_NE(opened.error().message.find("needs 7036874417"), std::string::npos)
      << opened.error().message;
  EXPECT_NE(opened.error().message.find("are available"), std::string::npos);
  EXPECT_FALSE(std::filesystem::exists(base / "out"));
}

TEST(OutputFolder, IsWrittenByOneOwnerAtATime) {
  const TemporaryFolder base;
  const auto plan = test::work_plan();
  ASSERT_TRUE(plan.has_value());
  {
    const auto owner = OutputFolder::open(base / "out", *plan, test::work_identity(), {});
    ASSERT_TRUE(owner.has_value());
    const auto second = do_work(base / "out");
    expect_refused(second, ErrorCode::resource, "process " + std::to_string(::getpid()));
    EXPECT_NE(second.error().message.find("on host "), std::string::npos);
    EXPECT_NE(second.error().message.find(" since 2"), std::string::npos);
    const auto forced = do_work(base / "out", {.options = {.force = true}});
    expect_refused(forced, ErrorCode::resource, "is being written by");
    const auto report = verify_folder(base / "out");
    ASSERT_TRUE(report.has_value());
    EXPECT_FALSE(report->complete);
  }
  ASSERT_TRUE(do_work(base / "out").has_value());
}

TEST(OutputFolder, TakesOverTheLockOfADeadProcess) {
  const TemporaryFolder base;
  const auto out = base / "out";
  leave_unfinished(out, 2);
  std::string host(256, '\0');
  ASSERT_EQ(::gethostname(host.data(), host.size()), 0);
  host.resize(host.find('\0'));
  test::write_bytes(out / ".quell-lock",
                    "{\"pid\":1,\"host\":\"" + host + "\",\"started\":\"2020-01-01T00:00:00Z\"}\n");
  std::size_t resumed = 0;
  ASSERT_TRUE(do_work(out, {}, &resumed).has_value());
  EXPECT_EQ(resumed, 2U);
  EXPECT_EQ(names_in(out), kFinishedNames);
}

TEST(OutputFolder, RefusesTensorsThatWereNotPlanned) {
  const TemporaryFolder base;
  const auto plan = test::work_plan();
  ASSERT_TRUE(plan.has_value());
  auto folder = OutputFolder::open(base / "out", *plan, Json::object(), {});
  ASSERT_TRUE(folder.has_value());
  const auto unknown = folder->write("layers.9.codes", std::vector<std::byte>(4));
  ASSERT_FALSE(unknown.has_value());
  EXPECT_EQ(unknown.error().code, ErrorCode::usage);
  const auto wrong = folder->write("layers.0.codes", std::vector<std::byte>(999));
  ASSERT_FALSE(wrong.has_value());
  EXPECT_EQ(wrong.error().code, ErrorCode::shape);
  EXPECT_NE(wrong.error().message.find("999 bytes, planned are 1000"), std::string::npos);
  EXPECT_FALSE(folder->read("layers.0.codes").has_value());
  const std::vector<std::string> names = {"layers.0.codes"};
  EXPECT_FALSE(folder->finish_module("layers.0", names, Json::object()).has_value());
  const auto early = folder->complete("{}");
  ASSERT_FALSE(early.has_value());
  EXPECT_EQ(early.error().code, ErrorCode::verification);
  EXPECT_NE(early.error().message.find("10 of 10 tensors"), std::string::npos);
  EXPECT_FALSE(std::filesystem::exists(base / "out" / "quell.manifest"));
}

TEST(OutputFolder, RefusesNamesThatWouldLeaveTheFolderOrClash) {
  const TemporaryFolder base;
  const auto plan = test::work_plan();
  ASSERT_TRUE(plan.has_value());
  auto folder = OutputFolder::open(base / "out", *plan, Json::object(), {});
  ASSERT_TRUE(folder.has_value());
  for (const char* const name :
       {"", ".", "..", "bad\xff", "../x", "a/b", "/etc/x", ".quell-lock", ".quell-journal",
        "quell.manifest", "config.json", "model.safetensors.index.json",
        "model-00001-of-00003.safetensors"}) {
    const auto added = folder->add_file(name, "x");
    ASSERT_FALSE(added.has_value()) << name;
    EXPECT_EQ(added.error().code, ErrorCode::usage) << name;
  }
  ASSERT_TRUE(folder->add_file("once", "x").has_value());
  EXPECT_FALSE(folder->add_file("once", "x").has_value());
}

TEST(OutputFolder, CopiesFilesOfTheSourceByteForByte) {
  const TemporaryFolder base;
  std::string text;
  for (int i = 0; i < 600'000; ++i) text += static_cast<char>(i % 251);
  test::write_bytes(base / "blob", text);
  std::filesystem::create_symlink(base / "blob", base / "tokenizer.model");  // as in caches
  const auto plan = plan_folder({{"a.codes", DType::u8, {4}}}, 1000, {});
  auto folder = OutputFolder::open(base / "out", *plan, Json::object(), {});
  ASSERT_TRUE(folder.has_value());
  ASSERT_TRUE(folder->copy_file(base / "tokenizer.model").has_value());
  EXPECT_FALSE(folder->copy_file(base / "absent").has_value());
  ASSERT_TRUE(folder->write("a.codes", std::vector<std::byte>(4)).has_value());
  ASSERT_TRUE(folder->complete("{}").has_value());
  EXPECT_EQ(test::read_bytes(base / "out" / "tokenizer.model"), text);
  EXPECT_FALSE(std::filesystem::is_symlink(base / "out" / "tokenizer.model"));
  EXPECT_TRUE(std::filesystem::exists(base / "out" / "model.safetensors"));
}

TEST(SameFileOrInside, SeesThroughLinksAndWaitingPaths) {
  const TemporaryFolder base;
  std::filesystem::create_directories(base / "model/sub");
  std::filesystem::create_directory(base / "model2");
  test::write_bytes(base / "model/model.safetensors", "x");
  std::filesystem::create_hard_link(base / "model/model.safetensors", base / "hard");
  std::filesystem::create_directory_symlink(base / "model", base / "link");
  EXPECT_TRUE(same_file_or_inside(base / "model", base / "model"));
  EXPECT_TRUE(same_file_or_inside(base / "model/", base / "model"));
  EXPECT_TRUE(same_file_or_inside(base / "model/../model", base / "model"));
  EXPECT_TRUE(same_file_or_inside(base / "link", base / "model"));
  EXPECT_TRUE(same_file_or_inside(base / "link/new/out", base / "model"));
  EXPECT_TRUE(same_file_or_inside(base / "model/sub", base / "model"));
  EXPECT_TRUE(same_file_or_inside(base / "hard", base / "model/model.safetensors"));
  EXPECT_TRUE(same_file_or_inside(base / "model", base.path()));
  EXPECT_FALSE(same_file_or_inside(base / "model", base / "model/sub"));
  EXPECT_FALSE(same_file_or_inside(base / "model2", base / "model"));
  EXPECT_FALSE(same_file_or_inside(base / "new", base / "model"));
  EXPECT_FALSE(same_file_or_inside(base / "model", base / "new"));
}

}  // namespace
}  // namespace quell::io
