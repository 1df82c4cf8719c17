// SPDX-License-Identifier: Apache-2.0

// Matching is compiled (JIT) where the platform has it. The compiled code keeps its backtracking on
// a stack of its own; when 32 KiB do not suffice a larger one is made once, and when that does not
// suffice either the interpreter, which backtracks on the heap, takes over. The patterns in use
// need none of that: their repeats are of single characters and give back nothing, so ten megabytes
// without a space are one pass.

#define PCRE2_CODE_UNIT_WIDTH 8
#include "tokenizer/split_pattern.hpp"

#include <pcre2.h>

#include <algorithm>
#include <utility>

#include "tokenizer/unicode.hpp"

namespace quell::tokenizer {
namespace {

// Backtracking points of one match: ten million, or 64 for each byte of the text. Patterns in use
// give back a character at a time over a run that can be as long as the text; a pattern that needs
// more than a few passes over it is exponential, and ten million points take a tenth of a second.
constexpr std::size_t kMatchLimit = 10'000'000, kMatchLimitPerByte = 64;
// Memory of the interpreter in KiB: 1 GiB, so that a hostile pattern is an error and not a machine
// without memory.
constexpr std::uint32_t kHeapLimit = 1u << 20;
constexpr std::size_t kStackStart = 64u << 10, kStackMax = 64u << 20;

std::string pcre2_message(int code) {
  PCRE2_UCHAR text[256];
  if (pcre2_get_error_message(code, text, sizeof text) < 0) return "unknown error";
  return reinterpret_cast<const char*>(text);
}

}  // namespace

bool is_script_name(std::string_view name) {
  const std::string pattern = "\\p{sc:" + std::string(name) + "}";
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                                   PCRE2_UTF | PCRE2_UCP, &error, &offset, nullptr);
  pcre2_code_free(code);
  return code != nullptr;
}

struct SplitPattern::Code {
  pcre2_code* code = nullptr;
  std::string file, pattern;
  ~Code() { pcre2_code_free(code); }
};

struct MatchScratch::State {
  pcre2_match_data* match = pcre2_match_data_create(1, nullptr);
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  pcre2_jit_stack* stack = nullptr;

  State() {
    if (context == nullptr) return;
    pcre2_set_depth_limit(context, 0xFFFFFFFFu);  // the limit on the heap is the one that counts
    pcre2_set_heap_limit(context, kHeapLimit);
  }
  ~State() {
    pcre2_jit_stack_free(stack);
    pcre2_match_context_free(context);
    pcre2_match_data_free(match);
  }
};

MatchScratch::MatchScratch() : state_(std::make_unique<State>()) {}
MatchScratch::~MatchScratch() = default;

Result<SplitPattern> SplitPattern::compile(std::string_view pattern, const std::string& file) {
  QUELL_TRY(translated, translate_pattern(pattern, file));
  auto code = std::make_shared<Code>();
  code->file = file;
  code->pattern = pattern;
  int error = 0;
  PCRE2_SIZE offset = 0;
  // MULTILINE: in the reference's dialect ^ and $ always stand for the ends of lines.
  code->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                             PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C,
                             &error, &offset, nullptr);
  if (code->code == nullptr) {
    return Error{ErrorCode::parse,
                 file + ": the pattern " + std::string(pattern.substr(0, 200)) +
                     " is not a regular expression: " + pcre2_message(error) + " at byte " +
                     std::to_string(offset) + " of its translation " + translated.substr(0, 200),
                 file};
  }
  // Where there is no JIT, pcre2_match interprets; nothing else changes.
  pcre2_jit_compile(code->code, PCRE2_JIT_COMPLETE);
  return SplitPattern(std::shared_ptr<const Code>(std::move(code)));
}

Result<std::optional<Span>> SplitPattern::find(std::string_view text, std::size_t from,
                                               MatchScratch& scratch) const {
  MatchScratch::State& state = *scratch.state_;
  if (state.match == nullptr || state.context == nullptr) {
    return Error{ErrorCode::resource, "no memory for matching a pattern"};
  }
  pcre2_set_match_limit(state.context,
                        static_cast<std::uint32_t>(std::min<std::size_t>(
                            0xFFFFFFFFu, std::max(kMatchLimit, text.size() * kMatchLimitPerByte))));
  // PCRE2 refuses a null pointer, which an empty view may have.
  const char* subject = text.data() != nullptr ? text.data() : "";
  const auto match = [&](std::uint32_t options) {
    return pcre2_match(code_->code, reinterpret_cast<PCRE2_SPTR>(subject), text.size(), from,
                       PCRE2_NO_UTF_CHECK | options, state.match, state.context);
  };
  int result = match(0);
  if (result == PCRE2_ERROR_JIT_STACKLIMIT && state.stack == nullptr) {
    state.stack = pcre2_jit_stack_create(kStackStart, kStackMax, nullptr);
    if (state.stack != nullptr) {
      pcre2_jit_stack_assign(state.context, nullptr, state.stack);
      result = match(0);
    }
  }
  if (result == PCRE2_ERROR_JIT_STACKLIMIT) result = match(PCRE2_NO_JIT);
  if (result == PCRE2_ERROR_NOMATCH) return std::optional<Span>();
  if (result < 0) {
    return Error{ErrorCode::resource,
                 code_->file + ": matching the pattern " + code_->pattern.substr(0, 200) + " on " +
                     std::to_string(text.size()) + " bytes failed at byte " + std::to_string(from) +
                     ": " + pcre2_message(result),
                 code_->file};
  }
  const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(state.match);
  return std::optional<Span>(Span{ends[0], ends[1]});
}

Result<std::optional<Span>> MatchWalk::next() {
  while (from_ <= text_.size()) {
    QUELL_TRY(found, pattern_.find(text_, from_, scratch_));
    if (!found) break;
    if (found->begin == found->end && last_end_ == found->end) {
      from_ += from_ < text_.size() ? character_at(text_, from_).bytes : 1;
      continue;
    }
    from_ = found->end;
    last_end_ = found->end;
    return found;
  }
  from_ = text_.size() + 1;
  return std::optional<Span>();
}

}  // namespace quell::tokenizer
