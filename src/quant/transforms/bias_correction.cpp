// SPDX-License-Identifier: Apache-2.0

// bias_correction: rounding shifts the mean of a linear's output by (Q - W) mean(x); where there is
// a bias, the shift goes into it and costs nothing.

#include "quell/quant/transform.hpp"

namespace quell::quant {
namespace {

class BiasCorrection final : public Transform {
 public:
  std::string_view name() const override { return "bias_correction"; }

  Status check(const model::Model& model) const override {
    for (const model::Block& block : model.blocks()) {
      for (const model::Site site : model::kSites) {
        for (const model::Linear* linear : linears_at(block, site)) {
          if (linear->bias) return ok();
        }
      }
    }
    return Error{ErrorCode::unsupported,
                 model.folder().string() +
                     ": bias_correction needs linear layers with a bias, and " +
                     (model.blocks().empty() ? "this model was opened for its weights alone"
                                             : "none of this model has one"),
                 model.folder().string(),
                 {}};
  }

  Result<std::vector<float>> bias_change(MatrixView<const float> weight,
                                         const QuantizedTensor& quantized,
                                         std::span<const double> mean) const override {
    if (mean.size() != weight.cols()) {
      return Error{ErrorCode::numeric, "bias_correction: means of " + std::to_string(mean.size()) +
                                           " inputs, expected " + std::to_string(weight.cols())};
    }
    std::vector<float> change(weight.rows()), row(weight.cols());
    for (std::size_t r = 0; r < weight.rows(); ++r) {
      quantized.dequantize_row(r, row);
      const auto original = weight.row(r);
      double sum = 0;
      for (std::size_t j = 0; j < row.size(); ++j) {
        sum += (static_cast<double>(original[j]) - static_cast<double>(row[j])) * mean[j];
      }
      change[r] = static_cast<float>(sum);
    }
    return change;
  }
};

}  // namespace

std::unique_ptr<Transform> bias_correction() {
  return std::make_unique<BiasCorrection>();
}

}  // namespace quell::quant
