// SPDX-License-Identifier: Apache-2.0
#pragma once

// What this machine can do at most, measured: the bounds by which the speed of a kernel is divided.
// In the same process and the same minutes, since shared machines change their speed by half within
// an hour and only such ratios count.

#include <cstddef>

#include "quell/core/executor.hpp"

namespace quell::kernels {

/// f32 fused multiply-adds, 2 flops each, from registers alone, on all threads of the executor,
/// with the widest vectors that the instruction-set cap allows: GFLOP/s. Takes some 3 ms for each
/// of `repeats`.
double fma_limit(Executor& executor, unsigned repeats = 1);

/// Products of bytes summed to 32 bits, 2 operations each, as fma_limit: GOP/s. vpdpbusd, or on
/// AVX2 vpmaddubsw, vpmaddwd and vpaddd; 0 below.
double int8_limit(Executor& executor, unsigned repeats = 1);

/// Bytes a second at which all threads together read `bytes` bytes once: GB/s.
double read_limit(Executor& executor, const std::byte* data, std::size_t bytes);

}  // namespace quell::kernels
