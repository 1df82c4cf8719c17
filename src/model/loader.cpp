// SPDX-License-Identifier: Apache-2.0

// Opening a model folder: configuration, headers, and the check that they tell the same story.
// Every tensor that the forward pass will read is looked for with its shape, so that a wrong file
// fails here, with both numbers, and not in the middle of a long run. Data is read only to compare
// a head with an embedding it claims to be tied to.

#include <algorithm>
#include <cstring>
#include <string>
#include <system_error>

#include "model/checkpoint_names.hpp"
#include "model/names.hpp"
#include "model/pooling.hpp"
#include "quell/io/printable.hpp"
#include "quell/model/architecture.hpp"
#include "quell/model/model.hpp"

namespace quell::model {
namespace {

namespace fs = std::filesystem;

// Rows of the head compared at a time hold about this many bytes.
constexpr std::uint64_t kCompareBytes = 4u << 20;

/// A number of the config that shapes follow from, as "name value".
std::string sizes_text(const Architecture& architecture, const io::Json& json) {
  std::string text;
  std::string_view names = architecture.sizes;
  const io::Json* inner = json.find("text_config");
  while (!names.empty()) {
    const std::size_t comma = names.find(", ");
    const std::string_view name = names.substr(0, comma);
    names = comma == std::string_view::npos ? std::string_view() : names.substr(comma + 2);
    const io::Json* value = inner != nullptr ? inner->find(name) : nullptr;
    if (value == nullptr) value = json.find(name);
    if (value == nullptr || !value->is_number()) continue;
    if (!text.empty()) text += ", ";
    text += name;
    text += " " + value->dump();
  }
  return text;
}

bool is_known_buffer(std::string_view name) {
  // Constants that old files carry along: rotary frequencies, the causal mask, counted positions.
  return name.ends_with(".rotary_emb.inv_freq") || name.ends_with(".attn.bias") ||
         name.ends_with(".attn.masked_bias") || name.ends_with(".attn.rotary_emb.inv_freq") ||
         name.ends_with("embeddings.position_ids") || name.ends_with("embeddings.token_type_ids");
}

bool is_embedding_or_head(std::string_view name) {
  if (name == "shared.weight" || name == "output.weight") return true;
  for (const std::string_view part : {"embed", "wte", "wpe", "lm_head"}) {
    if (name.find(part) != std::string_view::npos) return true;
  }
  return false;
}

}  // namespace

class Loader {
 public:
  static Result<Model> open(const fs::path& folder, LoadOptions options);
  static Status fill(Model& model);
  static void fill_generic(Model& model);

 private:
  Loader(Model& model, const Architecture& architecture)
      : model_(model), architecture_(architecture) {}

  Status check_layers();
  Status check_blocks();
  Status check_frame();
  Status settle_head();
  void note_unused();

  Status expect(const std::string& tensor, std::vector<std::uint64_t> shape);
  Status expect_linear(const Linear& linear);
  Status expect_norm(const NormTensors& norm, std::uint64_t width);
  bool has_any(const Block& block) const;
  Result<bool> same_contents(const std::string& a, const std::string& b) const;
  Error error(ErrorCode code, const std::string& text, const std::string& tensor = {}) const {
    return Error{code, model_.folder_.string() + ": " + text, model_.folder_.string(), tensor};
  }

  Model& model_;
  const Architecture& architecture_;
  std::vector<std::string> used_;
};

Result<Model> Loader::open(const fs::path& folder, LoadOptions options) {
  std::error_code code;
  if (!fs::is_directory(folder, code)) {
    const bool there = fs::exists(folder, code);
    return Error{ErrorCode::missing,
                 io::printable(folder.string()) +
                     (there ? ": not a folder; expected one with config.json and *.safetensors"
                            : ": no such folder"),
                 folder.string(),
                 {}};
  }
  const fs::path config_path = folder / "config.json";
  QUELL_TRY(json, io::read_json(config_path));
  QUELL_TRY(checkpoint, io::Checkpoint::open(folder, {options.allow_links_outside}));
  QUELL_TRY(quantized, io::QuantizedModules::parse(json, config_path.string(), checkpoint));
  Model model(std::move(checkpoint));
  model.folder_ = folder;
  model.config_json_ = std::move(json);
  model.quantized_ = std::move(quantized);
  model.warnings_ = model.checkpoint_->warnings();
  return model;
}

Status Loader::fill(Model& model) {
  const std::string config_path = (model.folder_ / "config.json").string();
  QUELL_TRY(config, parse_config(model.config_json_, config_path));
  model.config_ = std::move(config);
  const Architecture* architecture = find_architecture(model.config_.architecture, {});
  if (model.config_json_.find("auto_map") != nullptr) {
    model.warnings_.push_back(config_path +
                              ": auto_map names program files that come with the model; "
                              "they are never run, and " +
                              model.config_.architecture + " is taken for what its name says");
  }
  Loader loader(model, *architecture);
  QUELL_TRY(loader.check_layers());
  QUELL_TRY(loader.check_blocks());
  QUELL_TRY(loader.check_frame());
  QUELL_TRY(loader.settle_head());
  loader.note_unused();
  return ok();
}

bool Loader::has_any(const Block& block) const {
  for (const Site site : kSites) {
    for (const Linear* linear : linears_at(block, site)) {
      if (has_module(*model_.checkpoint_, linear->name)) return true;
    }
  }
  return false;
}

Status Loader::check_layers() {
  const std::uint32_t layers = model_.config_.layers;
  const auto block = [&](std::uint32_t layer) {
    return architecture_.block(model_.config_, *model_.checkpoint_, layer);
  };
  // Layers from 0 on without a gap; a gap shows later as a missing tensor.
  std::uint32_t found = 0;
  while (found <= kMaxLayers && has_any(block(found))) ++found;
  if (found < layers && has_any(block(layers - 1))) found = layers;
  if (found == layers) return ok();
  const std::string example = io::printable(block(std::min(found, layers)).o.name);
  std::string text = "config.json says ";
  text += architecture_.layers;
  text += " " + std::to_string(layers) + ", but the weights hold " + std::to_string(found) +
          " layers (" + (found < layers ? "there is no " : "there is ") + example + ")";
  return error(ErrorCode::shape, text);
}

Status Loader::expect(const std::string& tensor, std::vector<std::uint64_t> shape) {
  if (tensor.empty()) return ok();
  std::vector<std::uint64_t> found;
  if (const io::ModulePlan* module = find_quantized(model_.quantized_, tensor); module != nullptr) {
    found = {module->rows, module->cols};
  } else {
    const io::TensorInfo* info = model_.checkpoint_->find(tensor);
    if (info == nullptr) {
      return error(ErrorCode::missing,
                   "tensor " + io::printable(tensor) + " is missing; " +
                       std::string(architecture_.name) + " needs it with shape " +
                       shape_text(shape),
                   tensor);
    }
    if (!is_floating(info->dtype)) {
      return error(ErrorCode::unsupported,
                   "tensor " + io::printable(tensor) + " has type " +
                       std::string(to_string(info->dtype)) + ", expected floating point",
                   tensor);
    }
    found = info->shape;
    used_.push_back(tensor);
  }
  if (found != shape) {
    return error(ErrorCode::shape,
                 "tensor " + io::printable(tensor) + " has shape " + shape_text(found) +
                     ", but config.json asks for " + shape_text(shape) + " (" +
                     sizes_text(architecture_, model_.config_json_) + ")",
                 tensor);
  }
  model_.parameters_ += *element_count(shape);
  return ok();
}

Status Loader::expect_linear(const Linear& linear) {
  const bool in_file_order = linear.transposed && model_.quantized_.find(linear.name) == nullptr;
  QUELL_TRY(expect(linear.name + ".weight",
                   in_file_order ? std::vector<std::uint64_t>{linear.cols, linear.rows}
                                 : std::vector<std::uint64_t>{linear.rows, linear.cols}));
  if (!linear.bias) return ok();
  return expect(linear.name + ".bias", {linear.rows});
}

Status Loader::expect_norm(const NormTensors& norm, std::uint64_t width) {
  QUELL_TRY(expect(norm.weight, {width}));
  return expect(norm.bias, {width});
}

Status Loader::check_blocks() {
  const ModelConfig& config = model_.config_;
  for (std::uint32_t layer = 0; layer < config.layers; ++layer) {
    Block block = architecture_.block(config, *model_.checkpoint_, layer);
    QUELL_TRY(expect_norm(block.attention_norm, config.hidden));
    QUELL_TRY(expect_norm(block.mlp_norm, config.hidden));
    QUELL_TRY(expect_norm(block.q_norm, config.head_dim));
    QUELL_TRY(expect_norm(block.k_norm, config.head_dim));
    for (const Site site : kSites) {
      for (const Linear* linear : linears_at(block, site)) QUELL_TRY(expect_linear(*linear));
    }
    model_.blocks_.push_back(std::move(block));
  }
  return ok();
}

Status Loader::check_frame() {
  const ModelConfig& config = model_.config_;
  model_.frame_ = architecture_.frame(config, *model_.checkpoint_);
  const Frame& frame = model_.frame_;
  QUELL_TRY(expect(frame.embedding, {config.vocabulary, config.embedding_width}));
  QUELL_TRY(expect(frame.positions,
                   {std::uint64_t{config.max_positions} + config.position_offset, config.hidden}));
  if (frame.project_in) QUELL_TRY(expect_linear(*frame.project_in));
  if (frame.project_out) QUELL_TRY(expect_linear(*frame.project_out));
  QUELL_TRY(expect(frame.token_types, {config.token_types, config.hidden}));
  QUELL_TRY(expect_norm(frame.embedding_norm, config.hidden));
  for (const Linear& linear : frame.unread) QUELL_TRY(expect_linear(linear));
  QUELL_TRY(expect_norm(frame.final_norm, config.hidden));
  if (model_.tied_head()) return ok();
  return expect(frame.head, {config.vocabulary, config.embedding_width});
}

/// What the weights say about tying wins over what the config says: a head equal to the embedding
/// is the embedding, a head that differs is used.
Status Loader::settle_head() {
  Frame& frame = model_.frame_;
  const ModelConfig& config = model_.config_;
  if (!model_.has_head()) {
    QUELL_TRY(pooling, read_pooling(model_.folder_, config.hidden));
    model_.config_.pooling = pooling;
    return ok();
  }
  if (model_.tied_head()) {
    if (!config.tied_head) {
      model_.warnings_.push_back(
          model_.folder_.string() +
          ": tie_word_embeddings is false, but the weights have no head; the "
          "embedding " +
          frame.embedding + " is used for it");
    }
    return ok();
  }
  if (!config.tied_head) return ok();
  QUELL_TRY(same, same_contents(frame.head, frame.embedding));
  if (same) {
    model_.parameters_ -= std::uint64_t{config.vocabulary} * config.embedding_width;
    frame.head = frame.embedding;
    return ok();
  }
  model_.warnings_.push_back(model_.folder_.string() + ": tie_word_embeddings is true, but " +
                             frame.head + " differs from " + frame.embedding +
                             "; the head is used as it is");
  return ok();
}

Result<bool> Loader::same_contents(const std::string& a, const std::string& b) const {
  const io::TensorInfo* first = model_.checkpoint_->find(a);
  const io::TensorInfo* second = model_.checkpoint_->find(b);
  if (first == nullptr || second == nullptr) return false;  // one of them is quantized
  const std::uint64_t rows = first->shape[0], cols = first->shape[1];
  const std::uint64_t step = std::max<std::uint64_t>(1, kCompareBytes / (cols * sizeof(float)));
  for (std::uint64_t row = 0; row < rows; row += step) {
    const std::uint64_t count = std::min(step, rows - row);
    QUELL_TRY(left, model_.rows(a, row, count, /*allow_nonfinite=*/true));
    QUELL_TRY(right, model_.rows(b, row, count, /*allow_nonfinite=*/true));
    if (std::memcmp(left.data(), right.data(), left.size() * sizeof(float)) != 0) return false;
  }
  return true;
}

void Loader::note_unused() {
  std::sort(used_.begin(), used_.end());
  std::uint64_t unused = 0;
  std::string example;
  for (const io::TensorInfo& info : model_.checkpoint_->tensors()) {
    if (std::binary_search(used_.begin(), used_.end(), info.name) || is_known_buffer(info.name) ||
        model_.quantized_.find(module_of(info.name)) != nullptr) {
      continue;
    }
    if (unused++ == 0) example = io::printable(info.name);
  }
  if (unused == 0) return;
  model_.warnings_.push_back(model_.folder_.string() + ": " + std::to_string(unused) +
                             " tensors are not part of " + std::string(architecture_.name) +
                             " and are not used, the first is " + example);
}

void Loader::fill_generic(Model& model) {
  if (const io::Json* type = model.config_json_.find("model_type");
      type != nullptr && type->is(io::Json::Kind::string)) {
    model.config_.model_type = type->as_string();
  }
  for (const io::TensorInfo& info : model.checkpoint_->tensors()) {
    const std::string_view module = module_of(info.name);
    if (is_floating(info.dtype)) model.parameters_ += *element_count(info.shape);
    if (!info.name.ends_with(".weight") || info.shape.size() != 2 || !is_floating(info.dtype) ||
        info.shape[0] == 0 || info.shape[1] == 0 || is_embedding_or_head(info.name)) {
      continue;
    }
    model.generic_linears_.push_back(
        {std::string(module), static_cast<std::size_t>(info.shape[0]),
         static_cast<std::size_t>(info.shape[1]), false,
         model.checkpoint_->find(std::string(module) + ".bias") != nullptr});
  }
  for (const io::ModulePlan& module : model.quantized_.modules()) {
    if (is_embedding_or_head(module.name + ".weight")) continue;
    model.generic_linears_.push_back({module.name, module.rows, module.cols, false,
                                      model.checkpoint_->find(module.name + ".bias") != nullptr});
  }
  std::sort(model.generic_linears_.begin(), model.generic_linears_.end(),
            [](const Linear& a, const Linear& b) { return a.name < b.name; });
}

Result<Model> Model::load(const std::filesystem::path& folder, LoadOptions options) {
  QUELL_TRY(model, Loader::open(folder, options));
  QUELL_TRY(Loader::fill(model));
  return model;
}

Result<Model> Model::load_weights_only(const std::filesystem::path& folder, LoadOptions options) {
  QUELL_TRY(model, Loader::open(folder, options));
  Loader::fill_generic(model);
  return model;
}

}  // namespace quell::model
