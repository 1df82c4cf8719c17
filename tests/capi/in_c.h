// SPDX-License-Identifier: Apache-2.0
#ifndef QUELL_TESTS_IN_C_H
#define QUELL_TESTS_IN_C_H

// What the tests let C do.

#include "quell/quell.h"

#ifdef __cplusplus
extern "C" {
#endif

// An allocator that counts, and gives nothing from allocation `fail_at` on (0: never fails).
typedef struct counting_memory {
  size_t taken, given_back, bytes_held, allocations, fail_at;
} counting_memory;
quell_allocator counting_allocator(counting_memory* memory);

// An executor that calls everything on this thread, the last range first, `width` slots in turn.
typedef struct backward_threads {
  size_t runs;
  unsigned width;
} backward_threads;
quell_executor backward_executor(backward_threads* threads, unsigned width);

// The whole way of a weight on a grid: made, packed, asked about, multiplied, freed. `kernel` has
// 64 characters.
quell_status in_c_multiply(quell_context* context, const quell_codes* codes,
                           quell_activations activations, const float* x, size_t tokens, float* y,
                           char* kernel);
// Kernels and chosen ones that quell_explain tells of.
quell_status in_c_count_kernels(quell_context* context, size_t* kernels, size_t* chosen);

#ifdef __cplusplus
}
#endif

#endif
