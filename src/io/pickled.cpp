// SPDX-License-Identifier: Apache-2.0
#include "io/pickled.hpp"

#include <algorithm>
#include <array>
#include <string>

#include "io/fault.hpp"

namespace quell::io {
namespace {

char lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

bool starts_with_any_case(std::string_view text, std::string_view prefix) {
  return text.size() >= prefix.size() &&
         std::equal(prefix.begin(), prefix.end(), text.begin(),
                    [](char expected, char found) { return expected == lower(found); });
}

}  // namespace

bool has_pickled_name(std::string_view file_name) noexcept {
  constexpr std::array<std::string_view, 5> kEndings = {".bin", ".pt", ".pth", ".ckpt", ".pkl"};
  return std::any_of(kEndings.begin(), kEndings.end(), [&](std::string_view ending) {
    return file_name.size() > ending.size() &&
           starts_with_any_case(file_name.substr(file_name.size() - ending.size()), ending);
  });
}

Error pickled_fault(std::string_view file) {
  return file_fault(ErrorCode::unsupported, file,
                    "pickled weights are not read; convert to safetensors");
}

Status refuse_other_content(std::span<const std::byte> first, std::string_view file) {
  std::string_view text(reinterpret_cast<const char*>(first.data()), first.size());
  if (text.substr(0, 4) == "PK\x03\x04" || text.substr(0, 2) == "\x1f\x8b" ||
      (text.size() > 262 && text.substr(257, 5) == "ustar")) {
    return file_fault(ErrorCode::unsupported, file,
                      "this is an archive or a pickled checkpoint inside one; pickled weights are "
                      "not read; convert to safetensors");
  }
  // Protocol 2 to 5, then the opcodes that begin every saved state: a frame, a long, a mark or a
  // dictionary.
  if (text.size() > 2 && text[0] == '\x80' && text[1] >= 2 && text[1] <= 5 &&
      std::string_view("\x95\x8a(}c").find(text[2]) != std::string_view::npos) {
    return pickled_fault(file);
  }
  if (text.substr(0, 4) == "GGUF") {
    return file_fault(ErrorCode::unsupported, file,
                      "this is a GGUF file, expected safetensors; use the checkpoint that it was "
                      "made from");
  }
  if (text.substr(0, 8) == "\x89HDF\r\n\x1a\n") {
    return file_fault(ErrorCode::unsupported, file,
                      "this is an HDF5 file, expected safetensors; convert it first");
  }
  if (text.substr(0, 3) == "\xEF\xBB\xBF") text.remove_prefix(3);
  text.remove_prefix(std::min(text.find_first_not_of(" \t\r\n"), text.size()));
  if (text.substr(0, 23) == "version https://git-lfs") {
    return file_fault(ErrorCode::parse, file,
                      "this is a git-lfs pointer file, not the weights; download the file itself "
                      "(git lfs pull)");
  }
  if (starts_with_any_case(text, "<!doctype") || starts_with_any_case(text, "<html") ||
      starts_with_any_case(text, "<?xml") || starts_with_any_case(text, "<!--")) {
    return file_fault(ErrorCode::parse, file,
                      "this is a web page, not weights (an error page saved by a download?); "
                      "download again");
  }
  return ok();
}

}  // namespace quell::io
