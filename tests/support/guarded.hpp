// SPDX-License-Identifier: Apache-2.0
#pragma once

// Memory between two pages that nobody may touch: a kernel that reads or writes one element too far
// ends with a segmentation fault instead of a lucky pass. The values lie either right before the
// upper guard (to catch overruns) or right after the lower one (to catch underruns).

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdlib>
#include <span>

namespace quell::test {

enum class Edge { front, back };  // which end of the values touches a guard page

template <typename T>
class Guarded {
 public:
  explicit Guarded(std::size_t count, Edge edge = Edge::back) : count_(count) {
    const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    const std::size_t pages = (count * sizeof(T) + page - 1) / page;
    bytes_ = (pages + 2) * page;
    void* memory =
        mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) std::abort();
    base_ = static_cast<std::byte*>(memory);
    std::byte* last = base_ + (pages + 1) * page;
    if (mprotect(base_, page, PROT_NONE) != 0 || mprotect(last, page, PROT_NONE) != 0) std::abort();
    data_ = reinterpret_cast<T*>(edge == Edge::front ? base_ + page : last - count * sizeof(T));
  }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;
  ~Guarded() { munmap(base_, bytes_); }

  T* data() noexcept { return data_; }
  const T* data() const noexcept { return data_; }
  std::size_t size() const noexcept { return count_; }
  std::span<T> span() noexcept { return {data_, count_}; }
  T& operator[](std::size_t i) { return data_[i]; }
  T* begin() noexcept { return data_; }
  T* end() noexcept { return data_ + count_; }

 private:
  std::size_t count_, bytes_ = 0;
  std::byte* base_ = nullptr;
  T* data_ = nullptr;
};

}  // namespace quell::test
