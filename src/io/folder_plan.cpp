// SPDX-License-Identifier: Apache-2.0

// Where every tensor of an output is going to be, before any of them exists. Inside a file the
// order is that of the reference writer: widest alignment rank first, then names. The header is
// padded to 8 bytes, so every tensor starts at a multiple of its element's size.

#include <algorithm>
#include <numeric>
#include <string>

#include "io/fault.hpp"
#include "io/json_text.hpp"
#include "io/limits.hpp"
#include "io/safetensors_header.hpp"
#include "quell/core/checked.hpp"
#include "quell/io/json.hpp"
#include "quell/io/safetensors.hpp"

namespace quell::io {
namespace {

constexpr std::string_view kMetadataKey = "__metadata__";

Error plan_fault(std::string_view tensor, std::string_view message) {
  Error error{ErrorCode::shape, "tensor " + printable(tensor) + " "};
  error.message += message;
  error.tensor = std::string(tensor);
  return error;
}

// Everything that our own reader would refuse is refused here, before hours of work.
Status measure(TensorPlan& tensor) {
  if (tensor.name.empty() || tensor.name == kMetadataKey) {
    return plan_fault(tensor.name, "has a name that no tensor can have");
  }
  if (tensor.name.size() > limits::kNameBytes) {
    return plan_fault(tensor.name, "has a name of " + std::to_string(tensor.name.size()) +
                                       " bytes, more than the limit of " +
                                       std::to_string(limits::kNameBytes));
  }
  if (find_text_fault(tensor.name)) {
    return plan_fault(tensor.name, "has a name that is not plain UTF-8");
  }
  if (tensor.shape.size() > limits::kDimensions) {
    return plan_fault(tensor.name, "has " + std::to_string(tensor.shape.size()) +
                                       " dimensions, more than the limit of " +
                                       std::to_string(limits::kDimensions));
  }
  const ByteCount count = byte_count(tensor.dtype, tensor.shape);
  if (!count.fault.empty()) return plan_fault(tensor.name, count.fault);
  const bool too_long =
      std::any_of(tensor.shape.begin(), tensor.shape.end(),
                  [](std::uint64_t dimension) { return dimension > limits::kLargestInteger; });
  if (too_long || count.bytes > limits::kLargestInteger) {
    return plan_fault(tensor.name, "of shape " + shape_text(tensor.shape) + " has " +
                                       std::to_string(count.bytes) +
                                       " bytes, more than the format allows");
  }
  tensor.bytes = count.bytes;
  return ok();
}

// The name up to its last dot; a name without a dot is a module of its own.
std::string_view module_of(std::string_view name) {
  const auto dot = name.rfind('.');
  return dot == name.npos ? name : name.substr(0, dot);
}

Status refuse_twins(const std::vector<TensorPlan>& tensors) {
  std::vector<std::string_view> names;
  names.reserve(tensors.size());
  for (const TensorPlan& tensor : tensors) names.push_back(tensor.name);
  std::sort(names.begin(), names.end());
  const auto twin = std::adjacent_find(names.begin(), names.end());
  if (twin != names.end()) return plan_fault(*twin, "is planned twice");
  return ok();
}

// The modules in the order of their first tensor: for each tensor the number of its module.
std::vector<std::uint32_t> number_modules(const std::vector<TensorPlan>& tensors) {
  std::vector<std::uint32_t> order(tensors.size());
  std::iota(order.begin(), order.end(), 0U);
  std::sort(order.begin(), order.end(), [&](std::uint32_t a, std::uint32_t b) {
    const int compared = module_of(tensors[a].name).compare(module_of(tensors[b].name));
    return compared != 0 ? compared < 0 : a < b;
  });
  // The first tensor of each run of equal modules has the smallest index of the run.
  std::vector<std::uint32_t> first(tensors.size());
  for (std::size_t i = 0; i < order.size(); ++i) {
    const bool same =
        i > 0 && module_of(tensors[order[i]].name) == module_of(tensors[order[i - 1]].name);
    first[order[i]] = same ? first[order[i - 1]] : order[i];
  }
  return first;
}

// Gives each tensor its shard; returns the number of shards. All sums are checked.
Result<std::uint32_t> fill_shards(std::vector<TensorPlan>& tensors, std::uint64_t limit) {
  const std::vector<std::uint32_t> first = number_modules(tensors);
  std::vector<std::uint64_t> module_bytes(tensors.size(), 0);
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const auto sum = checked_add(module_bytes[first[i]], tensors[i].bytes);
    if (!sum || *sum > limits::kLargestInteger) {
      return plan_fault(tensors[i].name, "makes its module larger than the format allows");
    }
    module_bytes[first[i]] = *sum;
  }
  std::uint32_t shard = 0;
  std::uint64_t filled = 0;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    if (first[i] != i) {
      tensors[i].shard = tensors[first[i]].shard;
      continue;
    }
    // Both are at most 2^48 - 1 or the limit, so the sum cannot wrap unless the limit is absurd.
    const auto sum = checked_add(filled, module_bytes[i]);
    if (filled > 0 && module_bytes[i] > 0 &&
        (!sum || *sum > limit || *sum > limits::kLargestInteger)) {
      ++shard;
      filled = 0;
    }
    filled += module_bytes[i];
    tensors[i].shard = shard;
  }
  if (shard >= limits::kShards) {
    return Error{ErrorCode::shape, "a shard limit of " + std::to_string(limit) +
                                       " bytes needs more than " + std::to_string(limits::kShards) +
                                       " shards; use a larger one"};
  }
  return shard + 1;
}

std::string shard_name(std::size_t index, std::size_t count) {
  if (count == 1) return "model.safetensors";
  const auto five_digits = [](std::size_t number) {
    const std::string digits = std::to_string(number);
    return std::string(5 - digits.size(), '0') + digits;
  };
  return "model-" + five_digits(index + 1) + "-of-" + five_digits(count) + ".safetensors";
}

Result<std::string> metadata_json(std::span<const MetadataEntry> metadata) {
  std::vector<std::string_view> keys;
  // Some loaders fail without this entry or with another value.
  std::string json = "{\"format\":\"pt\"";
  for (const MetadataEntry& entry : metadata) {
    keys.push_back(entry.key);
    if (entry.key == "format") continue;
    json += ',';
    append_json_string(json, entry.key);
    json += ':';
    append_json_string(json, entry.value);
  }
  std::sort(keys.begin(), keys.end());
  const auto twin = std::adjacent_find(keys.begin(), keys.end());
  if (twin != keys.end()) {
    return Error{ErrorCode::shape, "the metadata key \"" + printable(*twin) + "\" is given twice"};
  }
  return json + '}';
}

// Offsets for the tensors of one file (positions in `tensors`) and its header.
Status lay_out(std::vector<TensorPlan>& tensors, std::vector<std::uint32_t>& members,
               std::string_view metadata, ShardPlan& shard) {
  if (members.size() > limits::kTensorsPerFile) {
    return Error{ErrorCode::shape,
                 shard.file_name + " would hold " + std::to_string(members.size()) +
                     " tensors, more than the limit of " + std::to_string(limits::kTensorsPerFile) +
                     "; use a smaller shard limit"};
  }
  std::sort(members.begin(), members.end(), [&](std::uint32_t a, std::uint32_t b) {
    if (tensors[a].dtype != tensors[b].dtype) return tensors[a].dtype > tensors[b].dtype;
    return tensors[a].name < tensors[b].name;
  });
  std::string json = "{\"";
  json += kMetadataKey;
  json += "\":";
  json += metadata;
  std::uint64_t cursor = 0;
  for (const std::uint32_t index : members) {
    TensorPlan& tensor = tensors[index];
    tensor.offset = cursor;
    json += ',';
    append_json_string(json, tensor.name);
    json += ":{\"dtype\":\"";
    json += to_string(tensor.dtype);
    json += "\",\"shape\":[";
    for (std::size_t i = 0; i < tensor.shape.size(); ++i) {
      if (i > 0) json += ',';
      json += std::to_string(tensor.shape[i]);
    }
    json += "],\"data_offsets\":[" + std::to_string(cursor) + ',';
    // fill_shards kept the sum of each shard within 2^48 - 1.
    cursor += tensor.bytes;
    json += std::to_string(cursor) + "]}";
  }
  json += '}';
  json.resize((json.size() + 7) / 8 * 8, ' ');
  if (json.size() > limits::kSafetensorsHeaderBytes) {
    return Error{ErrorCode::shape, shard.file_name + " would have a header of " +
                                       std::to_string(json.size()) +
                                       " bytes, more than the limit of " +
                                       std::to_string(limits::kSafetensorsHeaderBytes) +
                                       "; use a smaller shard limit"};
  }
  for (std::size_t i = 0; i < kHeaderStart; ++i) {
    shard.header += static_cast<char>((json.size() >> (8 * i)) & 255U);
  }
  shard.header += json;
  shard.bytes = shard.header.size() + cursor;
  for (const std::uint32_t index : members) tensors[index].offset += shard.header.size();
  return ok();
}

// In the form that the Python loaders write: two spaces, names sorted, a line break at the end.
std::string index_json(const FolderPlan& plan) {
  std::vector<std::uint32_t> order(plan.tensors.size());
  std::iota(order.begin(), order.end(), 0U);
  std::sort(order.begin(), order.end(), [&](std::uint32_t a, std::uint32_t b) {
    return plan.tensors[a].name < plan.tensors[b].name;
  });
  std::vector<Json::Member> map;
  map.reserve(order.size());
  for (const std::uint32_t i : order) {
    map.emplace_back(plan.tensors[i].name, plan.shards[plan.tensors[i].shard].file_name);
  }
  Json index = Json::object();
  index.set("metadata", Json::object({{"total_size", Json(plan.total_bytes)}}));
  index.set("weight_map", Json::object(std::move(map)));
  return index.dump(2) + '\n';
}

}  // namespace

Result<FolderPlan> plan_folder(std::vector<TensorPlan> tensors, std::uint64_t shard_limit,
                               std::span<const MetadataEntry> metadata) {
  if (shard_limit == 0) {
    return Error{ErrorCode::usage, "the shard limit is 0 bytes, expected at least 1"};
  }
  if (tensors.size() > limits::kTensorsPerFolder) {
    return Error{ErrorCode::shape, std::to_string(tensors.size()) +
                                       " tensors are planned, more than the limit of " +
                                       std::to_string(limits::kTensorsPerFolder)};
  }
  FolderPlan plan;
  plan.tensors = std::move(tensors);
  for (TensorPlan& tensor : plan.tensors) {
    QUELL_TRY(measure(tensor));
    // At most 2^24 tensors of at most 2^48 bytes: below 2^72, so this one can wrap.
    const auto total = checked_add(plan.total_bytes, tensor.bytes);
    if (!total) return plan_fault(tensor.name, "makes the sizes of all tensors overflow");
    plan.total_bytes = *total;
  }
  QUELL_TRY(refuse_twins(plan.tensors));
  QUELL_TRY(entries, metadata_json(metadata));
  QUELL_TRY(count, fill_shards(plan.tensors, shard_limit));

  std::vector<std::vector<std::uint32_t>> members(count);
  for (std::uint32_t i = 0; i < plan.tensors.size(); ++i) {
    members[plan.tensors[i].shard].push_back(i);
  }
  plan.shards.resize(count);
  for (std::size_t i = 0; i < count; ++i) {
    plan.shards[i].file_name = shard_name(i, count);
    QUELL_TRY(lay_out(plan.tensors, members[i], entries, plan.shards[i]));
  }
  if (count > 1) plan.index_json = index_json(plan);
  return plan;
}

}  // namespace quell::io
