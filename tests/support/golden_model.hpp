// SPDX-License-Identifier: Apache-2.0
#pragma once

// The random models of tests/golden/engine: a description in JSON (config, tensor names and
// shapes), weights by formula. Tests change a description before it is written, to make a model
// that is wrong in one place.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "quell/io/json.hpp"
#include "support/files.hpp"
#include "support/safetensors_text.hpp"

namespace quell::test {

/// Element `index` of tensor `name`, in [-1, 1): the hash that make_golden.py describes.
inline double golden_unit(std::string_view name, std::uint64_t index) {
  std::uint64_t hash = 0xCBF2'9CE4'8422'2325u;
  for (const char c : name) {
    hash = (hash ^ static_cast<unsigned char>(c)) * 0x0000'0100'0000'01B3u;
  }
  std::uint64_t x = hash + index * 0x9E37'79B9'7F4A'7C15u;
  x = (x ^ (x >> 30)) * 0xBF58'476D'1CE4'E5B9u;
  x = (x ^ (x >> 27)) * 0x94D0'49BB'1331'11EBu;
  x ^= x >> 31;
  return static_cast<double>(x >> 40) * 0x1p-23 - 1;
}

struct GoldenTensor {
  std::string name;
  std::vector<std::uint64_t> shape;
  std::vector<float> values;
  std::string dtype = "F32";  // what the file says; the bytes are those of `values` all the same
  std::string raw = {};       // bytes to write instead, if any

  std::string bytes() const {
    if (!raw.empty()) return raw;
    return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
  }
};

inline GoldenTensor golden_tensor(const std::string& name,
                                  const std::vector<std::uint64_t>& shape) {
  GoldenTensor tensor;
  tensor.name = name;
  tensor.shape = shape;
  std::uint64_t count = 1;
  for (const std::uint64_t size : shape) count *= size;
  for (std::uint64_t i = 0; i < count; ++i) {
    const double u = golden_unit(name, i);
    double value = 0.3 * u;
    if (shape.size() == 2) {
      value = u * (1.7 / std::sqrt(static_cast<double>(shape[1])));
    } else if (name.ends_with("weight")) {
      value = 1 + u / 2;
    }
    tensor.values.push_back(static_cast<float>(value));
  }
  return tensor;
}

/// One file of tests/golden/engine, or a model made up from it.
struct GoldenModel {
  io::Json config;
  std::vector<GoldenTensor> tensors;
  std::vector<std::int32_t> ids;
  std::vector<std::size_t> rows;           // token positions whose outputs are stored
  std::vector<std::vector<float>> logits;  // [rows, vocabulary]
  std::vector<std::vector<float>> hidden;  // of an encoder instead: [rows, hidden]

  GoldenTensor& tensor(std::string_view name) {
    for (GoldenTensor& entry : tensors) {
      if (entry.name == name) return entry;
    }
    ADD_FAILURE() << "no tensor " << name;
    return tensors.front();
  }
  void remove(std::string_view name) {
    std::erase_if(tensors, [&](const GoldenTensor& entry) { return entry.name == name; });
  }
  /// Adds a tensor, or replaces it.
  void put(GoldenTensor tensor) {
    remove(tensor.name);
    tensors.push_back(std::move(tensor));
  }
  /// config.json and model.safetensors.
  void write(const std::filesystem::path& folder) const {
    std::filesystem::create_directories(folder);
    write_bytes(folder / "config.json", config.dump(1));
    std::string header = "{", data;
    for (const GoldenTensor& entry : tensors) {
      std::string shape = "[";
      for (const std::uint64_t size : entry.shape) {
        if (shape.size() > 1) shape += ',';
        shape += std::to_string(size);
      }
      const std::string bytes = entry.bytes();
      if (header.size() > 1) header += ',';
      header += test::entry(entry.name, entry.dtype, shape + "]", data.size(),
                            data.size() + bytes.size());
      data += bytes;
    }
    header += "}";
    header.append((8 - header.size() % 8) % 8, ' ');
    write_bytes(folder / "model.safetensors", safetensors_bytes(header, data));
  }
};

inline GoldenModel read_golden(const std::string& name) {
  const std::filesystem::path path =
      std::filesystem::path(QUELL_SOURCE_DIR) / "tests/golden/engine" / (name + ".json");
  auto json = io::read_json(path);
  EXPECT_TRUE(json.has_value()) << (json ? "" : json.error().message);
  GoldenModel model;
  if (!json) return model;
  model.config = *json->find("config");
  for (const auto& [tensor, shape] : json->find("tensors")->members()) {
    std::vector<std::uint64_t> sizes;
    for (const io::Json& size : shape.items()) {
      sizes.push_back(static_cast<std::uint64_t>(size.as_integer()));
    }
    model.tensors.push_back(golden_tensor(tensor, sizes));
  }
  for (const io::Json& id : json->find("ids")->items()) {
    model.ids.push_back(static_cast<std::int32_t>(id.as_integer()));
  }
  for (const io::Json& row : json->find("rows")->items()) {
    model.rows.push_back(static_cast<std::size_t>(row.as_integer()));
  }
  const auto read_rows = [&](const char* member_name, std::vector<std::vector<float>>& rows) {
    const io::Json* member = json->find(member_name);
    if (member == nullptr) return;
    for (const io::Json& row : member->items()) {
      rows.emplace_back();
      for (const io::Json& value : row.items()) {
        rows.back().push_back(static_cast<float>(value.as_number()));
      }
    }
  };
  read_rows("logits", model.logits);
  read_rows("hidden", model.hidden);
  return model;
}

inline constexpr const char* kGoldenModels[] = {"llama",
                                                "llama_bare_tied",
                                                "llama_bias",
                                                "llama_gelu_mha",
                                                "llama_llama3",
                                                "llama_linear",
                                                "llama_dynamic",
                                                "llama_yarn",
                                                "llama_yarn_full",
                                                "llama_longrope_long",
                                                "llama_longrope_short",
                                                "mistral_window",
                                                "mistral",
                                                "qwen2",
                                                "qwen2_window",
                                                "qwen3",
                                                "gpt2",
                                                "gpt2_bare",
                                                "gpt2_unscaled",
                                                "opt",
                                                "opt_350m",
                                                "opt_plain"};

inline constexpr const char* kGoldenEncoders[] = {"bert", "bert_masked_lm"};

}  // namespace quell::test
