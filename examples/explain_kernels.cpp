// SPDX-License-Identifier: Apache-2.0

// Which kernel a weight gets on this machine, and why: the walk over the table of each family, and
// what packing says about grids that some kernels take and others refuse. No exceptions, no RTTI.

#include <quell/core/executor.hpp>
#include <quell/core/tensor.hpp>
#include <quell/grid/quantized.hpp>
#include <quell/grid/scale.hpp>
#include <quell/kernels/explain.hpp>
#include <quell/kernels/gemm.hpp>
#include <quell/kernels/isa.hpp>

#include <cstdio>
#include <string>
#include <utility>

namespace kernels = quell::kernels;

static void print_families() {
  for (const kernels::FamilyReport& family : kernels::explain()) {
    if (!family.name.starts_with("gemm_")) continue;
    std::printf("%s\n", std::string(family.name).c_str());
    for (const kernels::EntryReport& entry : family.entries) {
      std::printf("  %-11s %s\n", std::string(to_string(entry.isa)).c_str(),
                  entry.chosen ? "chosen" : entry.refused.c_str());
    }
  }
}

static quell::Status print_choice(const char* word, kernels::Activations activations) {
  quell::SerialExecutor threads;
  QUELL_TRY(grid, quell::parse_grid(word));
  QUELL_TRY(weight, quell::Matrix::zeros(96, 256));  // [OC, IC]
  QUELL_TRY(scales,
            quell::choose_scales(weight.view(), grid, quell::ScaleMethod::absmax, {}, threads));
  QUELL_TRY(codes, quell::quantize_to_grid(weight.view(), grid, std::move(scales), threads));
  const auto packed = kernels::pack(codes, activations, threads);
  const bool rounded = activations == kernels::Activations::int8;
  std::printf("%-16s with %-4s activations: %s\n", word, rounded ? "int8" : "f32",
              packed ? packed->kernel().c_str() : packed.error().message.c_str());
  return quell::ok();
}

static quell::Status explain() {
  print_families();
  std::printf("\n");
  for (const char* word : {"int4:sym:oc:g128", "int8:sym:oc:row", "nf4:sym:oc:g64"}) {
    QUELL_TRY(print_choice(word, kernels::Activations::f32));
    QUELL_TRY(print_choice(word, kernels::Activations::int8));
  }
  // The environment variable QUELL_ISA does the same for a whole run.
  kernels::set_isa_cap(kernels::Isa::scalar);
  std::printf("\ncapped to plain C++:\n");
  QUELL_TRY(print_choice("int4:sym:oc:g128", kernels::Activations::int8));
  kernels::clear_isa_cap();
  return quell::ok();
}

int main() {
  if (const auto done = explain(); !done) {
    std::fprintf(stderr, "%s\n", done.error().message.c_str());
    return 1;
  }
}
