// SPDX-License-Identifier: Apache-2.0
#include "tokenizer/token_template.hpp"

#include <algorithm>

#include "tokenizer/component.hpp"
#include "tokenizer/vocabulary.hpp"

namespace quell::tokenizer {
namespace {

Result<std::int32_t> id_from(const io::Json& value, const std::string& file,
                             std::string_view where) {
  if (!value.is(io::Json::Kind::integer) || value.as_integer() < 0 ||
      value.as_integer() >= kMaxIds) {
    return Error{ErrorCode::parse,
                 file + ": an id of the post-processor (" + std::string(where) +
                     ") is not an integer from 0 to " + std::to_string(kMaxIds - 1),
                 file};
  }
  return static_cast<std::int32_t>(value.as_integer());
}

/// ["</s>", 2]
Result<std::int32_t> pair_member(const io::Json& value, const std::string& file,
                                 std::string_view name) {
  QUELL_TRY(pair, array_member(value, file, name));
  if (pair->size() != 2) return io::JsonFields(value, file).wrong(name, "a token and its id");
  return id_from((*pair)[1], file, name);
}

}  // namespace

Status TokenTemplate::add_template(const io::Json& value, const std::string& file) {
  const io::JsonFields fields(value, file);
  const io::Json* specials = fields.find("special_tokens");
  QUELL_TRY(single, array_member(value, file, "single"));
  Template parts;
  for (const io::Json& item : *single) {
    if (item.members().size() != 1) {
      return fields.wrong("single",
                          "an array of objects {\"SpecialToken\": ...} or {\"Sequence\": ...}");
    }
    const auto& [kind, content] = item.members().front();
    QUELL_TRY(name, io::JsonFields(content, file).text("id"));
    if (kind == "Sequence") {
      if (name != "A") return fields.wrong("single", "the sequence A only");
      parts.push_back({true, {}});
    } else if (kind == "SpecialToken") {
      const io::Json* special = specials == nullptr ? nullptr : specials->find(name);
      if (special == nullptr) {
        return Error{ErrorCode::parse,
                     file + ": the post-processor names the special token \"" + name.substr(0, 80) +
                         "\", which is not among its special_tokens",
                     file};
      }
      QUELL_TRY(ids, array_member(*special, file, "ids"));
      Part part;
      for (const io::Json& id : *ids) {
        QUELL_TRY(checked, id_from(id, file, name.substr(0, 80)));
        part.ids.push_back(checked);
      }
      parts.push_back(std::move(part));
    } else {
      return fields.wrong("single", "SpecialToken and Sequence only");
    }
  }
  templates_.push_back(std::move(parts));
  return ok();
}

Status TokenTemplate::add_from(const io::Json& value, const std::string& file) {
  QUELL_TRY(type, component_type(value, file, "post-processor"));
  if (type == "Sequence") {
    QUELL_TRY(parts, array_member(value, file, "processors"));
    for (const io::Json& part : *parts) QUELL_TRY(add_from(part, file));
  } else if (type == "TemplateProcessing") {
    QUELL_TRY(add_template(value, file));
  } else if (type == "RobertaProcessing" || type == "BertProcessing") {
    QUELL_TRY(before, pair_member(value, file, "cls"));
    QUELL_TRY(after, pair_member(value, file, "sep"));
    surround({before}, {after});
  } else if (type != "ByteLevel") {  // which changes offsets only
    return unsupported_component(
        value, file, "post-processor", type,
        "Sequence, TemplateProcessing, RobertaProcessing, BertProcessing and ByteLevel");
  }
  return ok();
}

Result<TokenTemplate> TokenTemplate::read(const io::Json& value, const std::string& file) {
  TokenTemplate post;
  if (!value.is(io::Json::Kind::null)) QUELL_TRY(post.add_from(value, file));
  return post;
}

void TokenTemplate::surround(std::vector<std::int32_t> before, std::vector<std::int32_t> after) {
  templates_.push_back({{false, std::move(before)}, {true, {}}, {false, std::move(after)}});
}

bool TokenTemplate::adds_ids() const noexcept {
  return std::any_of(templates_.begin(), templates_.end(), [](const Template& parts) {
    return std::any_of(parts.begin(), parts.end(),
                       [](const Part& part) { return !part.ids.empty(); });
  });
}

std::optional<std::int32_t> TokenTemplate::first_id() const noexcept {
  // The last template is the outermost one.
  for (std::size_t i = templates_.size(); i-- > 0;) {
    for (const Part& part : templates_[i]) {
      if (part.is_text) break;
      if (!part.ids.empty()) return part.ids.front();
    }
  }
  return std::nullopt;
}

std::vector<std::int32_t> TokenTemplate::all_ids() const {
  std::vector<std::int32_t> ids;
  for (const Template& parts : templates_) {
    for (const Part& part : parts) ids.insert(ids.end(), part.ids.begin(), part.ids.end());
  }
  return ids;
}

void TokenTemplate::apply(std::vector<std::int32_t>& ids, bool add_special) const {
  for (const Template& parts : templates_) {
    std::vector<std::int32_t> out;
    for (const Part& part : parts) {
      const std::vector<std::int32_t>& source = part.is_text ? ids : part.ids;
      if (part.is_text || add_special) out.insert(out.end(), source.begin(), source.end());
    }
    ids = std::move(out);
  }
}

}  // namespace quell::tokenizer
