// SPDX-License-Identifier: Apache-2.0
#pragma once

// An output folder that is complete or is not there. Shards are written under temporary names, each
// finished module is recorded in a journal (so a killed run loses at most one module), and only at
// the end are files synced and renamed: shards, then index, then config.json, then the manifest
// with the size and SHA-256 of every file. A folder without a manifest is not finished.

#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "quell/core/result.hpp"
#include "quell/io/json.hpp"
#include "quell/io/safetensors.hpp"

namespace quell::io {

inline constexpr std::string_view kManifestName = "quell.manifest";

class OutputFolder {
 public:
  struct Options {
    // Replace a finished folder (whose files stay as they are until the new ones are complete),
    // discard an unfinished run of another plan, write beside files that are not ours. Files that
    // are not ours are never replaced or removed.
    bool force = false;
    bool resume = true;  // take over an unfinished run of the same plan; false: discard it
  };
  /// What a module's record in the journal says.
  struct Finished {
    std::string module;
    Json record;  // whatever the caller stored
  };

  /// Creates or takes over `path`. `identity` describes the plan field by field (model hash,
  /// options, versions); a partial folder with another identity is refused naming the first field
  /// that differs. Errors: usage (finished already, is a file, holds files that are not ours, no
  /// such parent, a name that is too long or not UTF-8), resource (no permission, written by a live
  /// process, which is named with pid, host and start time; no space: bytes needed and available;
  /// an unfinished run of another plan).
  static Result<OutputFolder> open(const std::filesystem::path& path, const FolderPlan& plan,
                                   const Json& identity, Options options);
  OutputFolder(OutputFolder&&) noexcept;
  OutputFolder& operator=(OutputFolder&&) noexcept;
  ~OutputFolder();  // releases the lock; an unfinished folder stays, to be resumed

  /// Modules of an earlier run whose bytes are all there (checked against the recorded hashes).
  std::span<const Finished> finished() const noexcept;
  const Finished* find_finished(std::string_view module) const noexcept;

  /// Writes one planned tensor; `bytes` has its planned size.
  Status write(std::string_view tensor, std::span<const std::byte> bytes);
  /// Reads back a tensor written before (resumed modules).
  Result<std::vector<std::byte>> read(std::string_view tensor) const;
  /// Syncs the module's tensors and appends it to the journal. `tensors` are the names written.
  Status finish_module(std::string_view module, std::span<const std::string> tensors,
                       const Json& record);

  /// Adds a small file that appears with the others. `counted` = false for files that hold times (a
  /// report): they are in the manifest but not in the hash of the result. A resumed run adds its
  /// small files again.
  Status add_file(std::string_view name, std::string_view text, bool counted = true);
  /// Copies a file of the source model byte for byte (through links) under its own name.
  Status copy_file(const std::filesystem::path& source);
  /// Syncs, renames, writes index, config.json and the manifest, removes journal and lock. Returns
  /// the SHA-256 over the manifest's counted lines, in hex: the hash of the result. After an error
  /// nothing claims to be complete, and a later run resumes. Error: verification (tensors never
  /// written).
  Result<std::string> complete(std::string_view config_json);

 private:
  struct State;
  explicit OutputFolder(std::unique_ptr<State> state) noexcept;
  std::unique_ptr<State> state_;
};

/// Adds a small file to a finished folder, or replaces one that was added so. Its bytes are listed
/// but not counted, so the hash of the result stays. Errors: missing (no manifest), parse, usage (a
/// counted file has this name), resource.
Status add_to_finished(const std::filesystem::path& folder, std::string_view name,
                       std::string_view text);

struct VerifyReport {
  bool complete = false;  // a manifest, all of its files with their sizes, and no unfinished run
  std::uint64_t tensors_checked = 0;  // tensors of files whose hash is right
  std::string hash;                   // of the result, as complete() returned it; empty if unknown
  std::vector<std::string> problems;  // each names a file; empty if all is well
};
/// Compares a folder with its manifest (every file there, sizes, hashes, nothing left over), opens
/// the checkpoint and reads every quantized module of config.json. Errors are for what prevents
/// looking: missing (no such folder), usage (not a folder), resource.
Result<VerifyReport> verify_folder(const std::filesystem::path& path);

/// True if `inner` is the same file or folder as `outer` (device and inode, so through links of
/// both kinds) or lies inside of it. Paths that do not exist yet count by the folder that would
/// hold them.
bool same_file_or_inside(const std::filesystem::path& inner, const std::filesystem::path& outer);

/// SHA-256 in lower-case hex.
std::string sha256_hex(std::span<const std::byte> bytes);
std::string sha256_hex(std::string_view text);
Result<std::string> sha256_file(const std::filesystem::path& path);

}  // namespace quell::io
