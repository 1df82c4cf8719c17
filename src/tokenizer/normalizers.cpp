// SPDX-License-Identifier: Apache-2.0
#include "tokenizer/normalizers.hpp"

#include "tokenizer/byte_alphabet.hpp"

namespace quell::tokenizer {
namespace {

/// Copies the characters for which `keep` holds. Clears from_start when the first one is dropped.
template <typename Keep>
void filter(std::string& text, bool& from_start, Keep keep) {
  std::size_t out = 0;
  for (std::size_t i = 0; i < text.size();) {
    const Character c = character_at(text, i);
    if (keep(c.code)) {
      for (std::size_t k = 0; k < c.bytes; ++k) text[out + k] = text[i + k];
      out += c.bytes;
    } else if (i == 0) {
      from_start = false;
    }
    i += c.bytes;
  }
  text.resize(out);
}

/// Replaces each character by what `map` appends for it.
template <typename Map>
void rewrite(std::string& text, Map map) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size();) {
    const Character c = character_at(text, i);
    map(out, c.code);
    i += c.bytes;
  }
  text = std::move(out);
}

void strip(std::string& text, bool& from_start, const StripSpace& step) {
  std::size_t begin = 0, end = text.size();
  while (step.left && begin < end && is_white_space(character_at(text, begin).code)) {
    begin += character_at(text, begin).bytes;
  }
  while (step.right && end > begin && is_white_space(character_before(text, end).code)) {
    end -= character_before(text, end).bytes;
  }
  if (begin > 0) from_start = false;
  text = text.substr(begin, end - begin);
}

bool is_ideograph(char32_t c) noexcept {
  return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) ||
         (c >= 0x20000 && c <= 0x2A6DF) || (c >= 0x2A700 && c <= 0x2B73F) ||
         (c >= 0x2B740 && c <= 0x2B81F) || (c >= 0x2B920 && c <= 0x2CEAF) ||
         (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
}

void map_bert(std::string& text, bool& from_start, const MapBert& step) {
  if (step.clean_text) {
    filter(text, from_start, [](char32_t c) {
      const bool kept_control = c == '\t' || c == '\n' || c == '\r';
      return c != 0 && c != 0xFFFD && (kept_control || !is_other(c));
    });
    rewrite(text,
            [](std::string& out, char32_t c) { append_utf8(out, is_white_space(c) ? U' ' : c); });
  }
  if (step.isolate_ideographs) {
    rewrite(text, [](std::string& out, char32_t c) {
      const bool alone = is_ideograph(c);
      if (alone) out.push_back(' ');
      append_utf8(out, c);
      if (alone) out.push_back(' ');
    });
  }
  if (step.strip_accents) {
    text = normal_form(text, NormalForm::nfd);
    filter(text, from_start, [](char32_t c) { return !is_nonspacing_mark(c); });
  }
  if (step.lower_case) text = lower_case(text);
}

void map_nmt(std::string& text, bool& from_start) {
  filter(text, from_start, [](char32_t c) {
    const bool control = (c >= 1 && c <= 8) || c == 0x0B || (c >= 0x0E && c <= 0x1F) || c == 0x7F ||
                         c == 0x8F || c == 0x9F;
    return !control;
  });
  rewrite(text, [](std::string& out, char32_t c) {
    const bool space = c == 0x09 || c == 0x0A || c == 0x0C || c == 0x0D || c == 0x1680 ||
                       (c >= 0x200B && c <= 0x200F) || c == 0x2028 || c == 0x2029 || c == 0x2581 ||
                       c == 0xFEFF || c == 0xFFFD;
    append_utf8(out, space ? U' ' : c);
  });
}

}  // namespace

Status replace_all(const ReplaceText& step, std::string& text, bool& from_start,
                   MatchScratch& scratch) {
  std::string out;
  out.reserve(text.size());
  std::size_t copied = 0;
  const auto put = [&](Span match) {
    // What replaces several characters counts as coming from the last of them.
    if (match.begin == 0 && match.end > 0 &&
        (step.to.empty() || character_at(text, 0).bytes != match.end)) {
      from_start = false;
    }
    out.append(text, copied, match.begin - copied);
    out += step.to;
    copied = match.end;
  };
  if (!step.pattern) {
    for (std::size_t at = text.find(step.from); at != std::string::npos;
         at = text.find(step.from, at + step.from.size())) {
      put({at, at + step.from.size()});
    }
  } else {
    MatchWalk walk(*step.pattern, text, scratch);
    for (;;) {
      QUELL_TRY(match, walk.next());
      if (!match) break;
      put(*match);
    }
  }
  out.append(text, copied, text.size() - copied);
  text = std::move(out);
  return ok();
}

Status Normalizer::apply(std::string& text, bool& from_start, MatchScratch& scratch) const {
  struct Apply {
    std::string& text;
    bool& from_start;
    MatchScratch& scratch;
    Status operator()(NormalForm form) const { return text = normal_form(text, form), ok(); }
    Status operator()(const PrependText& step) const {
      if (!text.empty()) text.insert(0, step.text);
      return ok();
    }
    Status operator()(const ReplaceText& step) const {
      // The reference leaves an empty text alone, even where a pattern matches nothing.
      return text.empty() ? ok() : replace_all(step, text, from_start, scratch);
    }
    Status operator()(LowerCase) const { return text = lower_case(text), ok(); }
    Status operator()(const StripSpace& step) const { return strip(text, from_start, step), ok(); }
    Status operator()(StripMarks) const {
      return filter(text, from_start, [](char32_t c) { return !is_mark(c); }), ok();
    }
    Status operator()(BytesToLetters) const {
      std::string letters;
      letters.reserve(text.size() * 5 / 4);
      append_letters(letters, text);
      return text = std::move(letters), ok();
    }
    Status operator()(MapNmt) const { return map_nmt(text, from_start), ok(); }
    Status operator()(const MapBert& step) const { return map_bert(text, from_start, step), ok(); }
    Status operator()(const MapSentencePiece& map) const {
      return map_sentencepiece(map, text), ok();
    }
    Status operator()(const Charsmap& map) const { return text = map.map_graphemes(text), ok(); }
  };
  for (const Step& step : steps_) {
    QUELL_TRY(std::visit(Apply{text, from_start, scratch}, step));
  }
  return ok();
}

}  // namespace quell::tokenizer
