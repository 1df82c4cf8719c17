// SPDX-License-Identifier: Apache-2.0

// norm_folding and rotation. With y = x W^T, x' = x R needs W' = W R in what reads the stream, and
// y' = y R in what writes to it: one map of rows serves both sides (edits.hpp).
//
//   E <- E R   positions <- positions R   q k v gate up head: W <- W diag(norm) R
//   o, down: outputs mapped by R          v, o: each head of v mapped by a rotation of its size
//
// A norm commutes with R only without its weights. An RMS norm then does; a layer norm subtracts
// the mean first, so R has to map the vector of ones to itself, and what is written to the stream
// has its mean taken off, which the norm would have done anyway.

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>

#include "linalg/linalg.hpp"
#include "quell/core/random.hpp"
#include "quell/quant/transform.hpp"

namespace quell::quant {
namespace {

Error refused(const model::Model& model, const std::string& reason) {
  return Error{
      ErrorCode::unsupported, model.folder().string() + ": " + reason, model.folder().string(), {}};
}

Status check_foldable(const model::Model& model, const std::string& name) {
  const model::ModelConfig& config = model.config();
  if (model.blocks().empty()) {
    return refused(model, name +
                              " needs to know which norm feeds which matrix; the model was opened "
                              "for its weights alone");
  }
  if (config.norm_after || !model.has_head()) {
    return refused(model, name + " moves the weights of norms into what reads them; here norms " +
                              "follow the residual sums, so the stream itself has them");
  }
  if (model.frame().project_in || model.frame().project_out || config.embedding_norm) {
    return refused(model, name + " needs a stream that goes from the embedding to the head as it " +
                              "is; this model projects or normalizes it");
  }
  if (config.norm == model::Norm::layer) {
    for (const model::Block& block : model.blocks()) {
      if (block.attention_norm.bias.empty()) continue;
      for (const model::Site site : {model::Site::qkv_in, model::Site::mlp_in}) {
        for (const model::Linear* linear : linears_at(block, site)) {
          if (linear->bias) continue;
          return refused(model, name + " adds the bias of a norm to that of " + linear->name +
                                    ", which has none");
        }
      }
    }
  }
  return ok();
}

bool is_all(std::span<const float> values, float value) {
  return std::all_of(values.begin(), values.end(), [&](float x) { return x == value; });
}

Result<Matrix> filled(std::size_t size, float value) {
  QUELL_TRY(out, Matrix::uninitialized(1, size));
  std::fill(out.values().begin(), out.values().end(), value);
  return out;
}

model::RowMap multiply(std::vector<float> factors) {
  return [factors = std::move(factors)](MatrixView<float> x, Executor& executor) -> Status {
    executor.run(x.rows(), 16, [&](std::size_t begin, std::size_t end, unsigned) {
      for (std::size_t r = begin; r < end; ++r) {
        float* row = x.row(r).data();
        for (std::size_t j = 0; j < factors.size(); ++j) row[j] *= factors[j];
      }
    });
    return ok();
  };
}

// x minus its mean: what a layer norm does first.
Status centre(MatrixView<float> x, Executor& executor) {
  executor.run(x.rows(), 16, [&](std::size_t begin, std::size_t end, unsigned) {
    for (std::size_t r = begin; r < end; ++r) {
      const auto row = x.row(r);
      double sum = 0;
      for (const float value : row) sum += static_cast<double>(value);
      const double mean = sum / static_cast<double>(row.size());
      for (float& value : row) value = static_cast<float>(static_cast<double>(value) - mean);
    }
  });
  return ok();
}

// Moves the weight and bias of one norm into the linears that read it.
Status fold_norm(const model::Model& model, const model::NormTensors& norm,
                 const std::vector<const model::Linear*>& readers, model::Edits& edits,
                 Executor& executor) {
  if (norm.weight.empty()) return ok();
  QUELL_TRY(weight, model.tensor(norm.weight));
  if (!norm.bias.empty()) {
    QUELL_TRY(beta, model.tensor(norm.bias));
    if (!is_all(beta.values(), 0)) {
      for (const model::Linear* reader : readers) {
        QUELL_TRY(w, model.weight(*reader, executor));
        QUELL_TRY(bias, model.bias(*reader));
        for (std::size_t r = 0; r < w.rows(); ++r) {
          double sum = static_cast<double>(bias.values()[r]);
          for (std::size_t j = 0; j < w.cols(); ++j) {
            sum += static_cast<double>(w(r, j)) * static_cast<double>(beta.values()[j]);
          }
          bias.values()[r] = static_cast<float>(sum);
        }
        edits.replace(reader->name + ".bias", std::move(bias));
      }
      QUELL_TRY(zeros, filled(beta.size(), 0));
      edits.replace(norm.bias, std::move(zeros));
    }
  }
  if (is_all(weight.values(), 1)) return ok();
  const std::vector<float> factors(weight.values().begin(), weight.values().end());
  for (const model::Linear* reader : readers) edits.map_inputs(*reader, multiply(factors));
  QUELL_TRY(ones, filled(weight.size(), 1));
  edits.replace(norm.weight, std::move(ones));
  return ok();
}

// The final norm's bias b stays one: the head that has taken the weight g sees b / g instead.
Status fold_final_norm(const model::Model& model, model::Edits& edits) {
  const model::NormTensors& norm = model.frame().final_norm;
  if (!model.config().final_norm || norm.weight.empty()) return ok();
  QUELL_TRY(weight, model.tensor(norm.weight));
  const auto g = weight.values();
  if (!norm.bias.empty()) {
    QUELL_TRY(bias, model.tensor(norm.bias));
    for (std::size_t j = 0; j < g.size(); ++j) {
      float& b = bias.values()[j];
      if (b == 0) continue;
      b /= g[j];
      if (std::isfinite(b)) continue;
      return refused(model, norm.weight + " is " + std::to_string(g[j]) + " at " +
                                std::to_string(j) + " where " + norm.bias +
                                " is not 0, so it cannot be moved into a head without a bias");
    }
    edits.replace(norm.bias, std::move(bias));
  }
  edits.map_rows(model.frame().head, multiply(std::vector<float>(g.begin(), g.end())));
  QUELL_TRY(ones, filled(g.size(), 1));
  edits.replace(norm.weight, std::move(ones));
  return ok();
}

Status fold_norms(const model::Model& model, model::Edits& edits, Executor& executor) {
  for (const model::Block& block : model.blocks()) {
    QUELL_TRY(fold_norm(model, block.attention_norm, linears_at(block, model::Site::qkv_in), edits,
                        executor));
    QUELL_TRY(
        fold_norm(model, block.mlp_norm, linears_at(block, model::Site::mlp_in), edits, executor));
  }
  return fold_final_norm(model, edits);
}

/// `model` read through `edits`, with a head of its own. It must be gone before `edits` is.
model::Model with_own_head(const model::Model& model, model::Edits& edits) {
  if (model.tied_head()) edits.untie_head(model.frame().embedding, std::string(kUntiedHead));
  return model.edited(std::shared_ptr<const model::Edits>(std::shared_ptr<void>(), &edits));
}

// Rows of blocks * size() values, each block times an orthogonal matrix.
class Rotation {
 public:
  /// The largest blocks that divide `length` and have a Hadamard matrix.
  static Result<Rotation> make(std::size_t length, bool keeps_ones, std::uint64_t seed,
                               std::uint64_t stream) {
    std::size_t size = length;
    while (size > 1 && (length % size != 0 || !linalg::hadamard_supported(size))) --size;
    QUELL_TRY(hadamard, linalg::Hadamard::of_size(size));
    Rotation rotation(std::move(hadamard));
    const Random random(seed, stream);
    rotation.signs_.resize(length);
    for (std::size_t j = 0; j < length; ++j) {
      rotation.signs_[j] = (random.bits(j) & 1) != 0 ? -1.0f : 1.0f;
    }
    if (keeps_ones) QUELL_TRY(rotation.keep_ones());
    return rotation;
  }

  std::size_t block() const noexcept { return hadamard_.size(); }

  Status apply(MatrixView<float> x, Executor& executor) const {
    linalg::Context context(executor);
    if (ones_.empty()) {
      multiply(x, signs_, executor);
      return hadamard_.apply(x, context);
    }
    multiply(x, ones_, executor);
    QUELL_TRY(hadamard_.apply(x, context));
    multiply(x, signs_, executor);
    QUELL_TRY(hadamard_.apply(x, context));
    multiply(x, ones_, executor);
    return ok();
  }

 private:
  explicit Rotation(linalg::Hadamard hadamard) : hadamard_(std::move(hadamard)) {}

  // R = C H D H C with C the signs of H's first column, D random but for D_00 = 1: C turns ones
  // into that column, H into its first axis, and both lead back.
  Status keep_ones() {
    const std::size_t size = hadamard_.size();
    QUELL_TRY(axis, Matrix::zeros(1, size));
    axis(0, 0) = 1;
    SerialExecutor serial;
    linalg::Context context(serial);
    QUELL_TRY(hadamard_.apply(axis.view(), context));
    ones_.resize(signs_.size());
    for (std::size_t j = 0; j < ones_.size(); ++j) {
      ones_[j] = axis.values()[j % size] < 0 ? -1.0f : 1.0f;
      if (j % size == 0) signs_[j] = 1;
    }
    return ok();
  }

  static void multiply(MatrixView<float> x, const std::vector<float>& signs, Executor& executor) {
    executor.run(x.rows(), 16, [&](std::size_t begin, std::size_t end, unsigned) {
      for (std::size_t r = begin; r < end; ++r) {
        float* row = x.row(r).data();
        for (std::size_t j = 0; j < signs.size(); ++j) row[j] *= signs[j];
      }
    });
  }

  linalg::Hadamard hadamard_;
  std::vector<float> signs_, ones_;
};

model::RowMap as_map(std::shared_ptr<const Rotation> rotation, std::size_t first,
                     std::size_t length) {
  return [rotation = std::move(rotation), first, length](MatrixView<float> x, Executor& executor) {
    return rotation->apply(x.cols_from(first, length), executor);
  };
}

class NormFolding final : public Transform {
 public:
  std::string_view name() const override { return "norm_folding"; }
  bool unties_head() const override { return true; }
  Status check(const model::Model& model) const override {
    return check_foldable(model, std::string(name()));
  }
  Status edit_model(const model::Model& model, model::Edits& edits,
                    Executor& executor) const override {
    QUELL_TRY(check(model));
    const model::Model own = with_own_head(model, edits);
    return fold_norms(own, edits, executor);
  }
};

class RotationTransform final : public Transform {
 public:
  explicit RotationTransform(RotationOptions options) : options_(options) {}
  std::string_view name() const override { return "rotation"; }
  bool unties_head() const override { return true; }

  Status check(const model::Model& model) const override {
    QUELL_TRY(check_foldable(model, std::string(name())));
    if (model.config().norm == model::Norm::layer && !model.config().final_norm) {
      return refused(model,
                     "rotation takes the mean out of what is written to the stream, since norms "
                     "do; this model has no final norm, so its head reads that mean");
    }
    QUELL_TRY(probe, Rotation::make(model.config().hidden, false, 0, 0));
    if (probe.block() > 1) return ok();
    return refused(model, "rotation: no Hadamard matrix divides a stream of " +
                              std::to_string(model.config().hidden) + " channels");
  }

  Status edit_model(const model::Model& model, model::Edits& edits,
                    Executor& executor) const override {
    QUELL_TRY(check(model));
    const model::Model own = with_own_head(model, edits);
    QUELL_TRY(fold_norms(own, edits, executor));
    QUELL_TRY(rotate_stream(own, edits));
    return rotate_heads(own, edits);
  }

 private:
  Status rotate_stream(const model::Model& model, model::Edits& edits) const {
    const model::ModelConfig& config = model.config();
    const bool centred = config.norm == model::Norm::layer;
    QUELL_TRY(made, Rotation::make(config.hidden, centred, options_.seed, 0));
    const auto rotation = std::make_shared<const Rotation>(std::move(made));
    const model::RowMap turn = as_map(rotation, 0, config.hidden);
    for (const std::string& table : {model.frame().embedding, model.frame().positions}) {
      if (table.empty()) continue;
      if (centred) edits.map_rows(table, centre);
      edits.map_rows(table, turn);
    }
    for (const model::Block& block : model.blocks()) {
      for (const model::Site site : {model::Site::qkv_in, model::Site::mlp_in}) {
        for (const model::Linear* linear : linears_at(block, site)) {
          edits.map_inputs(*linear, turn);
        }
      }
      for (const model::Linear* linear : {&block.o, &block.down}) {
        if (centred) edits.map_outputs(*linear, centre);
        edits.map_outputs(*linear, turn);
      }
    }
    const std::string& final_bias = model.frame().final_norm.bias;
    if (config.final_norm && !final_bias.empty()) edits.map_rows(final_bias, turn);
    edits.map_rows(model.frame().head, turn);
    return ok();
  }

  Status rotate_heads(const model::Model& model, model::Edits& edits) const {
    const model::ModelConfig& config = model.config();
    const std::size_t values = std::size_t{config.kv_heads} * config.head_dim;
    for (std::uint32_t layer = 0; layer < model.blocks().size(); ++layer) {
      const model::Block& block = model.blocks()[layer];
      QUELL_TRY(made, Rotation::make(config.head_dim, false, options_.seed, layer + 1));
      const auto rotation = std::make_shared<const Rotation>(std::move(made));
      const model::RowMap each_head = [rotation, size = std::size_t{config.head_dim}](
                                          MatrixView<float> x, Executor& executor) -> Status {
        for (std::size_t first = 0; first < x.cols(); first += size) {
          QUELL_TRY(rotation->apply(x.cols_from(first, size), executor));
        }
        return ok();
      };
      const model::Linear& v = block.qkv.back();
      edits.map_outputs(
          v, [each_head, first = v.rows - values, values](MatrixView<float> x, Executor& executor) {
            return each_head(x.cols_from(first, values), executor);
          });
      edits.map_inputs(block.o, each_head);
    }
    return ok();
  }

  RotationOptions options_;
};

}  // namespace

std::unique_ptr<Transform> norm_folding() {
  return std::make_unique<NormFolding>();
}

std::unique_ptr<Transform> rotation(RotationOptions options) {
  return std::make_unique<RotationTransform>(options);
}

}  // namespace quell::quant
