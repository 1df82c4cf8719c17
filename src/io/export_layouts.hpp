// SPDX-License-Identifier: Apache-2.0
#pragma once

// What the files of the layouts share with each other and with the reader of quantized modules.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "quell/core/result.hpp"
#include "quell/grid/quantized.hpp"
#include "quell/io/export.hpp"
#include "quell/io/json.hpp"
#include "quell/io/safetensors.hpp"

namespace quell::io {

extern const ExportLayout kNativeLayout;
extern const ExportLayout kPackQuantizedLayout;  // compressed-tensors
extern const ExportLayout kIntQuantizedLayout;   // compressed-tensors, weights as int8

/// Modules named by `quantization_config` of the native layout, their tensors checked.
Result<std::vector<ModulePlan>> parse_native(const Json& quantization, const std::string& file,
                                             const Checkpoint& checkpoint);
Result<QuantizedTensor> read_native(const ModulePlan& module, const Checkpoint& checkpoint);

struct CompressedModules {
  std::string_view layout;
  std::vector<ModulePlan> modules;
};
Result<CompressedModules> parse_compressed(const Json& quantization, const std::string& file,
                                           const Checkpoint& checkpoint);
Result<QuantizedTensor> read_compressed(const ModulePlan& module, const Checkpoint& checkpoint);

/// Do these bytes have the planned sizes? Error: shape, naming the tensor.
Status check_encoded(const ModulePlan& module, std::span<const TensorPlan> plan,
                     std::span<const std::vector<std::byte>> bytes);

DType dtype_of(ScaleType type) noexcept;
/// Scales in their type, little-endian; exact, since scales are representable.
std::vector<std::byte> scale_bytes(std::span<const float> scales, ScaleType type);
/// The other way; `bytes` has bits(type) / 8 bytes for each scale.
std::vector<float> scales_from_bytes(std::span<const std::byte> bytes, ScaleType type);

/// A tensor that must be there with this shape. Errors: missing, shape, parse (element type).
Result<const TensorInfo*> expect_tensor(const Checkpoint& checkpoint, const std::string& name,
                                        std::span<const DType> dtypes,
                                        std::span<const std::uint64_t> shape);
/// The file that holds a tensor, for errors.
std::string file_of(const Checkpoint& checkpoint, const TensorInfo& info);
Result<std::vector<std::byte>> read_bytes(const Checkpoint& checkpoint, const TensorInfo& info);

}  // namespace quell::io
