// SPDX-License-Identifier: Apache-2.0
#pragma once

// A file descriptor that closes itself, and the few system calls that writing a folder needs, as
// Results: interrupted calls are repeated, short writes continued, and every error says which file,
// what failed and why.

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "quell/core/result.hpp"

namespace quell::io {

/// Files are hashed and copied in pieces of this size: large enough that the calls cost nothing
/// beside the hashing (about 300 MB/s), small enough for the second-level cache.
inline constexpr std::size_t kCopyChunk = 1 << 18;

/// "FILE: ACTION failed: REASON" with ErrorCode::resource. `error` is an errno value.
Error system_error(std::string_view file, std::string_view action, int error);

class Descriptor {
 public:
  Descriptor() noexcept = default;
  /// Takes over an open descriptor. `name` is what errors call the file.
  Descriptor(int fd, std::string name) noexcept : fd_(fd), name_(std::move(name)) {}
  Descriptor(Descriptor&& other) noexcept
      : fd_(std::exchange(other.fd_, -1)), name_(std::move(other.name_)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    std::swap(name_, other.name_);
    return *this;
  }
  ~Descriptor();

  /// openat with O_CLOEXEC; new files get mode 0644 less the umask. Errors: missing (no such file),
  /// resource.
  static Result<Descriptor> open(int folder, const std::string& path, int flags, std::string name);

  bool is_open() const noexcept { return fd_ >= 0; }
  int get() const noexcept { return fd_; }
  const std::string& name() const noexcept { return name_; }

  /// Exactly bytes.size() bytes from `offset`; a shorter file is an error.
  Status read_at(std::uint64_t offset, std::span<std::byte> bytes) const;
  Status write_at(std::uint64_t offset, std::span<const std::byte> bytes) const;
  Status sync() const;       // data and metadata
  Status sync_data() const;  // data and what is needed to find it
  Result<std::uint64_t> size() const;
  /// Makes the file `bytes` long with its blocks reserved where the file system can do that, so
  /// that a full disk shows here and not in the middle of the work.
  Status reserve(std::uint64_t bytes) const;
  /// The whole file, refused if it is longer than `limit`.
  Result<std::string> read_all(std::uint64_t limit) const;

 private:
  int fd_ = -1;
  std::string name_;
};

/// Creates `path` (new, never through a link), writes it whole and syncs it.
Status write_new_file(int folder, const std::string& path, std::string_view text,
                      const std::string& name);
/// Bytes that an unprivileged process may still write where `fd` lies; the largest number if
/// unknown.
std::uint64_t available_bytes(int fd) noexcept;

}  // namespace quell::io
