// SPDX-License-Identifier: Apache-2.0
#pragma once

// What clipping its softmax would do to a model that was trained without it: how much attention
// becomes exactly zero, how far each block's attention and the whole model move, and whether the
// ranges that quantization suffers from shrink. The rule holds in all blocks at once. It is a
// question, not a cure: models that profit from clipping were trained with it.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "quell/attention/rule.hpp"
#include "quell/calib/corpus.hpp"
#include "quell/core/executor.hpp"
#include "quell/core/result.hpp"
#include "quell/io/json.hpp"
#include "quell/model/model.hpp"
#include "quell/pipeline/observer.hpp"

namespace quell::pipeline {

/// The clip to try, as asked for.
struct WhatIfClip {
  attention::ClippedSoftmax rule;
  std::optional<float> alpha;  // then gamma is -alpha / T, T the longest sequence of the text

  /// "clip:ZETA,GAMMA" with ZETA >= 1 and GAMMA <= 0, or "clip:alpha=A" with A >= 0. Error: usage,
  /// with the form, the number found and its range.
  static Result<WhatIfClip> parse(std::string_view text);
};

/// One block of the model as it is (before) and of the changed one (after).
struct WhatIfLayer {
  std::uint32_t layer = 0;
  /// Share of the probabilities, of pairs of a query and a key it sees, that are exactly 0. Before:
  /// too small for a float32.
  double zeros_before = 0, zeros_after = 0;
  double empty_rows = 0;     // share of queries and heads whose probabilities are all 0, after
  double output_change = 0;  // |y - x| / |x| of the input of o, y after; 0 where both are 0
  float residual_before = 0, residual_after = 0;  // max |x| of the stream behind the block
  float down_in_before = 0, down_in_after = 0;    // max |x| of the input of down
};

struct WhatIf {
  attention::ClippedSoftmax rule;
  std::optional<float> alpha;
  std::uint32_t length = 0;  // the longest sequence
  std::uint64_t tokens = 0;
  std::size_t sequences = 0;
  std::vector<WhatIfLayer> layers;

  // Of a model with a head, over the tokens that have one before them in their sequence:
  struct Predictions {
    double kl_mean = 0, kl_max = 0;  // nats per token, original to changed
    double perplexity_before = 0, perplexity_after = 0;
    double top1_agreement = 0;
  };
  std::optional<Predictions> predictions;
  // Of an encoder, over texts: 1 - cosine of the two embeddings.
  struct Embeddings {
    double cosine_error_mean = 0, cosine_error_max = 0;
  };
  std::optional<Embeddings> embeddings;

  io::Json to_json() const;
};

/// Tokens the answer is worked out on (calib::beginning).
inline constexpr std::uint64_t kWhatIfTokens = 4096;

/// Errors: usage (a clip outside its range), numeric (a model whose logits or embeddings are not
/// finite).
Result<WhatIf> what_if(const model::Model& model, const calib::Corpus& corpus,
                       const WhatIfClip& clip, Executor& executor, Observer& observer);

}  // namespace quell::pipeline
