// SPDX-License-Identifier: Apache-2.0

// Compiled as C99 with -pedantic; the public header comes first, so it needs nothing before it.

#include "quell/quell.h"

#include "in_c.h"

#include <stdlib.h>
#include <string.h>

// C99 has no aligned allocation: the block's start stands right before what is handed out.
static void* take(void* state, size_t bytes, size_t alignment) {
  counting_memory* memory = state;
  char *block, *place;
  memory->allocations += 1;
  if (memory->fail_at != 0 && memory->allocations >= memory->fail_at) return NULL;
  block = malloc(bytes + alignment + sizeof(void*));
  if (block == NULL) return NULL;
  place = block + sizeof(void*);
  place += (alignment - (uintptr_t)place % alignment) % alignment;
  memcpy(place - sizeof(void*), &block, sizeof block);
  memory->taken += 1;
  memory->bytes_held += bytes;
  return place;
}
static void give_back(void* state, void* place, size_t bytes) {
  counting_memory* memory = state;
  char* block;
  memcpy(&block, (char*)place - sizeof(void*), sizeof block);
  memory->given_back += 1;
  memory->bytes_held -= bytes;
  free(block);
}
quell_allocator counting_allocator(counting_memory* memory) {
  quell_allocator allocator;
  allocator.struct_size = sizeof allocator;
  allocator.state = memory;
  allocator.allocate = take;
  allocator.release = give_back;
  return allocator;
}

static void run_backward(void* state, size_t n, size_t grain, quell_range range, void* work) {
  backward_threads* threads = state;
  size_t left = (n + grain - 1) / grain;
  unsigned slot = 0;
  threads->runs += 1;
  while (left-- > 0) {
    const size_t begin = left * grain;
    range(work, begin, begin + grain < n ? begin + grain : n, slot++ % threads->width);
  }
}
quell_executor backward_executor(backward_threads* threads, unsigned width) {
  quell_executor executor;
  executor.struct_size = sizeof executor;
  executor.state = threads;
  executor.width = width;
  executor.run = run_backward;
  threads->width = width;
  return executor;
}

quell_status in_c_multiply(quell_context* context, const quell_codes* codes,
                           quell_activations activations, const float* x, size_t tokens, float* y,
                           char* kernel) {
  quell_weight* weight = NULL;
  quell_packed* packed = NULL;
  quell_packed_info info;
  quell_status status = quell_weight_from_codes(context, codes, &weight);
  memset(&info, 0, sizeof info);
  info.struct_size = sizeof info;
  if (status == QUELL_OK) status = quell_pack(context, weight, activations, &packed);
  if (status == QUELL_OK) status = quell_packed_describe(context, packed, &info);
  if (status == QUELL_OK) {
    strncpy(kernel, info.kernel, 63);
    kernel[63] = '\0';
    status = quell_gemm(context, packed, x, tokens, info.cols, y, info.rows);
  }
  quell_packed_free(packed);
  quell_weight_free(weight);
  return status;
}

typedef struct counts {
  size_t kernels, chosen;
} counts;
static int count(void* state, const quell_kernel* kernel) {
  counts* counted = state;
  counted->kernels += 1;
  counted->chosen += kernel->chosen && kernel->present && kernel->why[0] == '\0';
  return 0;
}
quell_status in_c_count_kernels(quell_context* context, size_t* kernels, size_t* chosen) {
  counts counted = {0, 0};
  const quell_status status = quell_explain(context, count, &counted);
  *kernels = counted.kernels;
  *chosen = counted.chosen;
  return status;
}
