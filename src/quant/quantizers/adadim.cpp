// SPDX-License-Identifier: Apache-2.0

// adadim: groups along rows or down columns, whichever the layer likes. With a group that divides
// both sides the two have the same number of scales, so the choice costs time and nothing else.

#include "quant/problem.hpp"
#include "quell/quant/methods.hpp"

namespace quell::quant {
namespace {

LayerProblem directed(const LayerProblem& layer, Channel per) {
  LayerProblem problem = layer;
  problem.grid.per = per;
  return problem;
}

class Adadim final : public Quantizer {
 public:
  Adadim(std::unique_ptr<Quantizer> inner, AdadimOptions options)
      : name_("adadim+" + std::string(inner->name())),
        inner_(std::move(inner)),
        rounding_(rtn()),
        options_(options) {}
  std::string_view name() const override { return name_; }
  Needs needs() const override { return inner_->needs() | Needs::second_moment; }

  Result<Quantized> quantize(const LayerProblem& layer, Executor& executor) const override {
    QUELL_TRY(check_problem(layer, true, executor));
    if (layer.keep_direction || layer.given != nullptr) return inner_->quantize(layer, executor);
    if (options_.by_rounding) {
      QUELL_TRY(along, rounding_error(layer, Channel::output, executor));
      QUELL_TRY(down, rounding_error(layer, Channel::input, executor));
      const Channel winner = down < along ? Channel::input : Channel::output;
      return inner_->quantize(directed(layer, winner), executor);
    }
    QUELL_TRY(along, inner_->quantize(directed(layer, Channel::output), executor));
    QUELL_TRY(down, inner_->quantize(directed(layer, Channel::input), executor));
    const bool other = down.objective < along.objective;
    Quantized& taken = other ? down : along;
    taken.objective_other_direction = (other ? along : down).objective;
    return std::move(taken);
  }

 private:
  Result<double> rounding_error(const LayerProblem& layer, Channel per, Executor& executor) const {
    LayerProblem problem = directed(layer, per);
    problem.scale = ScaleMethod::minmax;
    QUELL_TRY(rounded, rounding_->quantize(problem, executor));
    if (layer.evaluate) return layer.evaluate(rounded.tensor);
    return rounded.objective;
  }

  std::string name_;
  std::unique_ptr<Quantizer> inner_, rounding_;
  AdadimOptions options_;
};

}  // namespace

std::unique_ptr<Quantizer> adadim(std::unique_ptr<Quantizer> inner, AdadimOptions options) {
  return std::make_unique<Adadim>(std::move(inner), options);
}

}  // namespace quell::quant
