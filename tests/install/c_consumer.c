// SPDX-License-Identifier: Apache-2.0

// A program in C: a weight that is checked by eye, and a file that is not there.

#include <quell/quell.h>

#include <stdio.h>
#include <string.h>

int main(void) {
  const float values[6] = {0, 1, 2, 3, 4, 5}, x[2] = {10, 1};
  float y[3] = {0, 0, 0};
  quell_context* context = NULL;
  quell_weight* weight = NULL;
  quell_packed* packed = NULL;
  quell_checkpoint* checkpoint = NULL;
  int right = quell_context_create(NULL, &context) == QUELL_OK &&
              quell_weight_from_floats(context, values, 3, 2, 2, NULL, &weight) == QUELL_OK &&
              quell_pack(context, weight, QUELL_F32, &packed) == QUELL_OK &&
              quell_gemm(context, packed, x, 1, 2, y, 3) == QUELL_OK;
  if (!right) fprintf(stderr, "%s\n", quell_message(context));
  right = right && y[0] == 1 && y[1] == 23 && y[2] == 45;
  right = right && quell_checkpoint_open(context, "no/such/file", &checkpoint) == QUELL_MISSING &&
          strstr(quell_message(context), "no/such/file") != NULL;
  quell_packed_free(packed);
  quell_weight_free(weight);
  quell_context_free(context);
  return right ? 0 : 1;
}
