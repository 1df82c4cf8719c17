// SPDX-License-Identifier: Apache-2.0
#include "tokenizer/decoder.hpp"

#include <optional>

#include "tokenizer/byte_alphabet.hpp"
#include "tokenizer/component.hpp"
#include "tokenizer/unicode.hpp"

namespace quell::tokenizer {
namespace {

using Tokens = std::vector<std::string>;

constexpr std::string_view kSupported =
    "Sequence, ByteLevel, ByteFallback, Fuse, Strip, Metaspace, WordPiece, BPEDecoder and Replace";

std::string join(const Tokens& tokens, std::string_view between = "") {
  std::string text;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    if (i > 0) text += between;
    text += tokens[i];
  }
  return text;
}

void replace_literal(std::string& text, std::string_view from, std::string_view to) {
  if (from.empty()) return;
  std::string out;
  std::size_t done = 0;
  for (std::size_t at = text.find(from); at != std::string::npos; at = text.find(from, done)) {
    out.append(text, done, at - done);
    out += to;
    done = at + from.size();
  }
  if (done == 0) return;
  out.append(text, done);
  text = std::move(out);
}

void apply(const Decoder::Bytes&, Tokens& tokens, MatchScratch&) {
  std::string bytes;
  for (const std::string& token : tokens) {
    const std::size_t start = bytes.size();
    for (std::size_t i = 0; i < token.size();) {
      const Character c = character_at(token, i);
      const auto byte = byte_of(c.code);
      if (!byte) {
        // A token with a character outside the alphabet is text already.
        bytes.resize(start);
        bytes += token;
        break;
      }
      bytes.push_back(static_cast<char>(*byte));
      i += c.bytes;
    }
  }
  tokens.assign(1, sanitize(bytes));
}

/// The byte of <0xHH>, in either case of digits.
std::optional<char> fallback_byte(const std::string& token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token.back() != '>') return std::nullopt;
  int value = 0;
  for (const char c : {token[3], token[4]}) {
    const int digit = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                             : -1;
    if (digit < 0) return std::nullopt;
    value = value * 16 + digit;
  }
  return static_cast<char>(value);
}

void apply(const Decoder::ByteFallback&, Tokens& tokens, MatchScratch&) {
  Tokens out;
  std::string bytes;
  const auto flush = [&] {
    if (bytes.empty()) return;
    if (is_utf8(bytes)) {
      out.push_back(bytes);
    } else {
      // One replacement character for every byte of a run that is not UTF-8 as a whole.
      for (std::size_t i = 0; i < bytes.size(); ++i) out.emplace_back("\xEF\xBF\xBD");
    }
    bytes.clear();
  };
  for (std::string& token : tokens) {
    if (const auto byte = fallback_byte(token)) {
      bytes.push_back(*byte);
    } else {
      flush();
      out.push_back(std::move(token));
    }
  }
  flush();
  tokens = std::move(out);
}

void apply(const Decoder::Fuse&, Tokens& tokens, MatchScratch&) {
  tokens.assign(1, join(tokens));
}

void apply(const Decoder::Strip& step, Tokens& tokens, MatchScratch&) {
  for (std::string& token : tokens) {
    std::size_t begin = 0, end = token.size();
    const std::size_t bytes = step.content.size();
    for (std::size_t k = 0; k < step.start && token.compare(begin, bytes, step.content) == 0; ++k) {
      begin += bytes;
    }
    for (std::size_t k = 0; k < step.stop && end >= begin + bytes &&
                            token.compare(end - bytes, bytes, step.content) == 0;
         ++k) {
      end -= bytes;
    }
    token = token.substr(begin, end - begin);
  }
}

void apply(const Decoder::Metaspace& step, Tokens& tokens, MatchScratch&) {
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    replace_literal(tokens[i], step.replacement, i == 0 && step.drop_first ? "" : " ");
  }
}

void apply(const Decoder::WordPiece& step, Tokens& tokens, MatchScratch&) {
  // English punctuation that a tokenizer set apart, put back in this order.
  constexpr std::pair<std::string_view, std::string_view> kCleanUp[] = {
      {" .", "."},   {" ?", "?"},     {" !", "!"},    {" ,", ","},
      {" ' ", "'"},  {" n't", "n't"}, {" 'm", "'m"},  {" do not", " don't"},
      {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    if (i > 0) {
      if (tokens[i].starts_with(step.prefix)) {
        tokens[i].erase(0, step.prefix.size());
      } else {
        tokens[i].insert(0, 1, ' ');
      }
    }
    if (!step.clean_up) continue;
    for (const auto& [from, to] : kCleanUp) replace_literal(tokens[i], from, to);
  }
}

void apply(const Decoder::Suffix& step, Tokens& tokens, MatchScratch&) {
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    replace_literal(tokens[i], step.suffix, i + 1 == tokens.size() ? "" : " ");
  }
}

void apply(const ReplaceText& step, Tokens& tokens, MatchScratch& scratch) {
  for (std::string& token : tokens) {
    bool from_start = true;
    // Matching fails on exponential patterns only; such a token stays as it is.
    if (!replace_all(step, token, from_start, scratch)) continue;
  }
}

/// Bytes as characters, and U+FFFD for each byte that is in none.
void append_characters(std::string& text, std::string_view bytes) {
  for (std::size_t i = 0; i < bytes.size();) {
    std::size_t length = 1;
    while (length <= 4 && i + length <= bytes.size() && !is_utf8(bytes.substr(i, length))) ++length;
    if (length <= 4 && i + length <= bytes.size()) {
      text += bytes.substr(i, length);
      i += length;
    } else {
      text += "\xEF\xBF\xBD";
      ++i;
    }
  }
}

void apply(const Decoder::SentencePiece& step, Tokens& tokens, MatchScratch&) {
  constexpr std::string_view kMark = "\xE2\x96\x81";
  std::string text, bytes;
  bool leading = step.drops_first_space, dropped = false;
  for (const std::string& token : tokens) {
    const auto byte = step.byte_fallback ? fallback_byte(token) : std::nullopt;
    if (byte) {
      bytes.push_back(*byte);
      continue;
    }
    append_characters(text, bytes);
    bytes.clear();
    if (dropped || !text.empty()) leading = false;
    if (token == step.unknown) {
      text += step.unknown_surface;
      continue;
    }
    std::string piece = token;
    if (leading && piece.starts_with(kMark)) {
      piece.erase(0, kMark.size());
      dropped = !step.drops_all_leading;
    }
    replace_literal(piece, kMark, " ");
    text += piece;
  }
  append_characters(text, bytes);
  tokens.assign(1, std::move(text));
}

}  // namespace

Status Decoder::add_from(const io::Json& value, const std::string& file) {
  const io::JsonFields fields(value, file);
  QUELL_TRY(type, component_type(value, file, "decoder"));
  if (type == "Sequence") {
    QUELL_TRY(parts, array_member(value, file, "decoders"));
    for (const io::Json& part : *parts) QUELL_TRY(add_from(part, file));
  } else if (type == "ByteLevel") {
    add(Bytes{});
  } else if (type == "ByteFallback") {
    add(ByteFallback{});
  } else if (type == "Fuse") {
    add(Fuse{});
  } else if (type == "Strip") {
    Strip strip;
    QUELL_TRY(content, character_member(value, file, "content"));
    append_utf8(strip.content, content);
    // More than any token has; larger numbers are the same.
    QUELL_TRY(start, fields.unsigned_integer("start", 0, 0x7FFFFFFF));
    QUELL_TRY(stop, fields.unsigned_integer("stop", 0, 0x7FFFFFFF));
    strip.start = start;
    strip.stop = stop;
    add(std::move(strip));
  } else if (type == "Metaspace") {
    Metaspace metaspace;
    QUELL_TRY(replacement, character_member(value, file, "replacement"));
    append_utf8(metaspace.replacement, replacement);
    QUELL_TRY(scheme, fields.optional_text("prepend_scheme"));
    QUELL_TRY(prefix, boolean_member(value, file, "add_prefix_space", true));
    metaspace.drop_first = prefix && scheme != "never";
    add(std::move(metaspace));
  } else if (type == "WordPiece") {
    WordPiece word;
    QUELL_TRY(prefix, fields.text("prefix"));
    word.prefix = prefix;
    QUELL_TRY(clean_up, boolean_member(value, file, "cleanup", true));
    word.clean_up = clean_up;
    add(std::move(word));
  } else if (type == "BPEDecoder") {
    QUELL_TRY(suffix, fields.text("suffix"));
    add(Suffix{suffix});
  } else if (type == "Replace") {
    QUELL_TRY(replace, read_replace(value, file));
    add(std::move(replace));
  } else {
    return unsupported_component(value, file, "decoder", type, kSupported);
  }
  return ok();
}

Result<Decoder> Decoder::read(const io::Json& value, const std::string& file) {
  Decoder decoder;
  if (value.is(io::Json::Kind::null)) {
    decoder.joins_with_spaces_ = true;
  } else {
    QUELL_TRY(decoder.add_from(value, file));
  }
  return decoder;
}

std::string Decoder::decode(std::vector<std::string> tokens, MatchScratch& scratch) const {
  if (joins_with_spaces_) return join(tokens, " ");
  for (const Step& step : steps_) {
    std::visit([&](const auto& each) { apply(each, tokens, scratch); }, step);
  }
  return join(tokens);
}

}  // namespace quell::tokenizer
