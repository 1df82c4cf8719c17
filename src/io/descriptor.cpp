// SPDX-License-Identifier: Apache-2.0
#include "io/descriptor.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>

#include "io/fault.hpp"
#include "quell/core/checked.hpp"

namespace quell::io {
namespace {

// The kernel moves at most this much in one call (2^31 - 4096); asking for less avoids relying on
// it.
constexpr std::size_t kLargestCall = 1 << 30;

Result<::off_t> file_offset(std::uint64_t value, const std::string& name) {
  const auto offset = checked_narrow<::off_t>(value);
  if (!offset) {
    return Error{ErrorCode::resource,
                 name + ": offset " + std::to_string(value) + " is beyond what files can hold",
                 name};
  }
  return *offset;
}

}  // namespace

Error system_error(std::string_view file, std::string_view action, int error) {
  std::string message(action);
  message += " failed: ";
  message += std::strerror(error);
  switch (error) {
    case ENOSPC:
      message += "; free some space and run the same command again to resume";
      break;
    case EDQUOT:
      message += "; the quota of this user is used up";
      break;
    case EROFS:
      message += "; choose an output on a file system that can be written";
      break;
    case EACCES:
    case EPERM:
      message += "; check the permissions or choose another output";
      break;
    case ENAMETOOLONG:
      message += "; choose a shorter path";
      break;
    default:
      break;
  }
  return file_fault(ErrorCode::resource, file, message);
}

Descriptor::~Descriptor() {
  if (fd_ >= 0) ::close(fd_);
}

Result<Descriptor> Descriptor::open(int folder, const std::string& path, int flags,
                                    std::string name) {
  while (true) {
    const int fd = ::openat(folder, path.c_str(), flags | O_CLOEXEC, 0644);
    if (fd >= 0) return Descriptor(fd, std::move(name));
    if (errno == EINTR) continue;
    const int error = errno;
    if (error == ENOENT && (flags & O_CREAT) == 0) {
      return file_fault(ErrorCode::missing, name, "no such file");
    }
    return system_error(name, (flags & O_CREAT) != 0 ? "creating it" : "opening it", error);
  }
}

Status Descriptor::read_at(std::uint64_t offset, std::span<std::byte> bytes) const {
  while (!bytes.empty()) {
    QUELL_TRY(where, file_offset(offset, name_));
    const ::ssize_t got = ::pread(fd_, bytes.data(), std::min(bytes.size(), kLargestCall), where);
    if (got < 0) {
      if (errno == EINTR) continue;
      return system_error(name_, "reading", errno);
    }
    if (got == 0) {
      return file_fault(ErrorCode::parse, name_,
                        "ends at byte " + std::to_string(offset) + ", " +
                            std::to_string(bytes.size()) + " bytes short");
    }
    offset += static_cast<std::uint64_t>(got);
    bytes = bytes.subspan(static_cast<std::size_t>(got));
  }
  return ok();
}

Status Descriptor::write_at(std::uint64_t offset, std::span<const std::byte> bytes) const {
  while (!bytes.empty()) {
    QUELL_TRY(where, file_offset(offset, name_));
    const ::ssize_t put = ::pwrite(fd_, bytes.data(), std::min(bytes.size(), kLargestCall), where);
    if (put < 0) {
      if (errno == EINTR) continue;
      const int error = errno;
      Error failure =
          system_error(name_, "writing " + std::to_string(bytes.size()) + " bytes", error);
      if (error == ENOSPC) {
        failure.message += " (" + std::to_string(available_bytes(fd_)) + " bytes are available)";
      }
      return failure;
    }
    if (put == 0) return system_error(name_, "writing", EIO);
    offset += static_cast<std::uint64_t>(put);
    bytes = bytes.subspan(static_cast<std::size_t>(put));
  }
  return ok();
}

Status Descriptor::sync() const {
  while (::fsync(fd_) != 0) {
    if (errno != EINTR) return system_error(name_, "syncing to disk", errno);
  }
  return ok();
}

Status Descriptor::sync_data() const {
  while (::fdatasync(fd_) != 0) {
    if (errno != EINTR) return system_error(name_, "syncing to disk", errno);
  }
  return ok();
}

Result<std::uint64_t> Descriptor::size() const {
  struct stat status = {};
  if (::fstat(fd_, &status) != 0) return system_error(name_, "reading its size", errno);
  return static_cast<std::uint64_t>(status.st_size);
}

Status Descriptor::reserve(std::uint64_t bytes) const {
  QUELL_TRY(length, file_offset(bytes, name_));
  while (true) {
    // Not posix_fallocate: where the file system has no such call the C library imitates it by
    // writing to every block, which costs as much as the work itself.
    if (length == 0 || ::fallocate(fd_, 0, 0, length) == 0) break;
    if (errno == EINTR) continue;
    if (errno == EOPNOTSUPP || errno == ENOSYS || errno == EINVAL) break;
    const int error = errno;
    Error failure = system_error(name_, "reserving " + std::to_string(bytes) + " bytes", error);
    if (error == ENOSPC) {
      failure.message += " (" + std::to_string(available_bytes(fd_)) + " bytes are available)";
    }
    return failure;
  }
  while (::ftruncate(fd_, length) != 0) {
    if (errno != EINTR) {
      return system_error(name_, "setting its size to " + std::to_string(bytes), errno);
    }
  }
  return ok();
}

Result<std::string> Descriptor::read_all(std::uint64_t limit) const {
  QUELL_TRY(bytes, size());
  if (bytes > limit) {
    return Error{
        ErrorCode::parse,
        name_ + ": " + std::to_string(bytes) + " bytes, the limit is " + std::to_string(limit),
        name_};
  }
  std::string text(static_cast<std::size_t>(bytes), '\0');
  QUELL_TRY(read_at(0, std::as_writable_bytes(std::span(text))));
  return text;
}

Status write_new_file(int folder, const std::string& path, std::string_view text,
                      const std::string& name) {
  QUELL_TRY(file, Descriptor::open(folder, path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, name));
  QUELL_TRY(file.write_at(0, std::as_bytes(std::span(text))));
  return file.sync();
}

std::uint64_t available_bytes(int fd) noexcept {
  struct statvfs status = {};
  if (::fstatvfs(fd, &status) != 0) return std::numeric_limits<std::uint64_t>::max();
  return checked_multiply(status.f_bavail, status.f_frsize)
      .value_or(std::numeric_limits<std::uint64_t>::max());
}

}  // namespace quell::io
