// SPDX-License-Identifier: Apache-2.0

// Outliers from the JSON that OutlierReport::to_json writes, all but the answer to a what-if
// question. The file may come from anywhere: what
// has the wrong type counts as absent, and numbers are clamped to what their fields hold.

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "quell/report/outlier_results.hpp"
#include "quell/report/outliers.hpp"

namespace quell::report {
namespace {

using pipeline::TensorOutliers;

double number_at(const io::Json& object, std::string_view key) {
  const io::Json* found = object.find(key);
  return found != nullptr && found->is_number() ? found->as_number() : std::nan("");
}
/// 0 where there is none.
double value_at(const io::Json& object, std::string_view key) {
  const double number = number_at(object, key);
  return std::isfinite(number) ? number : 0;
}
float float_at(const io::Json& object, std::string_view key) {
  constexpr auto kMost = static_cast<double>(std::numeric_limits<float>::max());
  return static_cast<float>(std::clamp(value_at(object, key), -kMost, kMost));
}
std::uint64_t count_at(const io::Json& object, std::string_view key) {
  const io::Json* found = object.find(key);
  return found == nullptr ? 0 : found->as_unsigned().value_or(0);
}
std::size_t size_at(const io::Json& object, std::string_view key) {
  return static_cast<std::size_t>(count_at(object, key));
}
std::uint32_t layer_at(const io::Json& object, std::string_view key) {
  return static_cast<std::uint32_t>(std::min<std::uint64_t>(count_at(object, key), 0x7FFF'FFFF));
}
/// -1: the embedding.
std::int32_t signed_layer_at(const io::Json& object, std::string_view key) {
  return value_at(object, key) < 0 ? -1 : static_cast<std::int32_t>(layer_at(object, key));
}
bool truth_at(const io::Json& object, std::string_view key) {
  const io::Json* found = object.find(key);
  return found != nullptr && found->is(io::Json::Kind::boolean) && found->as_boolean();
}
std::string text_at(const io::Json& object, std::string_view key) {
  const io::Json* found = object.find(key);
  return found != nullptr && found->is(io::Json::Kind::string) ? found->as_string() : std::string();
}
const std::vector<io::Json>& list_at(const io::Json& object, std::string_view key) {
  static const std::vector<io::Json> kNone;
  const io::Json* found = object.find(key);
  return found != nullptr && found->is(io::Json::Kind::array) ? found->items() : kNone;
}

class Reader {
 public:
  OutlierResult read(const io::Json& outliers) {
    pipeline::OutlierReport& found = result_.found;
    found.tokens = count_at(outliers, "tokens");
    found.sequences = size_at(outliers, "sequences");
    for (const io::Json& item : list_at(outliers, "excluded")) {
      found.excluded.push_back({size_at(item, "sequence"), text_at(item, "place")});
    }
    for (const io::Json& item : list_at(outliers, "tensors")) add_tensor(item);
    for (const io::Json& item : list_at(outliers, "systematic")) add_systematic(item);
    for (const io::Json& item : list_at(outliers, "first_token_mass")) {
      found.first_token_mass.push_back({layer_at(item, "layer"), value_at(item, "mean"),
                                        value_at(item, "largest_head"), layer_at(item, "head")});
    }
    for (const io::Json& item : list_at(outliers, "sinks")) add_sink(item);
    for (const io::Json& item : list_at(outliers, "heads")) {
      found.heads.push_back({layer_at(item, "layer"), layer_at(item, "head"),
                             value_at(item, "idle_mass"), value_at(item, "first_token_mass"),
                             value_at(item, "first_value_ratio"), truth_at(item, "idle")});
    }
    for (const io::Json& item : list_at(outliers, "layers")) {
      found.blocks.push_back({layer_at(item, "layer"), value_at(item, "outlier_ratio"),
                              value_at(item, "sampling_probability")});
    }
    for (const io::Json& item : list_at(outliers, "life_cycle")) add_event(item);
    return std::move(result_);
  }

 private:
  std::int32_t token_at(const io::Json& item) {
    const std::string text = text_at(item, "token");
    const auto [place, added] = ids_.emplace(text, static_cast<std::int32_t>(result_.texts.size()));
    if (added) result_.texts.push_back(text);
    return place->second;
  }

  void add_tensor(const io::Json& item) {
    TensorOutliers tensor;
    tensor.name = text_at(item, "name");
    const bool activation = text_at(item, "kind") == "activation";
    tensor.kind = activation ? TensorOutliers::Kind::activation : TensorOutliers::Kind::weight;
    const auto& shape = list_at(item, "shape");
    if (shape.size() == 2) {
      tensor.rows = static_cast<std::size_t>(shape[0].as_unsigned().value_or(0));
      tensor.cols = static_cast<std::size_t>(shape[1].as_unsigned().value_or(0));
    }
    tensor.excess_kurtosis = value_at(item, "excess_kurtosis");
    tensor.outlier_ratio = value_at(item, "outlier_ratio");
    tensor.absmax = float_at(item, "absmax");
    const double to_mean = value_at(item, "max_to_mean");
    tensor.mean_abs = to_mean > 0 ? static_cast<double>(tensor.absmax) / to_mean : 0;
    tensor.median_abs = value_at(item, "median");
    tensor.channel_ratio = value_at(item, "channel_ratio");
    tensor.argmax_row = size_at(item, "argmax_token");
    tensor.argmax_col = size_at(item, "argmax_channel");
    tensor.nonfinite = count_at(item, "nonfinite");
    tensor.fp16_overflow = count_at(item, "fp16_overflow");
    tensor.fp16_subnormal = count_at(item, "fp16_subnormal");
    tensor.zero_rows = size_at(item, "zero_rows");
    tensor.zero_columns = size_at(item, "zero_columns");
    tensor.first_token_absmax = float_at(item, "first_token_absmax");
    tensor.rest_absmax = float_at(item, "rest_absmax");
    tensor.row_ratio = value_at(item, "row_ratio");
    tensor.column_ratio = value_at(item, "column_ratio");
    tensor.stands_out = truth_at(item, "stands_out");
    if (const io::Json* marked = item.find("marked"); marked != nullptr) {
      const auto lines = [&](const char* key) {
        std::vector<stats::OutlierLine> found;
        for (const io::Json& line : list_at(*marked, key)) {
          found.push_back({size_at(line, "index"), value_at(line, "ratio")});
        }
        return found;
      };
      tensor.marked.rows = lines("rows");
      tensor.marked.columns = lines("columns");
      for (const io::Json& element : list_at(*marked, "elements")) {
        tensor.marked.elements.push_back(
            {size_at(element, "row"), size_at(element, "col"), float_at(element, "value")});
      }
      tensor.marked.gap = value_at(*marked, "gap");
    }
    for (const io::Json& value : list_at(item, "channel_max")) {
      tensor.channel_max.push_back(value.is_number() ? value.as_number() : 0);
    }
    auto& found = activation ? result_.found.activations : result_.found.weights;
    found.push_back(std::move(tensor));
  }

  void add_systematic(const io::Json& item) {
    const std::string kind = text_at(item, "kind");
    if (kind == "massive_activation") {
      pipeline::MassiveActivation hit;
      hit.place = text_at(item, "place");
      hit.layer = signed_layer_at(item, "layer");
      hit.channel = size_at(item, "channel");
      hit.position = size_at(item, "token_position");
      hit.token = token_at(item);
      hit.value = float_at(item, "value");
      hit.ratio_to_median = value_at(item, "ratio_to_median");
      hit.sequences = size_at(item, "sequences");
      hit.first_positions = size_at(item, "first_positions");
      result_.found.massive.push_back(std::move(hit));
    } else if (kind == "channel" || kind == "neuron") {
      pipeline::ChannelOutlier outlier;
      outlier.kind = kind == "neuron" ? pipeline::ChannelOutlier::Kind::neuron
                                      : pipeline::ChannelOutlier::Kind::systematic;
      outlier.place = text_at(item, "place");
      outlier.layer = signed_layer_at(item, "layer");
      outlier.value = float_at(item, "value");
      outlier.position = size_at(item, "token_position");
      outlier.token = token_at(item);
      outlier.channel.channel = size_at(item, "channel");
      outlier.channel.layers = size_at(item, "layers");
      outlier.channel.leads = size_at(item, "leads");
      for (const io::Json& ratio : list_at(item, "ratios")) {
        outlier.channel.ratios.push_back(ratio.is_number() ? ratio.as_number() : 0);
      }
      if (outlier.channel.ratios.empty()) {
        outlier.channel.ratios.push_back(value_at(item, "ratio_to_median"));
      }
      result_.found.channels.push_back(std::move(outlier));
    }
  }

  void add_sink(const io::Json& item) {
    pipeline::AttentionSink sink;
    sink.layer = layer_at(item, "layer");
    const io::Json* head = item.find("head");
    if (head != nullptr && head->is_number()) sink.head = layer_at(item, "head");
    sink.position = size_at(item, "token_position");
    sink.token = token_at(item);
    sink.mass = value_at(item, "mass");
    sink.sequences = size_at(item, "sequences");
    // A report looks its layer up there.
    if (sink.layer >= result_.found.first_token_mass.size()) return;
    result_.found.sinks.push_back(sink);
  }

  void add_event(const io::Json& item) {
    using Kind = pipeline::LifeCycleEvent::Kind;
    pipeline::LifeCycleEvent event;
    const std::string kind = text_at(item, "event");
    event.kind = kind == "grown" ? Kind::grown : kind == "cancelled" ? Kind::cancelled : Kind::born;
    event.layer = layer_at(item, "layer");
    event.channel = size_at(item, "channel");
    event.position = size_at(item, "token_position");
    event.token = token_at(item);
    event.before = float_at(item, "before");
    event.after = float_at(item, "after");
    event.neuron = size_at(item, "neuron");
    event.neuron_value = float_at(item, "neuron_value");
    event.weight = float_at(item, "weight");
    event.share = value_at(item, "share");
    result_.found.life_cycle.push_back(event);
  }

  OutlierResult result_;
  std::map<std::string, std::int32_t> ids_;
};

/// The object that holds the outliers, or null.
const io::Json* outliers_in(const io::Json& json) {
  const io::Json* tensors = json.find("tensors");
  if (tensors != nullptr && tensors->is(io::Json::Kind::array)) return &json;
  const io::Json* inner = json.find("outliers");
  if (inner == nullptr) return nullptr;
  tensors = inner->find("tensors");
  return tensors != nullptr && tensors->is(io::Json::Kind::array) ? inner : nullptr;
}

}  // namespace

bool holds_outliers(const io::Json& json) {
  return outliers_in(json) != nullptr;
}

Result<OutlierResult> read_outliers(const std::string& file, const io::Json& json) {
  const io::Json* outliers = outliers_in(json);
  if (outliers == nullptr) {
    return Error{ErrorCode::parse,
                 file + ": no list \"tensors\"; is this what `quell outliers --json` printed?",
                 file};
  }
  OutlierResult result = Reader().read(*outliers);
  result.version = text_at(json, "quell_version");
  return result;
}

Document outlier_result_document(const std::string& name, const OutlierResult& result) {
  OutlierInputs inputs;
  inputs.name = name;
  inputs.found = &result.found;
  inputs.text_of = [&](std::int32_t id) { return result.texts[static_cast<std::size_t>(id)]; };
  inputs.provenance.lines = {{"Measured by", "quell " + result.version}, {"File", name}};
  return outlier_document(inputs);
}

}  // namespace quell::report
