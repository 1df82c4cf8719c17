// SPDX-License-Identifier: Apache-2.0
// Opening a folder. What is in it decides:
//
//     nothing, or only our stale temporary files      start
//     a journal with the same identity and layout     resume (start again where that is not wanted)
//     a journal of something else                     refuse, naming the difference; force: start
//     a manifest and no journal                       refuse; force: start, replace at the end
//     files that we know nothing of                   refuse; force: start beside them, but never
//                                                     over one of them
#include <fcntl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "io/fault.hpp"
#include "io/output_state.hpp"
#include "io/utf8.hpp"
#include "quell/core/checked.hpp"

namespace quell::io {
namespace {

// A journal line has some hundred bytes per tensor: this is more than 2 million tensors.
constexpr std::uint64_t kJournalLimit = std::uint64_t{1} << 30;
constexpr std::uint64_t kManifestLimit = 100'000'000;
constexpr std::uint64_t kStatBlock = 512;  // the unit of st_blocks, whatever the file system

Result<std::string> random_suffix() {
  std::array<std::byte, 8> bytes = {};
  while (::getrandom(bytes.data(), bytes.size(), 0) != static_cast<::ssize_t>(bytes.size())) {
    if (errno != EINTR) return system_error("the output", "drawing a random name", errno);
  }
  constexpr char kDigits[] = "0123456789abcdef";
  std::string suffix;
  for (const std::byte byte : bytes) {
    const auto value = std::to_integer<unsigned>(byte);
    suffix += kDigits[value >> 4];
    suffix += kDigits[value & 15U];
  }
  return suffix;
}

// Everything that decides which bytes lie where: equal hashes mean that shards fit each other.
std::string layout_hash(const FolderPlan& plan) {
  std::string text;
  for (const ShardPlan& shard : plan.shards) {
    text += shard.file_name + '\n' + std::to_string(shard.bytes) + '\n' +
            sha256_hex(std::string_view(shard.header)) + '\n';
  }
  text += sha256_hex(std::string_view(plan.index_json));
  return sha256_hex(std::string_view(text));
}

// Creates the folder if it is not there and opens it.
Status open_folder(OutputState& state, bool& created) {
  const std::string& path = state.path;
  for (std::size_t at = 0; at < path.size();) {
    const CodePoint point = decode_utf8(path, at);
    if (point.length == 0) {
      return file_fault(ErrorCode::usage, path, "is not UTF-8; reports could not name it");
    }
    at += point.length;
  }
  if (path.empty()) return Error{ErrorCode::usage, "the output has no name"};
  if (::mkdir(path.c_str(), 0755) == 0) {
    created = true;
  } else if (errno == ENOENT || errno == ENOTDIR) {
    return file_fault(ErrorCode::usage, path,
                      "the folder that should hold it does not exist; create that first");
  } else if (errno == ENAMETOOLONG) {
    return file_fault(ErrorCode::usage, path, "the name is too long for this file system");
  } else if (errno != EEXIST) {
    return system_error(path, "creating the folder", errno);
  }
  struct stat status = {};
  if (::stat(path.c_str(), &status) != 0) {
    if (errno == ENOENT) return file_fault(ErrorCode::usage, path, "is a link to nothing");
    return system_error(path, "opening it", errno);
  }
  if (!S_ISDIR(status.st_mode)) {
    return file_fault(ErrorCode::usage, path, "is a file; the output is a folder");
  }
  QUELL_TRY(folder, Descriptor::open(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, path));
  state.folder = std::move(folder);
  return ok();
}

std::uint64_t allocated_bytes(const OutputState& state, const std::string& name) {
  struct stat status = {};
  if (::fstatat(state.folder.get(), name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) return 0;
  return static_cast<std::uint64_t>(status.st_blocks) * kStatBlock;
}

Status check_space(const OutputState& state) {
  std::uint64_t needed = 0;
  for (std::size_t i = 0; i < state.plan.shards.size(); ++i) {
    const std::uint64_t bytes = state.plan.shards[i].bytes;
    const std::uint64_t there = allocated_bytes(state, state.shard_path(i));
    const auto sum = checked_add(needed, bytes - std::min(bytes, there));
    if (!sum) return file_fault(ErrorCode::resource, state.path, "is larger than any disk");
    needed = *sum;
  }
  const std::uint64_t available = available_bytes(state.folder.get());
  if (needed > available) {
    return file_fault(ErrorCode::resource, state.path,
                      "needs " + std::to_string(needed) + " more bytes on disk, " +
                          std::to_string(available) + " are available; free some space");
  }
  return ok();
}

// Creates shard `index`, or makes one of an earlier run fit the plan. `kept` is false if its data
// section is new.
Status prepare_shard(OutputState& state, std::size_t index, bool renaming, bool& kept) {
  const ShardPlan& planned = state.plan.shards[index];
  const int folder = state.folder.get();
  kept = true;
  auto opened = [&] {
    const std::string name = state.shard_path(index);
    return Descriptor::open(folder, name, O_RDWR | O_NOFOLLOW, state.shown(name));
  };
  auto file = opened();
  if (!file && file.error().code == ErrorCode::missing && renaming) {
    state.in_place[index] = true;
    file = opened();
    if (!file) state.in_place[index] = false;
  }
  if (!file && file.error().code == ErrorCode::missing) {
    kept = false;
    const std::string name = state.shard_temporary(index);
    file =
        Descriptor::open(folder, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, state.shown(name));
  }
  if (!file) return file.error();
  QUELL_TRY(size, file->size());
  if (kept && size == planned.bytes) {
    std::string header(planned.header.size(), '\0');
    QUELL_TRY(file->read_at(0, std::as_writable_bytes(std::span(header))));
    if (header == planned.header) return ok();
  }
  QUELL_TRY(file->reserve(planned.bytes));
  return file->write_at(0, std::as_bytes(std::span(planned.header)));
}

Status start(OutputState& state, const Json& identity) {
  QUELL_TRY(suffix, random_suffix());
  state.suffix = std::move(suffix);
  QUELL_TRY(check_space(state));
  const JournalHeader header{
      state.suffix, layout_hash(state.plan), identity, {state.ours.begin(), state.ours.end()}};
  const std::string line = journal_line(header);
  const std::string temporary = state.next_temporary();
  const std::string journal(kJournalName);
  QUELL_TRY(write_new_file(state.folder.get(), temporary, line, state.shown(temporary)));
  // In one step: an older journal is replaced, and this one is never seen half written.
  QUELL_TRY(state.rename(temporary, journal));
  QUELL_TRY(file, Descriptor::open(state.folder.get(), journal, O_RDWR | O_NOFOLLOW,
                                   state.shown(journal)));
  state.journal = std::move(file);
  state.journal_end = line.size();
  for (std::size_t i = 0; i < state.plan.shards.size(); ++i) {
    bool kept = false;
    QUELL_TRY(prepare_shard(state, i, false, kept));
  }
  return state.sync_folder();
}

// Is what the journal says about this module still on disk?
Result<bool> is_intact(OutputState& state, const JournalModule& module,
                       const std::vector<bool>& kept) {
  for (const auto& [name, digest] : module.tensors) {
    const auto index = state.planned(name);
    if (!index) return false;
    const TensorPlan& tensor = state.plan.tensors[*index];
    if (!kept[tensor.shard]) return false;
    QUELL_TRY(state.open_shard(tensor.shard));
    QUELL_TRY(actual, hash_range(state.shard, tensor.offset, tensor.bytes));
    if (actual != digest) return false;
  }
  return true;
}

Status resume(OutputState& state, JournalContents contents) {
  state.suffix = contents.header.suffix;
  state.journal_end = contents.whole_lines;
  state.ours.insert(contents.header.replaces.begin(), contents.header.replaces.end());
  if (contents.renaming) {
    state.ours.insert(contents.renamed.begin(), contents.renamed.end());
    // From here on the folder is not the finished one that a manifest would promise.
    QUELL_TRY(state.remove(std::string(kManifestName)));
    QUELL_TRY(state.sync_folder());
  }
  QUELL_TRY(check_space(state));
  std::vector<bool> kept(state.plan.shards.size());
  for (std::size_t i = 0; i < kept.size(); ++i) {
    bool shard_kept = false;
    QUELL_TRY(prepare_shard(state, i, contents.renaming, shard_kept));
    kept[i] = shard_kept;
  }
  QUELL_TRY(state.sync_folder());
  for (JournalModule& module : contents.modules) {
    QUELL_TRY(intact, is_intact(state, module, kept));
    if (!intact) continue;
    for (auto& [name, digest] : module.tensors) {
      state.digests[*state.planned(name)] = std::move(digest);
    }
    state.finished.push_back({std::move(module.module), std::move(module.record)});
  }
  return ok();
}

// Removes temporary files, all or only the small ones of this run's suffix and all of other
// suffixes.
Status remove_temporaries(const OutputState& state, const std::vector<std::string>& names,
                          bool keep_shards) {
  for (const std::string& name : names) {
    bool is_shard = false;
    for (std::size_t i = 0; keep_shards && i < state.plan.shards.size() && !is_shard; ++i) {
      is_shard = name == state.shard_temporary(i);
    }
    if (!is_shard) QUELL_TRY(state.remove(name));
  }
  return ok();
}

Status check_collisions(const OutputState& state) {
  const auto check = [&](const std::string& name) -> Status {
    if (state.ours.contains(name) || !state.exists(name)) return ok();
    return file_fault(ErrorCode::usage, state.shown(name),
                      "is in the way and was not written by quell; move it away or choose another "
                      "output");
  };
  for (const ShardPlan& shard : state.plan.shards) QUELL_TRY(check(shard.file_name));
  if (!state.plan.index_json.empty()) QUELL_TRY(check(std::string(kIndexName)));
  return check(std::string(kConfigName));
}

// Names that a manifest calls ours. A damaged manifest still says that this is an output of ours:
// then all files that the new plan writes may replace old ones.
void learn_from_manifest(OutputState& state) {
  const std::string name(kManifestName);
  const auto file =
      Descriptor::open(state.folder.get(), name, O_RDONLY | O_NOFOLLOW, state.shown(name));
  const auto text = file ? file->read_all(kManifestLimit) : Result<std::string>(file.error());
  const auto entries =
      text ? parse_manifest(*text, state.shown(name))
           : Result<std::vector<ManifestEntry>>(Error{ErrorCode::missing, std::string()});
  if (entries) {
    for (const ManifestEntry& entry : *entries) state.ours.insert(entry.name);
    return;
  }
  for (const ShardPlan& shard : state.plan.shards) state.ours.insert(shard.file_name);
  state.ours.insert(std::string(kIndexName));
  state.ours.insert(std::string(kConfigName));
}

Status open_with_journal(OutputState& state, const FolderContents& found, const Json& identity,
                         OutputFolder::Options options) {
  const std::string name(kJournalName);
  QUELL_TRY(file,
            Descriptor::open(state.folder.get(), name, O_RDWR | O_NOFOLLOW, state.shown(name)));
  QUELL_TRY(text, file.read_all(kJournalLimit));
  JournalContents contents = parse_journal(text);
  std::string difference;
  if (!contents.has_header) {
    difference = "its journal is damaged at the first line";
  } else {
    difference = first_difference(contents.header.identity, identity);
    if (difference.empty() && contents.header.layout != layout_hash(state.plan)) {
      difference = "the tensors or files that are to be written differ";
    }
  }
  if (difference.empty() && options.resume) {
    state.journal = std::move(file);
    QUELL_TRY(resume(state, std::move(contents)));
    QUELL_TRY(remove_temporaries(state, found.temporaries, true));
    return check_collisions(state);
  }
  if (!difference.empty() && !options.force) {
    return file_fault(ErrorCode::resource, state.path,
                      "holds an unfinished run of another plan: " + difference +
                          "; give --force to discard it, or choose another output");
  }
  if (contents.has_header) {
    state.ours.insert(contents.header.replaces.begin(), contents.header.replaces.end());
    state.ours.insert(contents.renamed.begin(), contents.renamed.end());
  }
  if (found.has_manifest) learn_from_manifest(state);
  QUELL_TRY(check_collisions(state));
  QUELL_TRY(remove_temporaries(state, found.temporaries, false));
  return start(state, identity);
}

Status open_without_journal(OutputState& state, const FolderContents& found, const Json& identity,
                            OutputFolder::Options options) {
  if (found.has_manifest) {
    if (!options.force) {
      return file_fault(ErrorCode::usage, state.path,
                        "already holds a finished output; give --force to replace it, or choose "
                        "another output");
    }
    learn_from_manifest(state);
  } else if (!found.others.empty() && !options.force) {
    return file_fault(ErrorCode::usage, state.path,
                      "holds files that quell did not write, such as " +
                          printable(found.others.front()) +
                          "; choose a new or empty folder (or give --force to write beside them)");
  }
  QUELL_TRY(check_collisions(state));
  QUELL_TRY(remove_temporaries(state, found.temporaries, false));
  return start(state, identity);
}

}  // namespace

Result<OutputFolder> OutputFolder::open(const std::filesystem::path& path, const FolderPlan& plan,
                                        const Json& identity, Options options) {
  auto state = std::make_unique<State>();
  state->path = path.string();
  while (state->path.size() > 1 && state->path.back() == '/') state->path.pop_back();
  state->plan = plan;
  state->digests.resize(plan.tensors.size());
  state->in_place.resize(plan.shards.size(), false);
  state->shard_index = plan.shards.size();
  for (std::size_t i = 0; i < plan.tensors.size(); ++i) {
    state->tensors.emplace(plan.tensors[i].name, i);
  }
  bool created = false;
  Status opened = [&]() -> Status {
    QUELL_TRY(open_folder(*state, created));
    QUELL_TRY(lock, FolderLock::take(state->folder.get(), state->path));
    state->lock = std::move(lock);
    QUELL_TRY(found, list_folder(state->folder.get(), state->path));
    return found.has_journal ? open_with_journal(*state, found, identity, options)
                             : open_without_journal(*state, found, identity, options);
  }();
  if (opened) return OutputFolder(std::move(state));
  if (created) {
    // Nothing was there before, so nothing is lost by leaving nothing.
    if (const auto found = list_folder(state->folder.get(), state->path)) {
      (void)remove_temporaries(*state, found->temporaries, false);
      (void)state->remove(std::string(kJournalName));
    }
    state->lock.release();
    ::rmdir(state->path.c_str());
  }
  return opened.error();
}

}  // namespace quell::io
