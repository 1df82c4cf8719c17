// SPDX-License-Identifier: Apache-2.0
// The one table of layouts, and what they share.
#include "io/export_layouts.hpp"

#include <algorithm>
#include <array>
#include <bit>

#include "io/fault.hpp"
#include "quell/core/half.hpp"

namespace quell::io {
namespace {

std::size_t scale_size(ScaleType type) {
  return bits(type) / 8;
}

}  // namespace

std::span<const ExportLayout> export_layouts() {
  static const std::array<ExportLayout, 3> layouts = {kNativeLayout, kPackQuantizedLayout,
                                                      kIntQuantizedLayout};
  return layouts;
}

const ExportLayout* find_export_layout(std::string_view name) {
  const auto layouts = export_layouts();
  const auto found = std::find_if(layouts.begin(), layouts.end(),
                                  [&](const ExportLayout& layout) { return layout.name == name; });
  return found == layouts.end() ? nullptr : &*found;
}

DType dtype_of(ScaleType type) noexcept {
  switch (type) {
    case ScaleType::f16:
      return DType::f16;
    case ScaleType::bf16:
      return DType::bf16;
    case ScaleType::f32:
      return DType::f32;
  }
  return DType::f32;
}

std::vector<std::byte> scale_bytes(std::span<const float> scales, ScaleType type) {
  const std::size_t size = scale_size(type);
  std::vector<std::byte> bytes(scales.size() * size);
  for (std::size_t i = 0; i < scales.size(); ++i) {
    std::uint32_t value = 0;
    switch (type) {
      case ScaleType::f16:
        value = float_to_f16(scales[i]);
        break;
      case ScaleType::bf16:
        value = float_to_bf16(scales[i]);
        break;
      case ScaleType::f32:
        value = std::bit_cast<std::uint32_t>(scales[i]);
        break;
    }
    for (std::size_t b = 0; b < size; ++b) {
      bytes[i * size + b] = static_cast<std::byte>((value >> (8 * b)) & 0xFFU);
    }
  }
  return bytes;
}

std::vector<float> scales_from_bytes(std::span<const std::byte> bytes, ScaleType type) {
  const std::size_t size = scale_size(type);
  std::vector<float> scales(bytes.size() / size);
  for (std::size_t i = 0; i < scales.size(); ++i) {
    std::uint32_t value = 0;
    for (std::size_t b = 0; b < size; ++b) {
      value |= std::to_integer<std::uint32_t>(bytes[i * size + b]) << (8 * b);
    }
    switch (type) {
      case ScaleType::f16:
        scales[i] = f16_to_float(static_cast<std::uint16_t>(value));
        break;
      case ScaleType::bf16:
        scales[i] = bf16_to_float(static_cast<std::uint16_t>(value));
        break;
      case ScaleType::f32:
        scales[i] = std::bit_cast<float>(value);
        break;
    }
  }
  return scales;
}

Status check_encoded(const ModulePlan& module, std::span<const TensorPlan> plan,
                     std::span<const std::vector<std::byte>> bytes) {
  if (bytes.size() != plan.size()) {
    return Error{ErrorCode::shape,
                 printable(module.name) + ": " + std::to_string(bytes.size()) +
                     " arrays given, its layout has " + std::to_string(plan.size()),
                 {},
                 module.name};
  }
  for (std::size_t i = 0; i < plan.size(); ++i) {
    const auto count = element_count(plan[i].shape);
    const std::uint64_t expected = count.value_or(0) * bits(plan[i].dtype) / 8;
    if (bytes[i].size() != expected) {
      return Error{ErrorCode::shape,
                   printable(plan[i].name) + ": " + std::to_string(bytes[i].size()) +
                       " bytes given, expected " + std::to_string(expected),
                   {},
                   plan[i].name};
    }
  }
  return ok();
}

std::string file_of(const Checkpoint& checkpoint, const TensorInfo& info) {
  const auto& files = checkpoint.files();
  return info.file < files.size() ? files[info.file].string() : std::string();
}

Result<const TensorInfo*> expect_tensor(const Checkpoint& checkpoint, const std::string& name,
                                        std::span<const DType> dtypes,
                                        std::span<const std::uint64_t> shape) {
  const TensorInfo* const found = checkpoint.find(name);
  if (found == nullptr) {
    const auto& files = checkpoint.files();
    return tensor_fault(
        ErrorCode::missing,
        files.empty() ? std::string("checkpoint") : files.front().parent_path().string(), name,
        "is missing; the config says that its module is quantized");
  }
  if (std::find(dtypes.begin(), dtypes.end(), found->dtype) == dtypes.end()) {
    std::string expected;
    for (const DType dtype : dtypes) {
      if (!expected.empty()) expected += " or ";
      expected += to_string(dtype);
    }
    return tensor_fault(
        ErrorCode::parse, file_of(checkpoint, *found), name,
        "has type " + std::string(to_string(found->dtype)) + ", expected " + expected);
  }
  if (!std::equal(found->shape.begin(), found->shape.end(), shape.begin(), shape.end())) {
    return tensor_fault(
        ErrorCode::shape, file_of(checkpoint, *found), name,
        "has shape " + shape_text(found->shape) + ", expected " + shape_text(shape));
  }
  return found;
}

Result<std::vector<std::byte>> read_bytes(const Checkpoint& checkpoint, const TensorInfo& info) {
  std::vector<std::byte> bytes(static_cast<std::size_t>(info.bytes));
  QUELL_TRY(checkpoint.read(info, bytes));
  return bytes;
}

const ModulePlan* QuantizedModules::find(std::string_view module) const noexcept {
  const auto found = std::lower_bound(
      modules_.begin(), modules_.end(), module,
      [](const ModulePlan& plan, std::string_view name) { return plan.name < name; });
  return found != modules_.end() && found->name == module ? &*found : nullptr;
}

Result<QuantizedModules> QuantizedModules::parse(const Json& config, std::string_view file,
                                                 const Checkpoint& checkpoint) {
  QuantizedModules result;
  const JsonFields fields(config, std::string(file));
  const Json* quantization = fields.find("quantization_config");
  // The name that early versions of compressed-tensors wrote.
  if (quantization == nullptr) quantization = fields.find("compression_config");
  if (quantization == nullptr) return result;
  if (!quantization->is(Json::Kind::object)) {
    return fields.wrong("quantization_config", "an object");
  }
  const JsonFields inner(*quantization, std::string(file));
  QUELL_TRY(method, inner.optional_text("quant_method"));
  const bool has_groups = inner.find("config_groups") != nullptr;
  const std::string name = method.value_or(has_groups ? "compressed-tensors" : "");
  if (name == "quell") {
    QUELL_TRY(modules, parse_native(*quantization, std::string(file), checkpoint));
    result.layout_ = kNativeLayout.name;
    result.modules_ = std::move(modules);
  } else if (name == "compressed-tensors") {
    QUELL_TRY(parsed, parse_compressed(*quantization, std::string(file), checkpoint));
    result.layout_ = parsed.layout;
    result.modules_ = std::move(parsed.modules);
  } else {
    return file_fault(ErrorCode::unsupported, file,
                      "quantization_config.quant_method is " +
                          (name.empty() ? std::string("not given") : printable(name)) +
                          "; this program reads quell and compressed-tensors");
  }
  std::sort(result.modules_.begin(), result.modules_.end(),
            [](const ModulePlan& a, const ModulePlan& b) { return a.name < b.name; });
  return result;
}

Result<QuantizedTensor> QuantizedModules::read(const ModulePlan& module,
                                               const Checkpoint& checkpoint) const {
  auto tensor = layout_ == kNativeLayout.name ? read_native(module, checkpoint)
                                              : read_compressed(module, checkpoint);
  if (tensor) return tensor;
  Error error = tensor.error();
  if (error.message.find(module.name) == std::string::npos) {
    error.message = printable(module.name) + ": " + error.message;
  }
  if (error.tensor.empty()) error.tensor = module.name;
  return error;
}

}  // namespace quell::io
