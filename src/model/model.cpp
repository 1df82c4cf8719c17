// SPDX-License-Identifier: Apache-2.0

// Reading tensors of an opened model as float32: whole, by rows, dequantized, transposed. A weight
// that is not finite would spread silently through every product, so reading checks each element.

#include "quell/model/model.hpp"

#include <bit>
#include <cmath>
#include <cstring>
#include <string>

#include "model/names.hpp"
#include "quell/core/half.hpp"
#include "quell/io/printable.hpp"

namespace quell::model {
namespace {

// Elements tested together: the inner loop has no exit, so that it becomes vector instructions.
constexpr std::size_t kScan = 4096;

bool is_finite(float value) {
  return (std::bit_cast<std::uint32_t>(value) & 0x7F80'0000u) != 0x7F80'0000u;
}

/// Index of the first element that is not finite, or values.size().
std::size_t find_nonfinite(std::span<const float> values) {
  for (std::size_t begin = 0; begin < values.size(); begin += kScan) {
    const std::size_t end = std::min(values.size(), begin + kScan);
    bool bad = false;
    for (std::size_t i = begin; i < end; ++i) bad |= !is_finite(values[i]);
    if (!bad) continue;
    for (std::size_t i = begin; i < end; ++i) {
      if (!is_finite(values[i])) return i;
    }
  }
  return values.size();
}

/// `first_row` is the row of the tensor that `matrix` starts with.
Status check_finite(const Matrix& matrix, const std::string& file, const std::string& name,
                    bool is_vector, std::size_t first_row) {
  const std::size_t at = find_nonfinite(matrix.values());
  if (at == matrix.size()) return ok();
  const float value = matrix.values()[at];
  std::string index = std::to_string(at % matrix.cols());
  if (!is_vector) index = std::to_string(first_row + at / matrix.cols()) + ", " + index;
  const char* what = std::isnan(value) ? "nan" : (value > 0 ? "inf" : "-inf");
  return Error{
      ErrorCode::parse,
      file + ": " + io::printable(name) + ": element [" + index + "] is " + what +
          ", expected finite numbers; --nonfinite zero|skip reads such weights all the same",
      file, name};
}

/// Bytes of a file, little-endian, as floats. The dtype is one that is_floating() accepts.
void widen(DType dtype, std::span<const std::byte> bytes, std::span<float> out) {
  const auto each = [&](auto element, auto convert) {
    for (std::size_t i = 0; i < out.size(); ++i) {
      std::memcpy(&element, bytes.data() + i * sizeof(element), sizeof(element));
      out[i] = convert(element);
    }
  };
  using Byte = std::uint8_t;
  using Half = std::uint16_t;
  switch (dtype) {
    case DType::f32:
      std::memcpy(out.data(), bytes.data(), bytes.size());
      break;
    case DType::f64:
      each(0.0, [](double x) { return static_cast<float>(x); });
      break;
    case DType::f16:
      each(Half{}, [](Half x) { return f16_to_float(x); });
      break;
    case DType::bf16:
      each(Half{}, [](Half x) { return bf16_to_float(x); });
      break;
    case DType::f8_e4m3:
      each(Byte{}, [](Byte x) { return f8_e4m3_to_float(x); });
      break;
    case DType::f8_e5m2:
      each(Byte{}, [](Byte x) { return f8_e5m2_to_float(x); });
      break;
    case DType::f8_e4m3fnuz:
      each(Byte{}, [](Byte x) { return f8_e4m3fnuz_to_float(x); });
      break;
    case DType::f8_e5m2fnuz:
      each(Byte{}, [](Byte x) { return f8_e5m2fnuz_to_float(x); });
      break;
    default:
      panic("widen: not a floating-point type");
  }
}

}  // namespace

Status expect_head(const Model& model) {
  if (model.has_head()) return ok();
  const std::string folder = model.folder().string();
  return Error{ErrorCode::unsupported,
               folder + ": " + model.config().architecture +
                   " is an encoder: it gives embeddings of whole texts, and has no head that would "
                   "predict tokens",
               folder,
               {}};
}

std::string_view to_string(Site site) noexcept {
  switch (site) {
    case Site::qkv_in:
      return "qkv_in";
    case Site::o_in:
      return "o_in";
    case Site::mlp_in:
      return "mlp_in";
    case Site::down_in:
      return "down_in";
  }
  return "unknown";
}

std::vector<const Linear*> linears_at(const Block& block, Site site) {
  std::vector<const Linear*> linears;
  switch (site) {
    case Site::qkv_in:
      for (const Linear& linear : block.qkv) linears.push_back(&linear);
      break;
    case Site::o_in:
      linears.push_back(&block.o);
      break;
    case Site::mlp_in:
      for (const Linear& linear : block.gate_up) linears.push_back(&linear);
      break;
    case Site::down_in:
      linears.push_back(&block.down);
      break;
  }
  return linears;
}

Model Model::edited(std::shared_ptr<const Edits> edits) const {
  Model model = *this;
  model.edits_ = std::move(edits);
  if (model.edits_ != nullptr && !model.edits_->untied_head().empty() && tied_head()) {
    model.frame_.head = model.edits_->untied_head();
    model.config_.tied_head = false;
    model.parameters_ += std::uint64_t{config_.vocabulary} * config_.embedding_width;
  }
  return model;
}

Result<Matrix> Model::weight(const Linear& linear, Executor& executor, bool allow_nonfinite) const {
  const std::string name = linear.name + ".weight";
  Matrix matrix;
  if (const io::ModulePlan* module = quantized_.find(linear.name); module != nullptr) {
    if (module->rotation != 0) {
      return Error{ErrorCode::unsupported,
                   linear.name + ": its codes are those of a weight rotated in blocks of " +
                       std::to_string(module->rotation) + "; start from the original model",
                   folder_.string(), linear.name};
    }
    QUELL_TRY(quantized, quantized_.read(*module, *checkpoint_));
    QUELL_TRY(values, Matrix::uninitialized(quantized.rows(), quantized.cols()));
    QUELL_TRY(dequantize(quantized, values.view(), executor));
    matrix = std::move(values);
  } else {
    QUELL_TRY(values, stored_tensor(name, allow_nonfinite));
    matrix = std::move(values);
    if (linear.transposed) {
      QUELL_TRY(turned, transposed(matrix));
      matrix = std::move(turned);
    }
  }
  if (edits_ != nullptr) QUELL_TRY(edits_->apply(name, matrix, /*transposed=*/false, executor));
  return matrix;
}

Result<std::optional<QuantizedTensor>> Model::codes(const Linear& linear) const {
  const io::ModulePlan* module = quantized_.find(linear.name);
  if (module == nullptr || is_edited(linear.name + ".weight")) {
    return std::optional<QuantizedTensor>();
  }
  QUELL_TRY(read, quantized_.read(*module, *checkpoint_));
  return std::optional<QuantizedTensor>(std::move(read));
}

Result<Matrix> Model::bias(const Linear& linear) const {
  if (!linear.bias) return Matrix();
  return tensor(linear.name + ".bias");
}

Result<Matrix> Model::tensor(const std::string& name, bool allow_nonfinite) const {
  if (edits_ == nullptr) return stored_tensor(name, allow_nonfinite);
  SerialExecutor serial;
  const Matrix* replaced = edits_->replacement(name);
  if (replaced == nullptr) {
    QUELL_TRY(matrix, stored_tensor(edits_->source(name), allow_nonfinite));
    QUELL_TRY(edits_->apply(name, matrix, is_transposed(name), serial));
    return matrix;
  }
  QUELL_TRY(matrix, Matrix::uninitialized(replaced->rows(), replaced->cols()));
  std::copy(replaced->values().begin(), replaced->values().end(), matrix.values().begin());
  QUELL_TRY(edits_->apply(name, matrix, false, serial));
  return matrix;
}

bool Model::is_transposed(const std::string& name) const {
  if (quantized_.find(module_of(name)) != nullptr) return false;
  for (const Block& block : blocks_) {
    for (const Site site : kSites) {
      for (const Linear* linear : linears_at(block, site)) {
        if (linear->transposed && linear->name + ".weight" == name) return true;
      }
    }
  }
  return false;
}

Result<Matrix> Model::stored_tensor(const std::string& name, bool allow_nonfinite) const {
  if (const io::ModulePlan* module = find_quantized(quantized_, name); module != nullptr) {
    SerialExecutor serial;
    QUELL_TRY(codes, quantized_.read(*module, *checkpoint_));
    QUELL_TRY(matrix, Matrix::uninitialized(codes.rows(), codes.cols()));
    QUELL_TRY(dequantize(codes, matrix.view(), serial));
    return matrix;
  }
  QUELL_TRY(matrix, checkpoint_->read_floats(name));
  const io::TensorInfo* info = checkpoint_->find(name);
  if (!allow_nonfinite) {
    QUELL_TRY(check_finite(matrix, checkpoint_->files()[info->file].string(), name,
                           info->shape.size() < 2, 0));
  }
  return matrix;
}

Result<Matrix> Model::rows(const std::string& name, std::size_t first, std::size_t count,
                           bool allow_nonfinite) const {
  if (!is_edited(name)) return stored_rows(name, first, count, allow_nonfinite);
  QUELL_ASSERT(edits_->maps_rows_alone(name) && !is_transposed(name));
  QUELL_TRY(matrix, stored_rows(edits_->source(name), first, count, allow_nonfinite));
  SerialExecutor serial;
  QUELL_TRY(edits_->apply(name, matrix, /*transposed=*/false, serial));
  return matrix;
}

Result<Matrix> Model::stored_rows(const std::string& name, std::size_t first, std::size_t count,
                                  bool allow_nonfinite) const {
  if (const io::ModulePlan* module = find_quantized(quantized_, name); module != nullptr) {
    QUELL_TRY(codes, quantized_.read(*module, *checkpoint_));
    QUELL_TRY(matrix, Matrix::uninitialized(count, codes.cols()));
    for (std::size_t row = 0; row < count; ++row)
      codes.dequantize_row(first + row, matrix.row(row));
    return matrix;
  }
  const io::TensorInfo* info = checkpoint_->find(name);
  if (info == nullptr) {
    return Error{ErrorCode::missing,
                 folder_.string() + ": tensor " + io::printable(name) + " is missing",
                 folder_.string(), name};
  }
  QUELL_ASSERT(info->shape.size() == 2 && first + count <= info->shape[0]);
  const std::size_t cols = static_cast<std::size_t>(info->shape[1]);
  const std::size_t row_bytes = cols * (bits(info->dtype) / 8);
  QUELL_TRY(matrix, Matrix::uninitialized(count, cols));
  if (info->dtype == DType::f32) {
    QUELL_TRY(checkpoint_->read(*info, first * row_bytes, std::as_writable_bytes(matrix.values())));
  } else {
    QUELL_TRY(bytes, AlignedBytes::allocate(count * row_bytes));
    const std::span<std::byte> raw(bytes.data(), bytes.size());
    QUELL_TRY(checkpoint_->read(*info, first * row_bytes, raw));
    widen(info->dtype, raw, matrix.values());
  }
  if (!allow_nonfinite) {
    QUELL_TRY(check_finite(matrix, checkpoint_->files()[info->file].string(), name, false, first));
  }
  return matrix;
}

}  // namespace quell::model
