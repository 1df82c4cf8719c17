// SPDX-License-Identifier: Apache-2.0
#pragma once

// How quantized weights lie in files. A layout turns one QuantizedTensor into the tensors of a
// module and back; the layouts are one table, which the command line, the tests and the readers
// walk.

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "quell/core/executor.hpp"
#include "quell/core/result.hpp"
#include "quell/grid/quantized.hpp"
#include "quell/io/json.hpp"
#include "quell/io/safetensors.hpp"

namespace quell::io {

/// One linear layer as it is going to be written.
struct ModulePlan {
  std::string name;  // path in the checkpoint without ".weight"
  GridSpec grid;
  std::size_t rows = 0, cols = 0;  // [OC, IC]
  // 8 or 4: engines quantize the layer's input to so many bits while they run. 0: they do not.
  unsigned activation_bits = 0;
  std::size_t kept_columns = 0;  // input channels beside the codes, in f16
  // The direction of groups was open when the file was laid out: the arrays of scales and zeros are
  // stored as one row.
  bool open_direction = false;
  std::size_t activation_group = 0;  // input channels that share a scale; 0: a whole token
  // Not 0: the codes are those of a rotated weight, and engines rotate the layer's input in blocks
  // of so many channels before anything else, with the signs of the seed (engine/rotation.hpp).
  std::size_t rotation = 0;
  std::uint64_t rotation_seed = 0;
};

struct ExportLayout {
  std::string_view name;  // the word of --to
  std::string_view help;
  /// Empty if the layout can hold this module, else the reason as a sentence with the numbers.
  std::string (*refuse)(const ModulePlan& module);
  /// Names, types and shapes of the module's tensors.
  std::vector<TensorPlan> (*tensors)(const ModulePlan& module);
  /// The bytes of those tensors, in the same order.
  Result<std::vector<std::vector<std::byte>>> (*encode)(const QuantizedTensor& weight);
  /// The way back: what encode gave for `module` (a resumed run reads its own partial files so).
  Result<QuantizedTensor> (*decode)(const ModulePlan& module,
                                    std::span<const std::vector<std::byte>> tensors);
  /// `quantization_config` of config.json. `ignored` names linear modules left in floating point.
  Json (*config)(std::span<const ModulePlan> modules, std::span<const std::string> ignored);
};

std::span<const ExportLayout> export_layouts();
const ExportLayout* find_export_layout(std::string_view name);

/// What config.json says about the quantized modules of a checkpoint, in any layout that we read.
class QuantizedModules {
 public:
  /// `config` is the whole config.json. A config without quantization_config gives an empty set.
  /// Errors: unsupported (a method or scheme that we do not read, by name), parse.
  static Result<QuantizedModules> parse(const Json& config, std::string_view file,
                                        const Checkpoint& checkpoint);

  bool empty() const noexcept { return modules_.empty(); }
  std::string_view layout() const noexcept { return layout_; }               // "" if empty
  std::span<const ModulePlan> modules() const noexcept { return modules_; }  // sorted by name
  const ModulePlan* find(std::string_view module) const noexcept;
  Result<QuantizedTensor> read(const ModulePlan& module, const Checkpoint& checkpoint) const;

 private:
  std::string layout_;
  std::vector<ModulePlan> modules_;
};

}  // namespace quell::io
