// SPDX-License-Identifier: Apache-2.0
#pragma once

// A model as data: its configuration, its files and the map from roles to tensors. Nothing is
// computed here. An architecture is one file that fills these maps; everything else is shared.

#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "quell/core/result.hpp"
#include "quell/core/tensor.hpp"
#include "quell/grid/quantized.hpp"
#include "quell/io/export.hpp"
#include "quell/io/json.hpp"
#include "quell/io/safetensors.hpp"
#include "quell/model/config.hpp"
#include "quell/model/edits.hpp"

namespace quell::model {

/// A linear layer: W [rows, cols] = [out, in].
struct Linear {
  std::string name;  // module path in the checkpoint, without ".weight"
  std::size_t rows = 0, cols = 0;
  bool transposed = false;  // the file holds [in, out] (GPT-2)
  bool bias = false;        // name + ".bias" is there
};

struct NormTensors {
  std::string weight;  // tensor names; empty = none
  std::string bias;
};

/// One decoder block. The four sites are the distinct inputs of its linear layers; layers that
/// share a site share their statistics.
struct Block {
  NormTensors attention_norm, mlp_norm;
  NormTensors q_norm, k_norm;  // per head, where the config has head_norms
  std::vector<Linear> qkv;     // outputs concatenated give [q | k | v]
  Linear o;
  std::vector<Linear> gate_up;  // outputs concatenated give [gate | up], or [up] where not gated
  Linear down;
};

/// The distinct inputs of a block's linears, in order of computation.
enum class Site { qkv_in, o_in, mlp_in, down_in };
inline constexpr Site kSites[] = {Site::qkv_in, Site::o_in, Site::mlp_in, Site::down_in};
std::string_view to_string(Site site) noexcept;
/// The linears that read a site.
std::vector<const Linear*> linears_at(const Block& block, Site site);

/// Tensors outside the blocks.
struct Frame {
  std::string embedding;    // [V, embedding_width]
  std::string positions;    // [P, hidden], learned positions only
  std::string token_types;  // [token_types, hidden], where the config has them
  NormTensors embedding_norm;
  std::optional<Linear> project_in, project_out;
  NormTensors final_norm;
  // [V, embedding_width]; the embedding's name when tied; empty: an encoder, which has none.
  std::string head;
  // Linears of the class that no forward pass reads (the pooler of BERT). They stay as they are.
  std::vector<Linear> unread;
};

struct LoadOptions {
  bool allow_links_outside = false;
};

class Model {
 public:
  /// Reads config.json and the headers of the weights, and checks every expected tensor's presence
  /// and shape against the configuration. Weights stay on disk. Errors: missing, parse, shape,
  /// unsupported.
  static Result<Model> load(const std::filesystem::path& folder, LoadOptions options = {});
  /// Opens any folder of weights, of an architecture known or not: no blocks, no frame, only
  /// generic_linears(). What round-to-nearest needs. config.json must be there, but only its
  /// quantization_config is understood. Errors: missing, parse, unsupported.
  static Result<Model> load_weights_only(const std::filesystem::path& folder,
                                         LoadOptions options = {});

  /// The same model read through `edits`, which may grow while it is read. Names of a head that the
  /// edits untie are those at the time of this call.
  Model edited(std::shared_ptr<const Edits> edits) const;
  /// True if what weight() or tensor() gives is not what the files hold under this name.
  bool is_edited(const std::string& tensor) const {
    return edits_ != nullptr && edits_->contains(tensor);
  }

  const std::filesystem::path& folder() const noexcept { return folder_; }
  const ModelConfig& config() const noexcept { return config_; }
  const io::Json& config_json() const noexcept { return config_json_; }
  const io::Checkpoint& checkpoint() const noexcept { return *checkpoint_; }
  const std::vector<Block>& blocks() const noexcept { return blocks_; }
  const Frame& frame() const noexcept { return frame_; }
  bool tied_head() const noexcept { return frame_.head == frame_.embedding; }
  /// False for an encoder (whose product is embeddings) and after load_weights_only.
  bool has_head() const noexcept { return !frame_.head.empty(); }
  /// load_weights_only: every 2-D floating-point `*.weight` (and quantized module) that is neither
  /// an embedding nor a head by its name, sorted by name. Empty after load().
  const std::vector<Linear>& generic_linears() const noexcept { return generic_linears_; }
  const io::QuantizedModules& quantized() const noexcept { return quantized_; }
  /// Things a user should know that are not errors.
  const std::vector<std::string>& warnings() const noexcept { return warnings_; }
  /// Elements of all tensors that the model uses; a tied head counts once.
  std::uint64_t parameters() const noexcept { return parameters_; }

  /// W [rows, cols] in float32, dequantized and transposed as needed. Error: parse if an element is
  /// not finite, naming tensor and index, unless `allow_nonfinite`.
  Result<Matrix> weight(const Linear& linear, Executor& executor,
                        bool allow_nonfinite = false) const;
  /// The codes of a quantized W, [OC, IC] whatever the direction of the floats they came from;
  /// nothing if it is not quantized, or edited since.
  Result<std::optional<QuantizedTensor>> codes(const Linear& linear) const;
  /// The bias, or an empty matrix. One row.
  Result<Matrix> bias(const Linear& linear) const;
  /// A tensor by its name; one row for vectors. Same check.
  Result<Matrix> tensor(const std::string& name, bool allow_nonfinite = false) const;
  /// Rows [first, first + count) of a 2-D tensor, reading no more of the file than that (a
  /// quantized one is read whole). Same check.
  Result<Matrix> rows(const std::string& name, std::size_t first, std::size_t count,
                      bool allow_nonfinite = false) const;

 private:
  friend class Loader;
  std::filesystem::path folder_;
  ModelConfig config_;
  io::Json config_json_;
  std::shared_ptr<const io::Checkpoint> checkpoint_;
  std::shared_ptr<const Edits> edits_;  // or null
  io::QuantizedModules quantized_;
  std::vector<Block> blocks_;
  std::vector<Linear> generic_linears_;
  Frame frame_;
  std::uint64_t parameters_ = 0;
  std::vector<std::string> warnings_;

  /// True for the weight of a linear whose file holds [in, out].
  bool is_transposed(const std::string& name) const;
  /// The tensor as the files have it, under the non-finite policy.
  Result<Matrix> stored_tensor(const std::string& name, bool allow_nonfinite) const;
  Result<Matrix> stored_rows(const std::string& name, std::size_t first, std::size_t count,
                             bool allow_nonfinite) const;

  explicit Model(io::Checkpoint checkpoint)
      : checkpoint_(std::make_shared<const io::Checkpoint>(std::move(checkpoint))) {}
};

/// unsupported for a model without a head, with what can be done with it instead.
Status expect_head(const Model& model);

}  // namespace quell::model
