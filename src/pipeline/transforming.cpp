// SPDX-License-Identifier: Apache-2.0

// A resumed run has to make the same edits again: the journal keeps the factors of each finished
// block (they have 8 bits of significance, so 16 bits hold one), and apply_scaling does the rest.

#include "pipeline/transforming.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <utility>

#include "quell/core/half.hpp"

namespace quell::pipeline {
namespace {

// Rows of a large table that are written at a time hold about this many bytes.
constexpr std::uint64_t kSliceBytes = 32u << 20;

// float32 values in the type of the file, little-endian.
Status encode(DType type, std::span<const float> values, const std::string& name, std::byte* out) {
  const auto each = [&](auto convert) {
    for (std::size_t i = 0; i < values.size(); ++i) {
      const auto element = convert(values[i]);
      std::memcpy(out + i * sizeof(element), &element, sizeof(element));
    }
  };
  switch (type) {
    case DType::f32:
      std::memcpy(out, values.data(), values.size() * sizeof(float));
      return ok();
    case DType::f64:
      each([](float x) { return static_cast<double>(x); });
      return ok();
    case DType::bf16:
      each([](float x) { return float_to_bf16(x); });
      return ok();
    case DType::f16:
      for (const float x : values) {
        if (std::isfinite(f16_to_float(float_to_f16(x)))) continue;
        return Error{ErrorCode::numeric,
                     name + ": after the transforms it holds " + std::to_string(x) +
                         ", beyond float16 (65504); use another method or a model in bfloat16",
                     {},
                     name};
      }
      each([](float x) { return float_to_f16(x); });
      return ok();
    default:
      return Error{ErrorCode::unsupported,
                   name + ": transforms change it, and cannot write its type " +
                       std::string(to_string(type)) + "; leave it out of --ignore, or them out",
                   {},
                   name};
  }
}

std::string hex_of(std::span<const float> factors) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (const float factor : factors) {
    const std::uint16_t bits = float_to_bf16(factor);
    for (int shift = 12; shift >= 0; shift -= 4) text += kDigits[(bits >> shift) & 15];
  }
  return text;
}

std::vector<float> factors_of(const std::string& hex) {
  std::vector<float> factors(hex.size() / 4);
  for (std::size_t i = 0; i < factors.size(); ++i) {
    factors[i] =
        bf16_to_float(static_cast<std::uint16_t>(std::stoul(hex.substr(4 * i, 4), nullptr, 16)));
  }
  return factors;
}

// x / s in all that is known of x.
void divide(calib::SiteStatistics& statistics, std::span<const float> s) {
  for (std::size_t i = 0; i < s.size(); ++i) {
    const auto by = static_cast<double>(s[i]);
    if (!statistics.sum.empty()) {
      statistics.sum[i] /= by;
      statistics.sum_squares[i] /= by * by;
      statistics.sum_abs[i] /= by;
      statistics.max_abs[i] /= s[i];
    }
    for (Matrix64* products : {&statistics.moment, &statistics.drift}) {
      if (products->size() == 0) continue;
      const auto row = products->row(i);
      for (std::size_t j = 0; j < row.size(); ++j) row[j] /= by * static_cast<double>(s[j]);
    }
  }
}

std::vector<std::string> vectors_of(const model::Block& block) {
  std::vector<std::string> names;
  for (const model::NormTensors* norm : {&block.attention_norm, &block.mlp_norm}) {
    if (!norm->bias.empty()) names.push_back(norm->bias);
  }
  for (const model::Site site : model::kSites) {
    for (const model::Linear* linear : linears_at(block, site)) {
      if (linear->bias) names.push_back(linear->name + ".bias");
    }
  }
  return names;
}

}  // namespace

quant::TransformOptions transform_options(const Recipe& recipe) {
  quant::TransformOptions options;
  options.alpha = recipe.alpha;
  return options;
}

Status plan_transforms(const model::Model& model, const Recipe& recipe, const CalibrationSize& data,
                       Plan& plan) {
  if (recipe.method.empty()) return ok();
  QUELL_TRY(word, MethodWord::parse(recipe.method));
  plan.transforms = std::move(word.transforms);
  for (const std::string& name : plan.transforms) {
    const quant::TransformEntry* entry = quant::find_transform(name);
    const auto transform = entry->make(transform_options(recipe));
    QUELL_TRY(transform->check(model));
    if (!entry->whole_model && !data.available) {
      return Error{ErrorCode::usage, name + " needs calibration data: give --calib or --stats"};
    }
    if (entry->whole_model && data.available && !data.sequential) {
      return Error{ErrorCode::usage,
                   name +
                       " changes the inputs that statistics are of, so those of --stats are "
                       "not of the model to quantize: give --calib instead"};
    }
    plan.transform_needs = plan.transform_needs | entry->needs;
    plan.own_head |= transform->unties_head() && model.tied_head();
  }
  return ok();
}

DType edited_type(const model::Model& model, const io::TensorInfo& tensor) {
  if (tensor.dtype == DType::f64 || tensor.shape.size() != 1) return tensor.dtype;
  bool vector = tensor.name == model.frame().final_norm.bias;
  for (const model::Block& block : model.blocks()) {
    const std::vector<std::string> names = vectors_of(block);
    vector |= std::find(names.begin(), names.end(), tensor.name) != names.end();
  }
  return vector ? DType::f32 : tensor.dtype;
}

Result<std::unique_ptr<Transforming>> Transforming::begin(const model::Model& model,
                                                          const Recipe& recipe, const Plan& plan,
                                                          Executor& executor) {
  std::unique_ptr<Transforming> made(new Transforming(model, plan, executor));
  if (plan.transforms.empty()) return made;
  made->edits_ = std::make_shared<model::Edits>();
  for (const std::string& name : plan.transforms) {
    const quant::TransformEntry* entry = quant::find_transform(name);
    auto transform = entry->make(transform_options(recipe));
    made->model_ = model.edited(made->edits_);
    QUELL_TRY(transform->edit_model(made->model_, *made->edits_, executor));
    made->chain_.push_back({entry, std::move(transform)});
  }
  made->model_ = model.edited(made->edits_);

  std::set<std::string> blocks;
  for (std::uint32_t layer = 0; layer < model.blocks().size(); ++layer) {
    for (std::string& name : made->floats(layer)) blocks.insert(std::move(name));
  }
  std::set<std::string> codes;
  for (const Task& task : plan.tasks) {
    for (io::TensorPlan& tensor : plan.layout->tensors(task.module())) {
      codes.insert(std::move(tensor.name));
    }
  }
  for (const io::TensorPlan& tensor : plan.folder.tensors) {
    if (codes.contains(tensor.name)) continue;
    if (!blocks.contains(tensor.name) && !made->edits_->contains(tensor.name)) continue;
    made->owned_.insert(tensor.name);
    made->planned_.emplace(tensor.name, &tensor);
  }
  return made;
}

bool Transforming::measures() const noexcept {
  return std::any_of(chain_.begin(), chain_.end(),
                     [](const Link& link) { return !link.entry->whole_model; });
}

calib::SiteWish Transforming::wish(calib::SiteWish wish) const {
  if (!measures()) return wish;
  wish.profile = true;
  for (const Link& link : chain_) {
    wish.moment |= includes(link.entry->needs, quant::Needs::second_moment);
  }
  return wish;
}

Status Transforming::decide(std::uint32_t layer, const std::vector<const Task*>& tasks,
                            std::map<model::Site, calib::SiteStatistics>& sites) {
  for (auto& [site, statistics] : sites) QUELL_TRY(decide_site(layer, site, tasks, statistics));
  return ok();
}

Status Transforming::decide(std::uint32_t layer, const std::vector<const Task*>& tasks,
                            const calib::StatisticsFile* file) {
  if (!measures()) return ok();
  for (const model::Site site : model::kSites) {
    calib::SiteStatistics statistics;
    if (file != nullptr && file->info().channels.contains({layer, site})) {
      QUELL_TRY(read, file->read({layer, site}));
      statistics = std::move(read);
    }
    QUELL_TRY(decide_site(layer, site, tasks, statistics));
  }
  return ok();
}

Result<std::vector<float>> Transforming::scale(std::uint32_t layer, model::Site site,
                                               std::vector<float> factors) {
  QUELL_TRY(divisors, quant::apply_scaling(model_, layer, site, factors, *edits_));
  std::vector<float>& all = divisors_[site];
  if (all.empty()) all.assign(divisors.size(), 1.0f);
  for (std::size_t j = 0; j < all.size(); ++j) all[j] *= divisors[j];
  scalings_[layer].emplace_back(site, std::move(factors));
  return divisors;
}

void Transforming::turn_to(std::uint32_t layer) {
  if (layer == layer_) return;
  layer_ = layer;
  divisors_.clear();
  means_.clear();
}

Status Transforming::decide_site(std::uint32_t layer, model::Site site,
                                 const std::vector<const Task*>& tasks,
                                 calib::SiteStatistics& statistics) {
  if (!measures()) return ok();
  turn_to(layer);
  const auto tokens = static_cast<double>(std::max<std::uint64_t>(statistics.tokens, 1));
  for (const Link& link : chain_) {
    if (link.entry->whole_model) continue;
    quant::SiteProblem problem{model_, layer, site, {}, {}, {}, {}};
    for (const Task* task : tasks) {
      if (task->site == site) problem.linears.push_back({task->linear, task->grid, task->scale});
    }
    Matrix moment;
    if (includes(link.entry->needs, quant::Needs::second_moment)) {
      QUELL_TRY(mean, statistics.mean_moment());
      moment = std::move(mean);
    }
    std::vector<double> magnitudes = statistics.sum_abs;
    for (double& value : magnitudes) value /= tokens;
    problem.second_moment = moment.view();
    problem.mean_magnitudes = magnitudes;
    problem.max_magnitudes = statistics.max_abs;
    QUELL_TRY(factors, link.transform->scale_site(problem, executor_));
    if (factors.empty()) continue;
    // As the journal will hold them.
    for (float& factor : factors) factor = bf16_to_float(float_to_bf16(factor));
    QUELL_TRY(divisors, scale(layer, site, std::move(factors)));
    divide(statistics, divisors);
  }
  std::vector<double>& means = means_[site];
  means = statistics.sum;
  for (double& value : means) value /= tokens;
  return ok();
}

void Transforming::rescale(std::uint32_t layer, model::Site site,
                           calib::SiteStatistics& statistics) const {
  if (layer != layer_) return;
  if (const auto found = divisors_.find(site); found != divisors_.end()) {
    divide(statistics, found->second);
  }
}

Status Transforming::correct_bias(const Task& task, MatrixView<const float> weight,
                                  const QuantizedTensor& quantized) {
  if (!task.linear->bias) return ok();
  for (const Link& link : chain_) {
    const auto mean = means_.find(task.site);
    const std::span<const double> known =
        mean == means_.end() ? std::span<const double>() : std::span<const double>(mean->second);
    QUELL_TRY(change, link.transform->bias_change(weight, quantized, known));
    if (change.empty()) continue;
    QUELL_TRY(bias, model_.bias(*task.linear));
    for (std::size_t r = 0; r < change.size(); ++r) bias.values()[r] += change[r];
    edits_->replace(task.linear->name + ".bias", std::move(bias));
  }
  return ok();
}

std::vector<std::string> Transforming::floats(std::uint32_t layer) const {
  const model::Block& block = model_.blocks()[layer];
  std::vector<std::string> names = vectors_of(block);
  for (const model::NormTensors* norm : {&block.attention_norm, &block.mlp_norm}) {
    if (!norm->weight.empty()) names.push_back(norm->weight);
  }
  for (const model::Site site : model::kSites) {
    for (const model::Linear* linear : linears_at(block, site)) {
      if (std::find(plan_.kept.begin(), plan_.kept.end(), linear->name) == plan_.kept.end()) {
        continue;
      }
      names.push_back(linear->name + ".weight");
    }
  }
  return names;
}

Status Transforming::write_tensor(const io::TensorPlan& tensor, bool by_rows,
                                  io::OutputFolder& output) const {
  std::vector<std::byte> bytes(static_cast<std::size_t>(tensor.bytes));
  const std::size_t width = bits(tensor.dtype) / 8;
  if (by_rows && tensor.shape.size() == 2) {
    const auto rows = static_cast<std::size_t>(tensor.shape[0]);
    const auto cols = static_cast<std::size_t>(tensor.shape[1]);
    const std::size_t step =
        std::max<std::size_t>(1, kSliceBytes / (sizeof(float) * std::max<std::size_t>(cols, 1)));
    for (std::size_t first = 0; first < rows; first += step) {
      const std::size_t count = std::min(step, rows - first);
      QUELL_TRY(values, model_.rows(tensor.name, first, count));
      QUELL_TRY(
          encode(tensor.dtype, values.values(), tensor.name, bytes.data() + first * cols * width));
    }
  } else {
    QUELL_TRY(values, model_.tensor(tensor.name));
    QUELL_TRY(encode(tensor.dtype, values.values(), tensor.name, bytes.data()));
  }
  return output.write(tensor.name, bytes);
}

Status Transforming::write_frame(io::OutputFolder& output, std::vector<std::string>& names) const {
  std::set<std::string> blocks;
  for (std::uint32_t layer = 0; layer < model_.blocks().size(); ++layer) {
    for (std::string& name : floats(layer)) blocks.insert(std::move(name));
  }
  for (const auto& [name, tensor] : planned_) {
    if (blocks.contains(name)) continue;
    QUELL_TRY(write_tensor(*tensor, /*by_rows=*/true, output));
    names.push_back(name);
  }
  return ok();
}

std::string Transforming::floats_of(std::uint32_t layer) {
  return "(block " + std::to_string(layer) + ": tensors in floating point)";
}

Status Transforming::write_block(std::uint32_t layer, io::OutputFolder& output) const {
  if (is_finished(layer, output)) return ok();
  std::vector<std::string> names;
  for (std::string& name : floats(layer)) {
    const auto planned = planned_.find(name);
    if (planned == planned_.end()) continue;
    QUELL_TRY(write_tensor(*planned->second, /*by_rows=*/false, output));
    names.push_back(std::move(name));
  }
  io::Json scalings = io::Json::array();
  if (const auto found = scalings_.find(layer); found != scalings_.end()) {
    for (const auto& [site, factors] : found->second) {
      scalings.push(io::Json::array({to_string(site), hex_of(factors)}));
    }
  }
  io::Json record = io::Json::object();
  record.set("scalings", std::move(scalings));
  return output.finish_module(floats_of(layer), names, record);
}

Status Transforming::take_over(std::uint32_t layer, const io::OutputFolder& output) {
  const io::OutputFolder::Finished* finished = output.find_finished(floats_of(layer));
  const io::Json* scalings = finished == nullptr ? nullptr : finished->record.find("scalings");
  if (scalings == nullptr) return ok();
  turn_to(layer);
  for (const io::Json& scaling : scalings->items()) {
    for (const model::Site site : model::kSites) {
      if (scaling.items()[0].as_string() != to_string(site)) continue;
      QUELL_TRY(scale(layer, site, factors_of(scaling.items()[1].as_string())));
    }
  }
  // Corrected ones among them.
  for (const std::string& name : vectors_of(model_.blocks()[layer])) {
    const auto planned = planned_.find(name);
    if (planned == planned_.end() || planned->second->dtype != DType::f32) continue;
    QUELL_TRY(bytes, output.read(name));
    QUELL_TRY(values, Matrix::uninitialized(1, bytes.size() / sizeof(float)));
    std::memcpy(values.data(), bytes.data(), bytes.size());
    edits_->replace(name, std::move(values));
  }
  return ok();
}

}  // namespace quell::pipeline
