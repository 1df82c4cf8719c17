// SPDX-License-Identifier: Apache-2.0

// Which kernel a quantized weight gets. What panels cannot hold is multiplied as floats, where that
// is the same product; with rounded activations it would be another one, and is refused.

#include <algorithm>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cpu/gemm_int8/contract.hpp"
#include "kernels/packed_bytes.hpp"
#include "quell/core/checked.hpp"
#include "quell/core/half.hpp"
#include "quell/core/tensor.hpp"
#include "quell/kernels/gemm.hpp"

namespace quell::kernels {
namespace {

using Order = std::span<const std::uint32_t>;

Status check_order(const QuantizedTensor& weight, Order order) {
  if (order.empty()) return ok();
  if (order.size() != weight.cols()) {
    return Error{ErrorCode::shape, "pack: an order of " + std::to_string(order.size()) +
                                       " input channels for a weight with " +
                                       std::to_string(weight.cols()) +
                                       "; give one for each column"};
  }
  std::vector<bool> seen(order.size());
  for (std::size_t k = 0; k < order.size(); ++k) {
    if (order[k] < order.size() && !seen[order[k]]) {
      seen[order[k]] = true;
      continue;
    }
    return Error{ErrorCode::shape, "pack: the order puts input channel " +
                                       std::to_string(order[k]) + " at column " +
                                       std::to_string(k) + ", expected each of " +
                                       std::to_string(order.size()) + " once"};
  }
  return ok();
}

Result<PackedPlan> plan_of(const QuantizedTensor& weight, Activations activations, Order order) {
  if (weight.rows() == 0) return plan_dense(0, 0, dense_panel_cols());
  QUELL_TRY(check_order(weight, order));
  auto plan = plan_quantized(activations, weight.grid(), weight.rows(), weight.cols(),
                             weight.kept().columns.size(), !order.empty());
  if (plan || activations != Activations::f32 || plan.error().code != ErrorCode::unsupported) {
    return plan;
  }
  return plan_dense(weight.rows(), weight.cols(), dense_panel_cols());
}

/// Errors: resource.
Status write(const QuantizedTensor& weight, Order order, const PackedPlan& plan, std::byte* to,
             Executor& executor) {
  if (plan.kind == PackedKind::dense) {
    QUELL_TRY(dense, Matrix::uninitialized(weight.rows(), weight.cols()));
    QUELL_TRY(dequantize(weight, dense.view(), executor));
    std::vector<float> row(order.size());
    for (std::size_t r = 0; r < weight.rows() && !order.empty(); ++r) {
      std::copy(dense.row(r).begin(), dense.row(r).end(), row.begin());
      for (std::size_t k = 0; k < order.size(); ++k) dense(r, order[k]) = row[k];
    }
    pack_dense(plan, std::as_const(dense).view(), to, executor);
  } else {
    pack_panels(weight, plan.layout, to, executor);
    const auto copy = [&](const auto& values, std::size_t at, std::size_t end) {
      const std::size_t size = values.size() * sizeof values[0];
      if (size != 0) std::memcpy(to + at, values.data(), size);
      std::memset(to + at + size, 0, end - at - size);
    };
    if (plan.grid.per == Channel::input) {
      copy(weight.parameters().scales, plan.factors_at, plan.zeros_at);
      copy(weight.parameters().zeros, plan.zeros_at, plan.kept_at);
    }
    copy(weight.kept().columns, plan.kept_at, plan.order_at);
    copy(order, plan.order_at, plan.label_at);
  }
  write_label(plan, to + plan.label_at);
  return ok();
}

/// Codes less their zero are whole numbers up to 255, and those are.
bool exact_in_bf16(Format format) {
  const Codebook* const codebook = info(format).codebook;
  return codebook == nullptr ||
         std::all_of(codebook->levels.begin(), codebook->levels.end(),
                     [](float level) { return bf16_to_float(float_to_bf16(level)) == level; });
}

std::string_view name_of(Activations activations) {
  return activations == Activations::int8   ? "int8"
         : activations == Activations::bf16 ? "bfloat16"
                                            : "float32";
}

}  // namespace

Result<PackedPlan> plan_quantized(Activations activations, const GridSpec& grid, std::size_t rows,
                                  std::size_t cols, std::size_t kept, bool ordered) {
  // Longer rows might exceed 32 bits, where a group does not.
  const bool levels = activations == Activations::int8 && cols <= gemm_int8::kMostInLevels;
  const PanelPlan panels = plan_panels(grid, rows, cols, levels);
  std::string refused = panels.refused != nullptr ? panels.refused : "";
  if (activations == Activations::bf16 && refused.empty() && !exact_in_bf16(grid.format)) {
    refused = "values of its codebook are not exact in bfloat16";
  }
  if (activations == Activations::int8 && refused.empty()) {
    if (panels.layout.level_group == 0 && panels.layout.group > gemm_int8::kMostInGroup) {
      refused = "a sum over a group of " + std::to_string(panels.layout.group) +
                " input channels may exceed 32 bits (at most " +
                std::to_string(gemm_int8::kMostInGroup) + ")";
    } else if (const Codebook* codebook = info(grid.format).codebook;
               codebook != nullptr && !codebook->is_whole()) {
      refused = "values of a codebook are not whole numbers";
    }
  }
  if (!refused.empty()) {
    return Error{ErrorCode::unsupported,
                 "grid " + to_string(grid) + " of a weight " + std::to_string(rows) + " x " +
                     std::to_string(cols) + " is not multiplied with " +
                     std::string(name_of(activations)) + " activations: " + refused +
                     "; pack it for float32 activations"};
  }
  PackedPlan plan;
  plan.kind = activations == Activations::int8 ? PackedKind::int8_panels : PackedKind::float_panels;
  plan.bf16_activations = activations == Activations::bf16;
  plan.rows = rows;
  plan.cols = cols;
  plan.grid = grid;
  plan.ordered = ordered;
  plan.layout = panels.layout;
  plan.layout.kept = kept;
  const auto lines = [](std::size_t size) {
    return static_cast<std::size_t>(ceil_divide(size, 64)) * 64;
  };
  plan.factors_at = plan.layout.panels() * plan.layout.panel_bytes();
  plan.zeros_at = plan.kept_at = plan.factors_at;
  if (grid.per == Channel::input) {
    const std::size_t count = group_layout(grid, rows, cols).rows * cols;
    plan.zeros_at = plan.factors_at + lines(count * sizeof(float));
    plan.kept_at = plan.zeros_at + (grid.symmetric ? 0 : lines(count));
  }
  plan.order_at = plan.kept_at + lines(kept * sizeof(std::uint32_t));
  plan.label_at = plan.order_at + (ordered ? lines(cols * sizeof(std::uint32_t)) : 0);
  return plan;
}

Result<std::size_t> packed_bytes(const QuantizedTensor& weight, Activations activations,
                                 std::span<const std::uint32_t> order) {
  QUELL_TRY(plan, plan_of(weight, activations, order));
  return plan.bytes();
}

Result<PackedWeights> pack_into(const QuantizedTensor& weight, Activations activations,
                                std::span<std::byte> memory, Executor& executor,
                                std::span<const std::uint32_t> order) {
  QUELL_TRY(plan, plan_of(weight, activations, order));
  QUELL_TRY(check_memory(plan, memory));
  QUELL_TRY(write(weight, order, plan, memory.data(), executor));
  return form_of(plan, PackedBytes(memory.first(plan.bytes())));
}

Result<PackedWeights> pack(const QuantizedTensor& weight, Activations activations,
                           Executor& executor, std::span<const std::uint32_t> order) {
  QUELL_TRY(plan, plan_of(weight, activations, order));
  QUELL_TRY(bytes, AlignedBytes::allocate(plan.bytes()));
  QUELL_TRY(write(weight, order, plan, bytes.data(), executor));
  return form_of(plan, PackedBytes(std::move(bytes)));
}

}  // namespace quell::kernels
