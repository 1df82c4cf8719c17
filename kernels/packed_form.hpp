// SPDX-License-Identifier: Apache-2.0
#pragma once

// What PackedWeights hold: one kind of weight in the arrangement of one kernel. Private.
//
// Packed bytes, ours or the caller's, are complete: a form adds to them only what follows from the
// label at their end, and a copy of the numbers of kept columns and of an order.
//
//     panels         of gemm_dense: [panels][IC][panel_cols] floats; else as panels.hpp says
//     factors        groups down the input channels only: their scales, [runs, IC] floats
//     zeros          asymmetric ones of these only: [runs, IC] bytes
//     kept           input channels kept beside the codes: their columns, 32 bits each, ascending
//     order          weights with an order of their own only: the channel of x that each column
//                    multiplies, [IC] of 32 bits
//     label          64 bytes: what all this is
//
// Every part begins at a 64-byte boundary.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "kernels/panels.hpp"
#include "quell/core/result.hpp"
#include "quell/core/tensor.hpp"
#include "quell/core/view.hpp"
#include "quell/grid/quantized.hpp"
#include "quell/kernels/context.hpp"
#include "quell/kernels/gemm.hpp"
#include "quell/kernels/isa.hpp"

namespace quell::kernels {

namespace gemm_bf16 {
struct Entry;
}

/// Bytes that are owned, or looked at.
class PackedBytes {
 public:
  PackedBytes() noexcept = default;
  explicit PackedBytes(AlignedBytes owned) noexcept
      : owned_(std::move(owned)), bytes_(owned_.data(), owned_.size()) {}
  /// Aligned to 64 bytes; they outlive this.
  explicit PackedBytes(std::span<const std::byte> bytes) noexcept : bytes_(bytes) {}

  const std::byte* data() const noexcept { return bytes_.data(); }
  std::size_t size() const noexcept { return bytes_.size(); }

 private:
  AlignedBytes owned_;
  std::span<const std::byte> bytes_;
};

/// Which driver multiplies.
enum class PackedKind : std::uint8_t { dense, float_panels, int8_panels, f16_panels, bf16_panels };

/// How a weight lies in packed bytes. Follows from grid and sizes, and of dense ones from the width
/// of panels, which is an entry's own.
struct PackedPlan {
  PackedKind kind = PackedKind::dense;
  std::size_t rows = 0, cols = 0;  // OC, IC
  std::size_t panel_cols = 0;      // of dense panels
  GridSpec grid;                   // of panels of codes
  bool ordered = false;            // panels of codes with an order of their columns
  bool bf16_activations = false;   // of float_panels and bf16_panels
  PanelLayout layout;
  std::size_t factors_at = 0, zeros_at = 0, kept_at = 0, order_at = 0, label_at = 0;

  std::size_t bytes() const noexcept { return label_at + 64; }
};

/// Errors: shape (does not fit in memory).
Result<PackedPlan> plan_dense(std::size_t rows, std::size_t cols, std::size_t panel_cols);
/// Of f16_panels or bf16_panels, sizes that fit in memory as floats.
PackedPlan plan_halves(PackedKind kind, std::size_t rows, std::size_t cols) noexcept;
/// Panels of codes; `kept` is the number of kept columns, at most `cols`. Errors: unsupported, with
/// the reason.
Result<PackedPlan> plan_quantized(Activations activations, const GridSpec& grid, std::size_t rows,
                                  std::size_t cols, std::size_t kept, bool ordered);

class PackedForm {
 public:
  PackedForm() = default;
  PackedForm(const PackedForm&) = delete;
  PackedForm& operator=(const PackedForm&) = delete;
  virtual ~PackedForm() = default;

  /// Shapes agree. Errors: resource (scratch).
  virtual Status multiply(MatrixView<const float> x, MatrixView<float> y,
                          Context& context) const = 0;

  std::string_view family;
  Isa isa = Isa::scalar;
  std::optional<Isa> kept_isa;     // of what adds kept columns, if there are any
  std::size_t rows = 0, cols = 0;  // OC, IC
  PackedBytes bytes;
  // Copies, the only numbers of the bytes that are indexes: once they are checked, a mapped file
  // that changes cannot change them.
  std::vector<std::uint32_t> kept_cols;  // columns beside the codes, or empty
  std::vector<std::uint32_t> col_order;  // [IC], or empty
};

/// Width of the panels of the dense entry that this machine takes.
std::size_t dense_panel_cols() noexcept;
/// The panels of `weight`, and zeros up to the label.
void pack_dense(const PackedPlan& plan, MatrixView<const float> weight, std::byte* to,
                Executor& executor);

/// Null where the machine has no entry with such panels.
std::unique_ptr<PackedForm> make_dense_form(const PackedPlan& plan, PackedBytes bytes);
std::unique_ptr<PackedForm> make_int8_form(const PackedPlan& plan, PackedBytes bytes);
std::unique_ptr<PackedForm> make_float_form(const PackedPlan& plan, PackedBytes bytes);
/// That of make_float_form where the machine has no better one.
std::unique_ptr<PackedForm> make_bf16_form(const PackedPlan& plan, PackedBytes bytes);
/// With an entry for such weights that the machine has.
std::unique_ptr<PackedForm> make_bf16_form_with(const gemm_bf16::Entry& entry,
                                                const PackedPlan& plan, PackedBytes bytes);

}  // namespace quell::kernels
