// SPDX-License-Identifier: Apache-2.0
#ifndef QUELL_QUELL_H
#define QUELL_QUELL_H

// quell in C99: weights on a grid, packed for the kernels of this machine and multiplied on the
// host's threads and memory.
//
//     context     what one caller lends: allocator, threads, scratch; keeps the last message
//     weight      W [OC, IC] as codes on a grid, or as floats
//     packed      a weight arranged for a kernel: y = x * W^T, as often as wanted
//     checkpoint  files with weights
//
// Every function that can fail returns a status, never throws, and leaves a sentence with the
// numbers in quell_message(context). A call that is refused leaves outputs as they were, but
// handles are set to null; one that fails later (memory, the host's executor) leaves anything
// there. Handles other than contexts do not change once made and may be used by several threads; a
// context serves one caller at a time. Handles may outlive the context that made them, and freeing
// null is allowed. Matrices are row-major; strides count elements and are at least the row's
// length.
//
// Structures begin with struct_size, which the caller sets to the sizeof of the structure he was
// compiled with. Later versions add fields at the end, where zero means what was there before; a
// library that does not know a field refuses it, unless it is zero, and one that knows more refuses
// the shorter structure: compile with the header of the library that runs.

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum quell_status {
  QUELL_OK = 0,
  QUELL_USAGE = 1,         // an argument that makes no sense: null, a size, a word
  QUELL_PARSE = 2,         // a file, or packed bytes, that are not what they claim to be
  QUELL_SHAPE = 3,         // sizes that disagree
  QUELL_UNSUPPORTED = 4,   // well-formed, but nothing that this library, or machine, does
  QUELL_MISSING = 5,       // a file or weight that should be there
  QUELL_RESOURCE = 6,      // memory, or reading
  QUELL_NUMERIC = 7,       // NaN or infinity where they cannot be
  QUELL_VERIFICATION = 8,  // a result that is not what was promised
  QUELL_INTERRUPTED = 9,   // stopped from outside
  // These two make every int a value of the type, so that a wrong one is refused, not undefined.
  QUELL_STATUS_LOWEST = -0x7fffffff - 1,
  QUELL_STATUS_HIGHEST = 0x7fffffff
} quell_status;

// "ok", "usage", ... : text that is never freed.
const char* quell_status_name(quell_status status);
// Of the library, such as "0.1.0".
const char* quell_version(void);

// ---------------------------------------------------------------- context

typedef struct quell_allocator {
  size_t struct_size;
  void* state;
  // `bytes` (above 0) at a multiple of `alignment` (a power of two, at most 64), or null.
  void* (*allocate)(void* state, size_t bytes, size_t alignment);
  void (*release)(void* state, void* memory, size_t bytes);
} quell_allocator;

// A part of the work: elements [begin, end), on a thread whose slot is below the width.
typedef void (*quell_range)(void* work, size_t begin, size_t end, unsigned slot);

typedef struct quell_executor {
  size_t struct_size;
  void* state;
  unsigned width;  // calls of `range` that are active at once, at most; 1 or more
  // Calls range(work, begin, end, slot) over ranges that cover [0, n) exactly once, every begin a
  // multiple of `grain`, and returns when all are done. No two active calls have the same slot.
  void (*run)(void* state, size_t n, size_t grain, quell_range range, void* work);
} quell_executor;

typedef struct quell_context_options {
  size_t struct_size;
  // Serves handles, packed bytes and scratch. Null: the C library, on large pages. The values of
  // weights (what is packed from, and the floats as which a grid is packed that no kernel holds),
  // the headers of files, and a few hundred bytes of bookkeeping for each handle come from the C++
  // heap.
  const quell_allocator* allocator;
  const quell_executor* executor;  // null: the calling thread
} quell_context_options;

typedef struct quell_context quell_context;

// `options` may be null. Both structures that it points to are copied; their states outlive every
// handle made with the context. Errors: usage, resource; there is no message.
quell_status quell_context_create(const quell_context_options* options, quell_context** context);
void quell_context_free(quell_context* context);
// What went wrong in the last call that had this context, in at most 1,023 characters; "" if
// nothing did. Valid until the next call.
const char* quell_message(const quell_context* context);

// ---------------------------------------------------------------- weights

// A weight on a grid: value = (code - zero) * scale, and zero = 2^(bits - 1) on symmetric grids; of
// codebooks value = level[code] * scale. A grid is one word,
//
//     int4:sym:oc:g128        format : symmetry : direction : group [: scale type] [: u4]
//
// formats int2, int3, int4, int4n, int8, int8full, nf4, iq4; sym or asym; groups along a row of
// output channels (oc) or down a column of input channels (ic); g<length> or row; scales in f16
// (not written), bf16 or f32, which they must be exact in; u4: scales of two levels.
typedef struct quell_codes {
  size_t struct_size;
  const char* grid;
  size_t rows, cols;     // OC, IC
  const uint8_t* codes;  // [OC, IC], one a byte, 0 to 2^bits - 1
  // One for each group, [OC, ceil(IC / group)], or [ceil(OC / group), IC] of ic. Null if two
  // levels.
  const float* scales;
  size_t scale_count;
  const uint8_t* zeros;  // as many, in code units; asymmetric grids only, else null
  size_t zero_count;
  // Two levels only: a scale for each row of the array above, and 1 to 15 for each group.
  const float* row_scales;
  size_t row_scale_count;
  const uint8_t* integers;
  size_t integer_count;
} quell_codes;

typedef struct quell_weight quell_weight;

typedef struct quell_weight_info {
  size_t struct_size;
  size_t rows, cols;       // OC, IC
  const char* grid;        // valid as long as the weight; "" if it is floats
  double bits_per_weight;  // codes, scales, zeros and kept channels counted; 32 of floats
} quell_weight_info;

// Takes a copy. Errors: usage, shape, numeric (a scale that is NaN, a code above the format's).
quell_status quell_weight_from_codes(quell_context* context, const quell_codes* codes,
                                     quell_weight** weight);
// Rounds floats [rows, cols] to a grid, the scales from the largest magnitude of each group;
// without a grid (null) keeps a copy as it is. Errors: usage, shape, numeric (not finite).
quell_status quell_weight_from_floats(quell_context* context, const float* values, size_t rows,
                                      size_t cols, size_t stride, const char* grid,
                                      quell_weight** weight);
quell_status quell_weight_describe(quell_context* context, const quell_weight* weight,
                                   quell_weight_info* info);
// The values that the codes mean, [OC, IC].
quell_status quell_weight_values(quell_context* context, const quell_weight* weight, float* values,
                                 size_t stride);
void quell_weight_free(quell_weight* weight);

// ---------------------------------------------------------------- packing and products

typedef enum quell_activations {
  QUELL_F32 = 0,   // as they are: the product of the values that the codes mean
  QUELL_INT8 = 1,  // each row of x rounded to int8 with a scale of its own: several times faster
  QUELL_BF16 = 2,  // each value of x rounded to bfloat16: faster where a processor multiplies it
  QUELL_ACTIVATIONS_LOWEST = -0x7fffffff - 1,  // as in quell_status
  QUELL_ACTIVATIONS_HIGHEST = 0x7fffffff
} quell_activations;

typedef struct quell_packed quell_packed;

typedef struct quell_packed_info {
  size_t struct_size;
  size_t rows, cols;   // OC, IC
  const void* memory;  // what quell_packed_view takes back; valid as long as the handle
  size_t bytes;
  const char* kernel;  // such as "gemm_w4a8/avx512vnni"; valid as long as the handle
} quell_packed_info;

// Packs into memory of the allocator. A weight of floats is not packed for QUELL_INT8, and for
// QUELL_BF16 it is rounded to bfloat16. Errors: unsupported (no kernel multiplies this grid so,
// with the reason), resource.
quell_status quell_pack(quell_context* context, const quell_weight* weight,
                        quell_activations activations, quell_packed** packed);
// How many bytes that takes, and into memory of the caller, at a multiple of 64, which outlives the
// handle. Further errors: shape (too little memory), usage (alignment).
quell_status quell_packed_bytes(quell_context* context, const quell_weight* weight,
                                quell_activations activations, size_t* bytes);
quell_status quell_pack_into(quell_context* context, const quell_weight* weight,
                             quell_activations activations, void* memory, size_t bytes,
                             quell_packed** packed);
// Bytes that were packed before, a file mapped, say, at a multiple of 64; they outlive the handle.
// Nothing is copied but the numbers of kept columns and of an order, which are checked. They may be
// hostile: what a label at their end says is checked against their size. Changed codes or scales
// change results and nothing else. Errors: parse, usage, unsupported.
quell_status quell_packed_view(quell_context* context, const void* memory, size_t bytes,
                               quell_packed** packed);
quell_status quell_packed_describe(quell_context* context, const quell_packed* packed,
                                   quell_packed_info* info);
void quell_packed_free(quell_packed* packed);

// y [tokens, OC] = x [tokens, IC] * W^T; y does not overlap x. The same bits for any number of
// threads and, unless packed for QUELL_BF16, on every x86 processor. Allocates only scratch, and
// that once for a size.
quell_status quell_gemm(quell_context* context, const quell_packed* packed, const float* x,
                        size_t tokens, size_t x_stride, float* y, size_t y_stride);

// Each row of x [rows, cols] to int8: scale = max |x| / 127, code = round(x / scale). A row of
// zeros has scale 1, a row with a value that is not finite has codes 0 and the scale NaN.
quell_status quell_quantize_rows(quell_context* context, const float* x, size_t rows, size_t cols,
                                 size_t x_stride, int8_t* codes, size_t codes_stride,
                                 float* scales);

// ---------------------------------------------------------------- which kernels, and why

typedef struct quell_kernel {
  size_t struct_size;
  const char* family;  // such as "gemm_w4a8"
  const char* isa;     // "scalar", "avx2", ...
  int present;         // the machine has it, under the cap
  int chosen;          // the next packing, or call, takes it
  const char* why;     // the reason why not; "" if chosen
} quell_kernel;

// Calls visit(state, kernel) for every kernel, the best of a family first. `kernel` is valid during
// the call. visit returns 0 to go on, anything else to stop.
quell_status quell_explain(quell_context* context,
                           int (*visit)(void* state, const quell_kernel* kernel), void* state);
// Lowers the instruction set of packings from now on and of calls without a packed weight, which
// keeps the kernel it was packed for, in the whole process ("scalar": plain C++); null goes back to
// the cap of the environment, QUELL_ISA. Not while another thread packs. Error: usage (an unknown
// word).
quell_status quell_set_isa_cap(quell_context* context, const char* isa);

// ---------------------------------------------------------------- checkpoints

typedef struct quell_checkpoint quell_checkpoint;

typedef struct quell_tensor_info {
  size_t struct_size;
  const char* name;       // valid as long as the checkpoint; not safe to print as it is
  const char* grid;       // of a quantized weight, else ""
  const char* dtype;      // of any other tensor as files call it ("BF16"), else ""
  size_t dimensions;      // 2 of a quantized weight
  const uint64_t* shape;  // [dimensions]
} quell_tensor_info;

// A folder of .safetensors files with a config.json that says what is quantized (what quell writes,
// and compressed-tensors), or one such file, whose tensors are taken as they are. May be hostile.
// Errors: missing, parse, unsupported (another quantization method), resource.
quell_status quell_checkpoint_open(quell_context* context, const char* path,
                                   quell_checkpoint** checkpoint);
// Tensors in order of their names. A quantized weight is one, called "<module>.weight".
size_t quell_checkpoint_count(const quell_checkpoint* checkpoint);
quell_status quell_checkpoint_describe(quell_context* context, const quell_checkpoint* checkpoint,
                                       size_t index, quell_tensor_info* info);
// A weight by name; floats of any type become f32, of one dimension one row. Errors: missing,
// unsupported (whole numbers), parse, resource, numeric.
quell_status quell_checkpoint_weight(quell_context* context, const quell_checkpoint* checkpoint,
                                     const char* name, quell_weight** weight);
void quell_checkpoint_free(quell_checkpoint* checkpoint);

#ifdef __cplusplus
}
#endif

#endif
