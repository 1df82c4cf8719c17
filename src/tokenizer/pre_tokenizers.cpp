// SPDX-License-Identifier: Apache-2.0
#include "tokenizer/pre_tokenizers.hpp"

#include <optional>

#include "tokenizer/byte_alphabet.hpp"
#include "tokenizer/component.hpp"
#include "tokenizer/unicode.hpp"

namespace quell::tokenizer {
namespace {

constexpr std::string_view kSupported =
    "Sequence, Split, ByteLevel, Metaspace, Digits, Punctuation, Whitespace, WhitespaceSplit and "
    "BertPreTokenizer";

// The pattern of GPT-2. ByteLevel means this one when it is told to use "the regex".
constexpr std::string_view kGpt2 =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

// Words and runs of symbols. The word characters of this one are those of another engine of the
// reference, which counts the two joiners in.
constexpr std::string_view kWords =
    "[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{200C}\\x{200D}]+|"
    "[^\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{200C}\\x{200D}\\s]+";

/// Joins parts, which come in order and cover the text, into pieces according to a behavior.
template <typename Emit>
class Joiner {
 public:
  Joiner(SplitBehavior behavior, Emit emit) : behavior_(behavior), emit_(emit) {}

  Status part(Span span, bool is_match) {
    switch (behavior_) {
      case SplitBehavior::removed:
        return is_match ? ok() : emit_(span);
      case SplitBehavior::isolated:
        return emit_(span);
      case SplitBehavior::contiguous:
        if (held_ && is_match == held_match_) return held_->end = span.end, ok();
        return hold(span, is_match);
      case SplitBehavior::merged_with_previous: {
        const bool joins = held_ && is_match && !held_match_;
        if (!joins) return hold(span, is_match);
        held_->end = span.end;
        held_match_ = true;
        return ok();
      }
      case SplitBehavior::merged_with_next:
        if (is_match) return hold(span, true);
        if (held_) span.begin = held_->begin;
        held_.reset();
        return emit_(span);
    }
    return ok();
  }

  Status finish() { return held_ ? emit_(*held_) : ok(); }

 private:
  /// Gives away what is held and holds this part instead.
  Status hold(Span span, bool is_match) {
    const std::optional<Span> before = held_;
    held_ = span;
    held_match_ = is_match;
    return before ? emit_(*before) : ok();
  }

  SplitBehavior behavior_;
  Emit emit_;
  std::optional<Span> held_;
  bool held_match_ = false;
};

/// Calls part(span, is_match) for every part of a text that is not empty.
template <typename Part>
Status each_part(const SplitPattern& pattern, std::string_view text, MatchScratch& scratch,
                 Part part) {
  MatchWalk walk(pattern, text, scratch);
  std::size_t done = 0;
  for (;;) {
    QUELL_TRY(match, walk.next());
    if (!match) break;
    if (match->begin > done) QUELL_TRY(part(Span{done, match->begin}, false));
    QUELL_TRY(part(*match, true));
    done = match->end;
  }
  return done < text.size() ? part(Span{done, text.size()}, false) : ok();
}

template <typename Part>
Status each_part(const std::string& literal, std::string_view text, MatchScratch&, Part part) {
  std::size_t done = 0;
  for (std::size_t at = text.find(literal); at != std::string_view::npos;
       at = text.find(literal, done)) {
    if (at > done) QUELL_TRY(part(Span{done, at}, false));
    done = at + literal.size();
    QUELL_TRY(part(Span{at, done}, true));
  }
  return done < text.size() ? part(Span{done, text.size()}, false) : ok();
}

template <typename Part>
Status each_part(PreTokenizer::CharacterTest test, std::string_view text, MatchScratch&,
                 Part part) {
  std::size_t done = 0;
  for (std::size_t i = 0; i < text.size();) {
    const Character c = character_at(text, i);
    if (test(c.code)) {
      if (i > done) QUELL_TRY(part(Span{done, i}, false));
      done = i + c.bytes;
      QUELL_TRY(part(Span{i, done}, true));
    }
    i += c.bytes;
  }
  return done < text.size() ? part(Span{done, text.size()}, false) : ok();
}

Result<SplitBehavior> behavior_from(const io::Json& value, const std::string& file, bool required) {
  const io::JsonFields fields(value, file);
  QUELL_TRY(name, fields.optional_text("behavior"));
  if (!name && !required) return SplitBehavior::isolated;
  if (name == "Removed") return SplitBehavior::removed;
  if (name == "Isolated") return SplitBehavior::isolated;
  if (name == "MergedWithPrevious") return SplitBehavior::merged_with_previous;
  if (name == "MergedWithNext") return SplitBehavior::merged_with_next;
  if (name == "Contiguous") return SplitBehavior::contiguous;
  return fields.wrong("behavior",
                      "Removed, Isolated, MergedWithPrevious, MergedWithNext or Contiguous");
}

Result<PreTokenizer::Metaspace> metaspace_from(const io::Json& value, const std::string& file) {
  const io::JsonFields fields(value, file);
  PreTokenizer::Metaspace metaspace;
  QUELL_TRY(replacement, character_member(value, file, "replacement"));
  append_utf8(metaspace.replacement, replacement);
  QUELL_TRY(scheme, fields.optional_text("prepend_scheme"));
  if (scheme == "first") {
    metaspace.scheme = PreTokenizer::Scheme::first;
  } else if (scheme == "never") {
    metaspace.scheme = PreTokenizer::Scheme::never;
  } else if (scheme && scheme != "always") {
    return fields.wrong("prepend_scheme", "always, first or never");
  }
  // The older name of the same thing.
  QUELL_TRY(add_prefix, boolean_member(value, file, "add_prefix_space", true));
  if (!add_prefix) {
    if (scheme && scheme != "never") {
      return fields.wrong("add_prefix_space", "true beside prepend_scheme " + *scheme);
    }
    metaspace.scheme = PreTokenizer::Scheme::never;
  }
  QUELL_TRY(split, boolean_member(value, file, "split", true));
  metaspace.split = split;
  return metaspace;
}

}  // namespace

Status PreTokenizer::add_from(const io::Json& value, const std::string& file) {
  QUELL_TRY(type, component_type(value, file, "pre-tokenizer"));
  if (type == "Sequence") {
    QUELL_TRY(parts, array_member(value, file, "pretokenizers"));
    for (const io::Json& part : *parts) QUELL_TRY(add_from(part, file));
  } else if (type == "Split") {
    Split split{std::string(), SplitBehavior::isolated, false};
    QUELL_TRY(pattern, pattern_member(value, file, "pattern"));
    if (pattern.literal && !pattern.text.empty()) {
      split.what = pattern.text;
    } else {
      QUELL_TRY(compiled, SplitPattern::compile(pattern.text, file));
      split.what = std::move(compiled);
    }
    QUELL_TRY(behavior, behavior_from(value, file, true));
    split.behavior = behavior;
    QUELL_TRY(invert, boolean_member(value, file, "invert", false));
    split.invert = invert;
    steps_.emplace_back(std::move(split));
  } else if (type == "ByteLevel") {
    ByteLevel bytes;
    QUELL_TRY(prefix, boolean_member(value, file, "add_prefix_space"));
    bytes.add_prefix_space = prefix;
    QUELL_TRY(use_regex, boolean_member(value, file, "use_regex", true));
    if (use_regex) {
      QUELL_TRY(pattern, SplitPattern::compile(kGpt2, file));
      bytes.pattern = std::move(pattern);
    }
    steps_.emplace_back(std::move(bytes));
  } else if (type == "Metaspace") {
    QUELL_TRY(metaspace, metaspace_from(value, file));
    steps_.emplace_back(std::move(metaspace));
  } else if (type == "Digits") {
    QUELL_TRY(individual, boolean_member(value, file, "individual_digits", false));
    steps_.emplace_back(Split{
        &is_numeric, individual ? SplitBehavior::isolated : SplitBehavior::contiguous, false});
  } else if (type == "Punctuation") {
    QUELL_TRY(behavior, behavior_from(value, file, false));
    steps_.emplace_back(Split{&is_punctuation, behavior, false});
  } else if (type == "Whitespace") {
    QUELL_TRY(words, SplitPattern::compile(kWords, file));
    steps_.emplace_back(Split{std::move(words), SplitBehavior::removed, true});
  } else if (type == "WhitespaceSplit") {
    steps_.emplace_back(Split{&is_white_space, SplitBehavior::removed, false});
  } else if (type == "BertPreTokenizer") {
    steps_.emplace_back(Split{&is_white_space, SplitBehavior::removed, false});
    steps_.emplace_back(Split{&is_punctuation, SplitBehavior::isolated, false});
  } else {
    return unsupported_component(value, file, "pre-tokenizer", type, kSupported);
  }
  return ok();
}

Result<PreTokenizer> PreTokenizer::read(const io::Json& value, const std::string& file) {
  PreTokenizer pre;
  if (!value.is(io::Json::Kind::null)) QUELL_TRY(pre.add_from(value, file));
  return pre;
}

/// One walk of a text through the steps.
class PreTokenizer::Chain {
 public:
  Chain(const std::vector<Step>& steps, Scratch& scratch, PieceSink& sink)
      : steps_(steps), scratch_(scratch), sink_(sink) {
    if (scratch_.texts.size() < 2 * steps.size()) scratch_.texts.resize(2 * steps.size());
  }

  /// Gives a piece to step `index` or, behind the last one, to the sink.
  Status run(std::size_t index, std::string_view piece, bool from_start) {
    if (piece.empty()) return ok();
    if (index == steps_.size()) return sink_.take(piece);
    return std::visit([&](const auto& step) { return apply(step, index, piece, from_start); },
                      steps_[index]);
  }

 private:
  Status apply(const Split& split, std::size_t index, std::string_view piece, bool from_start) {
    Joiner joiner(split.behavior, [&](Span span) {
      return run(index + 1, piece.substr(span.begin, span.end - span.begin),
                 from_start && span.begin == 0);
    });
    QUELL_TRY(std::visit(
        [&](const auto& what) {
          return each_part(what, piece, scratch_.match, [&](Span span, bool is_match) {
            return joiner.part(span, is_match != split.invert);
          });
        },
        split.what));
    return joiner.finish();
  }

  Status apply(const ByteLevel& bytes, std::size_t index, std::string_view piece, bool from_start) {
    std::string& prefixed = scratch_.texts[2 * index];
    std::string& letters = scratch_.texts[2 * index + 1];
    if (bytes.add_prefix_space && piece.front() != ' ') {
      prefixed.assign(1, ' ');
      prefixed += piece;
      piece = prefixed;
    }
    const auto pass_on = [&](Span span, bool) {
      letters.clear();
      append_letters(letters, piece.substr(span.begin, span.end - span.begin));
      return run(index + 1, letters, from_start && span.begin == 0);
    };
    if (!bytes.pattern) return pass_on(Span{0, piece.size()}, false);
    return each_part(*bytes.pattern, piece, scratch_.match, pass_on);
  }

  Status apply(const Metaspace& metaspace, std::size_t index, std::string_view piece,
               bool from_start) {
    std::string& text = scratch_.texts[2 * index];
    text.clear();
    const bool marked = piece.front() == ' ' || piece.starts_with(metaspace.replacement);
    const bool prepend =
        metaspace.scheme == Scheme::always || (metaspace.scheme == Scheme::first && from_start);
    if (prepend && !marked) text = metaspace.replacement;
    for (const char c : piece) {
      if (c == ' ') {
        text += metaspace.replacement;
      } else {
        text.push_back(c);
      }
    }
    if (!metaspace.split) return run(index + 1, text, from_start);
    Joiner joiner(SplitBehavior::merged_with_next, [&](Span span) {
      return run(index + 1, std::string_view(text).substr(span.begin, span.end - span.begin),
                 from_start && span.begin == 0);
    });
    QUELL_TRY(each_part(metaspace.replacement, text, scratch_.match,
                        [&](Span span, bool is_match) { return joiner.part(span, is_match); }));
    return joiner.finish();
  }

  const std::vector<Step>& steps_;
  Scratch& scratch_;
  PieceSink& sink_;
};

Status PreTokenizer::cut(std::string_view text, bool from_start, Scratch& scratch,
                         PieceSink& sink) const {
  return Chain(steps_, scratch, sink).run(0, text, from_start);
}

}  // namespace quell::tokenizer
