// SPDX-License-Identifier: Apache-2.0
#include "io/output_state.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>

#include "io/fault.hpp"
#include "io/sha256.hpp"

namespace quell::io {
namespace {

constexpr std::string_view kPrefix = ".quell-";
constexpr std::string_view kEnd = ".part";
constexpr std::size_t kSuffixDigits = 16;

// .quell-<16 hex digits>-<something>.part: a file that this module made.
bool is_temporary_name(std::string_view name) {
  if (!name.starts_with(kPrefix) || !name.ends_with(kEnd)) return false;
  const std::string_view rest = name.substr(kPrefix.size());
  if (rest.size() < kSuffixDigits + 1 + kEnd.size() || rest[kSuffixDigits] != '-') return false;
  return std::all_of(rest.begin(), rest.begin() + kSuffixDigits,
                     [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

}  // namespace

std::string OutputState::shard_temporary(std::size_t index) const {
  std::string number = std::to_string(index + 1);
  if (number.size() < 5) number.insert(0, 5 - number.size(), '0');
  return std::string(kPrefix) + suffix + "-" + number + std::string(kEnd);
}

std::string OutputState::next_temporary() {
  return std::string(kPrefix) + suffix + "-x" + std::to_string(temporaries++) + std::string(kEnd);
}

Result<std::size_t> OutputState::planned(std::string_view tensor) const {
  const auto found = tensors.find(tensor);
  if (found == tensors.end()) {
    Error error = file_fault(ErrorCode::usage, path,
                             "tensor " + printable(tensor) + " is not part of the plan");
    error.tensor = std::string(tensor);
    return error;
  }
  return found->second;
}

Status OutputState::open_shard(std::size_t index) {
  if (shard.is_open() && shard_index == index) return ok();
  const std::string name = shard_path(index);
  QUELL_TRY(file, Descriptor::open(folder.get(), name, O_RDWR | O_NOFOLLOW, shown(name)));
  shard = std::move(file);
  shard_index = index;
  return ok();
}

Status OutputState::append_journal(const std::string& line) {
  QUELL_TRY(journal.write_at(journal_end, std::as_bytes(std::span(line))));
  QUELL_TRY(journal.sync());
  journal_end += line.size();
  return ok();
}

Status OutputState::sync_folder() const {
  while (::fsync(folder.get()) != 0) {
    if (errno == EINTR) continue;
    // Some network file systems do not sync folders; renames there are as lasting as they get.
    if (errno == EINVAL || errno == ENOTSUP) return ok();
    return system_error(path, "syncing the folder", errno);
  }
  return ok();
}

Status OutputState::remove(const std::string& name) const {
  if (::unlinkat(folder.get(), name.c_str(), 0) != 0 && errno != ENOENT) {
    return system_error(shown(name), "removing it", errno);
  }
  return ok();
}

Status OutputState::rename(const std::string& from, const std::string& to) const {
  if (::renameat(folder.get(), from.c_str(), folder.get(), to.c_str()) != 0) {
    return system_error(shown(to), "renaming " + from + " to it", errno);
  }
  return ok();
}

bool OutputState::exists(const std::string& name) const {
  struct stat status = {};
  return ::fstatat(folder.get(), name.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0;
}

Status OutputState::check_new_name(std::string_view name) const {
  const std::string text(name);
  if (!is_plain_name(name) || name.starts_with(kPrefix) || name == kManifestName) {
    return file_fault(ErrorCode::usage, path, printable(name) + " cannot be the name of a file");
  }
  const bool planned_already =
      std::any_of(plan.shards.begin(), plan.shards.end(),
                  [&](const ShardPlan& shard_plan) { return shard_plan.file_name == name; }) ||
      std::any_of(staged.begin(), staged.end(),
                  [&](const StagedFile& file) { return file.entry.name == name; });
  if (planned_already) {
    return file_fault(ErrorCode::usage, path, printable(name) + " would be written twice");
  }
  if (!ours.contains(name) && exists(text)) {
    return file_fault(ErrorCode::usage, shown(name),
                      "is in the way and was not written by quell; move it away or choose another "
                      "output");
  }
  return ok();
}

Status OutputState::stage(std::string_view name, std::string_view text, bool counted) {
  QUELL_TRY(check_new_name(name));
  const std::string temporary = next_temporary();
  QUELL_TRY(write_new_file(folder.get(), temporary, text, shown(temporary)));
  staged.push_back({temporary, {std::string(name), text.size(), sha256_hex(text), counted}});
  return ok();
}

Status OutputState::unstage(std::string_view name) {
  const auto found = std::find_if(staged.begin(), staged.end(),
                                  [&](const StagedFile& file) { return file.entry.name == name; });
  if (found == staged.end()) return ok();
  if (!found->temporary.empty()) QUELL_TRY(remove(found->temporary));
  staged.erase(found);
  return ok();
}

Result<FolderContents> list_folder(int folder, const std::string& shown) {
  QUELL_TRY(copy, Descriptor::open(folder, ".", O_RDONLY | O_DIRECTORY, shown));
  const int fd = ::dup(copy.get());
  ::DIR* const stream = fd < 0 ? nullptr : ::fdopendir(fd);
  if (stream == nullptr) {
    const int error = errno;
    if (fd >= 0) ::close(fd);
    return system_error(shown, "listing it", error);
  }
  FolderContents contents;
  errno = 0;
  while (const ::dirent* const entry = ::readdir(stream)) {
    const std::string_view name = entry->d_name;
    if (name == "." || name == ".." || name == kLockName) continue;
    if (name == kManifestName) {
      contents.has_manifest = true;
    } else if (name == kJournalName) {
      contents.has_journal = true;
    } else if (is_temporary_name(name)) {
      contents.temporaries.emplace_back(name);
    } else {
      contents.others.emplace_back(name);
    }
    errno = 0;
  }
  const int error = errno;
  ::closedir(stream);
  if (error != 0) return system_error(shown, "listing it", error);
  std::sort(contents.temporaries.begin(), contents.temporaries.end());
  std::sort(contents.others.begin(), contents.others.end());
  return contents;
}

Result<std::string> hash_range(const Descriptor& file, std::uint64_t first, std::uint64_t count) {
  Sha256 hash;
  std::vector<std::byte> chunk(static_cast<std::size_t>(
      std::min<std::uint64_t>(count, static_cast<std::uint64_t>(kCopyChunk))));
  while (count != 0) {
    const auto piece = std::span(chunk).first(
        static_cast<std::size_t>(std::min<std::uint64_t>(count, chunk.size())));
    QUELL_TRY(file.read_at(first, piece));
    hash.update(piece);
    first += piece.size();
    count -= piece.size();
  }
  return hash.finish_hex();
}

}  // namespace quell::io
