// SPDX-License-Identifier: Apache-2.0
#include "io/file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <optional>

#include "io/fault.hpp"
#include "quell/core/checked.hpp"

namespace quell::io {
namespace {

std::string system_text(int error) {
  char buffer[128] = {};
  // The GNU form returns the text, the POSIX form fills the buffer; `auto` accepts both.
  const auto result = ::strerror_r(error, buffer, sizeof buffer);
  if constexpr (std::is_pointer_v<decltype(result)>) {
    return std::string(result);
  } else {
    return std::string(buffer);
  }
}

FileIdentity identity_of(const struct ::stat& status) {
  FileIdentity identity;
  identity.device = static_cast<std::uint64_t>(status.st_dev);
  identity.inode = static_cast<std::uint64_t>(status.st_ino);
  identity.size = static_cast<std::uint64_t>(status.st_size);
  identity.modified_seconds = static_cast<std::int64_t>(status.st_mtim.tv_sec);
  identity.modified_nanoseconds = static_cast<std::int64_t>(status.st_mtim.tv_nsec);
  return identity;
}

int open_retrying(const char* path) {
  // Without O_NONBLOCK, opening a named pipe would wait for a writer.
  for (;;) {
    const int descriptor = ::open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (descriptor >= 0 || errno != EINTR) return descriptor;
  }
}

}  // namespace

Result<File> File::open(const std::filesystem::path& path) {
  const std::string name = path.string();
  if (name.find('\0') != std::string::npos) {
    return file_fault(ErrorCode::missing, name, "a path cannot hold a NUL byte");
  }
  const int descriptor = open_retrying(name.c_str());
  if (descriptor < 0) {
    const int error = errno;
    if (error == ENOENT || error == ENOTDIR) {
      return file_fault(ErrorCode::missing, name, "no such file");
    }
    return file_fault(ErrorCode::resource, name,
                      "cannot be opened for reading: " + system_text(error));
  }
  File file(descriptor, {}, name);
  struct ::stat status = {};
  if (::fstat(descriptor, &status) != 0) {
    return file_fault(ErrorCode::resource, name, "cannot be examined: " + system_text(errno));
  }
  if (S_ISDIR(status.st_mode)) {
    return file_fault(ErrorCode::parse, name, "is a folder, expected a file");
  }
  if (!S_ISREG(status.st_mode)) {
    return file_fault(ErrorCode::parse, name, "is a device, pipe or socket, expected a file");
  }
  file.identity_ = identity_of(status);
  return file;
}

File::~File() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

Status File::check_unchanged() const {
  struct ::stat status = {};
  if (::fstat(descriptor_, &status) != 0) {
    return file_fault(ErrorCode::resource, name_, "cannot be examined: " + system_text(errno));
  }
  const FileIdentity now = identity_of(status);
  if (now == identity_) return ok();
  std::string how = "input changed while being read: ";
  if (now.size != identity_.size) {
    how += "it had " + std::to_string(identity_.size) + " bytes when opened and has " +
           std::to_string(now.size) + " now";
  } else {
    how += "it was written to after it was opened";
  }
  return file_fault(ErrorCode::parse, name_, how + "; start again when the file is complete");
}

Status File::read_at(std::uint64_t offset, std::span<std::byte> out) const {
  const auto end = checked_add(offset, out.size());
  if (!end || *end > identity_.size) {
    return file_fault(ErrorCode::parse, name_,
                      "bytes " + std::to_string(offset) + " to " +
                          (end ? std::to_string(*end) : std::string("2^64")) +
                          " were asked for, but the file has " + std::to_string(identity_.size));
  }
  const ReadOutcome outcome = read_fully(
      [this](std::byte* buffer, std::size_t count, std::uint64_t at) {
        return ::pread(descriptor_, buffer, count, static_cast<off_t>(at));
      },
      offset, out);
  if (outcome.error != 0) {
    return file_fault(ErrorCode::resource, name_,
                      "reading " + std::to_string(out.size()) + " bytes at " +
                          std::to_string(offset) + " failed after " +
                          std::to_string(outcome.bytes) + ": " + system_text(outcome.error));
  }
  QUELL_TRY(check_unchanged());
  if (outcome.bytes != out.size()) {
    return file_fault(ErrorCode::resource, name_,
                      "reading " + std::to_string(out.size()) + " bytes at " +
                          std::to_string(offset) + " gave only " + std::to_string(outcome.bytes) +
                          ", though the file has " + std::to_string(identity_.size));
  }
  return ok();
}

Result<std::string> read_text(const std::filesystem::path& path, std::uint64_t limit) {
  QUELL_TRY(file, File::open(path));
  if (file.size() > limit) {
    return file_fault(ErrorCode::parse, file.name(),
                      "has " + std::to_string(file.size()) + " bytes, more than the limit of " +
                          std::to_string(limit));
  }
  const auto size = checked_narrow<std::size_t>(file.size());
  if (!size) return file_fault(ErrorCode::resource, file.name(), "does not fit in memory");
  std::string text(*size, '\0');
  QUELL_TRY(file.read_at(0, std::as_writable_bytes(std::span<char>(text.data(), text.size()))));
  return text;
}

}  // namespace quell::io
