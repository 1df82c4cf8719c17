// SPDX-License-Identifier: Apache-2.0

// tokenizer.json: an accepted tokenizer encodes any text to ids that it has, and decodes all of
// them.

#include "quell/tokenizer/tokenizer.hpp"

#include <filesystem>

#include "fuzz/target.hpp"

namespace {

using namespace quell;
using fuzz::require;

/// A folder whose tokenizer.json is a file in memory.
class ModelFolder {
 public:
  ModelFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "quell-fuzz-XXXXXX").string();
    require(::mkdtemp(name.data()) != nullptr, "temporary folders can be made");
    path_ = name;
    std::filesystem::create_symlink(file_.path(), path_ / "tokenizer.json");
  }
  ~ModelFolder() {
    std::error_code error;
    std::filesystem::remove_all(path_, error);
  }
  void write(std::string_view text) { file_.write(text); }
  const std::filesystem::path& path() const { return path_; }

 private:
  fuzz::MemoryFile file_;
  std::filesystem::path path_;
};

std::string with_model(std::string_view parts, std::string_view model) {
  std::string text = R"({"version":"1.0","truncation":null,"padding":null,)";
  text += parts;
  text += ",\"model\":";
  text += model;
  return text + "}";
}

constexpr std::string_view kByteLevel =
    R"("added_tokens":[{"id":9,"content":"<|end|>","single_word":false,"lstrip":false,)"
    R"("rstrip":true,"normalized":false,"special":true}],"normalizer":null,)"
    R"("pre_tokenizer":{"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":true},)"
    R"("post_processor":{"type":"ByteLevel","trim_offsets":false},"decoder":{"type":"ByteLevel"})";
constexpr std::string_view kSplit =
    R"("added_tokens":[],"normalizer":{"type":"NFC"},"pre_tokenizer":{"type":"Sequence","pretokenizers":[)"
    R"j({"type":"Split","pattern":{"Regex":"\\p{L}+|\\p{N}{1,3}|[^\\s]+|\\s+(?!\\S)"},"behavior":"Isolated","invert":false},)j"
    R"({"type":"ByteLevel","add_prefix_space":false,"use_regex":false}]},"post_processor":null,"decoder":null)";
constexpr std::string_view kPieces =
    R"("added_tokens":[{"id":0,"content":"<unk>","special":true},{"id":1,"content":"<s>","special":true}],)"
    R"("normalizer":{"type":"Sequence","normalizers":[{"type":"Prepend","prepend":"▁"},)"
    R"({"type":"Replace","pattern":{"String":" "},"content":"▁"}]},"pre_tokenizer":null,)"
    R"("post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>","type_id":0}},)"
    R"({"Sequence":{"id":"A","type_id":0}}],"pair":[],"special_tokens":{"<s>":{"id":"<s>","ids":[1],"tokens":["<s>"]}}},)"
    R"("decoder":{"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"▁"},"content":" "},)"
    R"({"type":"ByteFallback"},{"type":"Fuse"},{"type":"Strip","content":" ","start":1,"stop":0}]})";
constexpr std::string_view kMetaspace =
    R"("added_tokens":[],"normalizer":{"type":"Sequence","normalizers":[{"type":"Lowercase"},{"type":"NFKC"},{"type":"Strip","strip_left":true,"strip_right":true}]},)"
    R"("pre_tokenizer":{"type":"Metaspace","replacement":"▁","add_prefix_space":true,"prepend_scheme":"always"},)"
    R"("post_processor":null,"decoder":{"type":"Metaspace","replacement":"▁","add_prefix_space":true})";
constexpr std::string_view kBert =
    R"("added_tokens":[{"id":0,"content":"[UNK]","special":true}],"normalizer":{"type":"BertNormalizer",)"
    R"("clean_text":true,"handle_chinese_chars":true,"strip_accents":null,"lowercase":true},)"
    R"("pre_tokenizer":{"type":"BertPreTokenizer"},"post_processor":null,"decoder":{"type":"WordPiece","prefix":"##","cleanup":true})";

}  // namespace

std::vector<std::string> quell::fuzz::seeds() {
  return {
      with_model(
          kByteLevel,
          R"({"type":"BPE","dropout":null,"unk_token":null,"vocab":{"a":0,"b":1,"Ġ":2,"ab":3,"Ġab":4},)"
          R"("merges":["a b",["Ġ","ab"]]})"),
      with_model(
          kSplit,
          R"({"type":"BPE","ignore_merges":true,"vocab":{"a":0,"b":1,"ab":2,"1":3},"merges":[["a","b"]]})"),
      with_model(
          kPieces,
          R"({"type":"BPE","unk_token":"<unk>","fuse_unk":true,"byte_fallback":true,)"
          R"("vocab":{"<unk>":0,"<s>":1,"<0x41>":2,"<0x0A>":3,"▁":4,"a":5,"▁a":6},"merges":["▁ a"]})"),
      with_model(kMetaspace,
                 R"({"type":"Unigram","unk_id":0,"byte_fallback":false,)"
                 R"("vocab":[["<unk>",0.0],["▁",-1.5],["a",-2.0],["▁ab",-3.25],["b",-2.5]]})"),
      with_model(kBert,
                 R"({"type":"WordPiece","unk_token":"[UNK]","continuing_subword_prefix":"##",)"
                 R"("max_input_chars_per_word":100,"vocab":{"[UNK]":0,"a":1,"##b":2}})"),
      "{}"};
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  static ModelFolder folder;
  folder.write({reinterpret_cast<const char*>(bytes), size});
  const auto tokenizer = tokenizer::Tokenizer::read(folder.path());
  if (!tokenizer) {
    require(!tokenizer.error().message.empty(), "an error says what is wrong");
    require(tokenizer.error().message.find('\n') == std::string::npos, "an error is one line");
    return 0;
  }
  constexpr std::string_view kTexts[] = {
      "", " ", "ab a1b  2345\n\n<|end|> \tab",
      "\xE6\xBC\xA2\xC3\xA9 e\xCC\x81 \xF0\x9F\x98\x80 \xEF\xBC\xA1", "\xff\xC3 <s>[UNK]<0x41>"};
  for (const std::string_view text : kTexts) {
    for (const bool special : {false, true}) {
      const auto ids = tokenizer->encode(text, special);
      if (!ids) continue;
      for (const std::int32_t id : *ids) {
        require(id >= 0 && static_cast<std::uint32_t>(id) < tokenizer->size(),
                "an id is below the size");
        (void)tokenizer->piece(id);
      }
      (void)tokenizer->decode(*ids);
      (void)tokenizer->decode(*ids, true);
    }
  }
  (void)tokenizer->bos();
  return 0;
}
