// SPDX-License-Identifier: Apache-2.0
// System calls that fail on purpose. Preloaded (LD_PRELOAD) into a program under test, this makes
// its Nth call of one kind fail, come back short, or kill the process. Environment variables:
//
//     QUELL_FAULT_CALL    open, read, write, sync, rename, reserve, mkdir or unlink: a kind below;
//                         or any: each call of every kind but read
//     QUELL_FAULT_AT      which call of that kind, from 1
//     QUELL_FAULT_ERRNO   ENOSPC, EIO, EDQUOT, EINTR, EACCES, EROFS, EMFILE or a number (else EIO)
//     QUELL_FAULT_ACTION  error (the default), short (half of the bytes are moved), kill (SIGKILL
//                         before the call), interrupt (SIGINT before the call, which is then done)
//     QUELL_FAULT_REPEAT  1: all later calls of the kind fail too, as on a disk that stays full
//     QUELL_FAULT_PATH    only files whose path holds this text count
//     QUELL_FAULT_COUNT   a file that receives the number of calls counted, at exit
//
//     kind      calls
//     open      open, openat, creat             sync      fsync, fdatasync
//     read      read, pread                     rename    rename, renameat, renameat2
//     write     write, pwrite                   reserve   fallocate, posix_fallocate, ftruncate
//     mkdir     mkdir, mkdirat                  unlink    unlink, unlinkat
//
// Each wrapper asks the C library's own function, found behind this one, for the work. What happens
// before main is not counted, nor is what the counting itself does.
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <climits>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

struct Plan {
  const char* call = nullptr;
  const char* path = nullptr;
  const char* action = "error";
  const char* count_file = nullptr;
  long at = 0;
  int error = EIO;
  bool repeat = false;
};

int errno_of(const char* text) {
  constexpr struct {
    const char* name;
    int value;
  } kNames[] = {
      {"ENOSPC", ENOSPC}, {"EIO", EIO},     {"EDQUOT", EDQUOT}, {"EINTR", EINTR},
      {"EACCES", EACCES}, {"EROFS", EROFS}, {"EMFILE", EMFILE}, {"EOPNOTSUPP", EOPNOTSUPP}};
  for (const auto& entry : kNames) {
    if (std::strcmp(text, entry.name) == 0) return entry.value;
  }
  const int number = std::atoi(text);
  return number > 0 ? number : EIO;
}

Plan read_plan() {
  Plan plan;
  plan.call = std::getenv("QUELL_FAULT_CALL");
  plan.path = std::getenv("QUELL_FAULT_PATH");
  plan.count_file = std::getenv("QUELL_FAULT_COUNT");
  if (const char* text = std::getenv("QUELL_FAULT_ACTION")) plan.action = text;
  if (const char* text = std::getenv("QUELL_FAULT_AT")) plan.at = std::atol(text);
  if (const char* text = std::getenv("QUELL_FAULT_ERRNO")) plan.error = errno_of(text);
  if (const char* text = std::getenv("QUELL_FAULT_REPEAT"))
    plan.repeat = std::strcmp(text, "1") == 0;
  return plan;
}

std::atomic<long> counted{0};
std::atomic<bool> ready{false};
Plan plan_of_process;

void write_count() {
  if (plan_of_process.count_file == nullptr) return;
  ready = false;
  if (std::FILE* const file = std::fopen(plan_of_process.count_file, "w")) {
    std::fprintf(file, "%ld\n", counted.load());
    std::fclose(file);
  }
}

__attribute__((constructor)) void prepare() {
  plan_of_process = read_plan();
  if (plan_of_process.call == nullptr) return;
  std::atexit(write_count);
  ready = true;
}

// The next definition of a function: the C library's.
template <typename F>
F* next(const char* name) {
  return reinterpret_cast<F*>(::dlsym(RTLD_NEXT, name));
}

bool path_counts(int fd, const char* path) {
  const char* const wanted = plan_of_process.path;
  if (wanted == nullptr) return true;
  if (path != nullptr && std::strstr(path, wanted) != nullptr) return true;
  // A relative path counts by the folder that it is relative to.
  if (fd < 0) return false;
  char link[64];
  std::snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  char target[PATH_MAX];
  const ssize_t length = ::readlink(link, target, sizeof target - 1);
  if (length <= 0) return false;
  target[length] = '\0';
  return std::strstr(target, wanted) != nullptr;
}

enum class Verdict { pass, fail, halve };

Verdict judge(const char* kind, int fd, const char* path) {
  if (!ready) return Verdict::pass;
  const Plan& plan = plan_of_process;
  const bool any = std::strcmp(plan.call, "any") == 0 && std::strcmp(kind, "read") != 0;
  if (!any && std::strcmp(plan.call, kind) != 0) return Verdict::pass;
  if (!path_counts(fd, path)) return Verdict::pass;
  const long number = ++counted;
  if (plan.at == 0 || (plan.repeat ? number < plan.at : number != plan.at)) return Verdict::pass;
  if (std::strcmp(plan.action, "interrupt") == 0) {
    ::kill(::getpid(), SIGINT);
    return Verdict::pass;
  }
  if (std::strcmp(plan.action, "kill") == 0) {
    ::kill(::getpid(), SIGKILL);
    for (;;) ::pause();
  }
  if (std::strcmp(plan.action, "short") == 0) return Verdict::halve;
  errno = plan.error;
  return Verdict::fail;
}

size_t moved(Verdict verdict, size_t bytes) {
  return verdict == Verdict::halve && bytes > 1 ? bytes / 2 : bytes;
}

mode_t mode_argument(int flags, va_list list) {
  const bool given = (flags & O_CREAT) != 0 || (flags & O_TMPFILE) == O_TMPFILE;
  return given ? static_cast<mode_t>(va_arg(list, int)) : 0;
}

}  // namespace

extern "C" {

int open(const char* path, int flags, ...) {
  va_list list;
  va_start(list, flags);
  const mode_t mode = mode_argument(flags, list);
  va_end(list);
  if (judge("open", -1, path) == Verdict::fail) return -1;
  static auto* const real = next<int(const char*, int, ...)>("open");
  return real(path, flags, mode);
}

int openat(int folder, const char* path, int flags, ...) {
  va_list list;
  va_start(list, flags);
  const mode_t mode = mode_argument(flags, list);
  va_end(list);
  if (judge("open", folder, path) == Verdict::fail) return -1;
  static auto* const real = next<int(int, const char*, int, ...)>("openat");
  return real(folder, path, flags, mode);
}

int creat(const char* path, mode_t mode) {
  if (judge("open", -1, path) == Verdict::fail) return -1;
  static auto* const real = next<int(const char*, mode_t)>("creat");
  return real(path, mode);
}

ssize_t read(int fd, void* bytes, size_t count) {
  const Verdict verdict = judge("read", fd, nullptr);
  if (verdict == Verdict::fail) return -1;
  static auto* const real = next<ssize_t(int, void*, size_t)>("read");
  return real(fd, bytes, moved(verdict, count));
}

ssize_t pread(int fd, void* bytes, size_t count, off_t at) {
  const Verdict verdict = judge("read", fd, nullptr);
  if (verdict == Verdict::fail) return -1;
  static auto* const real = next<ssize_t(int, void*, size_t, off_t)>("pread");
  return real(fd, bytes, moved(verdict, count), at);
}

ssize_t write(int fd, const void* bytes, size_t count) {
  const Verdict verdict = judge("write", fd, nullptr);
  if (verdict == Verdict::fail) return -1;
  static auto* const real = next<ssize_t(int, const void*, size_t)>("write");
  return real(fd, bytes, moved(verdict, count));
}

ssize_t pwrite(int fd, const void* bytes, size_t count, off_t at) {
  const Verdict verdict = judge("write", fd, nullptr);
  if (verdict == Verdict::fail) return -1;
  static auto* const real = next<ssize_t(int, const void*, size_t, off_t)>("pwrite");
  return real(fd, bytes, moved(verdict, count), at);
}

int fsync(int fd) {
  if (judge("sync", fd, nullptr) == Verdict::fail) return -1;
  static auto* const real = next<int(int)>("fsync");
  return real(fd);
}

int fdatasync(int fd) {
  if (judge("sync", fd, nullptr) == Verdict::fail) return -1;
  static auto* const real = next<int(int)>("fdatasync");
  return real(fd);
}

int rename(const char* from, const char* to) noexcept {
  if (judge("rename", -1, to) == Verdict::fail) return -1;
  static auto* const real = next<int(const char*, const char*)>("rename");
  return real(from, to);
}

int renameat(int from_folder, const char* from, int to_folder, const char* to) noexcept {
  if (judge("rename", to_folder, to) == Verdict::fail) return -1;
  static auto* const real = next<int(int, const char*, int, const char*)>("renameat");
  return real(from_folder, from, to_folder, to);
}

int renameat2(int from_folder, const char* from, int to_folder, const char* to,
              unsigned int flags) noexcept {
  if (judge("rename", to_folder, to) == Verdict::fail) return -1;
  static auto* const real =
      next<int(int, const char*, int, const char*, unsigned int)>("renameat2");
  return real(from_folder, from, to_folder, to, flags);
}

int fallocate(int fd, int mode, off_t offset, off_t length) {
  if (judge("reserve", fd, nullptr) == Verdict::fail) return -1;
  static auto* const real = next<int(int, int, off_t, off_t)>("fallocate");
  return real(fd, mode, offset, length);
}

// This one returns the error instead of setting errno.
int posix_fallocate(int fd, off_t offset, off_t length) {
  if (judge("reserve", fd, nullptr) == Verdict::fail) return errno;
  static auto* const real = next<int(int, off_t, off_t)>("posix_fallocate");
  return real(fd, offset, length);
}

int ftruncate(int fd, off_t length) noexcept {
  if (judge("reserve", fd, nullptr) == Verdict::fail) return -1;
  static auto* const real = next<int(int, off_t)>("ftruncate");
  return real(fd, length);
}

int mkdir(const char* path, mode_t mode) noexcept {
  if (judge("mkdir", -1, path) == Verdict::fail) return -1;
  static auto* const real = next<int(const char*, mode_t)>("mkdir");
  return real(path, mode);
}

int mkdirat(int folder, const char* path, mode_t mode) noexcept {
  if (judge("mkdir", folder, path) == Verdict::fail) return -1;
  static auto* const real = next<int(int, const char*, mode_t)>("mkdirat");
  return real(folder, path, mode);
}

int unlink(const char* path) noexcept {
  if (judge("unlink", -1, path) == Verdict::fail) return -1;
  static auto* const real = next<int(const char*)>("unlink");
  return real(path);
}

int unlinkat(int folder, const char* path, int flags) noexcept {
  if (judge("unlink", folder, path) == Verdict::fail) return -1;
  static auto* const real = next<int(int, const char*, int)>("unlinkat");
  return real(folder, path, flags);
}

}  // extern "C"
