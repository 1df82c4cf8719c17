// SPDX-License-Identifier: Apache-2.0

// The normalizers of tokenizer.json by name.

#include "tokenizer/component.hpp"
#include "tokenizer/normalizers.hpp"

namespace quell::tokenizer {
namespace {

constexpr std::string_view kSupported =
    "Sequence, NFC, NFD, NFKC, NFKD, Prepend, Replace, Lowercase, Strip, StripAccents, "
    "Precompiled, "
    "ByteLevel, Nmt and BertNormalizer";

}  // namespace

Result<ReplaceText> read_replace(const io::Json& value, const std::string& file) {
  QUELL_TRY(pattern, pattern_member(value, file, "pattern"));
  ReplaceText replace;
  QUELL_TRY(content, io::JsonFields(value, file).text("content"));
  replace.to = content;
  // An empty literal matches everywhere, as an empty pattern does.
  if (pattern.literal && !pattern.text.empty()) {
    replace.from = pattern.text;
  } else {
    QUELL_TRY(compiled, SplitPattern::compile(pattern.text, file));
    replace.pattern = compiled;
  }
  return replace;
}

Status Normalizer::add_from(const io::Json& value, const std::string& file) {
  QUELL_TRY(type, component_type(value, file, "normalizer"));
  if (type == "Sequence") {
    QUELL_TRY(parts, array_member(value, file, "normalizers"));
    for (const io::Json& part : *parts) QUELL_TRY(add_from(part, file));
  } else if (type == "NFC") {
    add(NormalForm::nfc);
  } else if (type == "NFD") {
    add(NormalForm::nfd);
  } else if (type == "NFKC") {
    add(NormalForm::nfkc);
  } else if (type == "NFKD") {
    add(NormalForm::nfkd);
  } else if (type == "Prepend") {
    QUELL_TRY(text, io::JsonFields(value, file).text("prepend"));
    add(PrependText{text});
  } else if (type == "Replace") {
    QUELL_TRY(replace, read_replace(value, file));
    add(std::move(replace));
  } else if (type == "Lowercase") {
    add(LowerCase{});
  } else if (type == "Strip") {
    QUELL_TRY(left, boolean_member(value, file, "strip_left"));
    QUELL_TRY(right, boolean_member(value, file, "strip_right"));
    add(StripSpace{left, right});
  } else if (type == "StripAccents") {
    add(StripMarks{});
  } else if (type == "ByteLevel") {
    add(BytesToLetters{});
  } else if (type == "Nmt") {
    add(MapNmt{});
  } else if (type == "Precompiled") {
    QUELL_TRY(text, io::JsonFields(value, file).optional_text("precompiled_charsmap"));
    QUELL_TRY(map, Charsmap::read_base64(text.value_or(std::string()), file));
    if (!map.is_empty()) add(std::move(map));
  } else if (type == "BertNormalizer") {
    QUELL_TRY(clean, boolean_member(value, file, "clean_text"));
    QUELL_TRY(ideographs, boolean_member(value, file, "handle_chinese_chars"));
    QUELL_TRY(lower, boolean_member(value, file, "lowercase"));
    QUELL_TRY(accents, boolean_member(value, file, "strip_accents", lower));
    add(MapBert{clean, ideographs, accents, lower});
  } else {
    return unsupported_component(value, file, "normalizer", type, kSupported);
  }
  return ok();
}

Result<Normalizer> Normalizer::read(const io::Json& value, const std::string& file) {
  Normalizer normalizer;
  if (!value.is(io::Json::Kind::null)) QUELL_TRY(normalizer.add_from(value, file));
  return normalizer;
}

}  // namespace quell::tokenizer
