// SPDX-License-Identifier: Apache-2.0

// The list of families, and the walk over their tables that explain() reports.

#include "kernels/dispatch.hpp"

#include <algorithm>

#include "kernels/cpu/attention/contract.hpp"
#include "kernels/cpu/elementwise/contract.hpp"
#include "kernels/cpu/gemm_bf16/contract.hpp"
#include "kernels/cpu/gemm_dense/contract.hpp"
#include "kernels/cpu/gemm_float/contract.hpp"
#include "kernels/cpu/gemm_int8/contract.hpp"
#include "kernels/cpu/hadamard/contract.hpp"
#include "kernels/cpu/kept_columns/contract.hpp"
#include "kernels/cpu/quantize_rows/contract.hpp"
#include "kernels/cpu/sparse_rows/contract.hpp"
#include "kernels/cpu/strip/contract.hpp"
#include "kernels/cpu/tensor_stats/contract.hpp"
#include "quell/kernels/explain.hpp"

namespace quell::kernels {
namespace {

/// Why an entry that the machine has is not worth taking, or null. A family's own goes before it.
template <typename Entry>
const char* refuse(const Entry&) {
  return nullptr;
}

template <typename Entry>
void append(std::span<const Entry* const> table, FamilyReport& report) {
  bool taken = std::any_of(report.entries.begin(), report.entries.end(),
                           [](const EntryReport& line) { return line.chosen; });
  for (const Entry* entry : table) {
    EntryReport line{entry->isa, has(entry->isa), false, {}};
    if (!line.present) {
      line.refused = "the processor, its operating system or the cap does not allow " +
                     std::string(to_string(entry->isa));
    } else if (const char* why = refuse(*entry); why != nullptr) {
      line.refused = why;
    } else if (taken) {
      line.refused = "an entry listed before it fits";
    } else {
      line.chosen = taken = true;
    }
    report.entries.push_back(std::move(line));
  }
}

/// Tables one after another.
template <typename... Entries>
FamilyReport walk(std::string_view name, std::span<const Entries* const>... tables) {
  FamilyReport report{name, {}};
  (append(tables, report), ...);
  return report;
}

FamilyReport walk_int8(gemm_int8::Codes codes) {
  return walk(gemm_int8::family(codes), gemm_int8::table(codes));
}

/// Machines without an entry of its own take gemm_float for rounded activations.
FamilyReport walk_bf16(unsigned code_bits, gemm_float::Weights weights) {
  return walk(gemm_float::family(code_bits, true), gemm_bf16::table(weights),
              gemm_float::table(weights));
}

}  // namespace

std::vector<FamilyReport> explain() {
  return {walk("gemm_dense", gemm_dense_family::table()),
          walk("gemm_w4a16", gemm_float::table(gemm_float::Weights::four_bits)),
          walk("gemm_w8a16", gemm_float::table(gemm_float::Weights::eight_bits)),
          walk("gemm_w16a16", gemm_float::table(gemm_float::Weights::bf16)),
          walk_bf16(4, gemm_float::Weights::four_bits),
          walk_bf16(8, gemm_float::Weights::eight_bits),
          walk_bf16(16, gemm_float::Weights::bf16),
          walk_int8(gemm_int8::Codes::four_bits),
          walk_int8(gemm_int8::Codes::two_level),
          walk_int8(gemm_int8::Codes::table),
          walk_int8(gemm_int8::Codes::eight_bits),
          walk("kept_columns", kept_columns::table()),
          walk("quantize_rows", quantize_rows_family::table()),
          walk("elementwise", elementwise::table()),
          walk("attention", attention_family::table()),
          walk("hadamard", hadamard_family::table()),
          walk("sparse_rows", sparse_rows::table()),
          walk("strip", strip::table()),
          walk("tensor_stats", tensor_stats::table())};
}

}  // namespace quell::kernels
