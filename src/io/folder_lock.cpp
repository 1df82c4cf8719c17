// SPDX-License-Identifier: Apache-2.0
#include "io/folder_lock.hpp"

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <ctime>
#include <optional>

#include "io/fault.hpp"
#include "quell/core/checked.hpp"
#include "quell/io/json.hpp"

namespace quell::io {
namespace {

struct Owner {
  std::int64_t pid = 0;
  std::string host, started;
};

std::string host_name() {
  std::array<char, 256> name = {};
  if (::gethostname(name.data(), name.size() - 1) != 0) return "unknown";
  return name.data();
}

std::string now_utc() {
  std::tm parts = {};
  const std::time_t now = std::time(nullptr);
  std::array<char, 32> text = {};
  if (::gmtime_r(&now, &parts) == nullptr) return "unknown";
  const std::size_t length = std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%SZ", &parts);
  return std::string(text.data(), length);
}

std::optional<Owner> read_owner(const Descriptor& file) {
  // A lock file has about 100 bytes.
  auto text = file.read_all(1 << 16);
  if (!text) return std::nullopt;
  auto json = parse_json(*text, kLockName);
  if (!json) return std::nullopt;
  const JsonFields fields(*json, std::string(kLockName));
  const auto pid = fields.unsigned_integer("pid", 1, std::uint64_t{1} << 32);
  const auto host = fields.text("host");
  const auto started = fields.text("started");
  if (!pid || !host || !started) return std::nullopt;
  return Owner{static_cast<std::int64_t>(*pid), *host, *started};
}

std::string describe(const std::optional<Owner>& owner) {
  if (!owner) return "another process";
  return "process " + std::to_string(owner->pid) + " on host " + printable(owner->host) +
         " since " + printable(owner->started);
}

// File systems of one machine, where a kernel lock is known to everybody who could write. (The
// numbers are the magic of statfs: ext, xfs, btrfs, tmpfs, overlay, f2fs, zfs, bcachefs, ramfs.)
bool is_local(int fd) {
  struct statfs status = {};
  if (::fstatfs(fd, &status) != 0) return false;
  constexpr std::array<std::uint32_t, 9> kLocal = {0xEF53,     0x58465342, 0x9123683E,
                                                   0x01021994, 0x794C7630, 0xF2F52010,
                                                   0x2FC12FC1, 0xCA451A4E, 0x858458F6};
  const auto magic = static_cast<std::uint32_t>(status.f_type);
  return std::find(kLocal.begin(), kLocal.end(), magic) != kLocal.end();
}

enum class KernelLock { taken, held, unknown };

KernelLock try_lock(int fd) {
  while (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
    if (errno == EINTR) continue;
    return errno == EWOULDBLOCK ? KernelLock::held : KernelLock::unknown;
  }
  return KernelLock::taken;
}

// Without kernel locks: is there a process with this number? (A number used again looks alive; the
// message then tells how to go on.)
bool is_alive(std::int64_t pid) {
  const auto number = checked_narrow<::pid_t>(pid);
  return number && (::kill(*number, 0) == 0 || errno == EPERM);
}

// The path may lead to another file than the one opened, if its owner removed it in between.
bool is_current(int folder, const Descriptor& file) {
  struct stat opened = {};
  struct stat named = {};
  return ::fstat(file.get(), &opened) == 0 &&
         ::fstatat(folder, std::string(kLockName).c_str(), &named, AT_SYMLINK_NOFOLLOW) == 0 &&
         opened.st_dev == named.st_dev && opened.st_ino == named.st_ino;
}

Error busy(const std::string& shown, const std::string& who, std::string_view advice) {
  return file_fault(ErrorCode::resource, shown,
                    "is being written by " + who + "; " + std::string(advice));
}

}  // namespace

Result<FolderLock> FolderLock::take(int folder, const std::string& shown) {
  const std::string path(kLockName);
  const std::string name = shown + "/" + path;
  // Each turn lost means that an owner finished between our two calls; three in a row do not
  // happen.
  for (int turn = 0; turn < 16; ++turn) {
    QUELL_TRY(file, Descriptor::open(folder, path, O_RDWR | O_CREAT | O_NOFOLLOW, name));
    const KernelLock lock = try_lock(file.get());
    const auto owner = read_owner(file);
    if (lock == KernelLock::held) {
      return busy(shown, describe(owner), "wait for it to finish or choose another output");
    }
    if (!is_current(folder, file)) continue;
    const bool foreign =
        owner && owner->host != host_name() && !(lock == KernelLock::taken && is_local(file.get()));
    if (foreign || (lock == KernelLock::unknown && owner && is_alive(owner->pid))) {
      return busy(shown, describe(owner),
                  "if that run is over, remove " + printable(name, kPathLength) +
                      " and run the same command again");
    }
    // From here on the file is ours: if writing fails, it is removed again.
    FolderLock taken;
    taken.file_ = std::move(file);
    taken.folder_ = folder;
    Json json;
    json.set("pid", static_cast<std::int64_t>(::getpid()));
    json.set("host", host_name());
    json.set("started", now_utc());
    const std::string text = json.dump() + "\n";
    if (::ftruncate(taken.file_.get(), 0) != 0) return system_error(name, "emptying it", errno);
    QUELL_TRY(taken.file_.write_at(0, std::as_bytes(std::span(text))));
    return taken;
  }
  return busy(shown, "other processes in turns", "choose another output");
}

FolderLock::FolderLock(FolderLock&& other) noexcept
    : file_(std::move(other.file_)), folder_(std::exchange(other.folder_, -1)) {}

FolderLock& FolderLock::operator=(FolderLock&& other) noexcept {
  std::swap(file_, other.file_);
  std::swap(folder_, other.folder_);
  return *this;
}

void FolderLock::release() noexcept {
  if (folder_ < 0) return;
  // Remove first: whoever opened the file meanwhile then sees that it is no longer the current one.
  ::unlinkat(folder_, std::string(kLockName).c_str(), 0);
  file_ = Descriptor();
  folder_ = -1;
}

std::string lock_owner(int folder, const std::string& shown) {
  const std::string path(kLockName);
  auto file = Descriptor::open(folder, path, O_RDONLY | O_NOFOLLOW, shown + "/" + path);
  if (!file) return {};
  // Our own attempt is undone when `file` closes.
  if (try_lock(file->get()) == KernelLock::taken) return {};
  return describe(read_owner(*file));
}

}  // namespace quell::io
