// SPDX-License-Identifier: Apache-2.0
#pragma once

// What each fuzz target has: the function that the fuzzer calls, and inputs to start from, made in
// code so that no binary files are kept. A target is built twice: with libFuzzer's main function,
// and with regression_test.cpp, which runs the seeds and many small changes of them in every test
// run.

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size);

namespace quell::fuzz {

std::vector<std::string> seeds();

/// What must hold for every input. A broken promise ends the program, which the fuzzer reports.
inline void require(bool holds, const char* promise) {
  if (holds) return;
  std::fprintf(stderr, "broken promise: %s\n", promise);
  std::abort();
}

/// A file without a disk, since readers take paths.
class MemoryFile {
 public:
  MemoryFile() : descriptor_(::memfd_create("fuzz", MFD_CLOEXEC)) {
    require(descriptor_ >= 0, "memory files exist");
  }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;
  ~MemoryFile() { ::close(descriptor_); }

  void write(std::string_view bytes) {
    require(::ftruncate(descriptor_, 0) == 0, "memory files can be emptied");
    const auto written = ::pwrite(descriptor_, bytes.data(), bytes.size(), 0);
    require(written == static_cast<ssize_t>(bytes.size()), "memory files can be written");
  }
  std::string path() const { return "/proc/self/fd/" + std::to_string(descriptor_); }

 private:
  int descriptor_;
};

}  // namespace quell::fuzz
