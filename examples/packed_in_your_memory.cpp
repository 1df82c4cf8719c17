// SPDX-License-Identifier: Apache-2.0

// An engine that owns all memory: it asks how large the packed weight will be, packs into a file of
// its own that it has mapped, and lends the scratch of the product as well. The next start maps the
// file and looks at it, and packs nothing. No exceptions, no RTTI.

#include <quell/core/executor.hpp>
#include <quell/core/tensor.hpp>
#include <quell/grid/quantized.hpp>
#include <quell/grid/scale.hpp>
#include <quell/kernels/context.hpp>
#include <quell/kernels/gemm.hpp>

#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <utility>
#include <vector>

namespace kernels = quell::kernels;

// A file without a name here; an engine keeps one beside its checkpoint.
static void* map_file(std::size_t bytes, std::FILE* file, int access) {
  void* memory = mmap(nullptr, bytes, access, MAP_SHARED, fileno(file), 0);
  return memory == MAP_FAILED ? nullptr : memory;
}

static quell::Status run(std::FILE* file) {
  quell::SerialExecutor threads;
  QUELL_TRY(grid, quell::parse_grid("int4:sym:oc:g64"));
  QUELL_TRY(weight, quell::Matrix::zeros(384, 256));  // [OC, IC]; usually read from a checkpoint
  for (std::size_t i = 0; i < weight.size(); ++i)
    weight.data()[i] = static_cast<float>(i % 7) - 3.0f;
  QUELL_TRY(scales,
            quell::choose_scales(weight.view(), grid, quell::ScaleMethod::absmax, {}, threads));
  QUELL_TRY(codes, quell::quantize_to_grid(weight.view(), grid, std::move(scales), threads));

  QUELL_TRY(bytes, kernels::packed_bytes(codes, kernels::Activations::int8));
  const quell::Error no_file{quell::ErrorCode::resource, "the file could not be mapped"};
  if (ftruncate(fileno(file), static_cast<off_t>(bytes)) != 0) return no_file;
  auto* memory = static_cast<std::byte*>(map_file(bytes, file, PROT_READ | PROT_WRITE));
  if (memory == nullptr) return no_file;
  QUELL_TRY(packed,
            kernels::pack_into(codes, kernels::Activations::int8, {memory, bytes}, threads));

  // The next start: the same file, mapped to be read.
  auto* mapped = static_cast<const std::byte*>(map_file(bytes, file, PROT_READ));
  if (mapped == nullptr) return no_file;
  QUELL_TRY(seen, kernels::view_packed({mapped, bytes}));

  const std::vector<float> x(256, 1.0f);
  std::vector<float> y(384), again(384);
  alignas(64) static std::byte scratch[65536];  // a product that needs more says how much
  kernels::Context context(threads, scratch);
  QUELL_TRY(kernels::gemm({x.data(), 1, 256}, packed, {y.data(), 1, 384}, context));
  QUELL_TRY(kernels::gemm({x.data(), 1, 256}, seen, {again.data(), 1, 384}, context));
  if (std::memcmp(y.data(), again.data(), sizeof(float) * y.size()) != 0) {
    return quell::Error{quell::ErrorCode::verification, "the mapped weight multiplies otherwise"};
  }
  std::printf(
      "[384, 256] packed into %zu bytes of a mapped file; seen again, %s gives equal bits\n", bytes,
      seen.kernel().c_str());
  munmap(memory, bytes);
  munmap(const_cast<std::byte*>(mapped), bytes);
  return quell::ok();
}

int main() {
  std::FILE* file = std::tmpfile();
  if (file == nullptr) return 1;
  const auto done = run(file);
  if (!done) std::fprintf(stderr, "%s\n", done.error().message.c_str());
  std::fclose(file);
  return done ? 0 : 1;
}
