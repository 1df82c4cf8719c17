// SPDX-License-Identifier: Apache-2.0
#include "io/journal.hpp"

#include <algorithm>
#include <functional>
#include <map>
#include <optional>

#include "io/manifest.hpp"
#include "quell/io/output.hpp"
#include "quell/io/printable.hpp"

namespace quell::io {
namespace {

constexpr std::int64_t kVersion = 1;
// 64 bits of the hash: a torn line passes with a chance of 2^-64.
constexpr std::size_t kChecksumDigits = 16;

std::string checked_line(const Json& json) {
  const std::string text = json.dump();
  return sha256_hex(std::string_view(text)).substr(0, kChecksumDigits) + ' ' + text + '\n';
}

std::optional<Json> parse_line(std::string_view line) {
  if (line.size() <= kChecksumDigits || line[kChecksumDigits] != ' ') return std::nullopt;
  const std::string_view text = line.substr(kChecksumDigits + 1);
  if (sha256_hex(text).substr(0, kChecksumDigits) != line.substr(0, kChecksumDigits)) {
    return std::nullopt;
  }
  auto json = parse_json(text, kJournalName);
  if (!json || !json->is(Json::Kind::object)) return std::nullopt;
  return *std::move(json);
}

Json strings(const std::vector<std::string>& names) {
  Json array = Json::array();
  for (const std::string& name : names) array.push(name);
  return array;
}

// Plain names only: these are files that may be removed.
std::optional<std::vector<std::string>> plain_names(const Json* json) {
  if (json == nullptr || !json->is(Json::Kind::array)) return std::nullopt;
  std::vector<std::string> names;
  for (const Json& item : json->items()) {
    if (!item.is(Json::Kind::string) || !is_plain_name(item.as_string())) return std::nullopt;
    names.push_back(item.as_string());
  }
  return names;
}

const std::string* text_of(const Json& json, std::string_view name) {
  const Json* const field = json.find(name);
  return field != nullptr && field->is(Json::Kind::string) ? &field->as_string() : nullptr;
}

bool is_suffix(std::string_view text) {
  return text.size() == 16 && std::all_of(text.begin(), text.end(), [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
         });
}

bool take_header(const Json& json, JournalHeader& header) {
  const Json* const version = json.find("quell_journal");
  if (version == nullptr || !version->is(Json::Kind::integer) ||
      version->as_integer() != kVersion) {
    return false;
  }
  const std::string* const suffix = text_of(json, "suffix");
  const std::string* const layout = text_of(json, "layout");
  const Json* const identity = json.find("identity");
  auto replaces = plain_names(json.find("replaces"));
  if (suffix == nullptr || !is_suffix(*suffix) || layout == nullptr || identity == nullptr ||
      !replaces) {
    return false;
  }
  header = {*suffix, *layout, *identity, *std::move(replaces)};
  return true;
}

// A module that was finished again replaces its earlier record.
using Places = std::map<std::string, std::size_t, std::less<>>;
void take_module(const Json& json, std::vector<JournalModule>& modules, Places& places) {
  const std::string* const name = text_of(json, "module");
  const Json* const tensors = json.find("tensors");
  const Json* const record = json.find("record");
  if (name == nullptr || tensors == nullptr || record == nullptr) return;
  JournalModule module{*name, {}, *record};
  for (const auto& [tensor, digest] : tensors->members()) {
    if (!digest.is(Json::Kind::string)) return;
    module.tensors.emplace_back(tensor, digest.as_string());
  }
  const auto [place, is_new] = places.emplace(module.module, modules.size());
  if (is_new) {
    modules.push_back(std::move(module));
  } else {
    modules[place->second] = std::move(module);
  }
}

std::string shown(const Json* value) {
  return value == nullptr ? std::string("absent") : printable(value->dump());
}

}  // namespace

std::string journal_line(const JournalHeader& header) {
  Json json;
  json.set("quell_journal", kVersion);
  json.set("suffix", header.suffix);
  json.set("layout", header.layout);
  json.set("identity", header.identity);
  json.set("replaces", strings(header.replaces));
  return checked_line(json);
}

std::string journal_line(const JournalModule& module) {
  Json json;
  json.set("module", module.module);
  std::vector<Json::Member> tensors;
  for (const auto& [name, digest] : module.tensors) tensors.emplace_back(name, Json(digest));
  json.set("tensors", Json::object(std::move(tensors)));
  json.set("record", module.record);
  return checked_line(json);
}

std::string journal_renaming_line(const std::vector<std::string>& names) {
  Json json;
  json.set("renaming", strings(names));
  return checked_line(json);
}

JournalContents parse_journal(std::string_view text) {
  JournalContents contents;
  Places places;
  std::size_t begin = 0;
  while (begin < text.size()) {
    const std::size_t end = text.find('\n', begin);
    if (end == std::string_view::npos) break;
    const auto json = parse_line(text.substr(begin, end - begin));
    const bool first = begin == 0;
    begin = end + 1;
    contents.whole_lines = begin;
    if (first) {
      contents.has_header = json && take_header(*json, contents.header);
      if (!contents.has_header) return contents;
    } else if (json) {
      if (auto names = plain_names(json->find("renaming"))) {
        contents.renaming = true;
        contents.renamed = *std::move(names);
      } else {
        take_module(*json, contents.modules, places);
      }
    }
  }
  return contents;
}

std::string first_difference(const Json& before, const Json& now) {
  struct Search {
    std::string operator()(const std::string& path, const Json& a, const Json& b) const {
      if (!a.is(Json::Kind::object) || !b.is(Json::Kind::object)) {
        if (a.dump() == b.dump()) return {};
        return path + " was " + shown(&a) + " and is now " + shown(&b);
      }
      const std::string prefix = path.empty() ? path : path + ".";
      for (const auto& [name, value] : b.members()) {
        const Json* const other = a.find(name);
        if (other == nullptr) {
          return prefix + printable(name) + " was absent and is now " + shown(&value);
        }
        if (auto found = (*this)(prefix + printable(name), *other, value); !found.empty()) {
          return found;
        }
      }
      for (const auto& [name, value] : a.members()) {
        if (b.find(name) == nullptr) {
          return prefix + printable(name) + " was " + shown(&value) + " and is now absent";
        }
      }
      return {};
    }
  };
  return Search{}("", before, now);
}

}  // namespace quell::io
