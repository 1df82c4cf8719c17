// SPDX-License-Identifier: Apache-2.0

// The list of weights and what the report says in JSON. How a weight is measured is in
// weight_measure.cpp, activations are in outliers_of_text.cpp.

#include "quell/pipeline/outliers.hpp"

#include <algorithm>
#include <cmath>

#include "pipeline/stored_rows.hpp"
#include "pipeline/tensor_measure.hpp"
#include "pipeline/weight_measure.hpp"

namespace quell::pipeline {
namespace {

// How far above the median of all modules a module's ratio must be to stand out: the relative flag
// of systematic weight outliers, whose absolute rule misses all but the largest.
constexpr double kStandsOut = 4;

void mark_those_that_stand_out(std::vector<TensorOutliers>& weights) {
  std::vector<double> ratios;
  for (const TensorOutliers& w : weights) ratios.push_back(std::max(w.row_ratio, w.column_ratio));
  const double middle = stats::median(ratios);
  for (std::size_t i = 0; i < weights.size(); ++i) {
    weights[i].stands_out = ratios[i] > kStandsOut * middle;
  }
}

io::Json marked_json(const stats::MatrixOutliers& marked) {
  const auto lines = [](const std::vector<stats::OutlierLine>& found) {
    io::Json list = io::Json::array();
    for (const stats::OutlierLine& line : found) {
      list.push(io::Json::object(
          {{"index", static_cast<std::uint64_t>(line.index)}, {"ratio", line.ratio}}));
    }
    return list;
  };
  io::Json elements = io::Json::array();
  for (const stats::OutlierElement& element : marked.elements) {
    elements.push(io::Json::object({{"row", static_cast<std::uint64_t>(element.row)},
                                    {"col", static_cast<std::uint64_t>(element.col)},
                                    {"value", static_cast<double>(element.value)}}));
  }
  return io::Json::object({{"rows", lines(marked.rows)},
                           {"columns", lines(marked.columns)},
                           {"elements", std::move(elements)},
                           {"gap", marked.gap}});
}

}  // namespace

double excess_kurtosis(const kernels::PowerSums& sums) {
  return stats::Moments::from_power_sums(sums.count, sums.sum, sums.sum2, sums.sum3, sums.sum4)
      .excess_kurtosis();
}

double channel_ratio(std::span<const double> maxima) {
  if (maxima.empty()) return 0;
  const double middle = stats::median({maxima.begin(), maxima.end()});
  return middle > 0 ? *std::max_element(maxima.begin(), maxima.end()) / middle : 0;
}

std::string_view to_string(LifeCycleEvent::Kind kind) noexcept {
  switch (kind) {
    case LifeCycleEvent::Kind::born:
      return "born";
    case LifeCycleEvent::Kind::grown:
      return "grown";
    case LifeCycleEvent::Kind::cancelled:
      return "cancelled";
  }
  return "";
}

io::Json TensorOutliers::to_json() const {
  const bool weight = kind == Kind::weight;
  io::Json json = io::Json::object();
  json.set("name", name);
  json.set("kind", weight ? "weight" : "activation");
  json.set("shape",
           io::Json::array({static_cast<std::uint64_t>(rows), static_cast<std::uint64_t>(cols)}));
  json.set("excess_kurtosis", excess_kurtosis);
  json.set("max_to_mean", max_to_mean());
  json.set("max_to_median", max_to_median());
  json.set("median", median_abs);
  json.set("channel_ratio", channel_ratio);
  json.set("argmax_channel", static_cast<std::uint64_t>(argmax_col));
  json.set("argmax_token", weight ? io::Json() : io::Json(static_cast<std::uint64_t>(argmax_row)));
  json.set("outlier_ratio", outlier_ratio);
  json.set("absmax", static_cast<double>(absmax));
  json.set("nonfinite", nonfinite);
  if (weight) {
    json.set("row_ratio", row_ratio);
    json.set("column_ratio", column_ratio);
    json.set("stands_out", stands_out);
    json.set("fp16_overflow", fp16_overflow);
    json.set("fp16_subnormal", fp16_subnormal);
    json.set("zero_rows", static_cast<std::uint64_t>(zero_rows));
    json.set("zero_columns", static_cast<std::uint64_t>(zero_columns));
    json.set("marked", marked_json(marked));
  } else {
    json.set("first_token_absmax", static_cast<double>(first_token_absmax));
    json.set("rest_absmax", static_cast<double>(rest_absmax));
  }
  return json;
}

Result<std::vector<TensorOutliers>> measure_weights(const model::Model& model, Executor& executor,
                                                    Observer& observer) {
  std::vector<TensorOutliers> result;
  const auto add = [&](const model::Linear& linear) -> Status {
    if (observer.stop_requested()) return Error{ErrorCode::interrupted, "stopped"};
    QUELL_TRY(stored, stored_rows(model, linear));
    QUELL_TRY(outliers, measure_weight(stored, executor));
    outliers.name = linear.name;
    result.push_back(std::move(outliers));
    return ok();
  };
  double done = 0;
  for (const model::Block& block : model.blocks()) {
    observer.progress({"weights", done++, static_cast<double>(model.blocks().size()), 0});
    for (const model::Site site : model::kSites) {
      for (const model::Linear* linear : linears_at(block, site)) QUELL_TRY(add(*linear));
    }
  }
  for (const model::Linear& linear : model.generic_linears()) QUELL_TRY(add(linear));
  mark_those_that_stand_out(result);
  return result;
}

io::Json OutlierReport::to_json(const std::function<std::string(std::int32_t)>& text_of) const {
  const auto unsigned_of = [](std::size_t value) { return static_cast<std::uint64_t>(value); };
  io::Json json = io::Json::object();
  json.set("engine_precision", engine::to_string(precision));
  json.set("tokens", tokens);
  json.set("sequences", unsigned_of(sequences));
  io::Json left_out = io::Json::array();
  for (const ExcludedSequence& each : excluded) {
    left_out.push(
        io::Json::object({{"sequence", unsigned_of(each.sequence)}, {"place", each.place}}));
  }
  json.set("excluded", std::move(left_out));
  io::Json tensors = io::Json::array();
  for (const TensorOutliers& tensor : weights) tensors.push(tensor.to_json());
  for (const TensorOutliers& tensor : activations) tensors.push(tensor.to_json());
  json.set("tensors", std::move(tensors));

  io::Json systematic = io::Json::array();
  for (const MassiveActivation& hit : massive) {
    systematic.push(io::Json::object({{"kind", "massive_activation"},
                                      {"place", hit.place},
                                      {"layer", std::int64_t{hit.layer}},
                                      {"channel", unsigned_of(hit.channel)},
                                      {"token_position", unsigned_of(hit.position)},
                                      {"token", text_of(hit.token)},
                                      {"value", static_cast<double>(hit.value)},
                                      {"ratio_to_median", hit.ratio_to_median},
                                      {"sequences", unsigned_of(hit.sequences)},
                                      {"first_positions", unsigned_of(hit.first_positions)}}));
  }
  for (const ChannelOutlier& outlier : channels) {
    const bool neuron = outlier.kind == ChannelOutlier::Kind::neuron;
    io::Json ratios = io::Json::array();
    for (const double ratio : outlier.channel.ratios) ratios.push(ratio);
    systematic.push(
        io::Json::object({{"kind", neuron ? "neuron" : "channel"},
                          {"place", outlier.place},
                          {"layer", std::int64_t{outlier.layer}},
                          {"channel", unsigned_of(outlier.channel.channel)},
                          {"token_position", unsigned_of(outlier.position)},
                          {"token", text_of(outlier.token)},
                          {"value", static_cast<double>(outlier.value)},
                          {"ratio_to_median", *std::max_element(outlier.channel.ratios.begin(),
                                                                outlier.channel.ratios.end())},
                          {"layers", unsigned_of(outlier.channel.layers)},
                          {"leads", unsigned_of(outlier.channel.leads)},
                          {"ratios", std::move(ratios)}}));
  }
  for (const TensorOutliers& tensor : weights) {
    for (const stats::OutlierElement& element : tensor.marked.elements) {
      systematic.push(io::Json::object(
          {{"kind", "weight"},
           {"place", tensor.name},
           {"row", unsigned_of(element.row)},
           {"channel", unsigned_of(element.col)},
           {"value", static_cast<double>(element.value)},
           {"ratio_to_median",
            tensor.median_abs > 0 ? std::abs(static_cast<double>(element.value)) / tensor.median_abs
                                  : 0}}));
    }
  }
  json.set("systematic", std::move(systematic));

  io::Json sink_list = io::Json::array();
  for (const AttentionSink& sink : sinks) {
    sink_list.push(io::Json::object({{"layer", sink.layer},
                                     {"head", sink.head ? io::Json(*sink.head) : io::Json()},
                                     {"token_position", unsigned_of(sink.position)},
                                     {"token", text_of(sink.token)},
                                     {"mass", sink.mass},
                                     {"sequences", unsigned_of(sink.sequences)}}));
  }
  json.set("sinks", std::move(sink_list));
  io::Json first = io::Json::array();
  for (const FirstTokenMass& mass : first_token_mass) {
    first.push(io::Json::object({{"layer", mass.layer},
                                 {"mean", mass.mean},
                                 {"largest_head", mass.largest_head},
                                 {"head", mass.head}}));
  }
  json.set("first_token_mass", std::move(first));
  io::Json head_list = io::Json::array();
  for (const HeadActivity& head : heads) {
    head_list.push(io::Json::object({{"layer", head.layer},
                                     {"head", head.head},
                                     {"idle_mass", head.idle_mass},
                                     {"first_token_mass", head.first_token_mass},
                                     {"first_value_ratio", head.first_value_ratio},
                                     {"idle", head.idle}}));
  }
  json.set("heads", std::move(head_list));
  io::Json events = io::Json::array();
  for (const LifeCycleEvent& event : life_cycle) {
    events.push(io::Json::object({{"event", std::string(to_string(event.kind))},
                                  {"layer", event.layer},
                                  {"channel", unsigned_of(event.channel)},
                                  {"token_position", unsigned_of(event.position)},
                                  {"token", text_of(event.token)},
                                  {"before", static_cast<double>(event.before)},
                                  {"after", static_cast<double>(event.after)},
                                  {"neuron", unsigned_of(event.neuron)},
                                  {"neuron_value", static_cast<double>(event.neuron_value)},
                                  {"weight", static_cast<double>(event.weight)},
                                  {"share", event.share}}));
  }
  json.set("life_cycle", std::move(events));
  io::Json layers = io::Json::array();
  for (const BlockOutliers& block : blocks) {
    layers.push(io::Json::object({{"layer", block.layer},
                                  {"outlier_ratio", block.outlier_ratio},
                                  {"sampling_probability", block.sampling_probability}}));
  }
  json.set("layers", std::move(layers));
  if (what_if) json.set("what_if", what_if->to_json());
  return json;
}

}  // namespace quell::pipeline
