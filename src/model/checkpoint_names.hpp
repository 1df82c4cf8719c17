// SPDX-License-Identifier: Apache-2.0
#pragma once

// Which spelling of the tensor names a checkpoint uses. Tools that save the bare network leave out
// the outer prefix, so an architecture gives the prefixes it knows and the checkpoint decides.

#include <algorithm>
#include <initializer_list>
#include <string>
#include <string_view>

#include "quell/io/safetensors.hpp"

namespace quell::model {

/// True if any tensor belongs to the module (module + "." + something): its weight in floating
/// point or whatever a layout of quantized weights stores instead.
inline bool has_module(const io::Checkpoint& checkpoint, std::string_view module) {
  const std::string start = std::string(module) + ".";
  const auto tensors = checkpoint.tensors();
  const auto at = std::lower_bound(
      tensors.begin(), tensors.end(), start,
      [](const io::TensorInfo& info, const std::string& name) { return info.name < name; });
  return at != tensors.end() && at->name.starts_with(start);
}

/// The first of `prefixes` under which the checkpoint has `module`; the first of all if none does,
/// so that the missing tensor is named in its usual spelling.
inline std::string find_prefix(const io::Checkpoint& checkpoint, std::string_view module,
                               std::initializer_list<std::string_view> prefixes) {
  for (const std::string_view prefix : prefixes) {
    std::string name(prefix);
    name += module;
    if (has_module(checkpoint, name)) return std::string(prefix);
  }
  return std::string(*prefixes.begin());
}

}  // namespace quell::model
