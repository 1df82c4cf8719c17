// SPDX-License-Identifier: Apache-2.0

#include "quell/io/new_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace quell::io {

NewFile::NewFile(const std::filesystem::path& path)
    : path_(path.string()), temporary_(path_ + ".XXXXXX") {
  file_ = ::mkostemp(temporary_.data(), O_CLOEXEC);
}

NewFile::~NewFile() {
  if (file_ < 0) return;
  ::close(file_);
  ::unlink(temporary_.c_str());
}

Error NewFile::error(const char* what) const {
  return Error{ErrorCode::resource, path_ + ": could not be " + what + ": " + std::strerror(errno),
               path_};
}

Status NewFile::write(std::uint64_t offset, std::span<const std::byte> bytes) {
  if (file_ < 0) return error("created");
  while (!bytes.empty()) {
    const ssize_t done = ::pwrite(file_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) return error("written");
    offset += static_cast<std::uint64_t>(done);
    bytes = bytes.subspan(static_cast<std::size_t>(done));
  }
  return ok();
}

Status NewFile::commit() {
  if (file_ < 0) return error("created");
  // mkostemp makes files that only their owner can read.
  if (::fchmod(file_, 0644) != 0 || ::fsync(file_) != 0) return error("synced");
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) return error("renamed");
  ::close(file_);
  file_ = -1;
  return ok();
}

Status write_new_file(const std::filesystem::path& path, std::string_view text) {
  NewFile file(path);
  QUELL_TRY(file.write(0, std::as_bytes(std::span(text))));
  return file.commit();
}

}  // namespace quell::io
