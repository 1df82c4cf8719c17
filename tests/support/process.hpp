// SPDX-License-Identifier: Apache-2.0
#pragma once

// Runs a program and collects what it wrote, for tests of whole processes: exit codes, kills,
// faults.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <map>
#include <string>
#include <vector>

#include "support/files.hpp"

namespace quell::test {

struct Ended {
  int code = -1;    // exit code, or -1 if a signal ended it
  int signal = 0;   // that signal
  std::string out;  // standard output
  std::string err;
};

using Environment = std::map<std::string, std::string>;

/// Runs `command` (a path and its arguments) to its end, with these variables added.
inline Ended run_process(const std::vector<std::string>& command, const Environment& added = {}) {
  const TemporaryFolder folder;
  const std::string out = (folder / "out").string();
  const std::string err = (folder / "err").string();
  const pid_t child = ::fork();
  if (child == 0) {
    for (const auto& [name, value] : added) ::setenv(name.c_str(), value.c_str(), 1);
    const int out_fd = ::open(out.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
    const int err_fd = ::open(err.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
    ::dup2(out_fd, STDOUT_FILENO);
    ::dup2(err_fd, STDERR_FILENO);
    std::vector<char*> arguments;
    for (const std::string& argument : command) {
      arguments.push_back(const_cast<char*>(argument.c_str()));
    }
    arguments.push_back(nullptr);
    ::execv(arguments[0], arguments.data());
    ::_exit(127);
  }
  Ended ended;
  int status = 0;
  EXPECT_GT(child, 0);
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFEXITED(status)) ended.code = WEXITSTATUS(status);
  if (WIFSIGNALED(status)) ended.signal = WTERMSIG(status);
  ended.out = read_bytes(out);
  ended.err = read_bytes(err);
  return ended;
}

/// What makes the library of tests/support/faults fail the `at`-th call of `kind` on files of
/// `path`.
inline Environment fault(const std::string& library, const std::string& kind, long at,
                         const std::string& path) {
  return {{"LD_PRELOAD", library},
          {"ASAN_OPTIONS", "verify_asan_link_order=0"},
          {"QUELL_FAULT_CALL", kind},
          {"QUELL_FAULT_AT", std::to_string(at)},
          {"QUELL_FAULT_PATH", path}};
}

}  // namespace quell::test
