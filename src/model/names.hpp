// SPDX-License-Identifier: Apache-2.0
#pragma once

// Between tensor names and module names.

#include <string>
#include <string_view>

#include "quell/core/dtype.hpp"
#include "quell/io/export.hpp"

namespace quell::model {

/// The module a tensor belongs to: its name up to the last dot.
inline std::string_view module_of(std::string_view tensor) noexcept {
  const std::size_t dot = tensor.rfind('.');
  return dot == std::string_view::npos ? std::string_view() : tensor.substr(0, dot);
}

/// The quantized module that stands in for the tensor `name`, if it is the weight of one.
inline const io::ModulePlan* find_quantized(const io::QuantizedModules& modules,
                                            std::string_view name) noexcept {
  return name.ends_with(".weight") ? modules.find(module_of(name)) : nullptr;
}

/// Types that weights may have. Those of less than a byte exist only inside quantized layouts.
constexpr bool is_floating(DType dtype) noexcept {
  switch (dtype) {
    case DType::f64:
    case DType::f32:
    case DType::f16:
    case DType::bf16:
    case DType::f8_e4m3:
    case DType::f8_e5m2:
    case DType::f8_e4m3fnuz:
    case DType::f8_e5m2fnuz:
      return true;
    default:
      return false;
  }
}

}  // namespace quell::model
