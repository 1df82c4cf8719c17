// SPDX-License-Identifier: Apache-2.0
#pragma once

// The journal of an unfinished folder: one line per event, each with a checksum, appended and
// synced. The first line says whose work this is; then one line per finished module; at the end one
// line that says that renaming has begun. A line that was cut short or damaged is as if it had not
// been written.
//
//     <first 16 hex digits of the SHA-256 of the JSON> <JSON of one line>\n

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "quell/core/result.hpp"
#include "quell/io/json.hpp"

namespace quell::io {

inline constexpr std::string_view kJournalName = ".quell-journal";

struct JournalHeader {
  std::string suffix;  // 16 hex digits, in the names of the temporary files
  std::string layout;  // hash over names and headers of the planned files
  Json identity;
  std::vector<std::string> replaces;  // files of earlier outputs here, which completion may remove
};

struct JournalModule {
  std::string module;
  std::vector<std::pair<std::string, std::string>> tensors;  // name, SHA-256 of its bytes
  Json record;
};

struct JournalContents {
  bool has_header = false;
  JournalHeader header;
  std::vector<JournalModule> modules;  // a module written again appears once, with its last record
  bool renaming = false;
  std::vector<std::string> renamed;  // final names, once renaming has begun
  std::uint64_t whole_lines = 0;     // bytes up to the end of the last complete line
};

std::string journal_line(const JournalHeader& header);
std::string journal_line(const JournalModule& module);
std::string journal_renaming_line(const std::vector<std::string>& names);

/// Never fails: what cannot be read is left out.
JournalContents parse_journal(std::string_view text);

/// A sentence naming the first field in which two identities differ, with both values; empty if
/// they are equal.
std::string first_difference(const Json& before, const Json& now);

}  // namespace quell::io
