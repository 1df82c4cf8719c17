// SPDX-License-Identifier: Apache-2.0
// compressed-tensors folders read, ours and those of other writers. Which modules are quantized is
// told by their tensors, what the tensors mean by the group of the config that the module falls
// under: an exact name before a pattern (in byte order) before the class name "Linear", as the
// format's own library has it. Everything that would change the numbers and is not understood is
// refused by name.
#include <algorithm>
#include <array>
#include <limits>
#include <optional>

#include "io/export_layouts.hpp"
#include "io/fault.hpp"
#include "io/name_pattern.hpp"
#include "quell/core/bits.hpp"
#include "quell/grid/formats.hpp"
#include "quell/grid/groups.hpp"

namespace quell::io {
namespace {

constexpr std::string_view kPatternMark = "re:";
constexpr std::uint64_t kLargestDimension = std::numeric_limits<std::int32_t>::max();
constexpr std::array<DType, 3> kScaleTypes = {DType::f16, DType::bf16, DType::f32};
constexpr std::array<DType, 2> kShapeTypes = {DType::i64, DType::i32};

struct Target {
  std::string text;
  std::optional<NamePattern> pattern;
};

struct Scheme {
  std::string name;  // of the group
  std::string format;
  unsigned width = 0;
  bool symmetric = true;
  bool per_tensor = false;
  std::uint32_t group = 0;  // 0: one per row
  unsigned activation_bits = 0;
  std::optional<Format> narrow;  // what quell_grids says
  std::vector<Target> targets;
};

struct Place {
  std::string file, group;
  Error wrong(ErrorCode code, std::string_view what) const {
    return file_fault(code, file, "quantization_config" + group + ": " + std::string(what));
  }
};

Result<std::vector<Target>> parse_targets(const Json* list, std::string_view field,
                                          const Place& place) {
  std::vector<Target> targets;
  if (list == nullptr) return targets;
  if (!list->is(Json::Kind::array)) {
    return place.wrong(ErrorCode::parse, std::string(field) + " is not an array");
  }
  for (const Json& item : list->items()) {
    if (!item.is(Json::Kind::string)) {
      return place.wrong(ErrorCode::parse,
                         std::string(field) + " holds " + printable(item.dump()) + ", no name");
    }
    Target target{item.as_string(), {}};
    if (std::string_view(target.text).starts_with(kPatternMark)) {
      auto pattern =
          NamePattern::compile(std::string_view(target.text).substr(kPatternMark.size()));
      if (!pattern) return place.wrong(pattern.error().code, pattern.error().message);
      target.pattern = *std::move(pattern);
    }
    targets.push_back(std::move(target));
  }
  return targets;
}

bool is_null_or_absent(const Json& object, std::string_view name) {
  const Json* const field = object.find(name);
  return field == nullptr || field->is(Json::Kind::null);
}

// Activation quantization is something that engines do while they run; it is reported, not applied.
Result<unsigned> parse_activations(const Json& group, const Place& place) {
  if (!is_null_or_absent(group, "output_activations")) {
    return place.wrong(ErrorCode::unsupported,
                       "output_activations are quantized, which is not read");
  }
  if (is_null_or_absent(group, "input_activations")) return 0U;
  const JsonFields fields(*group.find("input_activations"), place.file);
  QUELL_TRY(width, fields.unsigned_integer("num_bits", 1, 64));
  QUELL_TRY(type, fields.optional_text("type"));
  QUELL_TRY(symmetric, fields.optional_boolean("symmetric"));
  const Json* const dynamic = fields.find("dynamic");
  const bool per_token =
      dynamic != nullptr && dynamic->is(Json::Kind::boolean) && dynamic->as_boolean();
  if (width != 8 || type.value_or("int") != "int" || !symmetric.value_or(true) || !per_token) {
    return place.wrong(ErrorCode::unsupported, "input_activations are " + std::to_string(width) +
                                                   " bits of type " +
                                                   printable(type.value_or("int")) +
                                                   (per_token ? ", dynamic" : ", static") +
                                                   "; read are none and symmetric dynamic int8");
  }
  return 8U;
}

Status parse_weights(const Json& weights, const Place& place, Scheme& scheme) {
  const JsonFields fields(weights, place.file);
  QUELL_TRY(width, fields.unsigned_integer("num_bits", 1, 64));
  QUELL_TRY(type, fields.optional_text("type"));
  QUELL_TRY(symmetric, fields.optional_boolean("symmetric"));
  QUELL_TRY(strategy_given, fields.optional_text("strategy"));
  const Json* const size = fields.find("group_size");
  if (type.value_or("int") != "int") {
    return place.wrong(ErrorCode::unsupported, "weights of type " + printable(*type) + " with " +
                                                   std::to_string(width) +
                                                   " bits are not read; int is");
  }
  if (width != 2 && width != 4 && width != 8) {
    return place.wrong(ErrorCode::unsupported, "weights of " + std::to_string(width) +
                                                   " bits are not read; 2, 4 and 8 are");
  }
  std::int64_t group = 0;
  if (size != nullptr) {
    if (!size->is(Json::Kind::integer) || size->as_integer() < -1 ||
        size->as_integer() > static_cast<std::int64_t>(kLargestDimension)) {
      return place.wrong(ErrorCode::parse, "group_size is " + printable(size->dump()) +
                                               ", expected a number from 1 or -1");
    }
    group = std::max<std::int64_t>(size->as_integer(), 0);
  }
  const std::string strategy = strategy_given.value_or(group > 0 ? "group" : "tensor");
  if (strategy != "group" && strategy != "channel" && strategy != "tensor") {
    return place.wrong(ErrorCode::unsupported, "the strategy " + printable(strategy) +
                                                   " is not read; group, channel and tensor are");
  }
  scheme.width = static_cast<unsigned>(width);
  scheme.symmetric = symmetric.value_or(true);
  scheme.per_tensor = strategy == "tensor";
  scheme.group = strategy == "group" ? static_cast<std::uint32_t>(group) : 0;
  return ok();
}

// Our own note on the range of the codes. It only ever narrows what the scheme says.
Status parse_narrow(const Json& quantization, const Place& place, Scheme& scheme) {
  const Json* const grids = quantization.find("quell_grids");
  const Json* const word = grids == nullptr ? nullptr : grids->find(scheme.name);
  if (word == nullptr) return ok();
  const std::string text = word->is(Json::Kind::string) ? word->as_string() : word->dump();
  const auto grid = parse_grid(text);
  if (!grid || bits(grid->format) != scheme.width || grid->symmetric != scheme.symmetric ||
      grid->group != scheme.group || grid->per != Channel::output) {
    return place.wrong(ErrorCode::parse, "quell_grids says " + printable(text) +
                                             ", which is not what the group says");
  }
  scheme.narrow = grid->format;
  return ok();
}

Result<std::vector<Scheme>> parse_groups(const Json& quantization, const std::string& file) {
  const JsonFields fields(quantization, file);
  QUELL_TRY(top_format, fields.optional_text("format"));
  const Json* const groups = fields.find("config_groups");
  if (groups == nullptr || !groups->is(Json::Kind::object)) {
    return fields.wrong("config_groups", "an object");
  }
  std::vector<Scheme> schemes;
  for (const auto& [name, group] : groups->members()) {
    const Place place{file, ".config_groups." + printable(name)};
    if (!group.is(Json::Kind::object)) return place.wrong(ErrorCode::parse, "is not an object");
    if (is_null_or_absent(group, "weights")) continue;  // a group that only quantizes activations
    Scheme scheme;
    scheme.name = name;
    const JsonFields inner(group, file);
    QUELL_TRY(own_format, inner.optional_text("format"));
    scheme.format = own_format.value_or(top_format.value_or("dense"));
    constexpr std::array<std::string_view, 4> kRead = {"pack-quantized", "int-quantized",
                                                       "naive-quantized", "dense"};
    if (std::find(kRead.begin(), kRead.end(), scheme.format) == kRead.end()) {
      return place.wrong(ErrorCode::unsupported,
                         "the format " + printable(scheme.format) +
                             " is not read; pack-quantized and int-quantized are");
    }
    QUELL_TRY(targets, parse_targets(inner.find("targets"), "targets", place));
    scheme.targets = std::move(targets);
    QUELL_TRY(parse_weights(*group.find("weights"), place, scheme));
    QUELL_TRY(activation_bits, parse_activations(group, place));
    scheme.activation_bits = activation_bits;
    QUELL_TRY(parse_narrow(quantization, place, scheme));
    schemes.push_back(std::move(scheme));
  }
  return schemes;
}

// Index of the scheme that a module falls under.
std::optional<std::size_t> find_scheme(const std::vector<Scheme>& schemes,
                                       std::string_view module) {
  std::optional<std::size_t> by_pattern, by_class;
  std::string_view pattern;
  for (std::size_t i = 0; i < schemes.size(); ++i) {
    for (const Target& target : schemes[i].targets) {
      if (target.text == module) return i;
      if (target.pattern && (!by_pattern || target.text < pattern) &&
          target.pattern->matches_start(module)) {
        by_pattern = i;
        pattern = target.text;
      }
      if (target.text == "Linear" && !by_class) by_class = i;
    }
  }
  return by_pattern ? by_pattern : by_class;
}

bool is_ignored(const std::vector<Target>& ignored, std::string_view module) {
  return std::any_of(ignored.begin(), ignored.end(), [&](const Target& target) {
    return target.text == module || (target.pattern && target.pattern->matches_start(module));
  });
}

ScaleType scale_type_of(DType dtype) {
  if (dtype == DType::f16) return ScaleType::f16;
  return dtype == DType::bf16 ? ScaleType::bf16 : ScaleType::f32;
}

Format format_of(const Scheme& scheme) {
  if (scheme.narrow) return *scheme.narrow;
  if (scheme.width == 2) return Format::int2;
  if (scheme.width == 4) return Format::int4;
  // Others use the code of -128 too.
  return scheme.symmetric ? Format::int8full : Format::int8;
}

// The matrix's size, from the tensor that holds it.
Result<std::array<std::uint64_t, 2>> read_shape(const Checkpoint& checkpoint,
                                                const std::string& module) {
  constexpr std::array<std::uint64_t, 1> kTwo = {2};
  QUELL_TRY(info, expect_tensor(checkpoint, module + ".weight_shape", kShapeTypes, kTwo));
  QUELL_TRY(bytes, read_bytes(checkpoint, *info));
  const std::size_t size = bytes.size() / 2;
  std::array<std::uint64_t, 2> shape = {};
  for (std::size_t i = 0; i < 2; ++i) {
    for (std::size_t b = 0; b < size; ++b) {
      shape[i] |= std::to_integer<std::uint64_t>(bytes[i * size + b]) << (8 * b);
    }
    if (shape[i] == 0 || shape[i] > kLargestDimension) {
      return tensor_fault(ErrorCode::parse, file_of(checkpoint, *info), module + ".weight_shape",
                          "holds " + std::to_string(shape[i]) + ", expected 1 to " +
                              std::to_string(kLargestDimension));
    }
  }
  return shape;
}

// Scales may be [OC, groups], and where there is one per row or one in all, also [OC] or [1] or [].
Status check_scale_shape(const Checkpoint& checkpoint, const TensorInfo& info, std::uint64_t rows,
                         std::uint64_t groups, bool per_tensor) {
  const std::uint64_t expected = per_tensor ? 1 : rows * groups;
  const auto count = element_count(info.shape);
  const bool right = per_tensor || groups == 1
                         ? count == expected
                         : info.shape == std::vector<std::uint64_t>{rows, groups};
  if (right) return ok();
  return tensor_fault(ErrorCode::shape, file_of(checkpoint, info), info.name,
                      "has shape " + shape_text(info.shape) + ", expected [" +
                          std::to_string(rows) + ", " + std::to_string(groups) + "]" +
                          (per_tensor ? " or one element" : ""));
}

Result<ModulePlan> plan_module(const std::string& name, const Scheme& scheme, bool packed,
                               const Checkpoint& checkpoint) {
  ModulePlan plan;
  plan.name = name;
  plan.activation_bits = scheme.activation_bits;
  std::array<std::uint64_t, 2> shape = {};
  if (packed) {
    QUELL_TRY(stored, read_shape(checkpoint, name));
    shape = stored;
    const std::array<std::uint64_t, 2> words = {shape[0], ceil_divide(shape[1] * scheme.width, 32)};
    constexpr std::array<DType, 1> kWord = {DType::i32};
    QUELL_TRY(codes, expect_tensor(checkpoint, name + ".weight_packed", kWord, words));
    (void)codes;
  } else {
    const TensorInfo& codes = *checkpoint.find(name + ".weight");
    if (scheme.width != 8) {
      return tensor_fault(ErrorCode::unsupported, file_of(checkpoint, codes), codes.name,
                          "holds codes of " + std::to_string(scheme.width) +
                              " bits in a byte each, which is not read");
    }
    if (codes.shape.size() != 2 || codes.shape[0] == 0 || codes.shape[1] == 0 ||
        codes.shape[0] > kLargestDimension || codes.shape[1] > kLargestDimension) {
      return tensor_fault(ErrorCode::shape, file_of(checkpoint, codes), codes.name,
                          "has shape " + shape_text(codes.shape) + ", expected two dimensions");
    }
    shape = {codes.shape[0], codes.shape[1]};
  }
  plan.rows = static_cast<std::size_t>(shape[0]);
  plan.cols = static_cast<std::size_t>(shape[1]);
  plan.grid = {format_of(scheme), scheme.symmetric, Channel::output, scheme.group};
  const TensorInfo* const scale = checkpoint.find(name + ".weight_scale");
  if (scale == nullptr) {
    return tensor_fault(ErrorCode::missing, checkpoint.files().front().parent_path().string(),
                        name + ".weight_scale", "is missing, but the module is quantized");
  }
  if (std::find(kScaleTypes.begin(), kScaleTypes.end(), scale->dtype) == kScaleTypes.end()) {
    return tensor_fault(
        ErrorCode::unsupported, file_of(checkpoint, *scale), scale->name,
        "has type " + std::string(to_string(scale->dtype)) + ", read are F16, BF16 and F32");
  }
  plan.grid.scale_type = scale_type_of(scale->dtype);
  const GroupLayout groups = group_layout(plan.grid, plan.rows, plan.cols);
  QUELL_TRY(check_scale_shape(checkpoint, *scale, plan.rows, groups.cols, scheme.per_tensor));
  if (!scheme.symmetric && checkpoint.find(name + ".weight_zero_point") == nullptr) {
    return tensor_fault(ErrorCode::missing, file_of(checkpoint, *scale),
                        name + ".weight_zero_point", "is missing, but the scheme is asymmetric");
  }
  return plan;
}

// Columns in another order than groups follow: our tensors cannot say that, unless it is the usual
// order after all.
Status check_order(const Checkpoint& checkpoint, const ModulePlan& plan) {
  const TensorInfo* const order = checkpoint.find(plan.name + ".weight_g_idx");
  if (order == nullptr) return ok();
  const std::array<std::uint64_t, 1> shape = {plan.cols};
  constexpr std::array<DType, 1> kWord = {DType::i32};
  QUELL_TRY(info, expect_tensor(checkpoint, order->name, kWord, shape));
  QUELL_TRY(bytes, read_bytes(checkpoint, *info));
  const std::size_t length = group_layout(plan.grid, plan.rows, plan.cols).length;
  for (std::size_t i = 0; i < plan.cols; ++i) {
    std::uint32_t group = 0;
    for (std::size_t b = 0; b < 4; ++b) {
      group |= std::to_integer<std::uint32_t>(bytes[4 * i + b]) << (8 * b);
    }
    if (group != i / length) {
      return tensor_fault(ErrorCode::unsupported, file_of(checkpoint, *info), info->name,
                          "puts column " + std::to_string(i) + " into group " +
                              std::to_string(group) +
                              "; reordered groups (actorder \"group\") are not read");
    }
  }
  return ok();
}

// Parts of the config that change what the network computes.
Status check_extras(const Json& quantization, const Place& place) {
  if (!is_null_or_absent(quantization, "transform_config")) {
    const Json* const groups = quantization.find("transform_config")->find("config_groups");
    if (groups == nullptr || !groups->members().empty()) {
      return place.wrong(ErrorCode::unsupported,
                         "transform_config asks for transforms at run time, which are not read");
    }
  }
  if (!is_null_or_absent(quantization, "sparsity_config")) {
    const Json* const sparsity = quantization.find("sparsity_config")->find("format");
    const std::string format =
        sparsity != nullptr && sparsity->is(Json::Kind::string) ? sparsity->as_string() : "dense";
    if (format != "dense") {
      return place.wrong(ErrorCode::unsupported,
                         "the sparse format " + printable(format) + " is not read");
    }
  }
  return ok();
}

// A name among the targets that has no tensors is a file that lost some.
Status check_targets(const std::vector<Scheme>& schemes, const std::vector<ModulePlan>& plans,
                     const std::string& file) {
  for (const Scheme& scheme : schemes) {
    for (const Target& target : scheme.targets) {
      // A class name has no dots.
      if (target.pattern || target.text.find('.') == std::string::npos) continue;
      const auto found = std::lower_bound(
          plans.begin(), plans.end(), target.text,
          [](const ModulePlan& plan, const std::string& name) { return plan.name < name; });
      if (found == plans.end() || found->name != target.text) {
        return file_fault(ErrorCode::missing, file,
                          "quantization_config.config_groups." + printable(scheme.name) +
                              " names " + printable(target.text) +
                              ", but the checkpoint holds no quantized weight of this name");
      }
    }
  }
  return ok();
}

}  // namespace

Result<CompressedModules> parse_compressed(const Json& quantization, const std::string& file,
                                           const Checkpoint& checkpoint) {
  const Place place{file, ""};
  QUELL_TRY(check_extras(quantization, place));
  QUELL_TRY(schemes, parse_groups(quantization, file));
  QUELL_TRY(ignored, parse_targets(quantization.find("ignore"), "ignore", place));
  CompressedModules result{kPackQuantizedLayout.name, {}};
  bool any_packed = false;
  for (const TensorInfo& tensor : checkpoint.tensors()) {
    const std::string_view tensor_name = tensor.name;
    const bool packed = tensor_name.ends_with(".weight_packed");
    const bool plain = tensor_name.ends_with(".weight") && tensor.dtype == DType::i8;
    if (!packed && !plain) continue;
    const std::string name(tensor_name.substr(0, tensor_name.rfind('.')));
    any_packed |= packed;
    if (packed && checkpoint.find(name + ".weight") != nullptr) {
      return tensor_fault(ErrorCode::parse, file_of(checkpoint, tensor), tensor_name,
                          "stands beside an unquantized weight of the same module");
    }
    const auto scheme = find_scheme(schemes, name);
    if (!scheme || is_ignored(ignored, name)) {
      return tensor_fault(ErrorCode::parse, file_of(checkpoint, tensor), tensor_name,
                          scheme ? "is quantized, but the config ignores its module"
                                 : "is quantized, but no group of the config covers its module");
    }
    QUELL_TRY(plan, plan_module(name, schemes[*scheme], packed, checkpoint));
    QUELL_TRY(check_order(checkpoint, plan));
    result.modules.push_back(std::move(plan));
  }
  std::sort(result.modules.begin(), result.modules.end(),
            [](const ModulePlan& a, const ModulePlan& b) { return a.name < b.name; });
  QUELL_TRY(check_targets(schemes, result.modules, file));
  if (!any_packed && !result.modules.empty()) result.layout = kIntQuantizedLayout.name;
  return result;
}

}  // namespace quell::io
