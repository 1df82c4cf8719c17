// SPDX-License-Identifier: Apache-2.0
#pragma once

// Which files of a folder are the checkpoint. Nothing is opened here but the index.

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "quell/core/result.hpp"
#include "quell/io/safetensors.hpp"

namespace quell::io {

struct FolderFiles {
  std::vector<std::filesystem::path> files;  // sorted by name
  std::string index_file;                    // empty if there is no index
  /// Of the index: tensor name and the position of its file in `files`. Sorted by name.
  std::vector<std::pair<std::string, std::uint32_t>> index;
  std::vector<std::string> warnings;
};

/// Errors: missing (no weights, a shard that is absent), unsupported (pickled weights alone), parse
/// (an index that is not one, or that leaves the folder).
Result<FolderFiles> choose_files(const std::filesystem::path& folder, Checkpoint::Options options);

}  // namespace quell::io
