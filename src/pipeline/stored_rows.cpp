// SPDX-License-Identifier: Apache-2.0

// BF16, F16 and F32 are read from the file as they are. Other types, which are rare, and quantized
// weights are decoded to float row by row.

#include "pipeline/stored_rows.hpp"

#include <cstring>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

namespace quell::pipeline {
namespace {

using Type = StoredRows::Type;

std::optional<Type> read_as_it_is(DType dtype) {
  switch (dtype) {
    case DType::bf16:
      return Type::bf16;
    case DType::f16:
      return Type::f16;
    case DType::f32:
      return Type::f32;
    default:
      return std::nullopt;
  }
}

StoredRows from_file(const io::Checkpoint& checkpoint, const io::TensorInfo& info, Type type) {
  StoredRows stored;
  stored.rows = static_cast<std::size_t>(info.shape[0]);
  stored.cols = static_cast<std::size_t>(info.shape[1]);
  stored.type = type;
  stored.read = [&checkpoint, &info, cols = stored.cols, width = stored.width()](
                    const StoredPart& part, std::byte* out) -> Status {
    if (part.cols == cols) {
      return checkpoint.read(info, part.first_row * cols * width, {out, part.rows * cols * width});
    }
    for (std::size_t r = 0; r < part.rows; ++r) {
      QUELL_TRY(checkpoint.read(info, ((part.first_row + r) * cols + part.first_col) * width,
                                {out + r * part.cols * width, part.cols * width}));
    }
    return ok();
  };
  return stored;
}

void copy_part(MatrixView<const float> rows, const StoredPart& part, std::byte* out) {
  for (std::size_t r = 0; r < part.rows; ++r) {
    std::memcpy(out + r * part.cols * sizeof(float), rows.row(r).data() + part.first_col,
                part.cols * sizeof(float));
  }
}

template <typename T>
StoredRows in_memory(MatrixView<const T> x, Type type) {
  StoredRows stored;
  stored.rows = x.rows();
  stored.cols = x.cols();
  stored.type = type;
  stored.read = [x](const StoredPart& part, std::byte* out) -> Status {
    for (std::size_t r = 0; r < part.rows; ++r) {
      std::memcpy(out + r * part.cols * sizeof(T),
                  x.row(part.first_row + r).data() + part.first_col, part.cols * sizeof(T));
    }
    return ok();
  };
  return stored;
}

}  // namespace

Result<StoredRows> stored_rows(const model::Model& model, const model::Linear& linear) {
  if (const io::ModulePlan* module = model.quantized().find(linear.name); module != nullptr) {
    QUELL_TRY(read, model.quantized().read(*module, model.checkpoint()));
    const auto codes = std::make_shared<const QuantizedTensor>(std::move(read));
    StoredRows stored;
    stored.rows = codes->rows();
    stored.cols = codes->cols();
    stored.read = [codes](const StoredPart& part, std::byte* out) -> Status {
      std::vector<float> row(codes->cols());
      for (std::size_t r = 0; r < part.rows; ++r) {
        codes->dequantize_row(part.first_row + r, row);
        copy_part({row.data(), 1, row.size()}, {0, 1, part.first_col, part.cols},
                  out + r * part.cols * sizeof(float));
      }
      return ok();
    };
    return stored;
  }
  const std::string name = linear.name + ".weight";
  const io::TensorInfo* info = model.checkpoint().find(name);
  if (info == nullptr || info->shape.size() != 2) {
    // Never of a model that was loaded; the error of reading it says what is wrong.
    QUELL_TRY(matrix, model.tensor(name, true));
    return Error{ErrorCode::shape, name + " is not a matrix", {}, name};
  }
  StoredRows stored;
  if (const std::optional<Type> type = read_as_it_is(info->dtype)) {
    stored = from_file(model.checkpoint(), *info, *type);
  } else {
    stored.rows = static_cast<std::size_t>(info->shape[0]);
    stored.cols = static_cast<std::size_t>(info->shape[1]);
    stored.read = [&model, name](const StoredPart& part, std::byte* out) -> Status {
      QUELL_TRY(rows, model.rows(name, part.first_row, part.rows, true));
      copy_part(rows.view(), part, out);
      return ok();
    };
  }
  stored.transposed = linear.transposed;
  return stored;
}

StoredRows rows_of(MatrixView<const float> x) {
  return in_memory(x, Type::f32);
}
StoredRows rows_of(MatrixView<const std::uint16_t> x, Type type) {
  return in_memory(x, type);
}

}  // namespace quell::pipeline
