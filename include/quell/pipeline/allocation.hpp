// SPDX-License-Identifier: Apache-2.0
#pragma once

// Bits where they pay: every module gets the width that makes the damage of the whole smallest
// within a budget. What a module's bits do to the model is measured, not guessed: the module alone
// is quantized to 3 bits, everything else stays, and the KL divergence to the original is taken
// (of an encoder, 1 - cosine). Damage is quadratic in a small error, so at other widths it is that
// times the ratio of the losses tr(E H E^T). Damages of modules add up nearly (the sum of them is
// 0.84 to 0.98 of all together on three models), so the choice is a knapsack.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "quell/calib/corpus.hpp"
#include "quell/core/executor.hpp"
#include "quell/core/result.hpp"
#include "quell/model/model.hpp"
#include "quell/pipeline/observer.hpp"
#include "quell/pipeline/plan.hpp"
#include "quell/pipeline/recipe.hpp"

namespace quell::pipeline {

/// One way to store a module.
struct Option {
  std::uint64_t bits = 0;  // of all its tensors
  double damage = 0;       // >= 0
};

/// Which option each module gets: the smallest sum of damages with a sum of bits of at most
/// `budget`. Exact where the differences of bits have a large common divisor, as those of a model's
/// modules do; else they are rounded up to parts of the budget, and what is left over is spent on
/// the step of best gain for its bits until none fits. Empty if the smallest options exceed the
/// budget.
std::vector<std::size_t> choose_options(std::span<const std::vector<Option>> modules,
                                        std::uint64_t budget);

struct Allocation {
  Recipe recipe;               // with a rule for each module that had a choice, and no target
  double predicted = 0;        // damage
  double bits_per_weight = 0;  // of the quantized layers
  std::vector<std::string> notes;
};

/// `recipe` with target_bits_per_weight or target_bytes met: never more, and less only by what no
/// module's next width fits into. Modules whose grid a rule names keep it and count. `corpus`: what
/// sensitivity is measured on, its first 4,096 tokens,
/// on the model as it is, before transforms. `zero_nonfinite`: weights that are not finite read as
/// 0. Not under --max-memory: two blocks, moments of one and 256 MiB of states. Errors: usage (a
/// target below the smallest or one of both kinds at once, with the numbers), those of make_plan
/// and measuring; interrupted.
Result<Allocation> allocate(const model::Model& model, const Recipe& recipe,
                            const CalibrationSize& data, const calib::Corpus& corpus,
                            bool zero_nonfinite, Executor& executor, Observer& observer,
                            std::uint64_t shard_limit = kShardLimit);

}  // namespace quell::pipeline
