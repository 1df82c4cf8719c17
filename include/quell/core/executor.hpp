// SPDX-License-Identifier: Apache-2.0
#pragma once

// The host's threads. The library starts none of its own: whoever calls passes an Executor, and all
// parallel work goes through run(). Results never depend on the number of threads, because no work
// item's arithmetic depends on which thread does it or in which order items are done.

#include <cstddef>
#include <memory>
#include <type_traits>

namespace quell {

/// A reference to a callable fn(begin, end, slot); cheap to pass, valid only during the call.
class RangeFunction {
 public:
  template <typename F>
    requires(!std::is_same_v<std::remove_cvref_t<F>, RangeFunction>)
  RangeFunction(F&& function) noexcept  // NOLINT: conversion is the point
      : object_(const_cast<void*>(static_cast<const void*>(&function))),
        call_([](void* object, std::size_t begin, std::size_t end, unsigned slot) {
          (*static_cast<std::remove_reference_t<F>*>(object))(begin, end, slot);
        }) {}
  void operator()(std::size_t begin, std::size_t end, unsigned slot) const {
    call_(object_, begin, end, slot);
  }

 private:
  void* object_;
  void (*call_)(void*, std::size_t, std::size_t, unsigned);
};

class Executor {
 public:
  Executor() = default;
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;
  virtual ~Executor() = default;

  /// How many calls may be active at once; slots are numbered below it.
  virtual unsigned width() const noexcept = 0;

  /// Calls fn(begin, end, slot) over ranges that cover [0, n) exactly once, and returns when all are
  /// done. Every begin is a multiple of `grain` (>= 1); a range may hold several grains. No two
  /// active calls share a `slot` (< width()), so it may index scratch memory. Not reentrant: fn must
  /// not call run.
  virtual void run(std::size_t n, std::size_t grain, RangeFunction fn) = 0;
};

/// Everything on the calling thread.
class SerialExecutor final : public Executor {
 public:
  unsigned width() const noexcept override { return 1; }
  void run(std::size_t n, std::size_t, RangeFunction fn) override {
    if (n != 0) fn(0, n, 0);
  }
};

/// `threads` OpenMP threads (0: as many as the affinity mask and OMP_NUM_THREADS allow). Part of
/// quell::quell; without OpenMP in the build it is a SerialExecutor.
std::unique_ptr<Executor> make_openmp_executor(unsigned threads = 0);

}  // namespace quell
