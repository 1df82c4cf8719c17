// SPDX-License-Identifier: Apache-2.0

// Checkpoints as C sees them: one list of tensors, in which the several tensors of a quantized
// module are one weight.

#include <algorithm>
#include <filesystem>
#include <iterator>
#include <vector>

#include "capi/handles.hpp"
#include "quell/io/export.hpp"
#include "quell/io/json.hpp"
#include "quell/io/printable.hpp"
#include "quell/io/safetensors.hpp"

namespace quell::capi {
namespace {

/// One tensor of the list.
struct Listed {
  std::string name, grid, dtype;
  std::vector<std::uint64_t> shape;
};

// What layouts that we read call the tensors of a module, after the module's name.
constexpr std::string_view kParts[] = {".weight",
                                       ".weight_codes",
                                       ".weight_scales",
                                       ".weight_zeros",
                                       ".weight_row_scales",
                                       ".weight_kept_columns",
                                       ".weight_kept_values",
                                       ".weight_packed",
                                       ".weight_group_integers",
                                       ".weight_scale",
                                       ".weight_shape",
                                       ".weight_zero_point",
                                       ".weight_g_idx"};

/// True if the tensor is one of those that a quantized module is made of.
bool is_part(const io::QuantizedModules& modules, std::string_view name) {
  const std::size_t dot = name.rfind('.');
  if (dot == std::string_view::npos) return false;
  return std::find(std::begin(kParts), std::end(kParts), name.substr(dot)) != std::end(kParts) &&
         modules.find(name.substr(0, dot)) != nullptr;
}

std::vector<Listed> list_of(const io::Checkpoint& files, const io::QuantizedModules& modules) {
  std::vector<Listed> list;
  for (const io::ModulePlan& module : modules.modules()) {
    list.push_back(
        {module.name + ".weight", to_string(module.grid), "", {module.rows, module.cols}});
  }
  for (const io::TensorInfo& tensor : files.tensors()) {
    if (is_part(modules, tensor.name)) continue;
    list.push_back({tensor.name, "", std::string(to_string(tensor.dtype)), tensor.shape});
  }
  std::sort(list.begin(), list.end(),
            [](const Listed& a, const Listed& b) { return a.name < b.name; });
  return list;
}

Result<io::QuantizedModules> modules_of(const std::filesystem::path& path,
                                        const io::Checkpoint& files) {
  std::error_code code;
  if (!std::filesystem::is_directory(path, code)) return io::QuantizedModules();
  const std::filesystem::path config = path / "config.json";
  const auto json = io::read_json(config);
  if (!json && json.error().code == ErrorCode::missing) return io::QuantizedModules();
  if (!json) return json.error();
  return io::QuantizedModules::parse(*json, config.string(), files);
}

}  // namespace
}  // namespace quell::capi

struct quell_checkpoint {
  quell::capi::Allocator memory;
  quell::io::Checkpoint files;
  quell::io::QuantizedModules modules;
  std::vector<quell::capi::Listed> list;
};

using namespace quell::capi;

extern "C" {

quell_status quell_checkpoint_open(quell_context* context, const char* path,
                                   quell_checkpoint** checkpoint) {
  if (checkpoint != nullptr) *checkpoint = nullptr;
  return call(context, [&]() -> quell::Status {
    if (checkpoint == nullptr) return usage("the place for the checkpoint is null");
    if (path == nullptr) return usage("the path is null");
    QUELL_TRY(files, quell::io::Checkpoint::open(path));
    QUELL_TRY(modules, modules_of(path, files));
    std::vector<Listed> list = list_of(files, modules);
    QUELL_TRY(handle, make_handle(*context, quell_checkpoint{context->memory, std::move(files),
                                                             std::move(modules), std::move(list)}));
    *checkpoint = handle;
    return quell::ok();
  });
}

size_t quell_checkpoint_count(const quell_checkpoint* checkpoint) {
  return checkpoint == nullptr ? 0 : checkpoint->list.size();
}

quell_status quell_checkpoint_describe(quell_context* context, const quell_checkpoint* checkpoint,
                                       size_t index, quell_tensor_info* info) {
  return call(context, [&]() -> quell::Status {
    if (checkpoint == nullptr) return usage("the checkpoint is null");
    if (index >= checkpoint->list.size()) {
      return usage("tensor " + std::to_string(index) + " of a checkpoint of " +
                   std::to_string(checkpoint->list.size()));
    }
    const Listed& listed = checkpoint->list[index];
    quell_tensor_info filled = {};
    filled.name = listed.name.c_str();
    filled.grid = listed.grid.c_str();
    filled.dtype = listed.dtype.c_str();
    filled.dimensions = listed.shape.size();
    filled.shape = listed.shape.data();
    return write_struct("quell_tensor_info", filled, info);
  });
}

quell_status quell_checkpoint_weight(quell_context* context, const quell_checkpoint* checkpoint,
                                     const char* name, quell_weight** weight) {
  if (weight != nullptr) *weight = nullptr;
  return call(context, [&]() -> quell::Status {
    if (weight == nullptr) return usage("the place for the weight is null");
    if (checkpoint == nullptr) return usage("the checkpoint is null");
    if (name == nullptr) return usage("the name is null");
    const auto& list = checkpoint->list;
    const auto found = std::find_if(list.begin(), list.end(),
                                    [&](const Listed& listed) { return listed.name == name; });
    if (found == list.end()) {
      return quell::Error{quell::ErrorCode::missing,
                          "no tensor is called " + quell::io::printable(name) + " among the " +
                              std::to_string(list.size()) + " of the checkpoint"};
    }
    quell_weight made;
    if (!found->grid.empty()) {
      const std::string_view module(found->name.data(), found->name.size() - 7);  // .weight
      const quell::io::ModulePlan& plan = *checkpoint->modules.find(module);
      if (plan.rotation != 0) {
        return quell::Error{quell::ErrorCode::unsupported,
                            quell::io::printable(module) +
                                ": wants its input rotated in blocks of " +
                                std::to_string(plan.rotation) + ", which products here do not do"};
      }
      QUELL_TRY(codes, checkpoint->modules.read(plan, checkpoint->files));
      made.grid = found->grid;
      made.codes = std::move(codes);
    } else {
      QUELL_TRY(floats, checkpoint->files.read_floats(found->name));
      // A header may claim 2^48 rows of nothing.
      if (floats.size() == 0)
        return quell::detail::empty_weight_error(floats.rows(), floats.cols());
      made.floats = std::move(floats);
    }
    QUELL_TRY(handle, make_handle(*context, std::move(made)));
    *weight = handle;
    return quell::ok();
  });
}

void quell_checkpoint_free(quell_checkpoint* checkpoint) {
  free_handle(checkpoint);
}

}  // extern "C"
