// SPDX-License-Identifier: Apache-2.0
#pragma once

// The quantizers and their options. Each takes one weight W [OC, IC] and, where it says so, the
// second moment H = mean of x x^T of the layer's inputs. A wrapper (adadim) holds another one.

#include <memory>

#include "quell/quant/quantizer.hpp"
#include "quell/quant/split.hpp"

namespace quell::quant {

/// Rounding to the nearest code. Reads H where it is offered: its diagonal weights the scale
/// search, and the objective is judged with it.
struct RtnOptions {
  /// Asks for H, so that scales are always searched with its diagonal as weights (the importance
  /// matrix of llama.cpp); then its name is "importance".
  bool importance = false;
};
std::unique_ptr<Quantizer> rtn(RtnOptions options = {});

/// Rounding without data, with the zero and scale of every group moved so that small errors get
/// smaller and large ones count less (Badri and Shaji, "Half-quadratic quantization of large
/// machine learning models", 2023). Departures: zeros are codes, as the grid stores them, and the
/// scale moves too, also where the grid is symmetric; weights are measured in their root mean
/// square; the best round is kept, not the last. Starts from the layer's choice of scales. Where H
/// is offered (under adadim) a layer that rounding serves better keeps rounding.
struct HqqOptions {};
std::unique_ptr<Quantizer> hqq(HqqOptions options = {});

/// Rounding with error feedback: channels are quantized in turn, and the error of each moves the
/// targets of those that follow (Frantar, Ashkboos, Hoefler and Alistarh, "OPTQ: accurate
/// quantization for generative pre-trained transformers", ICLR 2023). Departures from the paper:
/// one triangular factor H = R R^T instead of an inverse and its factor, a left-looking sweep,
/// scales searched on the propagated weights with the conditional variances R_kk^2, and a guard
/// against rows that rounding serves better.
struct GptqOptions {
  /// lambda / mean(diag H): added to the diagonal before factoring; >= 0. The paper's percdamp.
  double damping = 0.01;
  /// Channels by descending H_kk instead of natural order; scales are then chosen before the sweep.
  /// Has no influence on the order of storage.
  bool act_order = false;
  /// Keep rounding in every row where its loss under the undamped H is smaller.
  bool guard = true;
  /// Rounds of coordinate descent on codes and scales after the sweep; 0: none.
  unsigned refine = 0;
  /// Channels that one level of the sweep treats one by one, 1 or more; changes the order of
  /// additions alone.
  unsigned block = 256;
};
std::unique_ptr<Quantizer> gptq(GptqOptions options = {});

/// What pays on every model: gptq with refinement, on targets that make up for part of what the
/// layers before lost, where the drift of the inputs is known.
struct BalancedOptions {
  GptqOptions feedback = {.refine = 1};
  /// Share of the drift that the target corrects, 0 (none) to 1.
  double drift = 0.75;
};
std::unique_ptr<Quantizer> balanced(const BalancedOptions& options = {});

/// The direction of groups, chosen for every layer: `inner` along rows or down columns (Heo, Kim,
/// Kwon, Kim, Kwon and Lee, "Rethinking channel dimensions to isolate outliers for low-bit weight
/// quantization of large language models", ICLR 2024). Ties go along rows. The direction in the
/// problem's grid counts only where the problem keeps it or gives the scales.
struct AdadimOptions {
  /// false: `inner` runs both ways, and the smaller of its own objectives wins. true, the published
  /// rule: rounding with min-max scales runs both ways, judged by the problem's `evaluate` where
  /// there is one and by H where not, and `inner` runs in the winner alone. Departures: min-max
  /// ranges include zero (without it a group on one side of zero collapses), and every sequence
  /// takes part in the judgement (the released code judges some layers by the first alone).
  bool by_rounding = false;
};
std::unique_ptr<Quantizer> adadim(std::unique_ptr<Quantizer> inner, AdadimOptions options = {});

/// Split: keeps the columns whose inputs hold most of the peaks that set the scales of tokens.
std::unique_ptr<Split> outlier_columns();

}  // namespace quell::quant
