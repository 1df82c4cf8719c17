// SPDX-License-Identifier: Apache-2.0
#pragma once

// The table of architectures. Adding one is a file in src/model/ and a line in architectures.cpp.

#include <span>
#include <string>
#include <string_view>

#include "quell/core/result.hpp"
#include "quell/io/json.hpp"
#include "quell/model/config.hpp"
#include "quell/model/model.hpp"

namespace quell::model {

struct Architecture {
  std::string_view name;        // as in config.json "architectures"
  std::string_view model_type;  // the fallback when "architectures" is absent
  std::string_view sizes;       // the config fields that shapes follow from, for error messages
  std::string_view layers;      // the config field that counts the layers
  Result<ModelConfig> (*parse)(const io::JsonFields& fields);
  /// Tensor names and shapes. `prefix` is what stands before the plain names in this checkpoint
  /// ("model.", "transformer.", "").
  Frame (*frame)(const ModelConfig& config, const io::Checkpoint& checkpoint);
  Block (*block)(const ModelConfig& config, const io::Checkpoint& checkpoint, std::uint32_t layer);
};

std::span<const Architecture> architectures();
const Architecture* find_architecture(std::string_view name, std::string_view model_type);

}  // namespace quell::model
