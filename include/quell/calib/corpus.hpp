// SPDX-License-Identifier: Apache-2.0
#pragma once

// A corpus: token sequences without padding. Text is cut into windows (or documents), each an
// independent sequence that starts as the model expects; its first token is context and is never
// scored.

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "quell/core/result.hpp"
#include "quell/tokenizer/tokenizer.hpp"

namespace quell::calib {

/// Sequences one after the other: ids of sequence s start at the sum of the lengths before it.
struct Corpus {
  std::vector<std::int32_t> ids;
  std::vector<std::uint32_t> lengths;
  std::vector<std::string> notes;  // things a user should know (bytes replaced, sequences cut)

  std::size_t sequences() const noexcept { return lengths.size(); }
  /// Tokens that have a token before them in their sequence.
  std::uint64_t scored() const noexcept;
};

struct CutOptions {
  std::uint32_t length = 2048;   // tokens of a window, or of a document at most; >= 2
  bool documents = false;        // one sequence per document instead of windows of the stream
  std::uint64_t max_tokens = 0;  // stop after this many ids; 0 = all
  /// For encoders: every window is a text of its own, closed as the tokenizer closes one, a cut
  /// text keeps that end, and a sequence may have one token.
  bool closed = false;
};

/// Reads UTF-8 files and cuts them. With `documents`, documents are what stands between lines that
/// hold only <|endoftext|> (without their last newline), or the "text" fields of a .jsonl file.
/// Errors: missing, resource, parse (binary data, with the offset), usage (too few tokens, with the
/// numbers).
Result<Corpus> read_text(std::span<const std::filesystem::path> files,
                         const tokenizer::Tokenizer& tokenizer, const CutOptions& options);

/// Token ids from an int32 .npy file of shape [T]: windows of options.length, or sequences of the
/// given lengths (int32 .npy [n] that sum to T). Errors: an id outside [0, vocabulary) with its
/// position, a length of 0 or above max_positions.
Result<Corpus> read_ids(const std::filesystem::path& ids,
                        const std::optional<std::filesystem::path>& lengths,
                        std::uint32_t vocabulary, std::uint32_t max_positions,
                        const CutOptions& options);

/// `count` sequences drawn without replacement by `seed`, in their original order; all of them if
/// there are no more (with a note).
Corpus sample(Corpus corpus, std::size_t count, std::uint64_t seed);

/// The first whole sequences, until one more would exceed `tokens`; the first of all is cut to that
/// (at least 2) instead. Notes are left behind.
Corpus beginning(const Corpus& corpus, std::uint64_t tokens);

/// A run of whole sequences that is processed together.
struct Chunk {
  std::size_t first_sequence = 0, sequences = 0;
  std::size_t first_token = 0, tokens = 0;
};
inline constexpr std::size_t kChunkTokens = 2048;
/// Cuts a corpus into chunks of at most kChunkTokens tokens (a longer sequence is a chunk of its
/// own). The cut depends on the corpus alone, never on memory or threads: sums are formed chunk by
/// chunk.
std::vector<Chunk> chunks(const Corpus& corpus);

/// SHA-256 over lengths and ids: the identity of calibration data.
std::string fingerprint(const Corpus& corpus);

}  // namespace quell::calib
