// SPDX-License-Identifier: Apache-2.0
#pragma once

// A file that is complete or absent: written beside its place, synced, renamed.

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "quell/core/result.hpp"

namespace quell::io {

class NewFile {
 public:
  /// Errors show at the first write.
  explicit NewFile(const std::filesystem::path& path);
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;
  /// Without a commit nothing remains.
  ~NewFile();

  const std::string& path() const noexcept { return path_; }
  /// Error: resource, with what the system says.
  Status write(std::uint64_t offset, std::span<const std::byte> bytes);
  /// The file appears, in place of one of the same name. Error: resource.
  Status commit();

 private:
  Error error(const char* what) const;

  std::string path_, temporary_;
  int file_ = -1;
};

/// All of a file at once.
Status write_new_file(const std::filesystem::path& path, std::string_view text);

}  // namespace quell::io
