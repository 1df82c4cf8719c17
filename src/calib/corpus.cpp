// SPDX-License-Identifier: Apache-2.0

// Text files become token sequences here. The stream of a file is encoded once and then cut, so
// that window borders do not disturb the tokenizer; documents are encoded one by one.

#include "quell/calib/corpus.hpp"

#include <algorithm>
#include <fstream>
#include <numeric>

#include "quell/core/random.hpp"
#include "quell/io/json.hpp"
#include "quell/io/npy.hpp"
#include "quell/io/output.hpp"

namespace quell::calib {
namespace {

constexpr std::uint64_t kMaxTextBytes = std::uint64_t{4} << 30;  // a corpus, not a training set

Result<std::string> read_file(const std::filesystem::path& path) {
  std::error_code failure;
  if (!std::filesystem::exists(path, failure)) {
    return Error{ErrorCode::missing, path.string() + ": no such file", path.string()};
  }
  if (!std::filesystem::is_regular_file(path, failure)) {
    return Error{ErrorCode::usage, path.string() + ": not a regular file; give a text file",
                 path.string()};
  }
  const std::uintmax_t size = std::filesystem::file_size(path, failure);
  if (failure || size > kMaxTextBytes) {
    return Error{ErrorCode::usage,
                 path.string() + ": " + std::to_string(size) + " bytes of text; at most " +
                     std::to_string(kMaxTextBytes) + " are read, give a part of it",
                 path.string()};
  }
  std::ifstream stream(path, std::ios::binary);
  std::string text(static_cast<std::size_t>(size), '\0');
  stream.read(text.data(), static_cast<std::streamsize>(size));
  if (!stream || stream.gcount() != static_cast<std::streamsize>(size)) {
    return Error{ErrorCode::resource, path.string() + ": could not be read", path.string()};
  }
  return text;
}

// Text does not hold NUL bytes; files that do are weights, images or UTF-16, and a model that is
// calibrated on them would be ruined without a word.
Status check_is_text(const std::string& text, const std::filesystem::path& path) {
  const std::size_t nul = text.find('\0');
  if (nul == std::string::npos) return ok();
  return Error{ErrorCode::parse,
               path.string() + ": not UTF-8 text: a NUL byte at offset " + std::to_string(nul) +
                   "; convert the file to UTF-8 text",
               path.string()};
}

// The text between lines that hold only the marker. The newline that closes a document belongs to
// the marker, not to the document.
std::vector<std::string_view> split_documents(std::string_view text) {
  constexpr std::string_view kMarker = "<|endoftext|>";
  std::vector<std::string_view> documents;
  std::size_t begin = 0;
  std::size_t line = 0;
  const auto close = [&](std::size_t end) {
    std::string_view document = text.substr(begin, end - begin);
    if (!document.empty() && document.back() == '\n') document.remove_suffix(1);
    if (!document.empty() && document.back() == '\r') document.remove_suffix(1);
    if (!document.empty()) documents.push_back(document);
  };
  while (line < text.size()) {
    std::size_t end = text.find('\n', line);
    if (end == std::string_view::npos) end = text.size();
    std::string_view content = text.substr(line, end - line);
    if (!content.empty() && content.back() == '\r') content.remove_suffix(1);
    if (content == kMarker) {
      close(line);
      begin = end < text.size() ? end + 1 : end;
    }
    line = end + 1;
  }
  if (begin < text.size()) close(text.size());
  return documents;
}

Result<std::vector<std::string>> jsonl_documents(const std::string& text,
                                                 const std::filesystem::path& path) {
  std::vector<std::string> documents;
  std::size_t begin = 0;
  for (std::size_t number = 1; begin < text.size(); ++number) {
    std::size_t end = text.find('\n', begin);
    if (end == std::string::npos) end = text.size();
    const std::string_view line = std::string_view(text).substr(begin, end - begin);
    begin = end + 1;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const std::string place = path.string() + ", line " + std::to_string(number);
    QUELL_TRY(json, io::parse_json(line, place));
    const io::Json* field = json.find("text");
    if (field == nullptr || !field->is(io::Json::Kind::string)) {
      return Error{ErrorCode::parse, place + ": no string field \"text\"", path.string()};
    }
    if (!field->as_string().empty()) documents.push_back(field->as_string());
  }
  return documents;
}

// True if not even one more token between `around` others would fit.
bool is_full(const Corpus& corpus, const CutOptions& options, std::size_t around = 0) {
  return options.max_tokens != 0 && corpus.ids.size() + around >= options.max_tokens;
}

// Appends one sequence, shortened so that the corpus keeps to max_tokens; a sequence of one token
// predicts nothing and is left out, except for an encoder.
void append(Corpus& corpus, std::span<const std::int32_t> ids, const CutOptions& options) {
  std::size_t length = std::min<std::size_t>(ids.size(), options.length);
  if (options.max_tokens != 0) {
    length = std::min<std::size_t>(length, options.max_tokens - corpus.ids.size());
  }
  if (length < (options.closed ? 1u : 2u)) return;
  corpus.ids.insert(corpus.ids.end(), ids.begin(),
                    ids.begin() + static_cast<std::ptrdiff_t>(length));
  corpus.lengths.push_back(static_cast<std::uint32_t>(length));
}

// Windows of the stream, each opened by what the tokenizer puts in front of a text.
void append_windows(Corpus& corpus, std::span<const std::int32_t> stream,
                    std::optional<std::int32_t> bos, const CutOptions& options) {
  const std::size_t body = options.length - (bos ? 1 : 0);
  std::vector<std::int32_t> window;
  for (std::size_t begin = 0; begin < stream.size() && !is_full(corpus, options); begin += body) {
    const auto part = stream.subspan(begin, std::min(body, stream.size() - begin));
    window.clear();
    if (bos) window.push_back(*bos);
    window.insert(window.end(), part.begin(), part.end());
    append(corpus, window, options);
  }
}

// Sequences of an encoder: parts of `ids` that leave room for the `around` tokens which the
// tokenizer puts around a text. Only the first part, unless `all` are wanted.
void append_closed(Corpus& corpus, std::span<const std::int32_t> ids,
                   const tokenizer::Tokenizer& tokenizer, std::size_t around, bool all,
                   const CutOptions& options) {
  while (!ids.empty() && !is_full(corpus, options, around)) {
    std::size_t body = std::min<std::size_t>(ids.size(), options.length - around);
    if (options.max_tokens != 0) {
      body = std::min<std::size_t>(body, options.max_tokens - corpus.ids.size() - around);
    }
    const auto part = ids.first(body);
    append(corpus, tokenizer.with_special({part.begin(), part.end()}), options);
    if (!all) return;
    ids = ids.subspan(body);
  }
}

Status check_not_empty(const Corpus& corpus, const std::string& source) {
  if (!corpus.lengths.empty()) return ok();
  return Error{ErrorCode::parse,
               source + ": need at least 2 tokens in a sequence, found fewer; give more text",
               source};
}

}  // namespace

std::uint64_t Corpus::scored() const noexcept {
  return ids.size() - lengths.size();
}

Result<Corpus> read_text(std::span<const std::filesystem::path> files,
                         const tokenizer::Tokenizer& tokenizer, const CutOptions& options) {
  if (options.length < 2) {
    return Error{ErrorCode::usage, "a sequence needs at least 2 tokens, " +
                                       std::to_string(options.length) + " asked for"};
  }
  const std::size_t around = options.closed ? tokenizer.with_special({}).size() : 0;
  if (options.length <= around) {
    return Error{ErrorCode::usage, "a text needs at least " + std::to_string(around + 1) +
                                       " tokens, of which the tokenizer adds " +
                                       std::to_string(around) + "; " +
                                       std::to_string(options.length) + " asked for"};
  }
  Corpus corpus;
  const auto add_document = [&](std::string_view document) -> Status {
    QUELL_TRY(ids, tokenizer.encode(document, !options.closed));
    if (options.closed) {
      append_closed(corpus, ids, tokenizer, around, /*all=*/false, options);
    } else {
      append(corpus, ids, options);
    }
    return ok();
  };
  const auto add_stream = [&](std::string_view text) -> Status {
    QUELL_TRY(ids, tokenizer.encode(text, false));
    if (options.closed) {
      append_closed(corpus, ids, tokenizer, around, /*all=*/true, options);
    } else {
      append_windows(corpus, ids, tokenizer.bos(), options);
    }
    return ok();
  };
  for (const std::filesystem::path& path : files) {
    if (is_full(corpus, options, around)) break;
    QUELL_TRY(text, read_file(path));
    QUELL_TRY(check_is_text(text, path));
    const std::size_t before = corpus.lengths.size();
    if (path.extension() == ".jsonl") {
      QUELL_TRY(documents, jsonl_documents(text, path));
      if (options.documents) {
        for (const std::string& document : documents) {
          if (is_full(corpus, options, around)) break;
          QUELL_TRY(add_document(document));
        }
      } else {
        std::string joined;
        for (const std::string& document : documents) joined.append(document).push_back('\n');
        QUELL_TRY(add_stream(joined));
      }
    } else if (options.documents) {
      for (const std::string_view document : split_documents(text)) {
        if (is_full(corpus, options, around)) break;
        QUELL_TRY(add_document(document));
      }
    } else {
      QUELL_TRY(add_stream(text));
    }
    if (corpus.lengths.size() == before && !is_full(corpus, options, around)) {
      return check_not_empty({}, path.string()).error();
    }
  }
  QUELL_TRY(check_not_empty(corpus, "the calibration or evaluation text"));
  return corpus;
}

Result<Corpus> read_ids(const std::filesystem::path& ids_path,
                        const std::optional<std::filesystem::path>& lengths_path,
                        std::uint32_t vocabulary, std::uint32_t max_positions,
                        const CutOptions& options) {
  const std::string name = ids_path.string();
  QUELL_TRY(array, io::read_npy_int32(ids_path));
  if (array.shape.size() != 1) {
    return Error{ErrorCode::parse,
                 name + ": " + std::to_string(array.shape.size()) + " dimensions, expected 1 ([T])",
                 name};
  }
  for (std::size_t i = 0; i < array.values.size(); ++i) {
    const std::int32_t id = array.values[i];
    if (id < 0 || static_cast<std::uint32_t>(id) >= vocabulary) {
      return Error{ErrorCode::parse,
                   name + ": token id " + std::to_string(id) + " at position " + std::to_string(i) +
                       " is outside the vocabulary of " + std::to_string(vocabulary) +
                       "; were these ids made for another model?",
                   name};
    }
  }
  Corpus corpus;
  const std::span<const std::int32_t> ids = array.values;
  if (!lengths_path) {
    append_windows(corpus, ids, std::nullopt, options);
    QUELL_TRY(check_not_empty(corpus, name));
    return corpus;
  }
  const std::string lengths_name = lengths_path->string();
  QUELL_TRY(lengths, io::read_npy_int32(*lengths_path));
  std::uint64_t total = 0;
  for (std::size_t i = 0; i < lengths.values.size(); ++i) {
    const std::int32_t length = lengths.values[i];
    if (length < 1 || static_cast<std::uint32_t>(length) > max_positions) {
      return Error{ErrorCode::parse,
                   lengths_name + ": length " + std::to_string(length) + " of sequence " +
                       std::to_string(i) + " is outside 1 to " + std::to_string(max_positions) +
                       ", the positions of the model",
                   lengths_name};
    }
    total += static_cast<std::uint32_t>(length);
  }
  if (total != ids.size()) {
    return Error{ErrorCode::parse,
                 lengths_name + ": the lengths sum to " + std::to_string(total) + ", but " + name +
                     " holds " + std::to_string(ids.size()) + " ids",
                 lengths_name};
  }
  std::size_t begin = 0;
  CutOptions whole = options;
  whole.length = std::max(options.length, max_positions);
  for (const std::int32_t length : lengths.values) {
    if (is_full(corpus, options)) break;
    append(corpus, ids.subspan(begin, static_cast<std::size_t>(length)), whole);
    begin += static_cast<std::size_t>(length);
  }
  QUELL_TRY(check_not_empty(corpus, name));
  return corpus;
}

Corpus sample(Corpus corpus, std::size_t count, std::uint64_t seed) {
  if (count >= corpus.sequences()) {
    if (count > corpus.sequences()) {
      corpus.notes.push_back("the text gives " + std::to_string(corpus.sequences()) +
                             " sequences, " + std::to_string(count) +
                             " were asked for: all are used");
    }
    return corpus;
  }
  // The first `count` steps of a Fisher-Yates shuffle of the indices, then back in order.
  std::vector<std::size_t> order(corpus.sequences());
  std::iota(order.begin(), order.end(), std::size_t{0});
  const Random random(seed);
  for (std::size_t i = 0; i < count; ++i) {
    std::swap(order[i], order[i + random.below(i, order.size() - i)]);
  }
  order.resize(count);
  std::sort(order.begin(), order.end());

  std::vector<std::size_t> first(corpus.sequences() + 1, 0);
  for (std::size_t s = 0; s < corpus.sequences(); ++s) first[s + 1] = first[s] + corpus.lengths[s];
  Corpus chosen;
  chosen.notes = std::move(corpus.notes);
  for (const std::size_t s : order) {
    chosen.lengths.push_back(corpus.lengths[s]);
    chosen.ids.insert(chosen.ids.end(), corpus.ids.begin() + static_cast<std::ptrdiff_t>(first[s]),
                      corpus.ids.begin() + static_cast<std::ptrdiff_t>(first[s + 1]));
  }
  return chosen;
}

Corpus beginning(const Corpus& corpus, std::uint64_t tokens) {
  Corpus part;
  std::uint64_t taken = 0;
  for (const std::uint32_t length : corpus.lengths) {
    if (!part.lengths.empty() && taken + length > tokens) break;
    const auto cut = static_cast<std::uint32_t>(
        std::min<std::uint64_t>(length, std::max<std::uint64_t>(tokens, 2)));
    part.lengths.push_back(cut);
    taken += cut;
    if (cut != length) break;  // what follows would begin in the middle
  }
  part.ids.assign(corpus.ids.begin(), corpus.ids.begin() + static_cast<std::ptrdiff_t>(taken));
  return part;
}

std::vector<Chunk> chunks(const Corpus& corpus) {
  std::vector<Chunk> result;
  std::size_t token = 0;
  for (std::size_t s = 0; s < corpus.sequences(); ++s) {
    const std::size_t length = corpus.lengths[s];
    if (result.empty() || result.back().tokens + length > kChunkTokens) {
      result.push_back({s, 0, token, 0});
    }
    result.back().sequences += 1;
    result.back().tokens += length;
    token += length;
  }
  return result;
}

std::string fingerprint(const Corpus& corpus) {
  std::string bytes(reinterpret_cast<const char*>(corpus.lengths.data()),
                    corpus.lengths.size() * sizeof(corpus.lengths[0]));
  bytes.append(reinterpret_cast<const char*>(corpus.ids.data()),
               corpus.ids.size() * sizeof(corpus.ids[0]));
  return io::sha256_hex(bytes);
}

}  // namespace quell::calib
