// SPDX-License-Identifier: Apache-2.0

// What the reference's regular expressions (Oniguruma, Ruby syntax) spell differently from PCRE2:
//
//   reference            PCRE2                          why
//   \s \S                \p{White_Space}, negated       PCRE2's \s also takes U+180E
//   \w \W                [\p{Alphabetic}\p{M}\p{Nd}\p{Pc}], negated   PCRE2's \w is letters,
//   numbers, _ \h \H                [0-9A-Fa-f], negated           a hexadecimal digit, not a
//   horizontal space \uHHHH               \x{HHHH} [a[bc]]              [abc] a set inside a set is
//   a union [ab&&[^b]]           (?:(?![b])[ab])                intersection
//   (?m: )               (?s: )                         the dot that takes a newline
//
// Everything else is passed on. A set with a negated set inside, and other rare forms, are refused
// by name instead of being matched differently.

#include <algorithm>
#include <vector>

#include "tokenizer/split_pattern.hpp"

namespace quell::tokenizer {
namespace {

constexpr std::string_view kWord = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}";

class Translation {
 public:
  Translation(std::string_view pattern, const std::string& file) : in_(pattern), file_(file) {}

  Result<std::string> run() {
    std::string out;
    while (at_ < in_.size()) {
      const char c = in_[at_];
      if (c == '\\') {
        QUELL_TRY(escape(out, /*in_set=*/false));
      } else if (c == '[') {
        QUELL_TRY(set, character_set(0));
        out += set;
      } else if (in_.substr(at_, 2) == "(?") {
        QUELL_TRY(group(out));
      } else if (in_.substr(at_, 2) == "(*") {
        return refused("a verb");
      } else if (in_.substr(at_, 2) == "{," || in_.substr(at_, 2) == "}+") {
        // {,n} starts at zero and {n,m}+ is a repeat of a repeat there; here they are text and a
        // possessive repeat.
        return refused("a form of repeat that differs between dialects");
      } else {
        out.push_back(c);
        ++at_;
      }
    }
    return out;
  }

 private:
  Error refused(std::string_view what) const {
    return Error{ErrorCode::unsupported,
                 file_ + ": the pattern " + std::string(in_.substr(0, 200)) + " uses " +
                     std::string(what) + " at byte " + std::to_string(at_) +
                     ", which is not supported",
                 file_};
  }

  /// A backslash and what belongs to it.
  Status escape(std::string& out, bool in_set) {
    if (at_ + 1 >= in_.size()) return refused("a backslash at the end");
    const char c = in_[at_ + 1];
    const auto put = [&](std::string_view text) {
      out += text;
      at_ += 2;
      return ok();
    };
    switch (c) {
      case 's':
        return put("\\p{White_Space}");
      case 'S':
        return put("\\P{White_Space}");
      case 'w':
        return put(in_set ? std::string(kWord) : "[" + std::string(kWord) + "]");
      case 'W':
        if (in_set) return refused("\\W inside a set");
        return put("[^" + std::string(kWord) + "]");
      case 'h':
        return put(in_set ? "0-9A-Fa-f" : "[0-9A-Fa-f]");
      case 'H':
        if (in_set) return refused("\\H inside a set");
        return put("[^0-9A-Fa-f]");
      case 'u': {
        const std::string_view digits = in_.substr(at_ + 2, 4);
        const bool good =
            digits.size() == 4 && std::all_of(digits.begin(), digits.end(), [](char d) {
              return (d >= '0' && d <= '9') || (d >= 'a' && d <= 'f') || (d >= 'A' && d <= 'F');
            });
        if (!good) return refused("\\u without four hexadecimal digits");
        out += "\\x{" + std::string(digits) + "}";
        at_ += 6;
        return ok();
      }
      case 'p':
      case 'P': {
        // \p{^L} is \P{L} in both; the braces are copied so that nothing inside is looked at.
        std::size_t end = at_ + 3;
        if (at_ + 2 < in_.size() && in_[at_ + 2] == '{') {
          end = in_.find('}', at_);
          if (end == std::string_view::npos) return refused("\\p without its brace");
          ++end;
        }
        end = std::min(end, in_.size());
        out += in_.substr(at_, end - at_);
        at_ = end;
        return ok();
      }
      case 'b':
      case 'B':
        // PCRE2's word boundary follows its own idea of a word.
        if (!in_set) {
          const std::string word = "[" + std::string(kWord) + "]";
          return put(
              c == 'b' ? "(?:(?<=" + word + ")(?!" + word + ")|(?<!" + word + ")(?=" + word + "))"
                       : "(?:(?<=" + word + ")(?=" + word + ")|(?<!" + word + ")(?!" + word + "))");
        }
        break;
      case 'K':
      case 'g':
      case 'k':
      case 'X':
      case 'R':
      case 'y':
      case 'Y':
      case 'O':
      case 'M':
      case 'C':
        return refused(std::string("the escape \\") + c);
      default:
        break;
    }
    out += in_.substr(at_, 2);
    at_ += 2;
    return ok();
  }

  /// The options of a group: m is the reference's name for what PCRE2 calls s.
  Status group(std::string& out) {
    out += "(?";
    at_ += 2;
    while (at_ < in_.size() &&
           (in_[at_] == 'i' || in_[at_] == 'm' || in_[at_] == 'x' || in_[at_] == '-')) {
      out.push_back(in_[at_] == 'm' ? 's' : in_[at_]);
      ++at_;
    }
    if (at_ < in_.size() && in_[at_] == '~') return refused("an absence operator");
    return ok();
  }

  /// A set from its opening bracket to its closing one, as PCRE2 text.
  Result<std::string> character_set(int depth) {
    if (depth > 8) return refused("sets nested deeper than eight");
    ++at_;
    const bool negated = at_ < in_.size() && in_[at_] == '^';
    if (negated) ++at_;
    // Parts joined by &&: the text inside the brackets, and complements that came from [^...].
    std::vector<std::string> parts(1);
    std::vector<std::string> excluded;
    bool first = true;
    for (;; first = false) {
      if (at_ >= in_.size()) return refused("a set without its end");
      const char c = in_[at_];
      if (c == ']' && !first) break;
      if (c == ']') {
        parts.back() += "\\]";
        ++at_;
      } else if (in_.substr(at_, 2) == "[:") {
        const std::size_t end = in_.find(":]", at_);
        if (end == std::string_view::npos) return refused("a POSIX class without its end");
        parts.back() += in_.substr(at_, end + 2 - at_);
        at_ = end + 2;
      } else if (in_.substr(at_, 2) == "&&") {
        at_ += 2;
        if (in_.substr(at_, 2) == "[^") {
          QUELL_TRY(inner, character_set(depth + 1));
          if (inner.rfind("[^", 0) != 0) return refused("this intersection of sets");
          excluded.push_back("[" + inner.substr(2));
          if (at_ < in_.size() && in_[at_] != ']' && in_.substr(at_, 2) != "&&") {
            return refused("this intersection of sets");
          }
        } else {
          parts.emplace_back();
        }
      } else if (c == '[') {
        QUELL_TRY(inner, character_set(depth + 1));
        if (inner.rfind("[^", 0) == 0 || inner[0] != '[')
          return refused("a negated set inside a set");
        parts.back() += inner.substr(1, inner.size() - 2);
      } else if (c == '\\') {
        QUELL_TRY(escape(parts.back(), /*in_set=*/true));
      } else {
        parts.back().push_back(c);
        ++at_;
      }
    }
    ++at_;
    if (parts.size() == 1 && excluded.empty()) {
      return "[" + std::string(negated ? "^" : "") + parts[0] + "]";
    }
    if (depth > 0) return refused("an intersection inside a set");
    for (const std::string& part : parts) {
      if (part.empty()) return refused("an empty side of an intersection");
    }
    std::string all = "(?:";
    for (const std::string& set : excluded) all += "(?!" + set + ")";
    for (std::size_t i = 1; i < parts.size(); ++i) all += "(?=[" + parts[i] + "])";
    all += "[" + parts[0] + "])";
    if (!negated) return all;
    return "(?:(?!" + all + ")(?s:.))";
  }

  std::string_view in_;
  const std::string& file_;
  std::size_t at_ = 0;
};

}  // namespace

Result<std::string> translate_pattern(std::string_view pattern, const std::string& file) {
  return Translation(pattern, file).run();
}

}  // namespace quell::tokenizer
