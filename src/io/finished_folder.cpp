// SPDX-License-Identifier: Apache-2.0

// A finished folder gets one file more: the file first, then the manifest that lists it, each
// complete or absent. Whoever is stopped in between leaves a file that verify names.

#include <fcntl.h>

#include <algorithm>

#include "io/descriptor.hpp"
#include "io/fault.hpp"
#include "io/manifest.hpp"
#include "quell/io/new_file.hpp"
#include "quell/io/output.hpp"

namespace quell::io {

Status add_to_finished(const std::filesystem::path& folder, std::string_view name,
                       std::string_view text) {
  constexpr std::uint64_t kManifestLimit = 100'000'000;
  const std::string manifest = (folder / kManifestName).string();
  if (!is_plain_name(name) || name == kManifestName) {
    return file_fault(ErrorCode::usage, folder.string(),
                      printable(name) + " is no name for a file of an output folder");
  }
  QUELL_TRY(file, Descriptor::open(AT_FDCWD, manifest, O_RDONLY | O_NOFOLLOW, manifest));
  QUELL_TRY(old, file.read_all(kManifestLimit));
  QUELL_TRY(entries, parse_manifest(old, manifest));
  const auto same = std::find_if(entries.begin(), entries.end(),
                                 [&](const ManifestEntry& entry) { return entry.name == name; });
  if (same != entries.end()) {
    if (same->counted) {
      return file_fault(ErrorCode::usage, folder.string(),
                        printable(name) +
                            " is part of the result; only files that are not "
                            "counted in its hash can be replaced");
    }
    entries.erase(same);
  }
  entries.push_back({std::string(name), text.size(), sha256_hex(text), false});
  QUELL_TRY(write_new_file(folder / std::string(name), text));
  return write_new_file(folder / kManifestName, manifest_text(std::move(entries)));
}

}  // namespace quell::io
