// SPDX-License-Identifier: Apache-2.0
#pragma once

// One linear layer under study: what its planned quantization loses, and what each cure would leave
// of that. Every cure ends in a weight in the original basis, whatever it does inside, so that all
// are judged by the same loss and can be put into the float engine.

#include <cstdint>
#include <optional>
#include <string>

#include "quell/core/executor.hpp"
#include "quell/core/result.hpp"
#include "quell/core/tensor.hpp"
#include "quell/grid/quantized.hpp"
#include "quell/pipeline/sensitivity.hpp"
#include "quell/quant/quantizer.hpp"

namespace quell::pipeline {

/// A weight after quantization, decoded [OC, IC], and what it takes.
struct Decoded {
  Matrix weight;
  QuantizedTensor tensor;  // its codes, in whatever basis the cure has chosen
  std::uint64_t bytes = 0;
  std::string action;  // as Cure::action; empty for the plan's own
  bool available = true;
};

class LinearStudy {
 public:
  /// `moment`: mean of x x^T of the layer's inputs, [IC, IC]; `tokens` are behind it.
  LinearStudy(const Task& task, const quant::Quantizer& quantizer, const Matrix& weight,
              const Matrix& moment, std::uint64_t tokens, Executor& executor);

  /// As it is planned. Errors: those of the quantizer.
  Result<Decoded> planned() const;
  /// With a cure; nothing where it makes no sense here (8 bits are not raised, groups of 32 not
  /// cut).
  Result<std::optional<Decoded>> cured(Cure::Kind kind, const Decoded& planned) const;
  /// tr(E H E^T) with E = W - Q, over at most 512 rows spread evenly.
  Result<double> loss(const Matrix& decoded) const;
  /// The same of zeros in place of Q: the energy of the outputs.
  Result<double> energy() const;

 private:
  Result<Decoded> quantize(const GridSpec& grid, const Matrix& weight, const Matrix& moment) const;
  Result<Decoded> keep_columns(const Decoded& planned) const;
  Result<std::optional<Decoded>> rotate() const;
  Result<std::optional<Decoded>> smooth() const;
  Result<double> loss_of(const Matrix* decoded) const;

  const Task& task_;
  const quant::Quantizer& quantizer_;
  const Matrix& weight_;
  const Matrix& moment_;
  std::uint64_t tokens_;
  Executor& executor_;
};

/// |W - Q| / |W|.
double relative_error(const Matrix& weight, const Matrix& decoded);

}  // namespace quell::pipeline
