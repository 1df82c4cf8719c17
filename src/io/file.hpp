// SPDX-License-Identifier: Apache-2.0
#pragma once

// A regular file opened for reading. Reads are positioned, so one file serves several threads; they
// are retried when a signal interrupts them and continued when they come back short. A mapping is
// not used: a mapped file that another process shortens kills the reader.

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <utility>

#include "quell/core/result.hpp"

namespace quell::io {

/// What tells that a file is still the one that was opened.
struct FileIdentity {
  std::uint64_t device = 0, inode = 0, size = 0;
  std::int64_t modified_seconds = 0, modified_nanoseconds = 0;
  bool operator==(const FileIdentity&) const = default;
};

class File {
 public:
  /// Errors: missing (no such file), parse (a folder, a device, a pipe), resource (no permission,
  /// too many open files, an input error).
  static Result<File> open(const std::filesystem::path& path);

  File(File&& other) noexcept
      : descriptor_(std::exchange(other.descriptor_, -1)),
        identity_(other.identity_),
        name_(std::move(other.name_)) {}
  File& operator=(File&& other) noexcept {
    std::swap(descriptor_, other.descriptor_);
    std::swap(identity_, other.identity_);
    std::swap(name_, other.name_);
    return *this;
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  ~File();

  std::uint64_t size() const noexcept { return identity_.size; }
  /// As it was when opened.
  const FileIdentity& identity() const noexcept { return identity_; }
  const std::string& name() const noexcept { return name_; }

  /// Fills `out` from byte `offset`. Errors: parse if the file changed since it was opened or ends
  /// before the last byte, resource if the system cannot read it.
  Status read_at(std::uint64_t offset, std::span<std::byte> out) const;
  /// Error (parse) if size or time of modification differ from those at opening.
  Status check_unchanged() const;

 private:
  File(int descriptor, FileIdentity identity, std::string name)
      : descriptor_(descriptor), identity_(identity), name_(std::move(name)) {}

  int descriptor_ = -1;
  FileIdentity identity_;
  std::string name_;
};

/// A whole small file as text. Error: parse if it has more than `limit` bytes; else as File.
Result<std::string> read_text(const std::filesystem::path& path, std::uint64_t limit);

/// Reads `out.size()` bytes through `pread(buffer, count, offset)`, which works like the system
/// call of this name. Returns the bytes read (fewer only at the end of the file) and errno, or 0.
struct ReadOutcome {
  std::size_t bytes = 0;
  int error = 0;
};
template <typename Pread>
ReadOutcome read_fully(Pread&& pread, std::uint64_t offset, std::span<std::byte> out) {
  // Linux transfers at most 2^31 - 4096 bytes in a call; one GiB stays below on every system.
  constexpr std::size_t kLargestRead = std::size_t{1} << 30;
  // Interrupted reads are retried without limit only as long as the caller's signals are rare; a
  // system that never gets further is an error, not a hang.
  constexpr int kRetries = 1000;
  ReadOutcome outcome;
  int retries = 0;
  while (outcome.bytes < out.size()) {
    const std::size_t want = std::min(out.size() - outcome.bytes, kLargestRead);
    errno = 0;
    const auto got = pread(out.data() + outcome.bytes, want, offset + outcome.bytes);
    if (got > 0) {
      outcome.bytes += static_cast<std::size_t>(got);
      retries = 0;
    } else if (got == 0) {
      return outcome;
    } else if ((errno == EINTR || errno == EAGAIN) && retries < kRetries) {
      ++retries;
    } else {
      outcome.error = errno != 0 ? errno : EIO;
      return outcome;
    }
  }
  return outcome;
}

}  // namespace quell::io
