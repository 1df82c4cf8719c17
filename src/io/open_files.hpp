// SPDX-License-Identifier: Apache-2.0
#pragma once

// The files of a checkpoint, opened when they are read. Only a few stay open (a process may have a
// limit of 64 for 200 shards), and one opened again must still be the one whose header was read.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <vector>

#include "io/file.hpp"
#include "quell/core/result.hpp"

namespace quell::io {

class OpenFiles {
 public:
  /// Adds a file, open, and returns its position.
  std::uint32_t add(std::filesystem::path path, File file);

  /// The open file at this position; safe from several threads. Errors: parse if it changed since
  /// add(), else as File::open.
  Result<std::shared_ptr<const File>> get(std::uint32_t index) const;

  const std::vector<std::filesystem::path>& paths() const noexcept { return paths_; }

 private:
  struct Slot {
    std::uint32_t index;
    std::shared_ptr<const File> file;
  };
  void keep(std::uint32_t index, std::shared_ptr<const File> file) const;

  std::vector<std::filesystem::path> paths_;
  std::vector<FileIdentity> identities_;
  mutable std::mutex mutex_;
  mutable std::vector<Slot> slots_;  // last used last
};

}  // namespace quell::io
