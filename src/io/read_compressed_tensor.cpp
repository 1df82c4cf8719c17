// SPDX-License-Identifier: Apache-2.0
// One module of a compressed-tensors folder. Other writers vary in small things (one scale for a
// whole matrix, 16-bit scales beside int8 weights, zeros kept for symmetric grids); they are
// brought to the form that our own layouts write, which then decode them.
#include <algorithm>
#include <array>

#include "io/export_layouts.hpp"
#include "io/fault.hpp"
#include "quell/core/bits.hpp"
#include "quell/grid/formats.hpp"
#include "quell/grid/groups.hpp"

namespace quell::io {
namespace {

using Bytes = std::vector<std::byte>;

// One value for the whole matrix becomes one for every group.
Bytes spread(Bytes bytes, std::size_t size, std::size_t count) {
  if (bytes.size() != size || count <= 1) return bytes;
  Bytes out;
  out.reserve(size * count);
  for (std::size_t i = 0; i < count; ++i) out.insert(out.end(), bytes.begin(), bytes.end());
  return out;
}

Result<Bytes> read_scales(const ModulePlan& module, const Checkpoint& checkpoint,
                          std::size_t count) {
  const std::string name = module.name + ".weight_scale";
  const TensorInfo* const info = checkpoint.find(name);
  if (info == nullptr || info->dtype != dtype_of(module.grid.scale_type)) {
    return tensor_fault(ErrorCode::missing, module.name, name, "is missing or of another type");
  }
  QUELL_TRY(bytes, read_bytes(checkpoint, *info));
  return spread(std::move(bytes), bits(module.grid.scale_type) / 8, count);
}

// Some writers store zeros for symmetric grids as well. They are harmless if they say zero.
Status check_unused_zeros(const ModulePlan& module, const Checkpoint& checkpoint) {
  const TensorInfo* const info = checkpoint.find(module.name + ".weight_zero_point");
  if (info == nullptr) return ok();
  QUELL_TRY(bytes, read_bytes(checkpoint, *info));
  bool zero = info->dtype == DType::i8 || info->dtype == DType::i32;
  if (info->dtype == DType::i8) {
    zero = std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0}; });
  } else if (zero) {
    const unsigned width = bits(module.grid.format);
    std::vector<std::uint8_t> packed(bytes.size());
    std::transform(bytes.begin(), bytes.end(), packed.begin(),
                   [](std::byte b) { return std::to_integer<std::uint8_t>(b); });
    std::vector<std::uint8_t> codes(bytes.size() / width * 8);
    unpack_codes(packed, width, codes);
    // What pads the last word is 0.
    zero = std::all_of(codes.begin(), codes.end(), [&](std::uint8_t code) {
      return code == 0 || code == symmetric_zero(module.grid.format);
    });
  }
  if (zero) return ok();
  return tensor_fault(ErrorCode::parse, file_of(checkpoint, *info), info->name,
                      "holds zero points other than 0, but the scheme is symmetric");
}

Result<Bytes> read_planned(const TensorPlan& tensor, const Checkpoint& checkpoint) {
  QUELL_TRY(info,
            expect_tensor(checkpoint, tensor.name, std::span(&tensor.dtype, 1), tensor.shape));
  return read_bytes(checkpoint, *info);
}

}  // namespace

Result<QuantizedTensor> read_compressed(const ModulePlan& module, const Checkpoint& checkpoint) {
  const bool packed = checkpoint.find(module.name + ".weight_packed") != nullptr;
  const ExportLayout& layout = packed ? kPackQuantizedLayout : kIntQuantizedLayout;
  const std::vector<TensorPlan> plan = layout.tensors(module);
  const GroupLayout groups = group_layout(module.grid, module.rows, module.cols);
  const std::size_t count = groups.rows * groups.cols;
  std::vector<Bytes> arrays;
  QUELL_TRY(codes, read_planned(plan[0], checkpoint));
  arrays.push_back(std::move(codes));
  QUELL_TRY(scales, read_scales(module, checkpoint, count));
  // int-quantized is decoded from f32 scales; 16-bit ones widen exactly.
  arrays.push_back(
      packed ? std::move(scales)
             : scale_bytes(scales_from_bytes(scales, module.grid.scale_type), ScaleType::f32));
  // weight_shape was read when the module was planned, and may be of either integer type.
  if (packed) arrays.emplace_back(2 * sizeof(std::uint64_t));
  if (module.grid.symmetric) {
    QUELL_TRY(check_unused_zeros(module, checkpoint));
  } else {
    TensorPlan zeros = plan.back();
    const TensorInfo* const info = checkpoint.find(zeros.name);
    // One zero for all, or one per row without the second dimension.
    const bool flat =
        info != nullptr && !packed && element_count(info->shape) == (info->bytes == 1 ? 1 : count);
    if (flat) zeros.shape = info->shape;
    QUELL_TRY(bytes, read_planned(zeros, checkpoint));
    arrays.push_back(packed ? std::move(bytes) : spread(std::move(bytes), 1, count));
  }
  return layout.decode(module, arrays);
}

}  // namespace quell::io
