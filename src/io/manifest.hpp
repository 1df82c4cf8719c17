// SPDX-License-Identifier: Apache-2.0
#pragma once

// The manifest of a finished folder: name, size and SHA-256 of every file. It is written last, so
// its presence says that the folder is complete. The hash of the result is the SHA-256 over one
// line per file, sorted by name: `<sha256> <bytes> <name>`. Files that hold times (reports) are
// listed but not counted, so that equal work has an equal hash.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "quell/core/result.hpp"

namespace quell::io {

struct ManifestEntry {
  std::string name;  // a plain file name
  std::uint64_t bytes = 0;
  std::string sha256;   // 64 lower-case hex digits
  bool counted = true;  // part of the hash of the result
};

/// The result's hash. Sorts `entries` by name.
std::string manifest_hash(std::vector<ManifestEntry>& entries);
std::string manifest_text(std::vector<ManifestEntry> entries);
/// Errors (parse): not a manifest, a newer version, names that are not plain file names or occur
/// twice, and a stored hash that does not follow from the entries.
Result<std::vector<ManifestEntry>> parse_manifest(std::string_view text, std::string_view file);

/// True for a name that may be written into a folder: not empty, UTF-8, no separator, no
/// NUL, not . or ..
bool is_plain_name(std::string_view name) noexcept;

}  // namespace quell::io
