// SPDX-License-Identifier: Apache-2.0

// A whole safetensors file. Whatever is accepted must lie inside the file, be readable, and be
// planned and written again as a file that reads the same.

#include "quell/io/safetensors.hpp"

#include "fuzz/target.hpp"
#include "support/safetensors_text.hpp"

namespace {

using namespace quell;
using fuzz::require;

void check_written_again(const io::Checkpoint& read, fuzz::MemoryFile& file) {
  std::vector<io::TensorPlan> tensors;
  for (const io::TensorInfo& tensor : read.tensors()) {
    io::TensorPlan plan;
    plan.name = tensor.name;
    plan.dtype = tensor.dtype;
    plan.shape = tensor.shape;
    tensors.push_back(std::move(plan));
  }
  // Names with a NUL are read but never written.
  const auto plan = io::plan_folder(std::move(tensors), ~std::uint64_t{0}, {});
  if (!plan) return;
  require(plan->shards.size() == 1, "one shard without a limit");
  std::string bytes = plan->shards[0].header;
  bytes.resize(static_cast<std::size_t>(plan->shards[0].bytes), '\0');
  for (const io::TensorPlan& tensor : plan->tensors) {
    const auto value = read.read(tensor.name);
    require(value.has_value() && value->data().size() == tensor.bytes, "planned sizes are real");
    for (std::size_t i = 0; i < value->data().size(); ++i) {
      bytes[static_cast<std::size_t>(tensor.offset) + i] = static_cast<char>(value->data()[i]);
    }
  }
  file.write(bytes);
  const auto again = io::Checkpoint::open(file.path());
  require(again.has_value(), "a planned file is read");
  require(again->tensors().size() == read.tensors().size(), "no tensor is lost");
  for (std::size_t i = 0; i < again->tensors().size(); ++i) {
    const io::TensorInfo& a = read.tensors()[i];
    const io::TensorInfo& b = again->tensors()[i];
    require(a.name == b.name && a.dtype == b.dtype && a.shape == b.shape && a.bytes == b.bytes,
            "a tensor reads the same after writing");
  }
}

}  // namespace

std::vector<std::string> quell::fuzz::seeds() {
  using test::entry;
  using test::safetensors_bytes;
  std::string every_type = "{";
  std::uint64_t cursor = 0;
  for (const DTypeInfo& type : kDTypes) {
    every_type += entry(type.name, type.name, "[4]", cursor, cursor + type.bits / 2) + ",";
    cursor += type.bits / 2;
  }
  every_type.back() = '}';
  return {
      test::worked_example(),
      safetensors_bytes("{}      "),
      safetensors_bytes("\t\n{}\r "),
      safetensors_bytes(every_type, std::string(static_cast<std::size_t>(cursor), '\x3c')),
      safetensors_bytes(
          "{" + entry("e", "F32", "[2,0]", 0, 0) + "," + entry("s", "U8", "[]", 0, 1) + "}", "x"),
      safetensors_bytes(R"({"__metadata__":{"a":"b"},"t":{"x":[{}],"dtype":"I8","shape":[1],)"
                        R"("data_offsets":[0,1]}})",
                        "x"),
      safetensors_bytes("{" + entry("a\\n\\u00e9", "BF16", "[1,2,1]", 0, 4) + "}", "abcd"),
      "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
      "<!DOCTYPE html>",
      "PK\x03\x04"};
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  static fuzz::MemoryFile file, rewritten;
  file.write({reinterpret_cast<const char*>(bytes), size});
  const auto checkpoint = io::Checkpoint::open(file.path());
  if (!checkpoint) {
    const Error& error = checkpoint.error();
    require(!error.message.empty() && error.file == file.path(), "an error names its file");
    require(error.message.find('\n') == std::string::npos, "an error is one line");
    return 0;
  }
  std::uint64_t total = 8;
  for (const io::TensorInfo& tensor : checkpoint->tensors()) {
    require(tensor.offset >= 8 && tensor.offset <= size && tensor.bytes <= size - tensor.offset,
            "a tensor lies inside its file");
    require(checkpoint->find(tensor.name) == &tensor, "a tensor is found by its name");
    const auto value = checkpoint->read(tensor.name);
    require(value.has_value() && value->data().size() == tensor.bytes, "a tensor is readable");
    const auto floats = checkpoint->read_floats(tensor.name);
    if (floats) {
      require(element_count(tensor.shape) == floats->size(), "every element becomes a float");
    }
    total += tensor.bytes;
  }
  require(checkpoint->total_bytes() == total - 8 && total <= size, "the tensors fill the data");
  check_written_again(*checkpoint, rewritten);
  return 0;
}
