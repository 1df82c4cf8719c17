// SPDX-License-Identifier: Apache-2.0
#include "io/manifest.hpp"

#include <algorithm>

#include "io/fault.hpp"
#include "io/utf8.hpp"
#include "quell/io/json.hpp"
#include "quell/io/output.hpp"

namespace quell::io {
namespace {

constexpr std::uint64_t kVersion = 1;
// No file system holds more in one file than a signed 64-bit offset reaches.
constexpr std::uint64_t kLargestFile = (std::uint64_t{1} << 63) - 1;

bool is_hex_digest(std::string_view text) {
  return text.size() == 64 && std::all_of(text.begin(), text.end(), [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
         });
}

Result<ManifestEntry> parse_entry(const Json& item, std::string_view file) {
  const JsonFields fields(item, std::string(file));
  ManifestEntry entry;
  QUELL_TRY(name, fields.text("name"));
  if (!is_plain_name(name)) return fields.wrong("name", "a plain file name");
  QUELL_TRY(bytes, fields.unsigned_integer("bytes", 0, kLargestFile));
  QUELL_TRY(digest, fields.text("sha256"));
  if (!is_hex_digest(digest)) return fields.wrong("sha256", "64 lower-case hex digits");
  QUELL_TRY(counted, fields.optional_boolean("counted"));
  return ManifestEntry{std::move(name), bytes, std::move(digest), counted.value_or(true)};
}

}  // namespace

bool is_plain_name(std::string_view name) noexcept {
  for (std::size_t at = 0; at < name.size();) {
    const std::size_t length = decode_utf8(name, at).length;
    if (length == 0) return false;
    at += length;
  }
  return !name.empty() && name != "." && name != ".." && name.find('/') == std::string_view::npos &&
         name.find('\0') == std::string_view::npos;
}

std::string manifest_hash(std::vector<ManifestEntry>& entries) {
  std::sort(entries.begin(), entries.end(),
            [](const ManifestEntry& a, const ManifestEntry& b) { return a.name < b.name; });
  std::string lines;
  for (const ManifestEntry& entry : entries) {
    if (!entry.counted) continue;
    lines += entry.sha256;
    lines += ' ';
    lines += std::to_string(entry.bytes);
    lines += ' ';
    lines += entry.name;
    lines += '\n';
  }
  return sha256_hex(std::string_view(lines));
}

std::string manifest_text(std::vector<ManifestEntry> entries) {
  Json manifest;
  manifest.set("quell_manifest", kVersion);
  manifest.set("hash", manifest_hash(entries));
  Json files = Json::array();
  for (const ManifestEntry& entry : entries) {
    Json item;
    item.set("name", entry.name);
    item.set("bytes", entry.bytes);
    item.set("sha256", entry.sha256);
    if (!entry.counted) item.set("counted", false);
    files.push(std::move(item));
  }
  manifest.set("files", std::move(files));
  return manifest.dump(1) + "\n";
}

Result<std::vector<ManifestEntry>> parse_manifest(std::string_view text, std::string_view file) {
  QUELL_TRY(json, parse_json(text, file));
  const JsonFields fields(json, std::string(file));
  QUELL_TRY(version, fields.unsigned_integer("quell_manifest", 0, kLargestFile));
  if (version != kVersion) {
    return file_fault(ErrorCode::parse, file,
                      "is a manifest of version " + std::to_string(version) +
                          ", this program reads version " + std::to_string(kVersion));
  }
  QUELL_TRY(stored_hash, fields.text("hash"));
  const Json* const files = fields.find("files");
  if (files == nullptr || !files->is(Json::Kind::array)) return fields.wrong("files", "an array");
  std::vector<ManifestEntry> entries;
  for (const Json& item : files->items()) {
    QUELL_TRY(entry, parse_entry(item, file));
    entries.push_back(std::move(entry));
  }
  const std::string hash = manifest_hash(entries);
  if (hash != stored_hash) {
    return file_fault(ErrorCode::parse, file,
                      "its hash is " + printable(stored_hash) + " but its entries give " + hash +
                          "; the manifest was changed");
  }
  const auto twice =
      std::adjacent_find(entries.begin(), entries.end(),
                         [](const auto& a, const auto& b) { return a.name == b.name; });
  if (twice != entries.end()) {
    return file_fault(ErrorCode::parse, file, "lists " + printable(twice->name) + " twice");
  }
  return entries;
}

}  // namespace quell::io
