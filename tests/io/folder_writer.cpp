// SPDX-License-Identifier: Apache-2.0
// io_folder_writer OUT [--force] [--no-resume]: does the work of folder_work.hpp in a process of
// its own, so that tests can kill it and let its system calls fail. Prints the hash; exit codes are
// those of the command line.
#include <cstdio>
#include <cstring>

#include "io/folder_work.hpp"

int main(int argc, char** argv) {
  if (argc < 2) return 2;
  quell::test::Work work;
  for (int i = 2; i < argc; ++i) {
    if (std::strcmp(argv[i], "--force") == 0) work.options.force = true;
    if (std::strcmp(argv[i], "--no-resume") == 0) work.options.resume = false;
  }
  const auto hash = quell::test::do_work(argv[1], work);
  if (hash) {
    std::printf("%s\n", hash->c_str());
    return 0;
  }
  std::fprintf(stderr, "%s\n", hash.error().message.c_str());
  switch (hash.error().code) {
    case quell::ErrorCode::usage:
      return 2;
    case quell::ErrorCode::resource:
      return 4;
    case quell::ErrorCode::verification:
      return 6;
    default:
      return 3;
  }
}
