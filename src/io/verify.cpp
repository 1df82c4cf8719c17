// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <map>

#include "io/descriptor.hpp"
#include "io/fault.hpp"
#include "io/folder_lock.hpp"
#include "io/journal.hpp"
#include "io/manifest.hpp"
#include "io/output_state.hpp"
#include "quell/io/export.hpp"
#include "quell/io/output.hpp"

namespace quell::io {
namespace {

constexpr std::uint64_t kManifestLimit = 100'000'000;

class Verifier {
 public:
  Verifier(std::string path, const Descriptor& folder) : path_(std::move(path)), folder_(folder) {}

  Result<VerifyReport> run() {
    QUELL_TRY(found, list_folder(folder_.get(), path_));
    report_.complete = true;
    check_unfinished(found);
    check_files(found);
    check_left_over(found);
    check_contents();
    return std::move(report_);
  }

 private:
  void problem(std::string_view name, std::string_view what) {
    report_.problems.push_back(printable(path_ + "/" + std::string(name), kPathLength) + ": " +
                               std::string(what));
  }

  void check_unfinished(const FolderContents& found) {
    const std::string owner = lock_owner(folder_.get(), path_);
    if (!owner.empty()) {
      report_.complete = false;
      problem(kLockName, "is being written by " + owner);
    }
    if (!found.has_journal) return;
    // With a manifest the older output is still whole; what runs, or was stopped, will replace it.
    if (!found.has_manifest) report_.complete = false;
    problem(kJournalName,
            "a run into this folder has not finished; run its command again to resume");
  }

  void check_files(const FolderContents& found) {
    const std::string name(kManifestName);
    if (!found.has_manifest) {
      report_.complete = false;
      problem(name, "is missing, so this is not a finished output of quell");
      return;
    }
    const auto file =
        Descriptor::open(folder_.get(), name, O_RDONLY | O_NOFOLLOW, path_ + "/" + name);
    const auto text = file ? file->read_all(kManifestLimit) : Result<std::string>(file.error());
    if (!text) return unreadable(text.error());
    auto entries = parse_manifest(*text, path_ + "/" + name);
    if (!entries) return unreadable(entries.error());
    for (const ManifestEntry& entry : *entries) check_file(entry);
    report_.hash = manifest_hash(*entries);
    has_manifest_ = true;
  }

  void unreadable(const Error& error) {
    report_.complete = false;
    report_.problems.push_back(error.message);
  }

  void check_file(const ManifestEntry& entry) {
    listed_.emplace(entry.name, false);
    const std::string shown = path_ + "/" + entry.name;
    struct stat status = {};
    if (::fstatat(folder_.get(), entry.name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) {
      report_.complete = false;
      return problem(entry.name, "is missing");
    }
    if (!S_ISREG(status.st_mode)) {
      report_.complete = false;
      return problem(entry.name, "is not a regular file");
    }
    const auto bytes = static_cast<std::uint64_t>(status.st_size);
    if (bytes != entry.bytes) {
      report_.complete = false;
      return problem(entry.name, "has " + std::to_string(bytes) + " bytes, the manifest says " +
                                     std::to_string(entry.bytes));
    }
    const auto file = Descriptor::open(folder_.get(), entry.name, O_RDONLY | O_NOFOLLOW, shown);
    const auto digest =
        file ? hash_range(*file, 0, entry.bytes) : Result<std::string>(file.error());
    if (!digest) return report_.problems.push_back(digest.error().message);
    if (*digest != entry.sha256) {
      return problem(entry.name, "was changed: its SHA-256 is " + *digest + ", the manifest says " +
                                     entry.sha256);
    }
    listed_[entry.name] = true;
  }

  void check_left_over(const FolderContents& found) {
    if (!has_manifest_) return;
    for (const std::string& name : found.others) {
      if (!listed_.contains(name)) {
        problem(name, "is not in the manifest: left over from an earlier run, or added later");
      }
    }
    // While a run has not finished, its temporary files belong to it.
    if (found.has_journal) return;
    for (const std::string& name : found.temporaries) {
      problem(name, "is a temporary file that no run needs any more");
    }
  }

  // What the bytes say, even where all hashes are right: a folder may be whole and still be wrong.
  void check_contents() {
    const auto checkpoint = Checkpoint::open(path_);
    if (!checkpoint) {
      // The files were not finished, so that they cannot be read is no second problem.
      if (report_.complete || has_manifest_) report_.problems.push_back(checkpoint.error().message);
      return;
    }
    for (const TensorInfo& tensor : checkpoint->tensors()) {
      const std::string file = checkpoint->files()[tensor.file].filename().string();
      const auto listed = listed_.find(file);
      if (listed != listed_.end() && listed->second) ++report_.tensors_checked;
    }
    const std::string config_path = path_ + "/" + std::string(kConfigName);
    const auto config = read_json(config_path);
    if (!config) return report_.problems.push_back(config.error().message);
    const auto modules = QuantizedModules::parse(*config, config_path, *checkpoint);
    if (!modules) return report_.problems.push_back(modules.error().message);
    for (const ModulePlan& module : modules->modules()) {
      const auto tensor = modules->read(module, *checkpoint);
      if (!tensor) report_.problems.push_back(tensor.error().message);
    }
  }

  std::string path_;
  const Descriptor& folder_;
  VerifyReport report_;
  bool has_manifest_ = false;
  std::map<std::string, bool> listed_;  // name -> its hash is right
};

struct FileKey {
  ::dev_t device;
  ::ino_t inode;
  bool operator==(const FileKey&) const = default;
};

std::optional<FileKey> key_of(const std::filesystem::path& path) {
  struct stat status = {};
  if (::stat(path.c_str(), &status) != 0) return std::nullopt;
  return FileKey{status.st_dev, status.st_ino};
}

}  // namespace

Result<VerifyReport> verify_folder(const std::filesystem::path& path) {
  const std::string name = path.string();
  QUELL_TRY(file, Descriptor::open(AT_FDCWD, name, O_RDONLY, name));
  struct stat status = {};
  if (::fstat(file.get(), &status) != 0) return system_error(name, "opening it", errno);
  if (!S_ISDIR(status.st_mode)) {
    return file_fault(ErrorCode::usage, name,
                      "is not a folder; verify checks the output of quantize");
  }
  return Verifier(name, file).run();
}

bool same_file_or_inside(const std::filesystem::path& inner, const std::filesystem::path& outer) {
  const auto target = key_of(outer);
  if (!target) return false;
  // Links are resolved as far as the path exists; what does not exist yet is created without links.
  std::error_code error;
  std::filesystem::path at = std::filesystem::weakly_canonical(inner, error);
  if (error) at = std::filesystem::absolute(inner, error).lexically_normal();
  while (true) {
    if (key_of(at) == target) return true;
    if (!at.has_relative_path()) return false;
    at = at.parent_path();
  }
}

}  // namespace quell::io
