// SPDX-License-Identifier: Apache-2.0
#pragma once

// What an OutputFolder holds, shared by the files that open, write and complete it.
//
// Files of an unfinished folder, beside those of an older output that stays valid until the end:
//     .quell-lock                      who writes here
//     .quell-journal                   the plan's identity and the finished modules
//     .quell-<suffix>-00001.part       shard 1 at its full size; the suffix is random, so that
//     nobody
//                                      can prepare a link of that name
//     .quell-<suffix>-x0.part          the first of the small files that wait for the end

#include <cstdint>
#include <map>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/descriptor.hpp"
#include "io/folder_lock.hpp"
#include "io/journal.hpp"
#include "io/manifest.hpp"
#include "quell/io/output.hpp"

namespace quell::io {

inline constexpr std::string_view kIndexName = "model.safetensors.index.json";
inline constexpr std::string_view kConfigName = "config.json";

/// A small file that waits under a temporary name.
struct StagedFile {
  std::string temporary;  // empty once it has its final name
  ManifestEntry entry;
};

/// What is in a folder, by purpose.
struct FolderContents {
  bool has_manifest = false;
  bool has_journal = false;
  std::vector<std::string> temporaries;
  std::vector<std::string> others;  // sorted; finished files and files that we know nothing of
};

struct OutputState {
  std::string path;
  FolderPlan plan;
  std::map<std::string, std::size_t, std::less<>> tensors;  // name -> index into plan.tensors
  std::vector<std::string> digests;  // of each tensor's bytes; empty: not written
  Descriptor folder;
  FolderLock lock;  // members die in reverse order: released while `folder` is still open
  Descriptor journal;
  std::uint64_t journal_end = 0;  // the next line goes here; what lies behind was cut short
  std::string suffix;
  std::vector<bool> in_place;  // shards that an interrupted completion has already renamed
  std::set<std::string, std::less<>> ours;  // names of earlier outputs here, which may be replaced
  std::vector<OutputFolder::Finished> finished;
  std::vector<StagedFile> staged;
  Descriptor shard;  // the shard used last: modules write several tensors to the same one
  std::size_t shard_index = 0;
  std::size_t temporaries = 0;  // numbers the small files
  bool completed = false;

  std::string shown(std::string_view name) const { return path + "/" + std::string(name); }
  std::string shard_temporary(std::size_t index) const;
  /// Where shard `index` lies now.
  std::string shard_path(std::size_t index) const {
    return in_place[index] ? plan.shards[index].file_name : shard_temporary(index);
  }
  /// Error (usage): no tensor of this name is planned.
  Result<std::size_t> planned(std::string_view tensor) const;
  /// Makes `shard` the open descriptor of shard `index`.
  Status open_shard(std::size_t index);
  Status append_journal(const std::string& line);
  Status sync_folder() const;
  Status remove(const std::string& name) const;  // a file that is not there is no error
  Status rename(const std::string& from, const std::string& to) const;
  bool exists(const std::string& name) const;  // anything of this name, links included
  /// Errors (usage): not a plain name, planned already, there already and not ours.
  Status check_new_name(std::string_view name) const;
  /// Writes `text` under a temporary name; complete() renames it to `name`.
  Status stage(std::string_view name, std::string_view text, bool counted);
  /// Forgets a staged file and removes it, if it still has its temporary name.
  Status unstage(std::string_view name);
  std::string next_temporary();
};

struct OutputFolder::State : OutputState {};

/// Files of the folder that `folder` is open on.
Result<FolderContents> list_folder(int folder, const std::string& shown);
/// SHA-256 of bytes [first, first + count) of a file.
Result<std::string> hash_range(const Descriptor& file, std::uint64_t first, std::uint64_t count);

}  // namespace quell::io
