// SPDX-License-Identifier: Apache-2.0
#pragma once

// Safetensors files and sharded folders. Files are hostile: every offset and size is checked before
// it is used, headers are limited before they are parsed, and data is read into owned memory (a
// mapped file that shrinks kills the process). Layout: 8 bytes header length, a JSON header, data.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "quell/core/dtype.hpp"
#include "quell/core/result.hpp"
#include "quell/core/tensor.hpp"

namespace quell::io {

struct TensorInfo {
  std::string name;
  DType dtype = DType::f32;
  std::vector<std::uint64_t> shape;
  std::uint32_t file = 0;    // index into Checkpoint::files()
  std::uint64_t offset = 0;  // from the start of that file
  std::uint64_t bytes = 0;
};

struct MetadataEntry {
  std::string key, value;
};

/// One safetensors file or a folder of them, opened: headers checked, data still on disk.
/// Reading is safe from several threads.
class Checkpoint {
 public:
  struct Options {
    bool allow_links_outside = false;  // shards that are links leaving the folder (download caches)
  };

  /// `path` is a .safetensors file or a folder with model.safetensors.index.json, model.safetensors or
  /// any *.safetensors, in this order. Errors: missing, parse, resource; never a crash.
  static Result<Checkpoint> open(const std::filesystem::path& path, Options options);
  static Result<Checkpoint> open(const std::filesystem::path& path);

  Checkpoint(Checkpoint&&) noexcept;
  Checkpoint& operator=(Checkpoint&&) noexcept;
  ~Checkpoint();

  /// Sorted by name.
  std::span<const TensorInfo> tensors() const noexcept;
  const TensorInfo* find(std::string_view name) const noexcept;
  const std::vector<std::filesystem::path>& files() const noexcept;
  std::span<const MetadataEntry> metadata() const noexcept;  // of the first file
  /// Things worth telling a user that are not errors (a shard that the index does not name).
  const std::vector<std::string>& warnings() const noexcept;
  std::uint64_t total_bytes() const noexcept;  // of tensor data

  /// All bytes of a tensor. `out.size()` is info.bytes. Error: resource (short read), parse (the file
  /// changed while open).
  Status read(const TensorInfo& info, std::span<std::byte> out) const;
  /// `count` bytes from byte `first` of the tensor.
  Status read(const TensorInfo& info, std::uint64_t first, std::span<std::byte> out) const;
  Result<Tensor> read(std::string_view name) const;
  /// The tensor as float32, flattened to [shape[0], product of the rest] (scalars and vectors: one
  /// row). F64, F32, F16, BF16 and the F8 types; others are `unsupported`.
  Result<Matrix> read_floats(std::string_view name) const;

 private:
  struct State;
  explicit Checkpoint(std::unique_ptr<State> state) noexcept;
  std::unique_ptr<State> state_;
};

/// What is going to be written: names, types, shapes. Data comes later, in any order.
struct TensorPlan {
  std::string name;
  DType dtype = DType::f32;
  std::vector<std::uint64_t> shape;
  std::uint64_t bytes = 0;       // filled by plan_shards
  std::uint32_t shard = 0;       // filled by plan_shards
  std::uint64_t offset = 0;      // from the start of the shard file, filled by plan_shards
};
struct ShardPlan {
  std::string file_name;         // model.safetensors or model-0000i-of-0000n.safetensors
  std::string header;            // the first bytes of the file: length, JSON, padding
  std::uint64_t bytes = 0;       // of the whole file
};
struct FolderPlan {
  std::vector<TensorPlan> tensors;  // in the order given
  std::vector<ShardPlan> shards;
  std::string index_json;           // empty for one shard
  std::uint64_t total_bytes = 0;    // of tensor data
};

/// Fills shards in the order given, up to `shard_limit` bytes each; tensors of one module (the name up
/// to its last dot) stay in one shard. Each file is then laid out as the reference writer does, byte
/// for byte. Metadata always holds "format":"pt". Error: shape (sizes that overflow, a name twice).
Result<FolderPlan> plan_folder(std::vector<TensorPlan> tensors, std::uint64_t shard_limit,
                               std::span<const MetadataEntry> metadata);

}  // namespace quell::io
