// SPDX-License-Identifier: Apache-2.0
#pragma once

// How a row of attention scores becomes weights, and what a head's output is multiplied with.
// Softmax cannot give a head nothing to do: its weights sum to one, so a head that wants to leave a
// token alone parks its attention on a token whose value it has made small, and huge activations
// make that token stand out. The rules here are the ways out that have been published, as values:
// clipped softmax and gates (Bondarenko, Nagel and Blankevoort, "Quantizable Transformers", NeurIPS
// 2023), and an extra key or sigmoids in place of softmax (An et al., "Systematic Outliers in Large
// Language Models", ICLR 2025). Per head, with P = softmax(scores):
//
//     softmax            P V
//     clipped softmax    clip((zeta - gamma) P + gamma, 0, 1) V
//     sink logit         (1 - p0) P V                p0 = e^b / (e^b + sum_j e^s_j)
//     bias key, value    (1 - p0) P V + p0 v', or P V + p0 v';     p0 as above, b = scale q . k'
//     sigmoid            1 / (1 + n e^-s_j) V        n: the number of keys, so sigmoid(s - ln n)
//     gate               each of these times factor * sigmoid(w . x + b), x the input of the block
//
// A fixed bias, P V + v', is no rule: multiplied out it is a bias of the output projection.

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "quell/core/panic.hpp"
#include "quell/core/result.hpp"

namespace quell::attention {

struct Softmax {};

/// clip((zeta - gamma) p + gamma, 0, 1), nothing made to sum to one again. Probabilities up to
/// -gamma / (zeta - gamma) become exactly 0, those from (1 - gamma) / (zeta - gamma) on exactly 1.
/// It needs finished probabilities, so it cannot be done in one pass over keys as they stream by.
struct ClippedSoftmax {
  float zeta = 1;   // >= 1
  float gamma = 0;  // <= 0

  /// zeta = 1, gamma = -alpha / T, for T the sequence length that the model was trained with (a
  /// constant of the model, not the number of keys at hand). A row that is uniform over all T keys
  /// becomes all zeros from alpha = T / (T - 1) on; alpha of 2 to 4 served the paper's encoders.
  static ClippedSoftmax by_length(float alpha, std::uint32_t length) {
    return {1, -alpha / static_cast<float>(length)};
  }
};

/// An extra key with this score and no value. Zeros: softmax off by one, e^s_j / (1 + sum e^s).
struct SinkSoftmax {
  std::vector<float> logits;  // [heads]
};

/// An extra key and value before position 0 that every query sees. The key has no position: it is
/// multiplied with the query as that is after the rotation.
struct BiasKeySoftmax {
  std::vector<float> keys, values;  // [heads, head_dim]
  /// True: the other keys share what the extra one leaves, as in one softmax over all of them.
  /// False: they keep all of it, and p0 v' is only added.
  bool rescales = true;
};

/// Rows do not sum to one.
struct SigmoidWeights {
  /// n of the formula; 0: the keys that the query sees, so that tokens which come later change
  /// nothing. A model trained on whole sequences of T tokens has T.
  std::uint32_t length = 0;
};

using Weighting =
    std::variant<Softmax, ClippedSoftmax, SinkSoftmax, BiasKeySoftmax, SigmoidWeights>;

/// One factor for each query and head, on the head's output before the output projection. x is what
/// the q, k and v projections read: the normed stream, or the stream itself where norms come last.
struct Gate {
  enum class Reads { slice, all };
  /// slice: head h reads its part of x, elements [h * hidden / heads, (h + 1) * hidden / heads);
  /// all: every head reads all of x.
  Reads reads = Reads::slice;
  std::vector<float> weight;  // [heads, hidden / heads] or [heads, hidden]
  std::vector<float> bias;    // [heads]
  float factor = 1;           // 2: a gate of zeros changes nothing
};

struct AttentionRule {
  Weighting weighting = Softmax{};
  std::optional<Gate> gate;
};

/// Sizes of the attention that a rule is for.
struct AttentionSizes {
  std::size_t heads = 0, head_dim = 0, hidden = 0;
};

/// Whether a rule fits. Errors: usage (a number outside its range), shape (a parameter of another
/// size), each with what was found and expected.
Status check(const AttentionRule& rule, const AttentionSizes& sizes);

/// y = e^x, element by element; y may be x. A caller that wants the same bits on every machine
/// gives its own.
using ExpFunction = void (*)(std::span<const float> x, std::span<float> y);
inline void standard_exp(std::span<const float> x, std::span<float> y) {
  for (std::size_t i = 0; i < x.size(); ++i) y[i] = std::exp(x[i]);
}

/// The clip of finished probabilities, in place. Masked ones, which are 0, stay 0.
void clip(const ClippedSoftmax& rule, std::span<float> probabilities);

/// Scores of one query to weights, in place, and the mass p0 on the extra key (0 where there is
/// none). Scores are scaled, and -infinity where masked; masked ones get weight 0, and a row that
/// is masked entirely gets zeros (an extra key is never masked: p0 is then 1). `extra_score`: that
/// of the bias key, scaled. All in float32 after subtracting the largest score, sums in double.
float weigh(const Weighting& weighting, std::size_t head, float extra_score, std::span<float> row,
            ExpFunction exp = standard_exp);

/// The factor of one head and query; x [hidden].
float gate_factor(const Gate& gate, std::size_t head, std::span<const float> x,
                  ExpFunction exp = standard_exp);

// ------------------------------------------------------------------ definitions

namespace detail {

/// Digits that read back as the same number, whatever the locale.
inline std::string digits(float value) {
  std::array<char, 32> text;
  const auto end = std::to_chars(text.data(), text.data() + text.size(), value).ptr;
  return std::string(text.data(), end);
}

inline Status check_size(std::string_view name, std::span<const float> values,
                         std::size_t expected) {
  if (values.size() != expected) {
    return Error{ErrorCode::shape, "attention rule: " + std::string(name) + " has " +
                                       std::to_string(values.size()) + " values, expected " +
                                       std::to_string(expected)};
  }
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (std::isfinite(values[i])) continue;
    return Error{ErrorCode::usage, "attention rule: " + std::string(name) + "[" +
                                       std::to_string(i) + "] is " + digits(values[i]) +
                                       ", expected a finite number"};
  }
  return ok();
}

inline Status check_weighting(const Softmax&, const AttentionSizes&) {
  return ok();
}
inline Status check_weighting(const SigmoidWeights&, const AttentionSizes&) {
  return ok();
}
inline Status check_weighting(const ClippedSoftmax& rule, const AttentionSizes&) {
  if (!(rule.zeta >= 1) || !std::isfinite(rule.zeta)) {
    return Error{ErrorCode::usage, "attention rule: zeta is " + digits(rule.zeta) +
                                       ", expected a finite number of at least 1"};
  }
  if (!(rule.gamma <= 0) || !std::isfinite(rule.zeta - rule.gamma)) {
    return Error{ErrorCode::usage, "attention rule: gamma is " + digits(rule.gamma) +
                                       ", expected a finite number of at most 0"};
  }
  return ok();
}
inline Status check_weighting(const SinkSoftmax& rule, const AttentionSizes& sizes) {
  return check_size("sink logits", rule.logits, sizes.heads);
}
inline Status check_weighting(const BiasKeySoftmax& rule, const AttentionSizes& sizes) {
  QUELL_TRY(check_size("bias keys", rule.keys, sizes.heads * sizes.head_dim));
  return check_size("bias values", rule.values, sizes.heads * sizes.head_dim);
}

/// Softmax in place; an extra key with score *extra, if any, takes part (`rescales`) or is only
/// measured.
inline float softmax(std::span<float> row, const float* extra, bool rescales, ExpFunction exp) {
  float max = -std::numeric_limits<float>::infinity();
  for (const float score : row) max = score > max ? score : max;
  // Masked scores minus 0 stay masked; minus -infinity they would be NaN.
  const float shift = std::isinf(max) && max < 0 ? 0 : max;
  for (float& score : row) score -= shift;
  exp(row, row);
  double sum = 0;
  for (const float value : row) sum += static_cast<double>(value);
  if (sum == 0) return extra != nullptr ? 1.0f : 0.0f;  // nothing but masked keys

  // With d the extra score above the largest: p0 = e^d / (e^d + sum). The exponential is taken of
  // -|d|, which cannot overflow, and 1 - p0 is never formed as a difference.
  double factor = 1 / sum, p0 = 0;
  if (extra != nullptr) {
    const float difference = *extra - shift;
    float e = -std::fabs(difference);
    exp({&e, 1}, {&e, 1});
    const double small = static_cast<double>(e);
    p0 = difference < 0 ? small / (small + sum) : 1 / (1 + small * sum);
    if (rescales) factor = difference < 0 ? 1 / (small + sum) : small / (1 + small * sum);
  }
  for (float& value : row) value = static_cast<float>(static_cast<double>(value) * factor);
  return static_cast<float>(p0);
}

/// 1 / (1 + n e^-s), from e^-|s|, which cannot overflow. Masked scores give 0.
inline void sigmoids(std::span<float> row, std::uint32_t length, ExpFunction exp) {
  std::size_t visible = 0;
  for (const float score : row) visible += std::isinf(score) && score < 0 ? 0 : 1;
  if (visible == 0) visible = 1;  // all masked: any number will do but 0
  const auto n = static_cast<float>(length != 0 ? length : visible);
  std::array<float, 64> e;
  for (std::size_t first = 0; first < row.size(); first += e.size()) {
    const auto part = row.subspan(first, std::min(e.size(), row.size() - first));
    for (std::size_t i = 0; i < part.size(); ++i) e[i] = -std::fabs(part[i]);
    exp(std::span(e).first(part.size()), std::span(e).first(part.size()));
    for (std::size_t i = 0; i < part.size(); ++i) {
      part[i] = part[i] < 0 ? e[i] / (e[i] + n) : 1 / (1 + n * e[i]);
    }
  }
}

}  // namespace detail

inline Status check(const AttentionRule& rule, const AttentionSizes& sizes) {
  QUELL_ASSERT(sizes.heads != 0);
  QUELL_TRY(std::visit([&](const auto& kind) { return detail::check_weighting(kind, sizes); },
                       rule.weighting));
  if (!rule.gate) return ok();
  const Gate& gate = *rule.gate;
  if (gate.reads == Gate::Reads::slice && sizes.hidden % sizes.heads != 0) {
    return Error{ErrorCode::shape, "attention rule: a hidden size of " +
                                       std::to_string(sizes.hidden) + " cannot be cut into " +
                                       std::to_string(sizes.heads) + " slices, one for each head"};
  }
  const std::size_t width =
      gate.reads == Gate::Reads::all ? sizes.hidden : sizes.hidden / sizes.heads;
  QUELL_TRY(detail::check_size("gate weight", gate.weight, sizes.heads * width));
  QUELL_TRY(detail::check_size("gate bias", gate.bias, sizes.heads));
  if (!(gate.factor > 0) || !std::isfinite(gate.factor)) {
    return Error{ErrorCode::usage, "attention rule: the factor of the gate is " +
                                       detail::digits(gate.factor) +
                                       ", expected a finite number above 0"};
  }
  return ok();
}

inline void clip(const ClippedSoftmax& rule, std::span<float> probabilities) {
  const float stretch = rule.zeta - rule.gamma;
  for (float& p : probabilities) {
    // Both comparisons look at y, so neither needs a branch and the loop becomes wide. NaN stays.
    const float y = stretch * p + rule.gamma;
    const float bounded = y < 0 ? 0 : y;
    p = y > 1 ? 1 : bounded;
  }
}

inline float weigh(const Weighting& weighting, std::size_t head, float extra_score,
                   std::span<float> row, ExpFunction exp) {
  if (const auto* sink = std::get_if<SinkSoftmax>(&weighting)) {
    QUELL_ASSERT(head < sink->logits.size());
    return detail::softmax(row, &sink->logits[head], true, exp);
  }
  if (const auto* bias = std::get_if<BiasKeySoftmax>(&weighting)) {
    return detail::softmax(row, &extra_score, bias->rescales, exp);
  }
  if (const auto* sigmoid = std::get_if<SigmoidWeights>(&weighting)) {
    detail::sigmoids(row, sigmoid->length, exp);
    return 0;
  }
  detail::softmax(row, nullptr, true, exp);
  if (const auto* clipped = std::get_if<ClippedSoftmax>(&weighting)) clip(*clipped, row);
  return 0;
}

inline float gate_factor(const Gate& gate, std::size_t head, std::span<const float> x,
                         ExpFunction exp) {
  const std::size_t heads = gate.bias.size();
  const std::size_t width = gate.weight.size() / heads;
  const auto read = gate.reads == Gate::Reads::all ? x : x.subspan(head * width, width);
  QUELL_ASSERT(head < heads && read.size() == width);
  double logit = static_cast<double>(gate.bias[head]);
  for (std::size_t i = 0; i < width; ++i) {
    logit += static_cast<double>(gate.weight[head * width + i]) * static_cast<double>(read[i]);
  }
  auto e = static_cast<float>(-std::fabs(logit));
  exp({&e, 1}, {&e, 1});
  return gate.factor * ((logit < 0 ? e : 1.0f) / (1 + e));
}

}  // namespace quell::attention
