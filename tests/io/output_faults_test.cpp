// SPDX-License-Identifier: Apache-2.0
// Output folders under kills, full disks and failing system calls, one fault at a time at every
// place where it can happen.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <map>
#include <string>

#include "io/folder_work.hpp"
#include "quell/io/output.hpp"
#include "support/files.hpp"
#include "support/process.hpp"

namespace quell {
namespace {

using test::Ended;
using test::Environment;
using test::run_process;
using test::TemporaryFolder;

std::map<std::string, std::string> files_of(const std::filesystem::path& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    files[entry.path().filename().string()] = test::read_bytes(entry.path());
  }
  return files;
}

// Hundreds of runs that sync every step: in memory, where there is such a file system, they take
// seconds instead of minutes. Set before the folder below is made.
struct FilesInMemory {
  FilesInMemory() {
    if (::access("/dev/shm", W_OK) == 0) ::setenv("TMPDIR", "/dev/shm", 0);
  }
};

class OutputFaults : public ::testing::Test {
 protected:
  void SetUp() override {
    const Ended ended = write(base_ / "undisturbed");
    ASSERT_EQ(ended.code, 0) << ended.err;
    hash_ = ended.out;
    expected_ = files_of(base_ / "undisturbed");
  }

  static Ended write(const std::filesystem::path& out, const Environment& environment = {},
                     const std::string& option = {}) {
    std::vector<std::string> command = {QUELL_FOLDER_WRITER, out.string()};
    if (!option.empty()) command.push_back(option);
    return run_process(command, environment);
  }
  static Environment fault(const std::string& kind, long at, const std::filesystem::path& out) {
    return test::fault(QUELL_FAULTS, kind, at, out.string());
  }
  std::filesystem::path fresh(const std::string& name) const {
    std::filesystem::remove_all(base_ / name);
    return base_ / name;
  }

  // Runs again without faults. Whatever happened before, this must end in the same bytes.
  void expect_recovers(const std::filesystem::path& out, const std::string& what) {
    const Ended again = write(out);
    if (again.code == 2) {
      // The fault struck when all was done: complete, which needs no second run.
      EXPECT_NE(again.err.find("already holds a finished output"), std::string::npos) << what;
    } else {
      EXPECT_EQ(again.code, 0) << what << "\n" << again.err;
      EXPECT_EQ(again.out, hash_) << what;
    }
    auto files = files_of(out);
    files.erase(".quell-lock");  // a kill after the last step leaves the lock of a dead process
    EXPECT_EQ(files, expected_) << what;
    const auto report = io::verify_folder(out);
    ASSERT_TRUE(report.has_value()) << what;
    EXPECT_TRUE(report->complete) << what;
  }

  // Every place, until the fault no longer strikes. `must_fail`: the run must not claim success.
  void sweep(const std::string& kind, const Environment& extra, bool must_fail) {
    long at = 1;
    for (;; ++at) {
      ASSERT_LT(at, 2000);
      const auto out = fresh("sweep");
      Environment environment = fault(kind, at, out);
      environment.insert(extra.begin(), extra.end());
      environment["QUELL_FAULT_COUNT"] = (base_ / "count").string();
      const std::string what = kind + " " + std::to_string(at);
      const Ended ended = write(out, environment);
      const bool struck = ended.signal != 0 || std::stol(test::read_bytes(base_ / "count")) >= at;
      if (!struck) {
        EXPECT_EQ(ended.code, 0) << what << ended.err;
        break;
      }
      if (ended.signal == 0 && must_fail) {
        EXPECT_EQ(ended.code, 4) << what << "\n" << ended.err;
        EXPECT_NE(ended.err.find(out.string()), std::string::npos) << what << "\n" << ended.err;
      } else if (ended.signal == 0) {
        EXPECT_EQ(ended.code, 0) << what << "\n" << ended.err;
        EXPECT_EQ(ended.out, hash_) << what;
        continue;
      }
      expect_recovers(out, what);
      if (HasFailure()) return;
    }
    // Fewer places than this means that the fault was looked for in the wrong calls.
    EXPECT_GT(at, 1) << kind;
  }

  FilesInMemory in_memory_;
  TemporaryFolder base_;
  std::string hash_;
  std::map<std::string, std::string> expected_;
};

TEST_F(OutputFaults, KillAtEveryCallLeavesResumableOrComplete) {
  sweep("any", {{"QUELL_FAULT_ACTION", "kill"}}, false);
}

TEST_F(OutputFaults, AFullDiskAtEveryWriteEndsWithCode4AndResumes) {
  sweep("write", {{"QUELL_FAULT_ERRNO", "ENOSPC"}, {"QUELL_FAULT_REPEAT", "1"}}, true);
}

TEST_F(OutputFaults, AFullDiskNamesBytesNeededAndAvailable) {
  const auto out = fresh("full");
  Environment environment = fault("write", 5, out);
  environment["QUELL_FAULT_ERRNO"] = "ENOSPC";
  environment["QUELL_FAULT_REPEAT"] = "1";
  const Ended ended = write(out, environment);
  EXPECT_EQ(ended.code, 4);
  EXPECT_NE(ended.err.find("bytes are available"), std::string::npos) << ended.err;
  EXPECT_NE(ended.err.find("No space left"), std::string::npos) << ended.err;
}

TEST_F(OutputFaults, AFullDiskWhileReservingLeavesNothing) {
  for (long at = 1; at <= 6; ++at) {
    const auto out = fresh("reserve");
    Environment environment = fault("reserve", at, out);
    environment["QUELL_FAULT_ERRNO"] = "ENOSPC";
    const Ended ended = write(out, environment);
    if (ended.code == 0) continue;  // the lock file is emptied with the same call
    EXPECT_EQ(ended.code, 4) << ended.err;
    EXPECT_FALSE(std::filesystem::exists(out)) << at;
  }
}

TEST_F(OutputFaults, AFileSystemWithoutReservationWorks) {
  const auto out = fresh("plain");
  Environment environment = fault("reserve", 2, out);
  environment["QUELL_FAULT_ERRNO"] = "EOPNOTSUPP";
  const Ended ended = write(out, environment);
  EXPECT_EQ(ended.code, 0) << ended.err;
  EXPECT_EQ(ended.out, hash_);
}

TEST_F(OutputFaults, InputOutputErrorsAtEveryWriteEndWithCode4) {
  sweep("write", {{"QUELL_FAULT_ERRNO", "EIO"}}, true);
}

TEST_F(OutputFaults, AQuotaAtEveryWriteEndsWithCode4) {
  sweep("write", {{"QUELL_FAULT_ERRNO", "EDQUOT"}, {"QUELL_FAULT_REPEAT", "1"}}, true);
}

TEST_F(OutputFaults, EveryFailingSyncEndsWithCode4) {
  sweep("sync", {{"QUELL_FAULT_ERRNO", "EIO"}}, true);
}

TEST_F(OutputFaults, EveryFailingRenameEndsWithCode4) {
  sweep("rename", {{"QUELL_FAULT_ERRNO", "EIO"}}, true);
}

TEST_F(OutputFaults, EveryFailingReservationEndsWithCode4) {
  sweep("reserve", {{"QUELL_FAULT_ERRNO", "EIO"}}, true);
}

TEST_F(OutputFaults, EveryFailingOpenEndsWithCode4) {
  sweep("open", {{"QUELL_FAULT_ERRNO", "EACCES"}}, true);
}

TEST_F(OutputFaults, InterruptedWritesAreRepeated) {
  sweep("write", {{"QUELL_FAULT_ERRNO", "EINTR"}}, false);
}

TEST_F(OutputFaults, ShortWritesAreContinued) {
  sweep("write", {{"QUELL_FAULT_ACTION", "short"}}, false);
}

TEST_F(OutputFaults, ShortReadsAreContinued) {
  sweep("read", {{"QUELL_FAULT_ACTION", "short"}}, false);
}

TEST_F(OutputFaults, EveryFailingReadEndsWithCode4) {
  sweep("read", {{"QUELL_FAULT_ERRNO", "EIO"}}, true);
}

TEST_F(OutputFaults, AReadOnlyFileSystemSaysSoBeforeAnyWork) {
  const auto out = fresh("readonly");
  Environment environment = fault("mkdir", 1, out);
  environment["QUELL_FAULT_ERRNO"] = "EROFS";
  const Ended ended = write(out, environment);
  EXPECT_EQ(ended.code, 4);
  EXPECT_NE(ended.err.find("Read-only file system"), std::string::npos) << ended.err;
  EXPECT_NE(ended.err.find("choose an output"), std::string::npos) << ended.err;
}

TEST_F(OutputFaults, ReplacingAFinishedFolderSurvivesKillsAtEveryCall) {
  for (long at = 1;; ++at) {
    ASSERT_LT(at, 2000);
    const auto out = fresh("replace");
    ASSERT_TRUE(test::do_work(out, {.bits = 8, .report = "older\n"}).has_value());
    test::write_bytes(out / "notes.txt", "mine");
    Environment environment = fault("any", at, out);
    environment["QUELL_FAULT_ACTION"] = "kill";
    const Ended ended = write(out, environment, "--force");
    const Ended again = write(out, {}, ended.signal != 0 ? "--force" : "");
    const std::string what = "kill at " + std::to_string(at);
    if (ended.signal == 0) {
      EXPECT_EQ(ended.code, 0) << ended.err;
      break;
    }
    EXPECT_EQ(again.code, 0) << what << "\n" << again.err;
    EXPECT_EQ(again.out, hash_) << what;
    auto files = files_of(out);
    EXPECT_EQ(files["notes.txt"], "mine") << what;
    files.erase("notes.txt");
    EXPECT_EQ(files, expected_) << what;
    if (HasFailure()) return;
  }
}

}  // namespace
}  // namespace quell
