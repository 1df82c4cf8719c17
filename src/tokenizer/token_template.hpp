// SPDX-License-Identifier: Apache-2.0
#pragma once

// What a model expects around a text: templates of special ids and the text itself. Several of them
// (a Sequence) are applied one inside the other.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "quell/core/result.hpp"
#include "quell/io/json.hpp"

namespace quell::tokenizer {

class TokenTemplate {
 public:
  /// Reads the member `post_processor` of tokenizer.json; null adds nothing. Errors: parse,
  /// unsupported.
  static Result<TokenTemplate> read(const io::Json& value, const std::string& file);

  /// Puts ids around a text.
  void surround(std::vector<std::int32_t> before, std::vector<std::int32_t> after);
  /// Whether any template has special ids.
  bool adds_ids() const noexcept;
  /// The first id in front of the text, if there is one.
  std::optional<std::int32_t> first_id() const noexcept;
  /// Every id that a template names.
  std::vector<std::int32_t> all_ids() const;

  /// Applies the templates; without `add_special` only what they say about the text remains.
  void apply(std::vector<std::int32_t>& ids, bool add_special) const;

 private:
  struct Part {
    bool is_text = false;
    std::vector<std::int32_t> ids;  // when it is not the text
  };
  using Template = std::vector<Part>;
  Status add_from(const io::Json& value, const std::string& file);
  Status add_template(const io::Json& value, const std::string& file);
  std::vector<Template> templates_;
};

}  // namespace quell::tokenizer
