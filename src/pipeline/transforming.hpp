// SPDX-License-Identifier: Apache-2.0
#pragma once

// The transforms of a run: which edits the model has, when they are decided, and how what they
// change gets into the output. Whole-model transforms edit before anything is read. Factors of a
// block's channels are chosen right after its statistics are collected, and the statistics are
// divided along, so nothing is walked twice:
//
//   collect block k -> for each site: factors s -> edits; H / (s s^T), drift, maxima / s
//   -> quantize the edited weights -> bias correction -> write the block's floats -> next block

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "quell/calib/collect.hpp"
#include "quell/calib/statistics.hpp"
#include "quell/io/output.hpp"
#include "quell/pipeline/plan.hpp"
#include "quell/pipeline/recipe.hpp"
#include "quell/quant/transform.hpp"

namespace quell::pipeline {

/// Of the whole chain, from the recipe's options.
quant::TransformOptions transform_options(const Recipe& recipe);

/// Checks the transforms of the recipe's method and fills what the plan says of them. Errors:
/// usage, unsupported.
Status plan_transforms(const model::Model& model, const Recipe& recipe, const CalibrationSize& data,
                       Plan& plan);

/// The type that a tensor of the model is written in where transforms may change it: vectors that
/// are not norm weights go to F32 (they are small, and 16 bits could not hold what they become);
/// norm weights are kept exact in their own type by apply_scaling; matrices keep their type.
/// Tensors that no transform reaches keep theirs.
DType edited_type(const model::Model& model, const io::TensorInfo& tensor);

class Transforming {
 public:
  /// Makes the edits that need no statistics. Errors: those of the transforms.
  static Result<std::unique_ptr<Transforming>> begin(const model::Model& model,
                                                     const Recipe& recipe, const Plan& plan,
                                                     Executor& executor);

  bool active() const noexcept { return !chain_.empty(); }
  /// The model as edited so far.
  const model::Model& model() const noexcept { return model_; }
  /// True if something is chosen by statistics of the blocks.
  bool measures() const noexcept;
  bool unties_head() const noexcept { return edits_ != nullptr && !edits_->untied_head().empty(); }
  /// `wish`, and what is needed of every site of a block besides.
  calib::SiteWish wish(calib::SiteWish wish) const;

  /// Chooses and makes the edits of a block, and divides the statistics of its sites along.
  Status decide(std::uint32_t layer, const std::vector<const Task*>& tasks,
                std::map<model::Site, calib::SiteStatistics>& sites);
  /// The same by statistics that were made before.
  Status decide(std::uint32_t layer, const std::vector<const Task*>& tasks,
                const calib::StatisticsFile* file);
  /// Divides statistics of the same site that were read anew.
  void rescale(std::uint32_t layer, model::Site site, calib::SiteStatistics& statistics) const;
  /// After a linear was quantized: its bias.
  Status correct_bias(const Task& task, MatrixView<const float> weight,
                      const QuantizedTensor& quantized);

  /// True if the tensor is written here and not copied.
  bool owns(const std::string& tensor) const { return owned_.contains(tensor); }
  /// Writes edited tensors outside the blocks; their names are added to `names`.
  Status write_frame(io::OutputFolder& output, std::vector<std::string>& names) const;
  /// The journal's name for the floats of a block.
  static std::string floats_of(std::uint32_t layer);
  /// Writes what the block has in floating point, unless an earlier run did.
  Status write_block(std::uint32_t layer, io::OutputFolder& output) const;
  /// False while floats of the block are still to be written.
  bool is_finished(std::uint32_t layer, const io::OutputFolder& output) const {
    return !active() || output.find_finished(floats_of(layer)) != nullptr;
  }
  /// Makes the edits of a block that an earlier run finished.
  Status take_over(std::uint32_t layer, const io::OutputFolder& output);

 private:
  Status decide_site(std::uint32_t layer, model::Site site, const std::vector<const Task*>& tasks,
                     calib::SiteStatistics& statistics);
  struct Link {
    const quant::TransformEntry* entry;
    std::unique_ptr<quant::Transform> transform;
  };

  Transforming(const model::Model& model, const Plan& plan, Executor& executor)
      : model_(model), plan_(plan), executor_(executor) {}
  std::vector<std::string> floats(std::uint32_t layer) const;
  /// `by_rows`: a table that may be large, and of which only rows are mapped.
  Status write_tensor(const io::TensorPlan& tensor, bool by_rows, io::OutputFolder& output) const;
  /// Edits, remembers the factors, returns what x is divided by.
  Result<std::vector<float>> scale(std::uint32_t layer, model::Site site,
                                   std::vector<float> factors);
  void turn_to(std::uint32_t layer);

  model::Model model_;
  const Plan& plan_;
  Executor& executor_;
  std::vector<Link> chain_;
  std::shared_ptr<model::Edits> edits_;
  std::set<std::string> owned_;
  std::map<std::string, const io::TensorPlan*> planned_;
  std::uint32_t layer_ = 0;                             // that the following belong to
  std::map<model::Site, std::vector<float>> divisors_;  // of x, all scalings together
  std::map<model::Site, std::vector<double>> means_;    // of x as divided
  std::map<std::uint32_t, std::vector<std::pair<model::Site, std::vector<float>>>> scalings_;
};

}  // namespace quell::pipeline
