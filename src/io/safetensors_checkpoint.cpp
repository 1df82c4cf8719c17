// SPDX-License-Identifier: Apache-2.0

// Opening reads every header once; what stays in memory is one record for each tensor.

#include <algorithm>
#include <bit>
#include <system_error>

#include "io/fault.hpp"
#include "io/float_values.hpp"
#include "io/limits.hpp"
#include "io/open_files.hpp"
#include "io/pickled.hpp"
#include "io/safetensors_folder.hpp"
#include "io/safetensors_header.hpp"
#include "quell/core/checked.hpp"
#include "quell/io/safetensors.hpp"

namespace quell::io {

static_assert(std::endian::native == std::endian::little,
              "tensor bytes are used as they are in the file, which is little-endian");

struct Checkpoint::State {
  OpenFiles files;
  std::vector<TensorInfo> tensors;
  std::vector<MetadataEntry> metadata;
  std::vector<std::string> warnings;
  std::uint64_t total_bytes = 0;
};

namespace {

namespace fs = std::filesystem;

// What the index says of each tensor against what the files hold; both are sorted by name.
Status compare_with_index(const FolderFiles& folder, std::span<const TensorInfo> tensors,
                          std::vector<std::string>& warnings) {
  auto tensor = tensors.begin();
  const auto skip_unnamed = [&](const std::string* until) {
    for (; tensor != tensors.end() && (until == nullptr || tensor->name < *until); ++tensor) {
      warnings.push_back(printable(folder.files[tensor->file].string(), kPathLength) + ": tensor " +
                         printable(tensor->name) + " is in the file but not in the index");
    }
  };
  for (const auto& [name, file] : folder.index) {
    skip_unnamed(&name);
    if (tensor == tensors.end() || tensor->name != name) {
      return tensor_fault(ErrorCode::missing, folder.files[file].string(), name,
                          "is not in the file, but the index says so");
    }
    if (tensor->file != file) {
      return tensor_fault(ErrorCode::parse, folder.index_file, name,
                          "is said to be in " + printable(folder.files[file].filename().string()) +
                              ", but it is in " +
                              printable(folder.files[tensor->file].filename().string()));
    }
    ++tensor;
  }
  skip_unnamed(nullptr);
  return ok();
}

}  // namespace

Checkpoint::Checkpoint(std::unique_ptr<State> state) noexcept : state_(std::move(state)) {}
Checkpoint::Checkpoint(Checkpoint&&) noexcept = default;
Checkpoint& Checkpoint::operator=(Checkpoint&&) noexcept = default;
Checkpoint::~Checkpoint() = default;

Result<Checkpoint> Checkpoint::open(const fs::path& path) {
  return open(path, Options{});
}

Result<Checkpoint> Checkpoint::open(const fs::path& path, Options options) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  FolderFiles folder;
  if (fs::is_directory(status)) {
    QUELL_TRY(found, choose_files(path, options));
    folder = std::move(found);
  } else {
    if (fs::exists(status) && has_pickled_name(path.filename().string())) {
      return pickled_fault(path.string());
    }
    folder.files.push_back(path);
  }

  auto state = std::make_unique<State>();
  state->warnings = std::move(folder.warnings);
  for (const fs::path& name : folder.files) {
    QUELL_TRY(file, File::open(name));
    QUELL_TRY(header, read_safetensors_header(file));
    const std::uint32_t index = state->files.add(name, std::move(file));
    if (header.tensors.size() > limits::kTensorsPerFolder - state->tensors.size()) {
      return file_fault(ErrorCode::parse, name.string(),
                        "the files hold more tensors than the limit of " +
                            std::to_string(limits::kTensorsPerFolder));
    }
    for (TensorInfo& tensor : header.tensors) {
      tensor.file = index;
      const auto total = checked_add(state->total_bytes, tensor.bytes);
      if (!total) {
        return file_fault(ErrorCode::parse, name.string(), "the sizes of all tensors overflow");
      }
      state->total_bytes = *total;
      state->tensors.push_back(std::move(tensor));
    }
    if (index == 0) state->metadata = std::move(header.metadata);
  }

  auto& tensors = state->tensors;
  std::sort(tensors.begin(), tensors.end(), [](const TensorInfo& a, const TensorInfo& b) {
    const int compared = a.name.compare(b.name);
    return compared != 0 ? compared < 0 : a.file < b.file;
  });
  const auto twin =
      std::adjacent_find(tensors.begin(), tensors.end(),
                         [](const TensorInfo& a, const TensorInfo& b) { return a.name == b.name; });
  if (twin != tensors.end()) {
    return tensor_fault(
        ErrorCode::parse, folder.files[(twin + 1)->file].string(), twin->name,
        "is in two files, the other is " + printable(folder.files[twin->file].filename().string()));
  }
  if (!folder.index_file.empty()) {
    QUELL_TRY(compare_with_index(folder, tensors, state->warnings));
  }
  return Checkpoint(std::move(state));
}

std::span<const TensorInfo> Checkpoint::tensors() const noexcept {
  return state_->tensors;
}

const TensorInfo* Checkpoint::find(std::string_view name) const noexcept {
  const auto& tensors = state_->tensors;
  const auto at = std::lower_bound(
      tensors.begin(), tensors.end(), name,
      [](const TensorInfo& info, std::string_view key) { return info.name < key; });
  return at != tensors.end() && at->name == name ? &*at : nullptr;
}

const std::vector<fs::path>& Checkpoint::files() const noexcept {
  return state_->files.paths();
}
std::span<const MetadataEntry> Checkpoint::metadata() const noexcept {
  return state_->metadata;
}
const std::vector<std::string>& Checkpoint::warnings() const noexcept {
  return state_->warnings;
}
std::uint64_t Checkpoint::total_bytes() const noexcept {
  return state_->total_bytes;
}

Status Checkpoint::read(const TensorInfo& info, std::span<std::byte> out) const {
  if (out.size() != info.bytes) {
    return tensor_fault(ErrorCode::shape, files()[info.file].string(), info.name,
                        "has " + std::to_string(info.bytes) + " bytes, but room was given for " +
                            std::to_string(out.size()));
  }
  return read(info, 0, out);
}

Status Checkpoint::read(const TensorInfo& info, std::uint64_t first,
                        std::span<std::byte> out) const {
  QUELL_ASSERT(info.file < files().size());
  const auto end = checked_add(first, out.size());
  if (!end || *end > info.bytes) {
    return tensor_fault(ErrorCode::shape, files()[info.file].string(), info.name,
                        "has " + std::to_string(info.bytes) + " bytes, but " +
                            std::to_string(out.size()) + " from byte " + std::to_string(first) +
                            " were asked for");
  }
  const auto failed = [&](Error error) {
    error.message += " (tensor " + printable(info.name) + ")";
    error.tensor = info.name;
    return error;
  };
  auto file = state_->files.get(info.file);
  if (!file) return failed(std::move(file).error());
  // The sum cannot wrap: the tensor lies inside its file.
  auto done = (*file)->read_at(info.offset + first, out);
  if (!done) return failed(std::move(done).error());
  return ok();
}

namespace {

Error no_such_tensor(const Checkpoint& checkpoint, std::string_view name) {
  const auto& files = checkpoint.files();
  std::string place = files.front().string();
  if (files.size() > 1) place = files.front().parent_path().string();
  return tensor_fault(ErrorCode::missing, place, name, "is not in the checkpoint");
}

}  // namespace

Result<Tensor> Checkpoint::read(std::string_view name) const {
  const TensorInfo* info = find(name);
  if (info == nullptr) return no_such_tensor(*this, name);
  QUELL_TRY(bytes, AlignedBytes::allocate(info->bytes));
  Tensor tensor{info->dtype, info->shape, std::move(bytes)};
  QUELL_TRY(read(*info, {tensor.bytes.data(), tensor.bytes.size()}));
  return tensor;
}

Result<Matrix> Checkpoint::read_floats(std::string_view name) const {
  const TensorInfo* info = find(name);
  if (info == nullptr) return no_such_tensor(*this, name);
  const std::string& file = files()[info->file].string();
  if (!is_float(info->dtype)) {
    return tensor_fault(ErrorCode::unsupported, file, name,
                        "has dtype " + std::string(to_string(info->dtype)) +
                            ", expected a floating-point type (F64, F32, F16, BF16 or an F8 type)");
  }
  // Products of dimensions fit: the header was refused otherwise.
  std::uint64_t rows = 1, cols = 1;
  for (std::size_t i = 0; i < info->shape.size(); ++i) {
    (i == 0 && info->shape.size() > 1 ? rows : cols) *= info->shape[i];
  }
  const auto row_count = checked_narrow<std::size_t>(rows);
  const auto col_count = checked_narrow<std::size_t>(cols);
  if (!row_count || !col_count) {
    return tensor_fault(ErrorCode::resource, file, name, "does not fit in memory");
  }
  QUELL_TRY(matrix, Matrix::uninitialized(*row_count, *col_count));
  if (info->dtype == DType::f32) {
    QUELL_TRY(read(*info, std::as_writable_bytes(matrix.values())));
    return matrix;
  }
  // Narrow types are read through a window, so that the peak is the result and not result and file.
  constexpr std::size_t kWindow = std::size_t{1} << 20;
  QUELL_TRY(window, AlignedBytes::allocate(std::min<std::uint64_t>(kWindow, info->bytes)));
  const std::size_t width = bits(info->dtype) / 8;
  for (std::uint64_t first = 0; first < info->bytes; first += window.size()) {
    const auto count =
        static_cast<std::size_t>(std::min<std::uint64_t>(window.size(), info->bytes - first));
    const std::span<std::byte> bytes(window.data(), count);
    QUELL_TRY(read(*info, first, bytes));
    to_floats(info->dtype, bytes,
              matrix.values().subspan(static_cast<std::size_t>(first) / width, count / width));
  }
  return matrix;
}

}  // namespace quell::io
