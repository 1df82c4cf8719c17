// SPDX-License-Identifier: Apache-2.0
// A recursive-descent parser writes small programs whose jumps are relative, so that a part can be
// repeated or wrapped by copying it.
#include "io/name_pattern.hpp"

#include <algorithm>
#include <optional>

#include "quell/io/printable.hpp"

namespace quell::io {
namespace {

// Real patterns have under 200 characters. The program limit bounds counted repetition; together
// with names of at most 64 KB it bounds the time of one match to about a second.
constexpr std::size_t kPatternBytes = 4096;
constexpr std::size_t kProgramSteps = 10'000;
constexpr int kNesting = 32;
constexpr std::uint32_t kLargestCount = 1000;

}  // namespace

class PatternParser {
 public:
  using Step = NamePattern::Step;
  using Kind = Step::Kind;
  using Program = NamePattern::Program;
  using Set = NamePattern::Set;

  explicit PatternParser(std::string_view text) : text_(text) {}

  Result<NamePattern> run() {
    if (text_.size() > kPatternBytes) return wrong("is longer than 4096 bytes");
    QUELL_TRY(program, alternatives(0));
    if (at_ < text_.size()) return wrong("has a ) without its (");
    program.push_back({Kind::match});
    NamePattern pattern;
    pattern.program_ = std::move(program);
    pattern.sets_ = std::move(sets_);
    return pattern;
  }

 private:
  Error wrong(std::string_view what) const {
    return Error{ErrorCode::unsupported, "the pattern re:" + printable(text_) + " " +
                                             std::string(what) + " (at character " +
                                             std::to_string(at_ + 1) + ")"};
  }
  bool more() const { return at_ < text_.size(); }
  char peek() const { return more() ? text_[at_] : '\0'; }

  Result<Program> alternatives(int depth) {
    if (depth > kNesting) return wrong("nests deeper than 32 groups");
    QUELL_TRY(left, sequence(depth));
    while (more() && peek() == '|') {
      ++at_;
      QUELL_TRY(right, sequence(depth));
      const auto left_size = static_cast<std::int32_t>(left.size());
      const auto right_size = static_cast<std::int32_t>(right.size());
      Program both;
      both.push_back({Kind::split, 0, 1, left_size + 2});
      both.insert(both.end(), left.begin(), left.end());
      both.push_back({Kind::jump, 0, right_size + 1});
      both.insert(both.end(), right.begin(), right.end());
      if (both.size() > kProgramSteps) return wrong("is too large");
      left = std::move(both);
    }
    return left;
  }

  Result<Program> sequence(int depth) {
    Program program;
    while (more() && peek() != '|' && peek() != ')') {
      QUELL_TRY(part, repeated(depth));
      program.insert(program.end(), part.begin(), part.end());
      if (program.size() > kProgramSteps) return wrong("is too large");
    }
    return program;
  }

  Result<Program> repeated(int depth) {
    QUELL_TRY(part, atom(depth));
    const char c = peek();
    if (!more() || (c != '*' && c != '+' && c != '?' && c != '{')) return part;
    std::uint32_t least = 0;
    std::optional<std::uint32_t> most;
    if (c == '{') {
      QUELL_TRY(counts(least, most));
    } else {
      ++at_;
      least = c == '+' ? 1 : 0;
      if (c == '?') most = 1;
    }
    if (more() && peek() == '?') ++at_;  // lazy: the same set of names
    if (more() && (peek() == '*' || peek() == '+' || peek() == '{' || peek() == '?')) {
      return wrong("repeats a repetition");
    }
    return repeat(part, least, most);
  }

  // {m}, {m,} or {m,n}
  Status counts(std::uint32_t& least, std::optional<std::uint32_t>& most) {
    ++at_;
    QUELL_TRY(low, number());
    least = low;
    most = low;
    if (peek() == ',') {
      ++at_;
      most.reset();
      if (peek() != '}') {
        QUELL_TRY(high, number());
        most = high;
      }
    }
    if (peek() != '}') return wrong("has a { that is not a count such as {2,3}");
    ++at_;
    if (most && *most < least) return wrong("has a count that ends before it begins");
    return ok();
  }

  Result<std::uint32_t> number() {
    std::uint32_t value = 0;
    const std::size_t begin = at_;
    while (more() && peek() >= '0' && peek() <= '9') {
      value = value * 10 + static_cast<std::uint32_t>(peek() - '0');
      if (value > kLargestCount) return wrong("counts beyond 1000");
      ++at_;
    }
    if (at_ == begin) return wrong("has a { that is not a count such as {2,3}");
    return value;
  }

  Result<Program> repeat(const Program& part, std::uint32_t least,
                         std::optional<std::uint32_t> most) {
    const auto size = static_cast<std::int32_t>(part.size());
    const std::size_t copies = std::max<std::size_t>(least, most.value_or(least)) + 1;
    if (copies * (part.size() + 2) > kProgramSteps) return wrong("is too large");
    Program program;
    const auto append = [&] { program.insert(program.end(), part.begin(), part.end()); };
    for (std::uint32_t i = 0; i < least; ++i) append();
    if (!most) {
      program.push_back({Kind::split, 0, 1, size + 2});
      append();
      program.push_back({Kind::jump, 0, -(size + 1)});
      return program;
    }
    for (std::uint32_t i = least; i < *most; ++i) {
      program.push_back({Kind::split, 0, 1, size + 1});
      append();
    }
    return program;
  }

  Result<Program> atom(int depth) {
    const char c = peek();
    ++at_;
    switch (c) {
      case '(':
        return group(depth);
      case '[':
        return bracket();
      case '.':
        return single(~of('\n'));
      case '^':
        return Program{{Kind::begin}};
      case '$':
        return Program{{Kind::end}};
      case '\\': {
        QUELL_TRY(set, escape());
        return single(set);
      }
      case '*':
      case '+':
      case '?':
      case '{':
        return wrong("repeats nothing");
      default:
        return single(of(c));
    }
  }

  Result<Program> group(int depth) {
    if (peek() == '?') {
      if (text_.substr(at_, 2) != "?:") {
        return wrong("uses (?...), of which only (?:...) is supported");
      }
      at_ += 2;
    }
    QUELL_TRY(inner, alternatives(depth + 1));
    if (peek() != ')') return wrong("has a ( without its )");
    ++at_;
    return inner;
  }

  // Behind the backslash.
  Result<Set> escape() {
    if (!more()) return wrong("ends in a backslash");
    const char c = text_[at_++];
    const Set digits = range('0', '9');
    const Set word = digits | range('a', 'z') | range('A', 'Z') | of('_');
    const Set space = range('\t', '\r') | of(' ');
    switch (c) {
      case 'd':
        return digits;
      case 'D':
        return ~digits;
      case 'w':
        return word;
      case 'W':
        return ~word;
      case 's':
        return space;
      case 'S':
        return ~space;
      default:
        break;
    }
    if (word.test(static_cast<unsigned char>(c))) {
      return wrong("uses an escape that is not supported");
    }
    return of(c);
  }

  // Behind the [.
  Result<Program> bracket() {
    const bool negated = peek() == '^';
    if (negated) ++at_;
    Set set;
    bool first = true;
    while (true) {
      if (!more()) return wrong("has a [ without its ]");
      const char c = text_[at_++];
      if (c == ']' && !first) break;
      first = false;
      Set low = of(c);
      if (c == '\\') {
        QUELL_TRY(escaped, escape());
        low = escaped;
      }
      const bool ranged = peek() == '-' && at_ + 1 < text_.size() && text_[at_ + 1] != ']';
      if (!ranged) {
        set |= low;
        continue;
      }
      ++at_;
      const char high = text_[at_++];
      const char begin = c == '\\' ? text_[at_ - 3] : c;
      if (low.count() != 1 || high == '\\' ||
          static_cast<unsigned char>(high) < static_cast<unsigned char>(begin)) {
        return wrong("has a range in [...] that is not supported");
      }
      set |= range(begin, high);
    }
    return single(negated ? ~set : set);
  }

  static Set of(char c) {
    Set set;
    set.set(static_cast<unsigned char>(c));
    return set;
  }
  static Set range(char first, char last) {
    Set set;
    for (unsigned c = static_cast<unsigned char>(first); c <= static_cast<unsigned char>(last);
         ++c) {
      set.set(c);
    }
    return set;
  }
  Program single(const Set& set) {
    const auto known = std::find(sets_.begin(), sets_.end(), set);
    const auto index = static_cast<std::uint16_t>(known - sets_.begin());
    if (known == sets_.end()) sets_.push_back(set);
    return {{Kind::set, index}};
  }

  std::string_view text_;
  std::size_t at_ = 0;
  std::vector<Set> sets_;
};

Result<NamePattern> NamePattern::compile(std::string_view pattern) {
  return PatternParser(pattern).run();
}

bool NamePattern::matches_start(std::string_view name) const {
  // Steps that wait for a character, each at most once: `seen` holds the round in which it was
  // added.
  std::vector<std::size_t> waiting, next, pending;
  std::vector<std::size_t> seen(program_.size(), 0);
  std::size_t round = 0;
  // Follows all steps that need no character. True if the pattern is satisfied.
  const auto follow = [&](std::size_t start, std::size_t position, std::vector<std::size_t>& out) {
    pending.push_back(start);
    while (!pending.empty()) {
      const std::size_t at = pending.back();
      pending.pop_back();
      if (seen[at] == round) continue;
      seen[at] = round;
      const Step& step = program_[at];
      const auto go = [&](std::int32_t by) {
        pending.push_back(static_cast<std::size_t>(static_cast<std::int64_t>(at) + by));
      };
      switch (step.kind) {
        case Step::Kind::match:
          pending.clear();
          return true;
        case Step::Kind::set:
          out.push_back(at);
          break;
        case Step::Kind::split:
          go(step.second);
          go(step.first);
          break;
        case Step::Kind::jump:
          go(step.first);
          break;
        case Step::Kind::begin:
          if (position == 0) go(step.first);
          break;
        case Step::Kind::end:
          if (position == name.size()) go(step.first);
          break;
      }
    }
    return false;
  };
  ++round;
  if (follow(0, 0, waiting)) return true;
  for (std::size_t i = 0; i < name.size() && !waiting.empty(); ++i) {
    ++round;
    next.clear();
    for (const std::size_t at : waiting) {
      if (!sets_[program_[at].set].test(static_cast<unsigned char>(name[i]))) continue;
      if (follow(at + 1, i + 1, next)) return true;
    }
    std::swap(waiting, next);
  }
  return false;
}

}  // namespace quell::io
