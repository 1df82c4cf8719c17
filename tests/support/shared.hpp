// SPDX-License-Identifier: Apache-2.0
#pragma once

// Large test data that is not part of the source tree: real models and texts. Tests that use them
// look here and report themselves as skipped where it is absent.

#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>
#include <system_error>

namespace quell::test {

/// `name` inside the folder of shared data ($QUELL_SHARED, else ../shared beside the sources).
inline std::optional<std::filesystem::path> shared_path(const std::string& name) {
  const char* root = std::getenv("QUELL_SHARED");
  const std::filesystem::path base =
      root != nullptr ? std::filesystem::path(root)
                      : std::filesystem::path(QUELL_SOURCE_DIR).parent_path() / "shared";
  std::error_code error;
  if (!std::filesystem::exists(base / name, error)) return std::nullopt;
  return base / name;
}

}  // namespace quell::test
