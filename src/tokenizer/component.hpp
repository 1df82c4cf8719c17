// SPDX-License-Identifier: Apache-2.0
#pragma once

// Reading the components of tokenizer.json: objects that say what they are in a member `type`.
// Every component file parses its own members with these few functions, so that errors read alike.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "quell/core/result.hpp"
#include "quell/io/json.hpp"

namespace quell::tokenizer {

/// The `type` of a component. `kind` is what it is, for errors ("normalizer"). Errors: parse.
Result<std::string> component_type(const io::Json& value, const std::string& file,
                                   std::string_view kind);

/// "FILE:LINE: the normalizer Foo is not supported; supported are ...".
Error unsupported_component(const io::Json& value, const std::string& file, std::string_view kind,
                            std::string_view type, std::string_view supported);

/// A required boolean member, or one with a default.
Result<bool> boolean_member(const io::Json& value, const std::string& file, std::string_view name);
Result<bool> boolean_member(const io::Json& value, const std::string& file, std::string_view name,
                            bool absent);

/// A required array member.
Result<const std::vector<io::Json>*> array_member(const io::Json& value, const std::string& file,
                                                  std::string_view name);

/// A required member that is one character. Errors: parse.
Result<char32_t> character_member(const io::Json& value, const std::string& file,
                                  std::string_view name);

/// {"String": s} as the pattern that matches s, {"Regex": r} as r itself; `literal` says which.
struct PatternText {
  std::string text;
  bool literal = false;
};
Result<PatternText> pattern_member(const io::Json& value, const std::string& file,
                                   std::string_view name);

}  // namespace quell::tokenizer
