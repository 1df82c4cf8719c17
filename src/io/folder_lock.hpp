// SPDX-License-Identifier: Apache-2.0
#pragma once

// At most one process writes into a folder. The lock is a file that holds pid, host and start time
// of its owner for error messages, and a kernel lock on it (flock) that dies with its owner: a
// killed run never blocks the next one. On network file systems, where the kernel lock may be known
// to one host alone, a lock file of another host is respected until a user removes it.

#include <string>
#include <string_view>

#include "io/descriptor.hpp"
#include "quell/core/result.hpp"

namespace quell::io {

inline constexpr std::string_view kLockName = ".quell-lock";

class FolderLock {
 public:
  FolderLock() noexcept = default;
  /// `folder` is an open descriptor of the folder and must outlive the lock; `shown` is its path.
  /// Errors (resource): held by a live process (pid, host, start time), or by another host; no
  /// permission to create files.
  static Result<FolderLock> take(int folder, const std::string& shown);
  FolderLock(FolderLock&& other) noexcept;
  FolderLock& operator=(FolderLock&& other) noexcept;
  ~FolderLock() { release(); }

  /// Removes the file and the lock. Harmless if there is none.
  void release() noexcept;

 private:
  Descriptor file_;
  int folder_ = -1;
};

/// Who holds the lock of a folder right now, as "process 12 on host X since T"; empty if nobody
/// does.
std::string lock_owner(int folder, const std::string& shown);

}  // namespace quell::io
