// SPDX-License-Identifier: Apache-2.0
#pragma once

// MatrixView: a rectangle of somebody else's memory. Row-major; rows are `stride` elements apart, so
// a view of some columns is a view. It never owns and is passed by value.

#include <cstddef>
#include <span>
#include <type_traits>

#include "quell/core/panic.hpp"

namespace quell {

template <typename T>
class MatrixView {
 public:
  using element_type = T;

  constexpr MatrixView() noexcept = default;
  /// Rows of `cols` elements, `stride` >= cols elements apart.
  constexpr MatrixView(T* data, std::size_t rows, std::size_t cols, std::size_t stride)
      : data_(data), rows_(rows), cols_(cols), stride_(stride) {
    QUELL_ASSERT(stride >= cols || rows <= 1);
  }
  constexpr MatrixView(T* data, std::size_t rows, std::size_t cols)
      : MatrixView(data, rows, cols, cols) {}
  /// A view that may be written becomes one that may only be read. (A template, because for an element
  /// that is not const the plain signature would be the copy constructor, taken away.)
  template <typename U>
    requires(std::is_const_v<T> && std::is_same_v<U, std::remove_const_t<T>>)
  constexpr MatrixView(const MatrixView<U>& other) noexcept  // NOLINT: conversion is the point
      : data_(other.data()), rows_(other.rows()), cols_(other.cols()), stride_(other.stride()) {}

  constexpr T* data() const noexcept { return data_; }
  constexpr std::size_t rows() const noexcept { return rows_; }
  constexpr std::size_t cols() const noexcept { return cols_; }
  constexpr std::size_t stride() const noexcept { return stride_; }
  constexpr std::size_t size() const noexcept { return rows_ * cols_; }
  constexpr bool empty() const noexcept { return rows_ == 0 || cols_ == 0; }
  /// True if the elements follow each other without gaps.
  constexpr bool is_contiguous() const noexcept { return stride_ == cols_ || rows_ <= 1; }

  constexpr T& operator()(std::size_t row, std::size_t col) const {
    QUELL_ASSERT(row < rows_ && col < cols_);
    return data_[row * stride_ + col];
  }
  constexpr std::span<T> row(std::size_t row) const {
    QUELL_ASSERT(row < rows_);
    return {data_ + row * stride_, cols_};
  }
  /// Rows [first, first + count).
  constexpr MatrixView rows_from(std::size_t first, std::size_t count) const {
    QUELL_ASSERT(first + count <= rows_);
    return {data_ + first * stride_, count, cols_, stride_};
  }
  /// Columns [first, first + count) of every row.
  constexpr MatrixView cols_from(std::size_t first, std::size_t count) const {
    QUELL_ASSERT(first + count <= cols_);
    return {data_ + first, rows_, count, stride_};
  }
  constexpr MatrixView block(std::size_t row, std::size_t col, std::size_t rows,
                             std::size_t cols) const {
    return rows_from(row, rows).cols_from(col, cols);
  }

 private:
  T* data_ = nullptr;
  std::size_t rows_ = 0;
  std::size_t cols_ = 0;
  std::size_t stride_ = 0;
};

}  // namespace quell
