// SPDX-License-Identifier: Apache-2.0

// The wire format is a sequence of (field number << 3 | wire type) and a value: 0 a varint, 1 eight
// bytes, 2 a length and that many bytes, 5 four bytes. Lengths are checked against what is left.

#include "tokenizer/sentencepiece_file.hpp"

#include <bit>
#include <cmath>

#include "tokenizer/unicode.hpp"

namespace quell::tokenizer {
namespace {

constexpr std::size_t kMaxPieces = 2'000'000;
constexpr std::size_t kMaxPieceText = 1024;  // bytes; real pieces stay below a hundred

struct Field {
  std::uint64_t number = 0;
  unsigned wire = 0;
  std::uint64_t value = 0;  // wire types 0, 1 and 5
  std::string_view bytes;   // wire type 2
};

class Message {
 public:
  Message(std::string_view bytes, const std::string& file) : bytes_(bytes), file_(file) {}

  bool has_more() const noexcept { return at_ < bytes_.size(); }

  Result<Field> next() {
    QUELL_TRY(key, varint());
    Field field;
    field.number = key >> 3;
    field.wire = static_cast<unsigned>(key & 7);
    switch (field.wire) {
      case 0: {
        QUELL_TRY(value, varint());
        field.value = value;
        return field;
      }
      case 1:
      case 5: {
        const std::size_t count = field.wire == 1 ? 8 : 4;
        if (bytes_.size() - at_ < count) return damaged("a number is cut off");
        for (std::size_t k = count; k-- > 0;) {
          field.value = field.value << 8 | static_cast<unsigned char>(bytes_[at_ + k]);
        }
        at_ += count;
        return field;
      }
      case 2: {
        QUELL_TRY(length, varint());
        if (length > bytes_.size() - at_) {
          return damaged("a field says it has " + std::to_string(length) + " bytes, but " +
                         std::to_string(bytes_.size() - at_) + " are left");
        }
        field.bytes = bytes_.substr(at_, static_cast<std::size_t>(length));
        at_ += static_cast<std::size_t>(length);
        return field;
      }
      default:
        return damaged("a field of wire type " + std::to_string(field.wire));
    }
  }

  Error damaged(const std::string& what) const {
    return Error{ErrorCode::parse, file_ + ": not a SentencePiece model: " + what, file_};
  }

 private:
  Result<std::uint64_t> varint() {
    std::uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      if (at_ >= bytes_.size()) return damaged("a number is cut off");
      const auto byte = static_cast<unsigned char>(bytes_[at_++]);
      value |= static_cast<std::uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return value;
    }
    return damaged("a number of more than 64 bits");
  }

  std::string_view bytes_;
  const std::string& file_;
  std::size_t at_ = 0;
};

/// A signed 32-bit number, which the wire stores in 64 bits.
std::int32_t signed_value(const Field& field) noexcept {
  return static_cast<std::int32_t>(static_cast<std::uint32_t>(field.value & 0xFFFFFFFFu));
}

Result<SentencePieceFile::Piece> parse_piece(std::string_view bytes, const std::string& file) {
  SentencePieceFile::Piece piece;
  Message message(bytes, file);
  while (message.has_more()) {
    QUELL_TRY(field, message.next());
    if (field.number == 1 && field.wire == 2) {
      piece.text = field.bytes;
    } else if (field.number == 2 && field.wire == 5) {
      piece.score = std::bit_cast<float>(static_cast<std::uint32_t>(field.value));
    } else if (field.number == 3 && field.wire == 0) {
      if (field.value < 1 || field.value > 6) {
        return message.damaged("a piece of type " + std::to_string(field.value));
      }
      piece.type = static_cast<SentencePieceFile::Type>(field.value);
    }
  }
  if (piece.text.empty() || piece.text.size() > kMaxPieceText || !is_utf8(piece.text)) {
    return message.damaged("a piece of " + std::to_string(piece.text.size()) +
                           " bytes, expected 1 to 1024 bytes of UTF-8");
  }
  if (!std::isfinite(piece.score)) return message.damaged("a score that is not finite");
  return piece;
}

Status parse_trainer(std::string_view bytes, const std::string& file, SentencePieceFile& out) {
  Message message(bytes, file);
  while (message.has_more()) {
    QUELL_TRY(field, message.next());
    if (field.number == 44 && field.wire == 2) {
      out.unknown_surface = sanitize(field.bytes);
    }
    if (field.wire != 0) continue;
    switch (field.number) {
      case 3:
        if (field.value < 1 || field.value > 4) {
          return message.damaged("a model of type " + std::to_string(field.value));
        }
        out.kind = static_cast<SentencePieceFile::Kind>(field.value);
        break;
      case 24:
        out.space_as_suffix = field.value != 0;
        break;
      case 35:
        out.byte_fallback = field.value != 0;
        break;
      case 41:
        out.bos = signed_value(field);
        break;
      case 42:
        out.eos = signed_value(field);
        break;
      default:
        break;
    }
  }
  return ok();
}

Status parse_normalizer(std::string_view bytes, const std::string& file, SentencePieceFile& out) {
  Message message(bytes, file);
  while (message.has_more()) {
    QUELL_TRY(field, message.next());
    if (field.number == 2 && field.wire == 2) out.charsmap = field.bytes;
    if (field.wire != 0) continue;
    if (field.number == 3) out.add_dummy_prefix = field.value != 0;
    if (field.number == 4) out.remove_extra_spaces = field.value != 0;
    if (field.number == 5) out.escape_spaces = field.value != 0;
  }
  return ok();
}

}  // namespace

Result<SentencePieceFile> parse_sentencepiece(std::string_view bytes, const std::string& file) {
  SentencePieceFile out;
  Message message(bytes, file);
  while (message.has_more()) {
    QUELL_TRY(field, message.next());
    if (field.wire != 2) continue;
    if (field.number == 1) {
      if (out.pieces.size() >= kMaxPieces) return message.damaged("more than 2000000 pieces");
      QUELL_TRY(piece, parse_piece(field.bytes, file));
      out.pieces.push_back(std::move(piece));
    } else if (field.number == 2) {
      QUELL_TRY(parse_trainer(field.bytes, file, out));
    } else if (field.number == 3) {
      QUELL_TRY(parse_normalizer(field.bytes, file, out));
    }
  }
  if (out.pieces.empty()) return message.damaged("no pieces");
  return out;
}

}  // namespace quell::tokenizer
