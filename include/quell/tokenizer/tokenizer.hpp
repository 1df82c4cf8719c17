// SPDX-License-Identifier: Apache-2.0
#pragma once

// Text to token ids and back, with the same ids as the reference implementations: tokenizer.json
// (byte-level BPE, SentencePiece-style BPE with byte fallback, Unigram, WordPiece), or
// tokenizer.model of SentencePiece (BPE, Unigram) in folders that have only that.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "quell/core/result.hpp"

namespace quell::tokenizer {

class Tokenizer {
 public:
  /// Reads tokenizer.json of a model folder, else its tokenizer.model (and add_bos_token and
  /// add_eos_token of tokenizer_config.json where the post-processor is silent). Errors: missing,
  /// parse, resource, unsupported (a component by its name).
  static Result<Tokenizer> read(const std::filesystem::path& folder);

  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  /// Ids of `text`, which is UTF-8 (malformed bytes become U+FFFD). `add_special`: with what the
  /// model expects around a text (BOS, EOS). Safe to call from several threads. Errors: missing (a
  /// character without an id in a vocabulary that has no unknown token), resource (a pattern of the
  /// file that backtracks without end, a piece of 2 GiB); never for what a text holds.
  Result<std::vector<std::int32_t>> encode(std::string_view text, bool add_special = true) const;
  /// The ids of a text with what the model expects around it: encode(text) is
  /// with_special(encode(text, false)). For callers that cut a text before it is closed.
  std::vector<std::int32_t> with_special(std::vector<std::int32_t> ids) const;
  /// Text of the ids; special tokens give nothing unless asked for.
  std::string decode(std::span<const std::int32_t> ids, bool keep_special = false) const;

  std::uint32_t size() const noexcept;  // ids are below this
  /// The token's own text as stored, or empty for an id that is not used.
  std::string_view piece(std::int32_t id) const noexcept;
  std::optional<std::int32_t> id(std::string_view piece) const noexcept;
  /// What encode puts in front of a text, if anything.
  std::optional<std::int32_t> bos() const noexcept;
  std::string_view model_type() const noexcept;  // "BPE", "Unigram", ...

 private:
  struct State;
  explicit Tokenizer(std::unique_ptr<State> state) noexcept;
  std::unique_ptr<State> state_;
};

}  // namespace quell::tokenizer
