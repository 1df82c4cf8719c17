// SPDX-License-Identifier: Apache-2.0
// Writing tensors in any order, and the end: sync, rename, manifest. Each step leaves a folder that
// is either resumable or complete:
//
//     shards synced, small files staged      journal there: resume finds all modules
//     journal says "renaming" with names     resume looks for shards under both names
//     an old manifest removed                no manifest: not complete
//     files renamed, old ones removed        "
//     manifest renamed into place            complete
//     journal removed                        complete and tidy
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <set>
#include <system_error>

#include "io/fault.hpp"
#include "io/file.hpp"
#include "io/output_state.hpp"
#include "io/sha256.hpp"

namespace quell::io {
namespace {

Error twice_completed(const OutputState& state) {
  return file_fault(ErrorCode::usage, state.path, "is complete; nothing more can be written");
}

Status check_all_written(const OutputState& state) {
  std::size_t missing = 0;
  const TensorPlan* first = nullptr;
  for (std::size_t i = 0; i < state.digests.size(); ++i) {
    if (!state.digests[i].empty()) continue;
    if (missing++ == 0) first = &state.plan.tensors[i];
  }
  if (missing == 0) return ok();
  Error error =
      file_fault(ErrorCode::verification, state.path,
                 std::to_string(missing) + " of " + std::to_string(state.digests.size()) +
                     " tensors were never written, the first is " + printable(first->name));
  error.tensor = first->name;
  return error;
}

// Not one of the earlier files here, but one that somebody put here while we worked.
Status check_still_free(const OutputState& state, const std::string& name) {
  if (state.ours.contains(name) || !state.exists(name)) return ok();
  return file_fault(ErrorCode::resource, state.shown(name),
                    "appeared while this run was working; move it away and run the same command "
                    "again to resume");
}

}  // namespace

OutputFolder::OutputFolder(std::unique_ptr<State> state) noexcept : state_(std::move(state)) {}
OutputFolder::OutputFolder(OutputFolder&&) noexcept = default;
OutputFolder& OutputFolder::operator=(OutputFolder&&) noexcept = default;
OutputFolder::~OutputFolder() = default;

std::span<const OutputFolder::Finished> OutputFolder::finished() const noexcept {
  return state_->finished;
}

const OutputFolder::Finished* OutputFolder::find_finished(std::string_view module) const noexcept {
  const auto found = std::find_if(state_->finished.begin(), state_->finished.end(),
                                  [&](const Finished& entry) { return entry.module == module; });
  return found == state_->finished.end() ? nullptr : &*found;
}

Status OutputFolder::write(std::string_view tensor, std::span<const std::byte> bytes) {
  if (state_->completed) return twice_completed(*state_);
  QUELL_TRY(index, state_->planned(tensor));
  const TensorPlan& planned = state_->plan.tensors[index];
  if (bytes.size() != planned.bytes) {
    return tensor_fault(ErrorCode::shape, state_->path, tensor,
                        "has " + std::to_string(bytes.size()) + " bytes, planned are " +
                            std::to_string(planned.bytes));
  }
  // Until the new bytes are all there the tensor counts as not written.
  state_->digests[index].clear();
  QUELL_TRY(state_->open_shard(planned.shard));
  QUELL_TRY(state_->shard.write_at(planned.offset, bytes));
  state_->digests[index] = sha256_hex(bytes);
  return ok();
}

Result<std::vector<std::byte>> OutputFolder::read(std::string_view tensor) const {
  QUELL_TRY(index, state_->planned(tensor));
  const TensorPlan& planned = state_->plan.tensors[index];
  if (state_->digests[index].empty()) {
    return tensor_fault(ErrorCode::usage, state_->path, tensor, "has not been written yet");
  }
  QUELL_TRY(state_->open_shard(planned.shard));
  std::vector<std::byte> bytes(static_cast<std::size_t>(planned.bytes));
  QUELL_TRY(state_->shard.read_at(planned.offset, bytes));
  return bytes;
}

Status OutputFolder::finish_module(std::string_view module, std::span<const std::string> tensors,
                                   const Json& record) {
  if (state_->completed) return twice_completed(*state_);
  JournalModule entry{std::string(module), {}, record};
  std::set<std::uint32_t> shards;
  for (const std::string& tensor : tensors) {
    QUELL_TRY(index, state_->planned(tensor));
    if (state_->digests[index].empty()) {
      return tensor_fault(
          ErrorCode::usage, state_->path, tensor,
          "belongs to the finished module " + printable(module) + " but was not written");
    }
    entry.tensors.emplace_back(tensor, state_->digests[index]);
    shards.insert(state_->plan.tensors[index].shard);
  }
  // The record must not reach the disk before the bytes it speaks of.
  for (const std::uint32_t shard : shards) {
    QUELL_TRY(state_->open_shard(shard));
    QUELL_TRY(state_->shard.sync_data());
  }
  QUELL_TRY(state_->append_journal(journal_line(entry)));
  const auto known =
      std::find_if(state_->finished.begin(), state_->finished.end(),
                   [&](const Finished& earlier) { return earlier.module == module; });
  if (known != state_->finished.end()) known->record = record;
  return ok();
}

Status OutputFolder::add_file(std::string_view name, std::string_view text, bool counted) {
  if (state_->completed) return twice_completed(*state_);
  if (name == kConfigName || name == kIndexName) {
    return file_fault(ErrorCode::usage, state_->path,
                      printable(name) + " is written at the end, with the weights");
  }
  return state_->stage(name, text, counted);
}

Status OutputFolder::copy_file(const std::filesystem::path& source) {
  if (state_->completed) return twice_completed(*state_);
  const std::string name = source.filename().string();
  if (name == kConfigName || name == kIndexName) {
    return file_fault(ErrorCode::usage, state_->path,
                      printable(name) + " is written at the end, with the weights");
  }
  QUELL_TRY(state_->check_new_name(name));
  QUELL_TRY(input, File::open(source));
  const std::string temporary = state_->next_temporary();
  QUELL_TRY(output,
            Descriptor::open(state_->folder.get(), temporary,
                             O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, state_->shown(temporary)));
  Sha256 hash;
  std::vector<std::byte> chunk(kCopyChunk);
  for (std::uint64_t done = 0; done < input.size();) {
    const auto piece = std::span(chunk).first(
        static_cast<std::size_t>(std::min<std::uint64_t>(input.size() - done, chunk.size())));
    QUELL_TRY(input.read_at(done, piece));
    QUELL_TRY(output.write_at(done, piece));
    hash.update(piece);
    done += piece.size();
  }
  QUELL_TRY(output.sync());
  state_->staged.push_back({temporary, {name, input.size(), hash.finish_hex(), true}});
  return ok();
}

Result<std::string> OutputFolder::complete(std::string_view config_json) {
  OutputState& state = *state_;
  if (state.completed) return twice_completed(state);
  QUELL_TRY(check_all_written(state));
  // Left by an earlier call that failed, for example because the disk was full.
  for (const std::string_view name : {kIndexName, kConfigName}) {
    QUELL_TRY(state.unstage(name));
  }

  std::vector<ManifestEntry> entries;
  std::vector<std::string> names;
  for (std::size_t i = 0; i < state.plan.shards.size(); ++i) {
    QUELL_TRY(state.open_shard(i));
    QUELL_TRY(state.shard.sync());
    const ShardPlan& shard = state.plan.shards[i];
    QUELL_TRY(digest, hash_range(state.shard, 0, shard.bytes));
    entries.push_back({shard.file_name, shard.bytes, std::move(digest), true});
    names.push_back(shard.file_name);
  }
  state.shard = Descriptor();
  if (!state.plan.index_json.empty()) {
    QUELL_TRY(state.stage(kIndexName, state.plan.index_json, true));
  }
  QUELL_TRY(state.stage(kConfigName, config_json, true));
  for (const StagedFile& file : state.staged) {
    entries.push_back(file.entry);
    names.push_back(file.entry.name);
  }
  const std::string hash = manifest_hash(entries);
  const std::string manifest = state.next_temporary();
  QUELL_TRY(
      write_new_file(state.folder.get(), manifest, manifest_text(entries), state.shown(manifest)));
  for (const std::string& name : names) QUELL_TRY(check_still_free(state, name));

  QUELL_TRY(state.append_journal(journal_renaming_line(names)));
  state.ours.insert(names.begin(), names.end());
  QUELL_TRY(state.remove(std::string(kManifestName)));
  QUELL_TRY(state.sync_folder());
  for (std::size_t i = 0; i < state.plan.shards.size(); ++i) {
    if (state.in_place[i]) continue;
    QUELL_TRY(state.rename(state.shard_temporary(i), state.plan.shards[i].file_name));
    state.in_place[i] = true;
  }
  // Small files in the order in which they were staged: index and config.json are the last two.
  for (StagedFile& file : state.staged) {
    if (file.temporary.empty()) continue;
    QUELL_TRY(state.rename(file.temporary, file.entry.name));
    file.temporary.clear();
  }
  for (const std::string& old : state.ours) {
    if (std::find(names.begin(), names.end(), old) == names.end()) QUELL_TRY(state.remove(old));
  }
  QUELL_TRY(state.sync_folder());
  QUELL_TRY(state.rename(manifest, std::string(kManifestName)));
  QUELL_TRY(state.sync_folder());
  state.completed = true;
  QUELL_TRY(state.remove(std::string(kJournalName)));
  QUELL_TRY(state.sync_folder());
  state.lock.release();
  return hash;
}

}  // namespace quell::io
