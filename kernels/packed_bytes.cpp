// SPDX-License-Identifier: Apache-2.0

// Packed bytes and their label. Bytes that were packed before may come from a file, so the label is
// hostile: every size is computed again from grid and shape, by the code that packs, and must be
// the size of the bytes. The numbers of kept input channels and of an order are indexes: they are
// copied, and the copy is checked. Whatever else the bytes hold is memory-safe: it is multiplied.

#include "kernels/packed_bytes.hpp"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <utility>

#include "quell/core/checked.hpp"
#include "quell/grid/formats.hpp"

namespace quell::kernels {
namespace {

/// In the byte order of the machine, which the first word shows. The version goes up whenever the
/// arrangement of panels changes.
struct Label {
  static constexpr std::uint64_t kMagic = 0x6465'6b63'6170'2d71;  // "q-packed", read as text
  static constexpr std::uint32_t kVersion = 3;

  std::uint64_t magic = kMagic;
  std::uint32_t version = kVersion;
  std::uint32_t group = 0;
  std::uint64_t rows = 0, cols = 0;  // OC, IC
  std::uint64_t bytes = 0;           // with the label
  std::uint32_t panel_cols = 0;      // of dense panels
  std::uint32_t kept = 0;            // input channels beside codes
  std::uint8_t kind = 0, format = 0, symmetric = 0, per = 0, scale_type = 0, two_level = 0,
               ordered = 0, bf16_activations = 0;
  std::uint8_t reserved[8] = {};
};
static_assert(sizeof(Label) == 64);
static_assert(sizeof(std::size_t) == 8);  // below that sizes of a label could wrap

Error not_packed(const std::string& what) {
  return {ErrorCode::parse, "packed bytes: " + what};
}

std::string where(const std::byte* data) {
  return std::to_string(reinterpret_cast<std::uintptr_t>(data) % AlignedBytes::kAlignment) +
         " bytes past a multiple of 64; lend memory at a multiple of 64";
}
bool is_aligned(const std::byte* data) {
  return reinterpret_cast<std::uintptr_t>(data) % AlignedBytes::kAlignment == 0;
}

/// The grid of a label, if its numbers name one.
Result<GridSpec> grid_of(const Label& label) {
  if (label.format >= kFormats.size() || label.symmetric > 1 || label.per > 1 ||
      label.scale_type > static_cast<std::uint8_t>(ScaleType::f32) || label.two_level > 1) {
    return not_packed("the label names no grid; pack the weight again");
  }
  const GridSpec grid = {static_cast<Format>(label.format),        label.symmetric == 1,
                         static_cast<Channel>(label.per),          label.group,
                         static_cast<ScaleType>(label.scale_type), label.two_level == 1};
  if (const Status possible = check_grid(grid); !possible) {
    return not_packed("the label names a grid that cannot be: " + possible.error().message);
  }
  return grid;
}

Result<PackedPlan> plan_of(const Label& label) {
  if (label.kind == static_cast<std::uint8_t>(PackedKind::dense)) {
    return plan_dense(label.rows, label.cols, label.panel_cols);
  }
  if (const auto kind = static_cast<PackedKind>(label.kind);
      kind == PackedKind::f16_panels || kind == PackedKind::bf16_panels) {
    PackedPlan plan = plan_halves(kind, label.rows, label.cols);
    plan.bf16_activations = label.bf16_activations == 1;
    return plan;
  }
  QUELL_TRY(grid, grid_of(label));
  const Activations activations = label.kind == static_cast<std::uint8_t>(PackedKind::int8_panels)
                                      ? Activations::int8
                                  : label.bf16_activations == 1 ? Activations::bf16
                                                                : Activations::f32;
  return plan_quantized(activations, grid, label.rows, label.cols, label.kept, label.ordered == 1);
}

/// The numbers of kept input channels ascend and name channels that exist.
Status check_kept(const PackedForm& form) {
  std::uint64_t least = 0;
  for (std::size_t k = 0; k < form.kept_cols.size(); ++k) {
    const std::uint32_t column = form.kept_cols[k];
    if (column < least || column >= form.cols) {
      return not_packed("kept input channel " + std::to_string(k) + " is number " +
                        std::to_string(column) + ", expected " + std::to_string(least) + " to " +
                        std::to_string(form.cols - 1) + "; pack the weight again");
    }
    least = std::uint64_t{column} + 1;
  }
  return ok();
}

/// The order names channels that exist. That each comes once is the packer's to check.
Status check_order(const PackedForm& form) {
  for (std::size_t k = 0; k < form.col_order.size(); ++k) {
    const std::uint32_t channel = form.col_order[k];
    if (channel < form.cols) continue;
    return not_packed("column " + std::to_string(k) + " belongs to input channel " +
                      std::to_string(channel) + " of " + std::to_string(form.cols) +
                      "; pack the weight again");
  }
  return ok();
}

/// `bytes` are complete; their indexes are not checked. Error: unsupported.
Result<std::unique_ptr<PackedForm>> unchecked_form(const PackedPlan& plan, PackedBytes bytes) {
  const auto make = plan.kind == PackedKind::dense         ? make_dense_form
                    : plan.kind == PackedKind::int8_panels ? make_int8_form
                    : plan.bf16_activations                ? make_bf16_form
                                                           : make_float_form;
  auto form = make(plan, std::move(bytes));
  if (form == nullptr) {
    return Error{ErrorCode::unsupported,
                 "packed bytes: panels of " + std::to_string(plan.panel_cols) +
                     " floats belong to another machine or cap, this one "
                     "takes " +
                     std::to_string(dense_panel_cols()) + "; pack the weight again"};
  }
  return form;
}

}  // namespace

void write_label(const PackedPlan& plan, std::byte* to) noexcept {
  Label label;
  label.group = plan.grid.group;
  label.rows = plan.rows;
  label.cols = plan.cols;
  label.bytes = plan.bytes();
  label.panel_cols = static_cast<std::uint32_t>(plan.panel_cols);
  label.kept = static_cast<std::uint32_t>(plan.layout.kept);
  label.kind = static_cast<std::uint8_t>(plan.kind);
  label.format = static_cast<std::uint8_t>(plan.grid.format);
  label.symmetric = plan.grid.symmetric ? 1 : 0;
  label.per = static_cast<std::uint8_t>(plan.grid.per);
  label.scale_type = static_cast<std::uint8_t>(plan.grid.scale_type);
  label.two_level = plan.grid.two_level ? 1 : 0;
  label.ordered = plan.ordered ? 1 : 0;
  label.bf16_activations = plan.bf16_activations ? 1 : 0;
  std::memcpy(to, &label, sizeof label);
}

Status check_memory(const PackedPlan& plan, std::span<const std::byte> memory) {
  if (memory.size() < plan.bytes()) {
    return Error{ErrorCode::shape, "pack_into: a weight of " + std::to_string(plan.rows) + " x " +
                                       std::to_string(plan.cols) + " takes " +
                                       std::to_string(plan.bytes()) + " bytes, the memory has " +
                                       std::to_string(memory.size()) +
                                       "; packed_bytes tells how many"};
  }
  if (!is_aligned(memory.data())) {
    return Error{ErrorCode::usage, "pack_into: the memory begins " + where(memory.data())};
  }
  return ok();
}

Result<PackedPlan> plan_dense(std::size_t rows, std::size_t cols, std::size_t panel_cols) {
  const auto elements = checked_multiply(ceil_divide(rows, panel_cols), panel_cols * cols);
  const auto size = elements ? checked_multiply(*elements, sizeof(float)) : std::nullopt;
  const auto lines = size ? checked_round_up(*size, 64) : std::nullopt;
  // Room for the label, and views of memory end below half of the address space.
  if (!lines || *lines > std::uint64_t{1} << 62) {
    return Error{ErrorCode::shape, "pack: a weight of [" + std::to_string(rows) + ", " +
                                       std::to_string(cols) + "] does not fit in memory"};
  }
  PackedPlan plan;
  plan.rows = rows;
  plan.cols = cols;
  plan.panel_cols = panel_cols;
  plan.factors_at = plan.zeros_at = plan.kept_at = plan.order_at = plan.label_at =
      static_cast<std::size_t>(*lines);
  return plan;
}

PackedPlan plan_halves(PackedKind kind, std::size_t rows, std::size_t cols) noexcept {
  PackedPlan plan;
  plan.kind = kind;
  plan.rows = rows;
  plan.cols = cols;
  plan.layout = float_panels(rows, cols, kind == PackedKind::bf16_panels);
  plan.factors_at = plan.zeros_at = plan.kept_at = plan.order_at = plan.label_at =
      plan.layout.panels() * plan.layout.panel_bytes();
  return plan;
}

Result<PackedWeights> form_of(const PackedPlan& plan, PackedBytes bytes) {
  QUELL_TRY(form, unchecked_form(plan, std::move(bytes)));
  return PackedWeights(std::move(form));
}

Result<PackedWeights> view_packed(std::span<const std::byte> bytes) {
  if (bytes.size() < sizeof(Label)) {
    return not_packed(std::to_string(bytes.size()) + " bytes, expected at least " +
                      std::to_string(sizeof(Label)));
  }
  if (!is_aligned(bytes.data())) {
    return Error{ErrorCode::usage, "packed bytes begin " + where(bytes.data())};
  }
  Label label;
  std::memcpy(&label, bytes.data() + bytes.size() - sizeof label, sizeof label);
  if (label.magic != Label::kMagic) {
    return not_packed("no label at the end of the " + std::to_string(bytes.size()) +
                      " bytes: they are cut, or something else");
  }
  if (label.version != Label::kVersion) {
    return not_packed("version " + std::to_string(label.version) + ", expected " +
                      std::to_string(Label::kVersion) + "; pack the weight again");
  }
  const std::uint8_t nothing[sizeof label.reserved] = {};
  const auto kind = static_cast<PackedKind>(label.kind);
  const bool takes_bf16 = kind == PackedKind::float_panels || kind == PackedKind::bf16_panels;
  if (kind > PackedKind::bf16_panels || label.bf16_activations > (takes_bf16 ? 1 : 0) ||
      std::memcmp(label.reserved, nothing, sizeof nothing) != 0) {
    return not_packed("the label is damaged; pack the weight again");
  }
  const std::string shape = std::to_string(label.rows) + " x " + std::to_string(label.cols);
  // Four bits are the least that an element takes. After this no size below can overflow: panels
  // times columns are at most four times as many as the bytes, and a column of a panel takes less
  // than 512 bytes, with its scales, zeros and integers, its kept values and its place in an order.
  if (label.rows == 0 || label.cols == 0 || label.rows > 2 * bytes.size() / label.cols ||
      label.panel_cols > 4096 ||
      (label.kind == static_cast<std::uint8_t>(PackedKind::dense)) != (label.panel_cols != 0)) {
    return not_packed("a weight of " + shape + " does not fit in " + std::to_string(bytes.size()) +
                      " bytes; pack it again");
  }
  const bool codes = label.kind == static_cast<std::uint8_t>(PackedKind::float_panels) ||
                     label.kind == static_cast<std::uint8_t>(PackedKind::int8_panels);
  if (label.ordered > (codes ? 1 : 0)) {
    return not_packed("the label is damaged; pack the weight again");
  }
  if (label.kept > (codes ? label.cols : 0)) {
    return not_packed("the label names " + std::to_string(label.kept) +
                      " kept input channels of a weight of " + shape +
                      (codes ? "" : " without codes") + "; pack it again");
  }
  QUELL_TRY(plan, plan_of(label));
  if (plan.bytes() != bytes.size() || label.bytes != bytes.size()) {
    return not_packed("a weight of " + shape + " takes " + std::to_string(plan.bytes()) +
                      " bytes and the label says " + std::to_string(label.bytes) + "; there are " +
                      std::to_string(bytes.size()));
  }
  QUELL_TRY(form, unchecked_form(plan, PackedBytes(bytes)));
  QUELL_TRY(check_kept(*form));
  QUELL_TRY(check_order(*form));
  return PackedWeights(std::move(form));
}

PackedWeights::PackedWeights() noexcept = default;
PackedWeights::PackedWeights(std::unique_ptr<PackedForm> form) noexcept : form_(std::move(form)) {}
PackedWeights::PackedWeights(PackedWeights&&) noexcept = default;
PackedWeights& PackedWeights::operator=(PackedWeights&&) noexcept = default;
PackedWeights::~PackedWeights() = default;
std::size_t PackedWeights::rows() const noexcept {
  return form_ ? form_->rows : 0;
}
std::size_t PackedWeights::cols() const noexcept {
  return form_ ? form_->cols : 0;
}
std::span<const std::byte> PackedWeights::memory() const noexcept {
  if (form_ == nullptr) return {};
  return {form_->bytes.data(), form_->bytes.size()};
}
std::string PackedWeights::kernel() const {
  if (form_ == nullptr) return {};
  std::string name = std::string(form_->family) + "/" + std::string(to_string(form_->isa));
  if (form_->kept_isa) name.append(" + kept_columns/").append(to_string(*form_->kept_isa));
  return name;
}

namespace {

/// Errors: shape, unsupported, numeric.
Result<PackedPlan> plan_floats(MatrixView<const float> weight, DType as, Activations activations) {
  if (activations == Activations::int8) {
    return Error{ErrorCode::unsupported,
                 "pack: a weight of floats is not multiplied with int8 activations; quantize it, "
                 "or pack it for f32 or bf16"};
  }
  if (activations == Activations::bf16 && as != DType::bf16) {
    return Error{ErrorCode::unsupported, "pack: weights in " + std::string(to_string(as)) +
                                             " are not multiplied with bfloat16 activations; pack "
                                             "them as bf16"};
  }
  QUELL_TRY(dense, plan_dense(weight.rows(), weight.cols(), dense_panel_cols()));
  if (as == DType::f32 || weight.empty()) return dense;
  if (as != DType::f16 && as != DType::bf16) {
    return Error{ErrorCode::unsupported, "pack: weights in " + std::string(to_string(as)) +
                                             " are not multiplied; use f32, f16 or bf16"};
  }
  // 65,520 is the first that rounds to infinity.
  for (std::size_t r = 0; as == DType::f16 && r < weight.rows(); ++r) {
    for (std::size_t c = 0; c < weight.cols(); ++c) {
      const float value = weight(r, c);
      if (!(std::fabs(value) >= 65520.0f) || std::isinf(value)) continue;
      return Error{ErrorCode::numeric, "pack: element (" + std::to_string(r) + ", " +
                                           std::to_string(c) + ") is " + std::to_string(value) +
                                           ", and f16 ends at 65504; use bf16 or f32"};
    }
  }
  PackedPlan plan = plan_halves(as == DType::f16 ? PackedKind::f16_panels : PackedKind::bf16_panels,
                                weight.rows(), weight.cols());
  plan.bf16_activations = activations == Activations::bf16;
  return plan;
}

void write(MatrixView<const float> weight, const PackedPlan& plan, std::byte* to,
           Executor& executor) {
  if (plan.kind == PackedKind::dense) {
    pack_dense(plan, weight, to, executor);
  } else {
    pack_panels(weight, plan.layout, to, executor);
  }
  write_label(plan, to + plan.label_at);
}

}  // namespace

Result<std::size_t> packed_bytes(MatrixView<const float> weight, DType as,
                                 Activations activations) {
  QUELL_TRY(plan, plan_floats(weight, as, activations));
  return plan.bytes();
}

Result<PackedWeights> pack(MatrixView<const float> weight, DType as, Executor& executor,
                           Activations activations) {
  QUELL_TRY(plan, plan_floats(weight, as, activations));
  QUELL_TRY(bytes, AlignedBytes::allocate(plan.bytes()));
  write(weight, plan, bytes.data(), executor);
  return form_of(plan, PackedBytes(std::move(bytes)));
}
Result<PackedWeights> pack(MatrixView<const float> weight, Executor& executor) {
  return pack(weight, DType::f32, executor);
}

Result<PackedWeights> pack_into(MatrixView<const float> weight, DType as,
                                std::span<std::byte> memory, Executor& executor,
                                Activations activations) {
  QUELL_TRY(plan, plan_floats(weight, as, activations));
  QUELL_TRY(check_memory(plan, memory));
  write(weight, plan, memory.data(), executor);
  return form_of(plan, PackedBytes(memory.first(plan.bytes())));
}

Status gemm(MatrixView<const float> x, const PackedWeights& weight, MatrixView<float> y,
            Context& context) {
  const auto sizes = [](std::size_t rows, std::size_t cols) {
    return "[" + std::to_string(rows) + ", " + std::to_string(cols) + "]";
  };
  if (x.cols() != weight.cols() || y.rows() != x.rows() || y.cols() != weight.rows()) {
    return Error{ErrorCode::shape, "gemm: x is " + sizes(x.rows(), x.cols()) + " and the weight " +
                                       sizes(weight.rows(), weight.cols()) + ", so y must be " +
                                       sizes(x.rows(), weight.rows()) + " and x must have " +
                                       std::to_string(weight.cols()) + " columns; y is " +
                                       sizes(y.rows(), y.cols())};
  }
  if (weight.form_ == nullptr || x.rows() == 0) return ok();
  return weight.form_->multiply(x, y, context);
}

}  // namespace quell::kernels
