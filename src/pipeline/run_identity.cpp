// SPDX-License-Identifier: Apache-2.0

#include "pipeline/run_identity.hpp"

#include <string>

#include "quell/calib/collect.hpp"
#include "quell/kernels/explain.hpp"
#include "quell/version.hpp"

namespace quell::pipeline {

Result<io::Json> run_identity(const model::Model& model, const Recipe& recipe, const Plan& plan,
                              const QuantizeOptions& options) {
  io::Json identity = io::Json::object();
  identity.set("quell_version", QUELL_VERSION);
  QUELL_TRY(fingerprint, calib::model_fingerprint(model));
  identity.set("model", fingerprint);
  identity.set("calibration",
               options.corpus != nullptr ? calib::fingerprint(*options.corpus)
               : options.statistics != nullptr
                   ? "statistics in " +
                         std::string(engine::to_string(options.statistics->info().precision)) +
                         " of " + options.statistics->info().corpus_fingerprint
                   : std::string("none"));
  identity.set("layout", plan.layout->name);
  identity.set("nonfinite", static_cast<int>(options.nonfinite));
  const io::Json words = recipe.to_json();
  for (const auto& [name, value] : words.members()) {
    if (name != "recipe" && name != "to") identity.set(name, value);
  }
  // The bits of bfloat16 products are those of one kernel.
  if (options.corpus != nullptr && recipe.engine_precision == engine::Precision::bf16) {
    for (const kernels::FamilyReport& family : kernels::explain()) {
      if (family.name != "gemm_w16bf16") continue;
      for (const kernels::EntryReport& entry : family.entries) {
        if (entry.chosen) identity.set("engine_kernel", std::string(to_string(entry.isa)));
      }
    }
  }
  return identity;
}

}  // namespace quell::pipeline
