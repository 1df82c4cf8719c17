// SPDX-License-Identifier: Apache-2.0
#pragma once

// What a Tokenizer is made of, whichever file it came from. Everything but the pool of scratch
// memory is fixed once it is made.

#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "quell/core/result.hpp"
#include "quell/tokenizer/tokenizer.hpp"
#include "tokenizer/added_tokens.hpp"
#include "tokenizer/decoder.hpp"
#include "tokenizer/model.hpp"
#include "tokenizer/normalizers.hpp"
#include "tokenizer/pre_tokenizers.hpp"
#include "tokenizer/token_template.hpp"

namespace quell::tokenizer {

/// Working memory of one call. Calls take one from the pool and give it back, so there are never
/// more than calls at the same time, and the words of one text are still cached for the next.
struct CallScratch {
  PreTokenizer::Scratch cut;
  ModelScratch model;
};

class ScratchPool {
 public:
  std::unique_ptr<CallScratch> take() {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (free_.empty()) return std::make_unique<CallScratch>();
    std::unique_ptr<CallScratch> scratch = std::move(free_.back());
    free_.pop_back();
    return scratch;
  }
  void give_back(std::unique_ptr<CallScratch> scratch) {
    scratch->model.trim();
    const std::lock_guard<std::mutex> lock(mutex_);
    free_.push_back(std::move(scratch));
  }

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<CallScratch>> free_;
};

/// The parts of a tokenizer.
struct Parts {
  std::unique_ptr<Model> model;
  Normalizer normalizer;
  AddedTokens added;
  PreTokenizer pre_tokenizer;
  TokenTemplate post_processor;
  Decoder decoder;
};

struct Tokenizer::State {
  Parts parts;
  mutable ScratchPool scratch;
};

/// Reads tokenizer.json at `path`, with the tokens around a text from tokenizer_config.json beside
/// it where the file itself says nothing about them.
Result<Parts> read_tokenizer_json(const std::filesystem::path& path);
/// Reads tokenizer.model at `path` (SentencePiece).
Result<Parts> read_sentencepiece(const std::filesystem::path& path);

}  // namespace quell::tokenizer
