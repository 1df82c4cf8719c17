// SPDX-License-Identifier: Apache-2.0

// The OpenMP executor: the only file that knows of OpenMP. Ranges are handed out one grain at a time,
// which costs about 100 ns a grain and keeps threads busy when items differ in cost.

#include "quell/core/executor.hpp"

#include <memory>

#if defined(_OPENMP)
#include <omp.h>
#endif

namespace quell {
namespace {

#if defined(_OPENMP)
class OpenMpExecutor final : public Executor {
 public:
  explicit OpenMpExecutor(unsigned threads) : threads_(threads) {}
  unsigned width() const noexcept override { return threads_; }
  void run(std::size_t n, std::size_t grain, RangeFunction fn) override {
    if (n == 0) return;
    if (grain == 0) grain = 1;
    const std::size_t grains = (n - 1) / grain + 1;
    if (grains == 1 || threads_ == 1) {
      fn(0, n, 0);
      return;
    }
    const int wanted = static_cast<int>(grains < threads_ ? grains : threads_);
#pragma omp parallel for schedule(dynamic, 1) num_threads(wanted)
    for (std::size_t i = 0; i < grains; ++i) {
      const std::size_t begin = i * grain;
      const std::size_t end = begin + grain < n ? begin + grain : n;
      fn(begin, end, static_cast<unsigned>(omp_get_thread_num()));
    }
  }

 private:
  unsigned threads_;
};
#endif

}  // namespace

std::unique_ptr<Executor> make_openmp_executor(unsigned threads) {
#if defined(_OPENMP)
  if (threads == 0) {
    // omp_get_max_threads honours OMP_NUM_THREADS, which may exceed what the affinity mask grants.
    const int limit = omp_get_num_procs();
    const int wanted = omp_get_max_threads();
    threads = static_cast<unsigned>(wanted < limit ? wanted : limit);
  }
  if (threads == 0) threads = 1;
  return std::make_unique<OpenMpExecutor>(threads);
#else
  static_cast<void>(threads);
  return std::make_unique<SerialExecutor>();
#endif
}

}  // namespace quell
