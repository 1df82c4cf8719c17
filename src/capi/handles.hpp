// SPDX-License-Identifier: Apache-2.0
#pragma once

// What the handles of quell.h are, and the boundary: everything that comes from C is checked before
// it is used, everything that goes back is a status, and no exception leaves. Private.

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <limits>
#include <new>
#include <string>
#include <string_view>
#include <utility>

#include "quell/core/executor.hpp"
#include "quell/core/result.hpp"
#include "quell/core/tensor.hpp"
#include "quell/core/view.hpp"
#include "quell/grid/quantized.hpp"
#include "quell/kernels/gemm.hpp"
#include "quell/quell.h"

namespace quell::capi {

inline Error usage(const std::string& message) {
  return {ErrorCode::usage, message};
}

/// The caller's memory, or the C library's. A copy in every handle, so that each is freed by
/// itself.
class Allocator {
 public:
  Allocator() noexcept;  // of the C library
  explicit Allocator(const quell_allocator& from) noexcept : from_(from) {}

  /// Null if there is none; also if what the caller gave is not aligned, which is then given back.
  void* take(std::size_t bytes, std::size_t alignment) const noexcept;
  void give_back(void* memory, std::size_t bytes) const noexcept {
    if (memory != nullptr) from_.release(from_.state, memory, bytes);
  }

 private:
  quell_allocator from_;
};

inline Error out_of_memory(std::size_t bytes) {
  return {ErrorCode::resource,
          "out of memory: the allocator gave no " + std::to_string(bytes) + " bytes"};
}

/// The host's threads. Ranges that the host hands over are checked, and a failure on one of its
/// threads is kept until check().
class HostExecutor final : public Executor {
 public:
  HostExecutor() = default;  // the calling thread
  explicit HostExecutor(const quell_executor& host) : host_(host), has_host_(true) {}

  unsigned width() const noexcept override { return has_host_ ? host_.width : 1; }
  void run(std::size_t n, std::size_t grain, RangeFunction fn) override;

  void forget() noexcept { fault_ = Fault::none; }
  /// Errors: usage (the host did not keep its part), resource (memory, on one of its threads).
  Status check() const;

 private:
  enum class Fault { none, memory, slot, range, covered };
  struct Work {
    RangeFunction fn;
    std::size_t n, grain;
    unsigned width;
    std::atomic<std::size_t> covered{0};
    std::atomic<Fault> fault{Fault::none};
  };
  static void part(void* work, std::size_t begin, std::size_t end, unsigned slot);

  quell_executor host_ = {};
  bool has_host_ = false;
  Fault fault_ = Fault::none;
};

/// A structure of the caller, whose version may be another.
template <typename T>
Result<T> read_struct(const char* name, const T* from) {
  if (from == nullptr) return usage(std::string(name) + " is null");
  const std::size_t size = from->struct_size;
  // More than any version will have is a field that was not set; reading on would leave the caller.
  if (size < sizeof(T) || size > 4096) {
    return usage(std::string(name) + ".struct_size is " + std::to_string(size) + ", expected " +
                 std::to_string(sizeof(T)) + "; set it to sizeof(" + name + ")");
  }
  const auto* bytes = reinterpret_cast<const unsigned char*>(from);
  if (std::any_of(bytes + sizeof(T), bytes + size, [](unsigned char b) { return b != 0; })) {
    return Error{ErrorCode::unsupported,
                 std::string(name) + " of " + std::to_string(size) +
                     " bytes sets fields that this library, whose structure has " +
                     std::to_string(sizeof(T)) + ", does not know; use a newer one"};
  }
  return *from;
}

/// Fills a structure of the caller; fields that only a later version knows become zero.
template <typename T>
Status write_struct(const char* name, T filled, T* to) {
  if (to == nullptr) return usage(std::string(name) + " is null");
  const std::size_t size = to->struct_size;
  if (size < sizeof(T) || size > 4096) {
    return usage(std::string(name) + ".struct_size is " + std::to_string(size) + ", expected " +
                 std::to_string(sizeof(T)) + "; set it to sizeof(" + name + ")");
  }
  filled.struct_size = size;
  *to = filled;
  std::memset(reinterpret_cast<unsigned char*>(to) + sizeof(T), 0, size - sizeof(T));
  return ok();
}

/// A matrix of the caller: there, with rows apart, and no larger than memory can be.
template <typename T>
Result<MatrixView<T>> view_of(const char* name, T* data, std::size_t rows, std::size_t cols,
                              std::size_t stride) {
  const auto sizes = [&] {
    return std::string(name) + " of " + std::to_string(rows) + " x " + std::to_string(cols);
  };
  if (rows > 1 && stride < cols) {
    return Error{ErrorCode::shape, sizes() + ": the stride is " + std::to_string(stride) +
                                       ", expected at least " + std::to_string(cols)};
  }
  const auto before = rows == 0 ? 0 : checked_multiply(rows - 1, stride);
  const auto count = before ? checked_add(*before, cols) : std::nullopt;
  const auto size = count ? checked_multiply(*count, sizeof(T)) : std::nullopt;
  if (!size || *size > static_cast<std::uint64_t>(std::numeric_limits<std::ptrdiff_t>::max())) {
    return Error{ErrorCode::shape, sizes() + " does not fit in memory"};
  }
  if (rows != 0 && cols != 0 && data == nullptr) return usage(sizes() + " is null");
  return MatrixView<T>(data, rows, cols, rows > 1 ? stride : std::max(stride, cols));
}

}  // namespace quell::capi

struct quell_context {
  quell::capi::Allocator memory;
  quell::capi::HostExecutor executor;
  std::byte* scratch = nullptr;
  std::size_t scratch_bytes = 0;
  char message[1024] = "";

  quell_status fail(quell_status status, std::string_view text) noexcept {
    const std::size_t size = std::min(text.size(), sizeof message - 1);
    std::memcpy(message, text.data(), size);
    message[size] = '\0';
    return status;
  }
};

struct quell_weight {
  quell::capi::Allocator memory;
  std::string grid;  // "" of floats
  quell::QuantizedTensor codes;
  quell::Matrix floats;  // instead of codes

  bool is_quantized() const noexcept { return !grid.empty(); }
  std::size_t rows() const noexcept { return is_quantized() ? codes.rows() : floats.rows(); }
  std::size_t cols() const noexcept { return is_quantized() ? codes.cols() : floats.cols(); }
};

struct quell_packed {
  quell::capi::Allocator memory;
  quell::kernels::PackedWeights weights;
  std::string kernel;
  void* bytes = nullptr;  // of the allocator; null if they are the caller's
  std::size_t size = 0;
};

namespace quell::capi {

constexpr quell_status status_of(ErrorCode code) noexcept {
  static_assert(static_cast<int>(ErrorCode::usage) + 1 == QUELL_USAGE &&
                static_cast<int>(ErrorCode::resource) + 1 == QUELL_RESOURCE &&
                static_cast<int>(ErrorCode::interrupted) + 1 == QUELL_INTERRUPTED);
  return static_cast<quell_status>(static_cast<int>(code) + 1);
}

/// Runs `body`, which returns a Status, with a fresh message. The one way through the boundary.
template <typename Body>
quell_status call(quell_context* context, Body&& body) noexcept {
  if (context == nullptr) return QUELL_USAGE;
  context->message[0] = '\0';
  context->executor.forget();
#if defined(__cpp_exceptions)
  try {
#endif
    const Status done = body();
    if (!done) return context->fail(status_of(done.error().code), done.error().message);
    return QUELL_OK;
#if defined(__cpp_exceptions)
  } catch (const std::exception& error) {
    // Of the standard library, which has no other word for memory that is not there.
    return context->fail(QUELL_RESOURCE, error.what());
  } catch (...) {
    return context->fail(QUELL_RESOURCE, "an exception of the host");
  }
#endif
}

/// A handle in the allocator's memory. Errors: resource.
template <typename T>
Result<T*> make_handle(const quell_context& context, T&& value) {
  void* memory = context.memory.take(sizeof(T), alignof(T));
  if (memory == nullptr) return out_of_memory(sizeof(T));
  value.memory = context.memory;
  return ::new (memory) T(std::move(value));
}
template <typename T>
void free_handle(T* handle) noexcept {
  if (handle == nullptr) return;
  const Allocator memory = handle->memory;
  handle->~T();
  memory.give_back(handle, sizeof(T));
}

}  // namespace quell::capi
