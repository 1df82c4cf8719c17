// SPDX-License-Identifier: Apache-2.0
#pragma once

// Owning memory: aligned bytes, a matrix of one element type, and the untyped tensor that a file
// holds. Allocation failure is a Result (ErrorCode::resource), since the sizes come from files.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "quell/core/checked.hpp"
#include "quell/core/dtype.hpp"
#include "quell/core/result.hpp"
#include "quell/core/view.hpp"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace quell {

/// Bytes at a 64-byte boundary (one cache line, one 512-bit register), on large pages where they
/// fill some and the system has them. Moves, never copies.
class AlignedBytes {
 public:
  static constexpr std::size_t kAlignment = 64;
  static constexpr std::size_t kLargePage = std::size_t{2} << 20;

  AlignedBytes() noexcept = default;
  /// `size` bytes, not initialized.
  static Result<AlignedBytes> allocate(std::uint64_t size);

  AlignedBytes(AlignedBytes&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  AlignedBytes& operator=(AlignedBytes&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  AlignedBytes(const AlignedBytes&) = delete;
  AlignedBytes& operator=(const AlignedBytes&) = delete;
  ~AlignedBytes() { std::free(data_); }

  std::byte* data() noexcept { return data_; }
  const std::byte* data() const noexcept { return data_; }
  std::size_t size() const noexcept { return size_; }

 private:
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

/// An owning row-major matrix without gaps. T is an arithmetic type.
template <typename T>
class BasicMatrix {
  static_assert(std::is_arithmetic_v<T>);

 public:
  BasicMatrix() noexcept = default;
  /// rows x cols elements, not initialized.
  static Result<BasicMatrix> uninitialized(std::size_t rows, std::size_t cols);
  /// rows x cols zeros.
  static Result<BasicMatrix> zeros(std::size_t rows, std::size_t cols);

  std::size_t rows() const noexcept { return rows_; }
  std::size_t cols() const noexcept { return cols_; }
  std::size_t size() const noexcept { return rows_ * cols_; }
  T* data() noexcept { return reinterpret_cast<T*>(bytes_.data()); }
  const T* data() const noexcept { return reinterpret_cast<const T*>(bytes_.data()); }
  MatrixView<T> view() noexcept { return {data(), rows_, cols_}; }
  MatrixView<const T> view() const noexcept { return {data(), rows_, cols_}; }
  std::span<T> row(std::size_t r) { return view().row(r); }
  std::span<const T> row(std::size_t r) const { return view().row(r); }
  std::span<T> values() noexcept { return {data(), size()}; }
  std::span<const T> values() const noexcept { return {data(), size()}; }
  T& operator()(std::size_t r, std::size_t c) { return view()(r, c); }
  const T& operator()(std::size_t r, std::size_t c) const { return view()(r, c); }

 private:
  AlignedBytes bytes_;
  std::size_t rows_ = 0;
  std::size_t cols_ = 0;
};

using Matrix = BasicMatrix<float>;
using Matrix64 = BasicMatrix<double>;

/// What a file holds: an element type, a shape (row-major, first dimension slowest) and bytes in
/// little-endian order. At most 8 dimensions; an empty shape is a scalar.
struct Tensor {
  DType dtype = DType::f32;
  std::vector<std::uint64_t> shape;
  AlignedBytes bytes;

  std::span<const std::byte> data() const noexcept { return {bytes.data(), bytes.size()}; }
};

/// Number of elements of a shape, or nothing if it does not fit in 64 bits.
inline std::optional<std::uint64_t> element_count(std::span<const std::uint64_t> shape) noexcept {
  // A zero anywhere makes the product zero, whatever overflows before it.
  for (const std::uint64_t dimension : shape) {
    if (dimension == 0) return 0;
  }
  std::optional<std::uint64_t> count = 1;
  for (const std::uint64_t dimension : shape) {
    count = checked_multiply(*count, dimension);
    if (!count) return std::nullopt;
  }
  return count;
}

/// A shape as text, "[4, 3]".
inline std::string shape_text(std::span<const std::uint64_t> shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) {
    if (i != 0) text += ", ";
    text += std::to_string(shape[i]);
  }
  return text + "]";
}

// ------------------------------------------------------------------ definitions

// Matrices on small pages cost a page walk every 64 lines, and in a virtual machine a walk goes
// through two tables: gemm_dense measured 61 % of the multiply limit on small pages and 76 % on
// large ones, second moments 49 and 60 % (Ice Lake server, 512 x 4096 x 4096 and 2048 x 4096). Only
// whole large pages are asked for, so no memory is used that was not allocated.
inline Result<AlignedBytes> AlignedBytes::allocate(std::uint64_t size) {
  AlignedBytes bytes;
  if (size == 0) return bytes;
  const std::size_t alignment = size < kLargePage ? kAlignment : kLargePage;
  const auto padded = checked_round_up(size, kAlignment);
  const auto fits = padded ? checked_narrow<std::size_t>(*padded) : std::nullopt;
  // Not std::aligned_alloc, which wants the size to be a multiple of the alignment.
  void* memory = nullptr;
  if (fits && posix_memalign(&memory, alignment, *fits) == 0) {
    bytes.data_ = static_cast<std::byte*>(memory);
  }
  if (bytes.data_ == nullptr) {
    return Error{ErrorCode::resource,
                 "out of memory: " + std::to_string(size) + " bytes could not be allocated"};
  }
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  // Where the advice is refused, only speed is lost.
  if (size >= kLargePage) {
    static_cast<void>(madvise(bytes.data_, size / kLargePage * kLargePage, MADV_HUGEPAGE));
  }
#endif
  bytes.size_ = static_cast<std::size_t>(size);
  return bytes;
}

template <typename T>
Result<BasicMatrix<T>> BasicMatrix<T>::uninitialized(std::size_t rows, std::size_t cols) {
  const auto count = checked_multiply(rows, cols);
  const auto size = count ? checked_multiply(*count, sizeof(T)) : std::nullopt;
  if (!size) {
    return Error{ErrorCode::shape, "a matrix of " + std::to_string(rows) + " x " +
                                       std::to_string(cols) + " elements does not fit in memory"};
  }
  QUELL_TRY(bytes, AlignedBytes::allocate(*size));
  BasicMatrix matrix;
  matrix.bytes_ = std::move(bytes);
  matrix.rows_ = rows;
  matrix.cols_ = cols;
  return matrix;
}

template <typename T>
Result<BasicMatrix<T>> BasicMatrix<T>::zeros(std::size_t rows, std::size_t cols) {
  QUELL_TRY(matrix, uninitialized(rows, cols));
  if (matrix.size() != 0) std::memset(matrix.data(), 0, matrix.size() * sizeof(T));
  return matrix;
}

}  // namespace quell
