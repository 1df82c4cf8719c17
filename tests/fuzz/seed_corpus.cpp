// SPDX-License-Identifier: Apache-2.0

// Before the fuzzer starts, the seeds are written into the first folder of its command line, which
// is the corpus that it reads and extends.

#include <filesystem>
#include <fstream>
#include <system_error>

#include "fuzz/target.hpp"

extern "C" int LLVMFuzzerInitialize(int* count, char*** arguments) {
  for (int i = 1; i < *count; ++i) {
    const std::filesystem::path folder = (*arguments)[i];
    std::error_code error;
    if ((*arguments)[i][0] == '-' || !std::filesystem::is_directory(folder, error)) continue;
    std::size_t number = 0;
    for (const std::string& seed : quell::fuzz::seeds()) {
      std::ofstream file(folder / ("seed-" + std::to_string(number++)), std::ios::binary);
      file.write(seed.data(), static_cast<std::streamsize>(seed.size()));
    }
    break;
  }
  return 0;
}
