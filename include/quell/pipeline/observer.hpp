// SPDX-License-Identifier: Apache-2.0
#pragma once

// How long work tells its caller what it does: the library prints nothing itself.

#include <cstdint>
#include <string_view>

namespace quell::pipeline {

struct Progress {
  std::string_view what;       // module or phase
  double done = 0, total = 0;  // work units, floating-point operations by estimate
  double replayed = 0;         // of `done`: units that an earlier run had paid for
};

class Observer {
 public:
  virtual ~Observer() = default;
  /// A module or phase begins or ends.
  virtual void progress(const Progress&) {}
  /// Something a user should know that is no error.
  virtual void note(std::string_view) {}
  /// Asked between modules: true stops the run with ErrorCode::interrupted, resumable.
  virtual bool stop_requested() { return false; }
};

}  // namespace quell::pipeline
