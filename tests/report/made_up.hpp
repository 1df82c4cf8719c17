// SPDX-License-Identifier: Apache-2.0
#pragma once

// Measurements that nobody made: reports of any size with known outliers, without a model.

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "quell/core/random.hpp"
#include "quell/pipeline/outliers.hpp"
#include "quell/pipeline/sensitivity.hpp"
#include "quell/report/outliers.hpp"
#include "quell/stats/quantile.hpp"

namespace quell::test {

inline const char* const kProjections[] = {
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "mlp.gate_proj",    "mlp.up_proj",      "mlp.down_proj"};

inline std::string module_name(std::size_t layer, const std::string& projection) {
  return "model.layers." + std::to_string(layer) + "." + projection;
}

/// A tensor of near normal values; channel `peak` is `times` as large as the others.
inline pipeline::TensorOutliers made_up_tensor(const std::string& name,
                                               pipeline::TensorOutliers::Kind kind,
                                               std::size_t channels, std::uint64_t seed,
                                               std::size_t peak, double times) {
  pipeline::TensorOutliers tensor;
  tensor.name = name;
  tensor.kind = kind;
  tensor.rows = 4096;
  tensor.cols = channels;
  stats::QuantileSketch sketch;
  std::uint64_t state = seed * 2654435761u + 1;
  std::vector<float> values(channels);
  for (std::size_t c = 0; c < channels; ++c) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    const double share = static_cast<double>(state >> 11) * 0x1p-53;
    const double value = (0.05 + 0.03 * share) * (c == peak ? times : 1);
    tensor.channel_max.push_back(value);
    tensor.absmax = std::max(tensor.absmax, static_cast<float>(value));
    // Small values too, over a dozen octaves.
    values[c] = static_cast<float>(value * std::exp2(-12 * share));
  }
  sketch.add(values);
  tensor.histogram = stats::LogHistogram(sketch);
  tensor.median_abs = 0.02;
  tensor.mean_abs = 0.025;
  tensor.excess_kurtosis = times > 4 ? 30.5 : 0.3;
  tensor.channel_ratio = times;
  tensor.argmax_col = peak;
  tensor.first_token_absmax = tensor.absmax;
  tensor.rest_absmax = tensor.absmax / 2;
  return tensor;
}

/// A decoder of `layers` layers (two at least) with seven projections; text was given.
inline pipeline::OutlierReport made_up_outliers(std::size_t layers, std::size_t channels) {
  using Kind = pipeline::TensorOutliers::Kind;
  pipeline::OutlierReport report;
  report.tokens = 8192;
  report.sequences = 4;
  std::uint64_t seed = 1;
  const std::size_t peak = channels / 3;
  report.activations.push_back(
      made_up_tensor("embedding", Kind::activation, channels, seed++, 0, 1));
  for (std::size_t l = 0; l < layers; ++l) {
    for (const char* projection : kProjections) {
      report.weights.push_back(made_up_tensor(module_name(l, projection), Kind::weight, channels,
                                              seed++, peak, l == 1 ? 12 : 1.5));
    }
    for (const char* place : {"qkv_in", "o_in", "mlp_in", "down_in", "residual"}) {
      report.activations.push_back(made_up_tensor("layers." + std::to_string(l) + "." + place,
                                                  Kind::activation, channels, seed++, peak,
                                                  l == 1 ? 800 : 9));
    }
    report.first_token_mass.push_back(
        {static_cast<std::uint32_t>(l), l == 1 ? 0.6 : 0.03, l == 1 ? 0.9 : 0.05, 3});
    report.blocks.push_back(
        {static_cast<std::uint32_t>(l), l == 1 ? 0.5 : 0.0, 1.0 / static_cast<double>(layers)});
  }
  report.weights[8].marked.columns.push_back({peak, 6.5});
  report.massive.push_back({"layers.1.down_in", 1, peak, 0, 1, 184.25f, 1381, 4, 4});
  pipeline::ChannelOutlier channel;
  channel.place = "residual";
  channel.channel = {peak, layers, layers, std::vector<double>(layers, 11.5)};
  channel.layer = 1;
  report.channels.push_back(channel);
  report.sinks.push_back({1, std::nullopt, 0, 1, 0.6, 4});
  return report;
}

/// Of the same modules: one in layer 1 does most of the damage.
inline pipeline::Sensitivity made_up_sensitivity(std::size_t layers) {
  pipeline::Sensitivity sensitivity;
  sensitivity.method = "rtn";
  sensitivity.tokens = 4096;
  for (std::size_t l = 0; l < layers; ++l) {
    for (const char* projection : kProjections) {
      pipeline::ModuleSensitivity module;
      module.name = module_name(l, projection);
      module.layer = static_cast<std::uint32_t>(l);
      module.bytes = 2'000'000;
      module.kept_bytes = 6'000'000;
      module.relative_error = 0.1;
      module.output_error = 0.08;
      const bool worst = l == 1 && std::string(projection) == "mlp.down_proj";
      module.damage = worst ? 0.03 : 0.02 / static_cast<double>(7 * layers);
      module.damage_standard_error = module.damage / 10;
      module.noise_damage = module.damage / (worst ? 20 : 1);
      module.kept_gain = module.damage;
      module.loss_ratios = {{pipeline::Cure::Kind::bits, 0.004},
                            {pipeline::Cure::Kind::direction, 0.8}};
      sensitivity.modules.push_back(module);

      pipeline::ErrorStage stage;
      stage.name = module.name;
      stage.layer = module.layer;
      stage.split = {0.002 * static_cast<double>(l), worst ? 0.01 : 0.001, -0.0001, 0.002};
      stage.split_per_token = stage.split;
      stage.weight_gain = 0.8;
      stage.alignment_gain = 1.25;
      sensitivity.stages.push_back(stage);
    }
    pipeline::ErrorStage block;
    block.name = "layers." + std::to_string(l);
    block.layer = static_cast<std::uint32_t>(l);
    block.block = true;
    block.split = {0.002 * static_cast<double>(l), 0.003, 0.0002, 0.002};
    block.split_per_token = block.split;
    sensitivity.stages.push_back(block);
  }
  sensitivity.together = 0.05;
  sensitivity.together_standard_error = 0.002;
  using Kind = pipeline::Cure::Kind;
  const std::string worst = module_name(1, "mlp.down_proj");
  sensitivity.cures = {
      {Kind::direction, worst, "int4:sym:ic:g128", true, 0.8, 0, 0.006, {}},
      {Kind::kept_columns, worst, "41 columns kept in f16", false, 0.2, 300'000, 0.024, 0.0235},
      {Kind::bits, worst, "int8:sym:oc:g128", true, 0.01, 2'000'000, 0.0297, {}}};
  return sensitivity;
}

inline report::OutlierInputs inputs_of(const pipeline::OutlierReport& found) {
  report::OutlierInputs inputs;
  inputs.name = "made/up";
  inputs.found = &found;
  inputs.text_of = [](std::int32_t id) { return "<token " + std::to_string(id) + ">"; };
  inputs.provenance.lines = {{"Command", "quell outliers made/up --calib text.txt"}};
  return inputs;
}

}  // namespace quell::test
