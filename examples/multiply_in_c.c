// SPDX-License-Identifier: Apache-2.0

// quell from C99: a weight rounded to four bits, packed into memory of the program, multiplied.

#include <quell/quell.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { OC = 96, IC = 256, TOKENS = 2 };

static float weight_values[OC * IC], x[TOKENS * IC], y[TOKENS * OC], meant[OC * IC];

// Prints why a call failed, and goes on with nothing.
static int failed(quell_status status, const quell_context* context) {
  if (status == QUELL_OK) return 0;
  fprintf(stderr, "%s: %s\n", quell_status_name(status), quell_message(context));
  return 1;
}

static int multiply(quell_context* context, quell_weight* weight, void* memory, size_t bytes) {
  quell_packed* packed = NULL;
  quell_packed_info info = {sizeof info, 0, 0, NULL, 0, NULL};
  float worst = 0;
  if (failed(quell_pack_into(context, weight, QUELL_F32, memory, bytes, &packed), context) ||
      failed(quell_packed_describe(context, packed, &info), context) ||
      failed(quell_gemm(context, packed, x, TOKENS, IC, y, OC), context) ||
      failed(quell_weight_values(context, weight, meant, IC), context)) {
    quell_packed_free(packed);
    return 1;
  }
  // Token t picks input channel t.
  for (int t = 0; t < TOKENS; ++t) {
    for (int oc = 0; oc < OC; ++oc) {
      worst = fmaxf(worst, fabsf(y[t * OC + oc] - meant[oc * IC + t]));
    }
  }
  printf("%d tokens x [%d, %d] by %s, %zu bytes of the program's memory: off by %g\n", TOKENS, OC,
         IC, info.kernel, info.bytes, (double)worst);
  quell_packed_free(packed);
  return worst > 1e-5f;
}

int main(void) {
  quell_context* context = NULL;
  quell_weight* weight = NULL;
  size_t bytes = 0;
  int wrong = 1;
  for (int i = 0; i < OC * IC; ++i) weight_values[i] = (float)(i % 23) - 11.0f;
  for (int t = 0; t < TOKENS; ++t) x[t * IC + t] = 1.0f;

  if (quell_context_create(NULL, &context) != QUELL_OK) return 1;
  if (!failed(
          quell_weight_from_floats(context, weight_values, OC, IC, IC, "int4:sym:oc:g64", &weight),
          context) &&
      !failed(quell_packed_bytes(context, weight, QUELL_F32, &bytes), context)) {
    // C99 has no aligned allocation: 63 bytes more, and the next multiple of 64.
    char* memory = malloc(bytes + 63);
    if (memory != NULL) {
      wrong = multiply(context, weight, memory + (64 - (uintptr_t)memory % 64) % 64, bytes);
    }
    free(memory);
  }
  quell_weight_free(weight);
  quell_context_free(context);
  return wrong;
}
