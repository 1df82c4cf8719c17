// SPDX-License-Identifier: Apache-2.0
#include "io/safetensors_folder.hpp"

#include <algorithm>
#include <array>
#include <system_error>

#include "io/fault.hpp"
#include "io/limits.hpp"
#include "io/pickled.hpp"
#include "quell/io/json.hpp"

namespace quell::io {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kIndexName = "model.safetensors.index.json";
constexpr std::string_view kSingleName = "model.safetensors";
constexpr std::string_view kEnding = ".safetensors";

bool starts_with_one_of(std::string_view name, std::span<const std::string_view> prefixes) {
  return std::any_of(prefixes.begin(), prefixes.end(), [&](std::string_view prefix) {
    return name.substr(0, prefix.size()) == prefix;
  });
}

// The same weights under a maker's own names, adapters to other weights, and what training leaves.
bool is_something_else(std::string_view name) {
  static constexpr std::array<std::string_view, 6> kPrefixes = {
      "consolidated", "adapter_", "optimizer", "scheduler", "random_states", "training_"};
  return starts_with_one_of(name, kPrefixes);
}

struct Listing {
  std::vector<std::string> weights;  // *.safetensors that may be weights, sorted
  bool index = false, pickled = false, gguf = false, adapter = false;
};

Result<Listing> list(const fs::path& folder) {
  Listing listing;
  std::error_code error;
  fs::directory_iterator entry(folder, error);
  for (const fs::directory_iterator end; !error && entry != end; entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (name == kIndexName) listing.index = true;
    if (has_pickled_name(name) && !is_something_else(name)) listing.pickled = true;
    if (name.size() > 5 && name.substr(name.size() - 5) == ".gguf") listing.gguf = true;
    if (name.size() <= kEnding.size() || name.substr(name.size() - kEnding.size()) != kEnding) {
      continue;
    }
    if (is_something_else(name)) {
      listing.adapter = listing.adapter || name.substr(0, 8) == "adapter_";
    } else if (name[0] != '.') {
      listing.weights.push_back(name);
    }
    if (listing.weights.size() > limits::kShards) {
      return file_fault(
          ErrorCode::parse, folder.string(),
          "holds more safetensors files than the limit of " + std::to_string(limits::kShards));
    }
  }
  if (error) {
    return file_fault(ErrorCode::resource, folder.string(),
                      "the folder cannot be listed: " + error.message());
  }
  std::sort(listing.weights.begin(), listing.weights.end());
  return listing;
}

Error nothing_found(const fs::path& folder, const Listing& listing) {
  if (listing.pickled) return pickled_fault(folder.string());
  if (listing.adapter) {
    return file_fault(ErrorCode::missing, folder.string(),
                      "holds only an adapter; merge it into its base model first");
  }
  if (listing.gguf) {
    return file_fault(ErrorCode::unsupported, folder.string(),
                      "holds only GGUF files, expected safetensors; use the checkpoint that they "
                      "were made from");
  }
  return file_fault(ErrorCode::missing, folder.string(),
                    "no weights found, expected model.safetensors.index.json, model.safetensors or "
                    "other *.safetensors files");
}

// A link may point elsewhere in the folder. What leaves it is somebody's private file until the
// user says otherwise (download caches are built of such links).
Status check_inside(const fs::path& folder, const std::string& name, Checkpoint::Options options) {
  const fs::path path = folder / name;
  std::error_code error;
  if (!fs::is_symlink(fs::symlink_status(path, error)) || options.allow_links_outside) return ok();
  const fs::path root = fs::canonical(folder, error);
  const fs::path target = error ? fs::path() : fs::canonical(path, error);
  if (error) {
    return file_fault(ErrorCode::missing, path.string(),
                      "the link leads nowhere: " + error.message());
  }
  const auto [in_root, in_target] =
      std::mismatch(root.begin(), root.end(), target.begin(), target.end());
  if (in_root == root.end()) return ok();
  return file_fault(ErrorCode::parse, path.string(),
                    "the link leads to " + printable(target.string(), kPathLength) +
                        ", outside the model directory; allow links outside if this is a download "
                        "cache");
}

bool is_plain_name(std::string_view name) {
  return !name.empty() && name != "." && name != ".." && name.size() <= 255 &&
         name.find('/') == name.npos && name.find('\\') == name.npos &&
         name.find('\0') == name.npos;
}

Status read_index(const fs::path& folder, Checkpoint::Options options, FolderFiles& found) {
  QUELL_TRY(check_inside(folder, std::string(kIndexName), options));
  found.index_file = (folder / kIndexName).string();
  QUELL_TRY(index, read_json(found.index_file));
  const Json* map = index.find("weight_map");
  if (map == nullptr || !map->is(Json::Kind::object) || map->members().empty()) {
    return file_fault(ErrorCode::parse, found.index_file,
                      map == nullptr ? "weight_map is missing, expected an object of file names"
                                     : "weight_map is not an object of file names");
  }
  std::vector<std::string> names;
  for (const auto& [tensor, file] : map->members()) {
    if (!file.is(Json::Kind::string)) {
      return tensor_fault(ErrorCode::parse, found.index_file, tensor,
                          "has no file name (line " + std::to_string(file.line()) + ", column " +
                              std::to_string(file.column()) + ")");
    }
    if (!is_plain_name(file.as_string())) {
      return tensor_fault(ErrorCode::parse, found.index_file, tensor,
                          "is said to be in \"" + printable(file.as_string()) +
                              "\", outside the model directory; expected a plain file name");
    }
    if (has_pickled_name(file.as_string())) {
      return pickled_fault((folder / file.as_string()).string());
    }
    names.push_back(file.as_string());
  }
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  if (names.size() > limits::kShards) {
    return file_fault(ErrorCode::parse, found.index_file,
                      "names " + std::to_string(names.size()) + " files, more than the limit of " +
                          std::to_string(limits::kShards));
  }
  for (const auto& [tensor, file] : map->members()) {
    const auto at = std::lower_bound(names.begin(), names.end(), file.as_string());
    found.index.emplace_back(tensor, static_cast<std::uint32_t>(at - names.begin()));
  }
  std::sort(found.index.begin(), found.index.end());
  for (const std::string& name : names) {
    std::error_code error;
    if (fs::symlink_status(folder / name, error).type() == fs::file_type::not_found) {
      return file_fault(ErrorCode::missing, (folder / name).string(),
                        "no such file, but " + std::string(kIndexName) + " names it; " +
                            std::to_string(names.size()) +
                            " files are needed, copy or download it");
    }
    QUELL_TRY(check_inside(folder, name, options));
    found.files.push_back(folder / name);
  }
  return ok();
}

}  // namespace

Result<FolderFiles> choose_files(const fs::path& folder, Checkpoint::Options options) {
  QUELL_TRY(listing, list(folder));
  FolderFiles found;
  if (listing.index) {
    QUELL_TRY(read_index(folder, options, found));
    for (const std::string& name : listing.weights) {
      if (!std::binary_search(found.files.begin(), found.files.end(), folder / name)) {
        found.warnings.push_back(printable((folder / name).string(), kPathLength) +
                                 ": not named in " + std::string(kIndexName) + ", ignored");
      }
    }
    return found;
  }
  std::vector<std::string> names = listing.weights;
  if (std::binary_search(names.begin(), names.end(), kSingleName)) {
    names = {std::string(kSingleName)};
  }
  if (names.empty()) return nothing_found(folder, listing);
  for (const std::string& name : names) {
    QUELL_TRY(check_inside(folder, name, options));
    found.files.push_back(folder / name);
  }
  return found;
}

}  // namespace quell::io
