// SPDX-License-Identifier: Apache-2.0

// What the reference's regular expressions (Oniguruma, Ruby syntax) spell differently from PCRE2:
//
//   reference            PCRE2                          why
//   \s \S                \p{White_Space}, negated       PCRE2's \s also takes U+180E
//   \w \W                letters, marks, Nd, Pc          PCRE2's \w is letters, numbers and _; the
//                                                       reference also takes the raised digits and
//                                                       fractions of Latin-1, but not inside sets
//   \b \B                lookarounds on that \w
//   \h \H                [0-9A-Fa-f], negated           a hexadecimal digit, not a horizontal space
//   \uHHHH               \x{HHHH}
//   \p{Han}              \p{sc:Han}                     the script, without its extensions
//   \p{Letter}           \p{L}                          long names
//   [[:alpha:]]          \p{Alphabetic}
//   [a[bc]]              [abc]                          a set inside a set is a union
//   [ab&&[^b]]           (?:(?![b])[ab])                intersection
//   (?m: )               (?s: )                         the dot that takes a newline
//
// Everything else is passed on. A set with a negated set inside, and other rare forms, are refused
// by name instead of being matched differently. The table was found by matching every code point of
// Unicode 14 with both engines.

#include <algorithm>
#include <span>
#include <vector>

#include "tokenizer/split_pattern.hpp"

namespace quell::tokenizer {
namespace {

constexpr std::string_view kWord = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}";
constexpr std::string_view kWordAlone =
    "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{B2}\\x{B3}\\x{B9}\\x{BC}-\\x{BE}";

struct Name {
  std::string_view from, to;
};

// Names of properties without spaces, underscores and capitals, and what PCRE2 calls them.
constexpr Name kProperties[] = {{"letter", "L"},
                                {"mark", "M"},
                                {"number", "N"},
                                {"punctuation", "P"},
                                {"symbol", "S"},
                                {"separator", "Z"},
                                {"other", "C"},
                                {"uppercaseletter", "Lu"},
                                {"lowercaseletter", "Ll"},
                                {"titlecaseletter", "Lt"},
                                {"modifierletter", "Lm"},
                                {"otherletter", "Lo"},
                                {"nonspacingmark", "Mn"},
                                {"spacingmark", "Mc"},
                                {"enclosingmark", "Me"},
                                {"decimalnumber", "Nd"},
                                {"letternumber", "Nl"},
                                {"othernumber", "No"},
                                {"lc", "L&"},
                                {"casedletter", "L&"},
                                {"alpha", "Alphabetic"},
                                {"digit", "Nd"},
                                {"space", "White_Space"},
                                {"punct", "P"},
                                {"upper", "Uppercase"},
                                {"lower", "Lowercase"},
                                {"cntrl", "Cc"}};

// Insides of sets for POSIX classes.
constexpr Name kPosix[] = {{"alpha", "\\p{Alphabetic}"}, {"alnum", "\\p{Alphabetic}\\p{Nd}"},
                           {"digit", "\\p{Nd}"},         {"space", "\\p{White_Space}"},
                           {"blank", "\\p{Zs}\\t"},      {"cntrl", "\\p{Cc}"},
                           {"punct", "\\p{P}\\p{S}"},    {"upper", "\\p{Uppercase}"},
                           {"lower", "\\p{Lowercase}"},  {"word", kWord},
                           {"xdigit", "0-9A-Fa-f"}};

std::string_view find_name(std::span<const Name> names, std::string_view from) noexcept {
  for (const Name& name : names) {
    if (name.from == from) return name.to;
  }
  return {};
}

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
        return put(in_set ? std::string(kWord) : "[" + std::string(kWordAlone) + "]");
      case 'W':
        if (in_set) return refused("\\W inside a set");
        return put("[^" + std::string(kWordAlone) + "]");
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
      case 'P':
        return property(out);
      case 'b':
      case 'B':
        // PCRE2's word boundary follows its own idea of a word.
        if (!in_set) {
          const std::string word = "[" + std::string(kWordAlone) + "]";
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

  /// \p{name}, \P{name} or \p{^name}.
  Status property(std::string& out) {
    const std::size_t end = in_.find('}', at_);
    if (in_.substr(at_ + 2, 1) != "{" || end == std::string_view::npos) {
      return refused("\\p without a name in braces");
    }
    std::string_view name = in_.substr(at_ + 3, end - at_ - 3);
    bool negated = in_[at_ + 1] == 'P';
    if (name.starts_with("^")) {
      negated = !negated;
      name.remove_prefix(1);
    }
    std::string plain;
    for (const char c : name) {
      const bool capital = c >= 'A' && c <= 'Z';
      if (c != ' ' && c != '_' && c != '-')
        plain.push_back(static_cast<char>(capital ? c + 32 : c));
    }
    if (plain == "word" || plain == "alnum" || plain == "graph" || plain == "print" ||
        plain == "xdigit" || plain == "blank" || plain.starts_with("in")) {
      return refused("the property " + std::string(name));
    }
    const std::string_view renamed = find_name(kProperties, plain);
    if (!renamed.empty()) name = renamed;
    out += negated ? "\\P{" : "\\p{";
    // PCRE2 takes the name of a script for the script with its extensions unless told otherwise.
    if (is_script_name(name)) out += "sc:";
    out += std::string(name) + "}";
    at_ = end + 1;
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
        const std::string_view inside = find_name(kPosix, in_.substr(at_ + 2, end - at_ - 2));
        if (inside.empty()) return refused("this POSIX class");
        parts.back() += inside;
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
