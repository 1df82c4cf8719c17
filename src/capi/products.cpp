// SPDX-License-Identifier: Apache-2.0

// Packing, products, and which kernels do them. Scratch is the allocator's: a product that finds
// too little says how much it needs before it does anything, and is called again.

#include <span>

#include "capi/handles.hpp"
#include "quell/kernels/context.hpp"
#include "quell/kernels/explain.hpp"
#include "quell/kernels/isa.hpp"
#include "quell/kernels/quantize_rows.hpp"

namespace quell::capi {
namespace {

using kernels::PackedWeights;

Status check_request(const quell_weight* weight, quell_activations activations) {
  if (weight == nullptr) return usage("the weight is null");
  if (activations != QUELL_F32 && activations != QUELL_INT8 && activations != QUELL_BF16) {
    return usage("activations are " + std::to_string(static_cast<int>(activations)) +
                 ", expected QUELL_F32, QUELL_INT8 or QUELL_BF16");
  }
  if (activations == QUELL_INT8 && !weight->is_quantized()) {
    return Error{ErrorCode::unsupported,
                 "a weight of floats is not multiplied with int8 activations; give it a grid, or "
                 "pack it for QUELL_F32 or QUELL_BF16"};
  }
  return ok();
}

kernels::Activations of(quell_activations activations) {
  return activations == QUELL_INT8   ? kernels::Activations::int8
         : activations == QUELL_BF16 ? kernels::Activations::bf16
                                     : kernels::Activations::f32;
}
DType type_of(quell_activations activations) {
  return activations == QUELL_BF16 ? DType::bf16 : DType::f32;
}

Result<std::size_t> bytes_of(const quell_weight& weight, quell_activations activations) {
  if (weight.is_quantized()) return kernels::packed_bytes(weight.codes, of(activations));
  return kernels::packed_bytes(weight.floats.view(), type_of(activations), of(activations));
}

Result<PackedWeights> pack_to(const quell_weight& weight, quell_activations activations,
                              std::span<std::byte> memory, HostExecutor& executor) {
  auto packed = weight.is_quantized()
                    ? kernels::pack_into(weight.codes, of(activations), memory, executor)
                    : kernels::pack_into(weight.floats.view(), type_of(activations), memory,
                                         executor, of(activations));
  QUELL_TRY(executor.check());
  return packed;
}

/// A handle around packed weights; `bytes` are the allocator's, or null.
Result<quell_packed*> wrap(const quell_context& context, PackedWeights weights, void* bytes,
                           std::size_t size) {
  quell_packed made;
  made.kernel = weights.kernel();
  made.weights = std::move(weights);
  made.bytes = bytes;
  made.size = size;
  return make_handle(context, std::move(made));
}

Status multiply(quell_context& context, MatrixView<const float> x, const PackedWeights& weight,
                MatrixView<float> y) {
  for (bool again = false;; again = true) {
    kernels::Context lent(context.executor, {context.scratch, context.scratch_bytes});
    Status done = kernels::gemm(x, weight, y, lent);
    if (done) return context.executor.check();
    std::size_t needed = lent.needed_bytes();
    if (again || needed <= context.scratch_bytes) return done;
    // From a quarter of a large page on, whole ones, as a context in C++ has it.
    constexpr std::size_t kPage = AlignedBytes::kLargePage;
    if (needed >= kPage / 4) {
      const auto whole = checked_round_up(needed, kPage);
      if (!whole) return done;
      needed = static_cast<std::size_t>(*whole);
    }
    // Given back first: both at once could be more than there is.
    context.memory.give_back(context.scratch, context.scratch_bytes);
    context.scratch_bytes = 0;
    context.scratch = static_cast<std::byte*>(context.memory.take(needed, 64));
    if (context.scratch == nullptr) return out_of_memory(needed);
    context.scratch_bytes = needed;
  }
}

}  // namespace
}  // namespace quell::capi

using namespace quell::capi;

extern "C" {

quell_status quell_packed_bytes(quell_context* context, const quell_weight* weight,
                                quell_activations activations, size_t* bytes) {
  return call(context, [&]() -> quell::Status {
    if (bytes == nullptr) return usage("the place for the number of bytes is null");
    QUELL_TRY(check_request(weight, activations));
    QUELL_TRY(size, bytes_of(*weight, activations));
    *bytes = size;
    return quell::ok();
  });
}

quell_status quell_pack(quell_context* context, const quell_weight* weight,
                        quell_activations activations, quell_packed** packed) {
  if (packed != nullptr) *packed = nullptr;
  void* memory = nullptr;
  std::size_t size = 0;
  const quell_status status = call(context, [&]() -> quell::Status {
    if (packed == nullptr) return usage("the place for the packed weight is null");
    QUELL_TRY(check_request(weight, activations));
    QUELL_TRY(bytes, bytes_of(*weight, activations));
    size = bytes;
    memory = context->memory.take(size, 64);
    if (memory == nullptr) return out_of_memory(size);
    QUELL_TRY(weights, pack_to(*weight, activations, {static_cast<std::byte*>(memory), size},
                               context->executor));
    QUELL_TRY(handle, wrap(*context, std::move(weights), memory, size));
    *packed = handle;
    return quell::ok();
  });
  if (status != QUELL_OK && memory != nullptr) context->memory.give_back(memory, size);
  return status;
}

quell_status quell_pack_into(quell_context* context, const quell_weight* weight,
                             quell_activations activations, void* memory, size_t bytes,
                             quell_packed** packed) {
  if (packed != nullptr) *packed = nullptr;
  return call(context, [&]() -> quell::Status {
    if (packed == nullptr) return usage("the place for the packed weight is null");
    if (memory == nullptr) return usage("the memory is null");
    QUELL_TRY(check_request(weight, activations));
    QUELL_TRY(weights, pack_to(*weight, activations, {static_cast<std::byte*>(memory), bytes},
                               context->executor));
    QUELL_TRY(handle, wrap(*context, std::move(weights), nullptr, 0));
    *packed = handle;
    return quell::ok();
  });
}

quell_status quell_packed_view(quell_context* context, const void* memory, size_t bytes,
                               quell_packed** packed) {
  if (packed != nullptr) *packed = nullptr;
  return call(context, [&]() -> quell::Status {
    if (packed == nullptr) return usage("the place for the packed weight is null");
    if (memory == nullptr) return usage("the memory is null");
    QUELL_TRY(weights, quell::kernels::view_packed({static_cast<const std::byte*>(memory), bytes}));
    QUELL_TRY(handle, wrap(*context, std::move(weights), nullptr, 0));
    *packed = handle;
    return quell::ok();
  });
}

quell_status quell_packed_describe(quell_context* context, const quell_packed* packed,
                                   quell_packed_info* info) {
  return call(context, [&]() -> quell::Status {
    if (packed == nullptr) return usage("the packed weight is null");
    quell_packed_info filled = {};
    filled.rows = packed->weights.rows();
    filled.cols = packed->weights.cols();
    filled.memory = packed->weights.memory().data();
    filled.bytes = packed->weights.bytes();
    filled.kernel = packed->kernel.c_str();
    return write_struct("quell_packed_info", filled, info);
  });
}

void quell_packed_free(quell_packed* packed) {
  if (packed == nullptr) return;
  packed->memory.give_back(packed->bytes, packed->size);
  free_handle(packed);
}

quell_status quell_gemm(quell_context* context, const quell_packed* packed, const float* x,
                        size_t tokens, size_t x_stride, float* y, size_t y_stride) {
  return call(context, [&]() -> quell::Status {
    if (packed == nullptr) return usage("the packed weight is null");
    QUELL_TRY(from, view_of("x", x, tokens, packed->weights.cols(), x_stride));
    QUELL_TRY(to, view_of("y", y, tokens, packed->weights.rows(), y_stride));
    return multiply(*context, from, packed->weights, to);
  });
}

quell_status quell_quantize_rows(quell_context* context, const float* x, size_t rows, size_t cols,
                                 size_t x_stride, int8_t* codes, size_t codes_stride,
                                 float* scales) {
  return call(context, [&]() -> quell::Status {
    QUELL_TRY(from, view_of("x", x, rows, cols, x_stride));
    QUELL_TRY(to, view_of("codes", codes, rows, cols, codes_stride));
    QUELL_TRY(each, view_of("scales", scales, 1, rows, rows));
    QUELL_TRY(quell::kernels::quantize_rows(from, to, each.row(0), context->executor));
    return context->executor.check();
  });
}

quell_status quell_explain(quell_context* context,
                           int (*visit)(void* state, const quell_kernel* kernel), void* state) {
  return call(context, [&]() -> quell::Status {
    if (visit == nullptr) return usage("the function to visit kernels is null");
    for (const quell::kernels::FamilyReport& family : quell::kernels::explain()) {
      const std::string name(family.name);
      for (const quell::kernels::EntryReport& entry : family.entries) {
        const std::string isa(to_string(entry.isa));
        const quell_kernel kernel = {sizeof(quell_kernel), name.c_str(), isa.c_str(),
                                     entry.present,        entry.chosen, entry.refused.c_str()};
        if (visit(state, &kernel) != 0) return quell::ok();
      }
    }
    return quell::ok();
  });
}

quell_status quell_set_isa_cap(quell_context* context, const char* isa) {
  return call(context, [&]() -> quell::Status {
    if (isa == nullptr) {
      quell::kernels::clear_isa_cap();
      return quell::ok();
    }
    const auto cap = quell::kernels::parse_isa(isa);
    if (!cap) {
      return usage("the instruction set is not known; expected one of " +
                   quell::kernels::isa_names());
    }
    quell::kernels::set_isa_cap(*cap);
    return quell::ok();
  });
}

}  // extern "C"
