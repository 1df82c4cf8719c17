// SPDX-License-Identifier: Apache-2.0
// The native layout: the arrays of a QuantizedTensor as they are, nothing repacked, nothing lost.
// The bytes are described in README.md.
#include <array>
#include <limits>

#include "io/export_layouts.hpp"
#include "io/fault.hpp"
#include "quell/core/bits.hpp"
#include "quell/grid/formats.hpp"
#include "quell/grid/groups.hpp"

namespace quell::io {
namespace {

constexpr std::uint64_t kVersion = 1;
constexpr std::uint64_t kLargestSeed = (std::uint64_t{1} << 53) - 1;  // exact in every JSON reader
// Dimensions of one matrix: what a 32-bit signed number holds, as everywhere in these checkpoints.
constexpr std::uint64_t kLargestDimension = std::numeric_limits<std::int32_t>::max();

std::uint64_t row_bytes(const ModulePlan& module) {
  return packed_size(module.cols, bits(module.grid.format));
}

// Little-endian bytes of unsigned integers, and back.
template <typename T>
std::vector<std::byte> integer_bytes(std::span<const T> values) {
  std::vector<std::byte> bytes;
  bytes.reserve(values.size() * sizeof(T));
  for (const T value : values) {
    for (std::size_t b = 0; b < sizeof(T); ++b) {
      bytes.push_back(static_cast<std::byte>((value >> (8 * b)) & 0xFFU));
    }
  }
  return bytes;
}

template <typename T>
std::vector<T> integers_from_bytes(std::span<const std::byte> bytes) {
  std::vector<T> values(bytes.size() / sizeof(T));
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    const auto part = static_cast<T>(std::to_integer<T>(bytes[i]) << (8 * (i % sizeof(T))));
    values[i / sizeof(T)] = static_cast<T>(values[i / sizeof(T)] | part);
  }
  return values;
}

// What a module may ask of its input; the reader refuses the same.
std::string refuse_input(const ModulePlan& module) {
  const unsigned width = module.activation_bits;
  if (width != 0 && width != 4 && width != 8) {
    return "inputs of " + std::to_string(width) + " bits; 4, 8 or none can be recorded";
  }
  if (width != 0 && module.grid.per == Channel::input) {
    return "inputs of " + std::to_string(width) + " bits and groups down input channels (" +
           to_string(module.grid) +
           "), for which kernels round the input once for every run of outputs; quantized inputs "
           "go with groups along output channels (oc)";
  }
  if (width != 4 && module.activation_group != 0) {
    return "inputs of " + std::to_string(width) + " bits with a scale for " +
           std::to_string(module.activation_group) +
           " channels each; only inputs of 4 bits have such groups";
  }
  if (module.rotation != 0 && module.cols % module.rotation != 0) {
    return "a rotation in blocks of " + std::to_string(module.rotation) + ", which do not divide " +
           std::to_string(module.cols) + " input channels";
  }
  if (module.rotation != 0 && module.kept_columns != 0) {
    return std::to_string(module.kept_columns) +
           " kept columns behind a rotation, which leaves no outlier to keep; choose one of them";
  }
  return {};
}

std::string refuse(const ModulePlan& module) {
  if (module.rows == 0 || module.cols == 0) {
    return "a weight of " + std::to_string(module.rows) + " x " + std::to_string(module.cols) +
           " elements has no groups";
  }
  return refuse_input(module);
}

void add_kept(const ModulePlan& module, std::vector<TensorPlan>& plan) {
  if (module.kept_columns == 0) return;
  plan.push_back({module.name + ".weight_kept_columns", DType::i32, {module.kept_columns}});
  plan.push_back(
      {module.name + ".weight_kept_values", DType::f16, {module.rows, module.kept_columns}});
}

std::vector<TensorPlan> tensors(const ModulePlan& module) {
  const GroupLayout groups = group_layout(module.grid, module.rows, module.cols);
  std::vector<TensorPlan> plan = {
      {module.name + ".weight_codes", DType::u8, {module.rows, row_bytes(module)}},
  };
  if (module.grid.two_level) {
    plan.push_back(
        {module.name + ".weight_row_scales", dtype_of(module.grid.scale_type), {groups.rows}});
    plan.push_back({module.name + ".weight_group_integers",
                    DType::u8,
                    {groups.rows, packed_size(groups.cols, kGroupIntegerBits)}});
    add_kept(module, plan);
    return plan;
  }
  std::vector<std::uint64_t> shape = {groups.rows, groups.cols};
  if (module.open_direction) shape = {groups.rows * groups.cols};
  plan.push_back({module.name + ".weight_scales", dtype_of(module.grid.scale_type), shape});
  if (!module.grid.symmetric) plan.push_back({module.name + ".weight_zeros", DType::u8, shape});
  add_kept(module, plan);
  return plan;
}

std::vector<std::uint8_t> to_codes(std::span<const std::byte> bytes) {
  const auto* const begin = reinterpret_cast<const std::uint8_t*>(bytes.data());
  return {begin, begin + bytes.size()};
}

std::vector<std::byte> to_bytes(std::span<const std::uint8_t> values) {
  const auto bytes = std::as_bytes(values);
  return {bytes.begin(), bytes.end()};
}

// Integers of groups, 4 bits each, rows from a byte on.
std::vector<std::byte> pack_integers(const GroupParameters& parameters) {
  const std::size_t bytes = packed_size(parameters.cols, kGroupIntegerBits);
  std::vector<std::uint8_t> packed(parameters.rows * bytes);
  const std::span<const std::uint8_t> integers = parameters.integers;
  for (std::size_t row = 0; row < parameters.rows; ++row) {
    pack_codes(integers.subspan(row * parameters.cols, parameters.cols), kGroupIntegerBits,
               std::span(packed).subspan(row * bytes, bytes));
  }
  return to_bytes(packed);
}

std::vector<std::uint8_t> unpack_integers(std::span<const std::byte> bytes,
                                          const GroupLayout& groups) {
  const std::vector<std::uint8_t> packed = to_codes(bytes);
  const std::size_t row_bytes = packed_size(groups.cols, kGroupIntegerBits);
  std::vector<std::uint8_t> integers(groups.rows * groups.cols);
  for (std::size_t row = 0; row < groups.rows; ++row) {
    unpack_codes(std::span(packed).subspan(row * row_bytes, row_bytes), kGroupIntegerBits,
                 std::span(integers).subspan(row * groups.cols, groups.cols));
  }
  return integers;
}

Result<std::vector<std::vector<std::byte>>> encode(const QuantizedTensor& weight) {
  std::vector<std::vector<std::byte>> out;
  out.push_back(to_bytes(weight.packed_codes()));
  if (weight.grid().two_level) {
    out.push_back(scale_bytes(weight.parameters().row_scales, weight.grid().scale_type));
    out.push_back(pack_integers(weight.parameters()));
  } else {
    out.push_back(scale_bytes(weight.parameters().scales, weight.grid().scale_type));
    if (!weight.grid().symmetric) out.push_back(to_bytes(weight.parameters().zeros));
  }
  if (const KeptColumns& kept = weight.kept(); !kept.columns.empty()) {
    out.push_back(integer_bytes<std::uint32_t>(kept.columns));
    out.push_back(integer_bytes<std::uint16_t>(kept.values));
  }
  return out;
}

Result<QuantizedTensor> decode(const ModulePlan& module,
                               std::span<const std::vector<std::byte>> bytes) {
  QUELL_TRY(check_encoded(module, tensors(module), bytes));
  const GroupLayout groups = group_layout(module.grid, module.rows, module.cols);
  GroupParameters parameters;
  parameters.rows = groups.rows;
  parameters.cols = groups.cols;
  std::vector<float> scales = scales_from_bytes(bytes[1], module.grid.scale_type);
  if (module.grid.two_level) {
    parameters.row_scales = std::move(scales);
    parameters.integers = unpack_integers(bytes[2], groups);
    multiply_levels(parameters);
  } else {
    parameters.scales = std::move(scales);
    if (!module.grid.symmetric) parameters.zeros = to_codes(bytes[2]);
  }
  QUELL_TRY(tensor, QuantizedTensor::create(module.grid, module.rows, module.cols,
                                            to_codes(bytes[0]), std::move(parameters)));
  if (module.kept_columns == 0) return tensor;
  const std::size_t count = bytes.size();
  return std::move(tensor).keeping({integers_from_bytes<std::uint32_t>(bytes[count - 2]),
                                    integers_from_bytes<std::uint16_t>(bytes[count - 1])});
}

Json config(std::span<const ModulePlan> modules, std::span<const std::string> ignored) {
  Json entries = Json::object();
  // Members directly: set() would look through all earlier names for each new one.
  for (const ModulePlan& module : modules) {
    Json entry;
    entry.set("grid", to_string(module.grid));
    entry.set("shape", Json::array({Json(static_cast<std::uint64_t>(module.rows)),
                                    Json(static_cast<std::uint64_t>(module.cols))}));
    if (module.kept_columns != 0) {
      entry.set("kept_columns", static_cast<std::uint64_t>(module.kept_columns));
    }
    if (module.activation_bits != 0) {
      entry.set("activation_bits", std::uint64_t{module.activation_bits});
    }
    if (module.activation_group != 0) {
      entry.set("activation_group", static_cast<std::uint64_t>(module.activation_group));
    }
    if (module.rotation != 0) {
      entry.set("rotation", static_cast<std::uint64_t>(module.rotation));
      entry.set("rotation_seed", module.rotation_seed);
    }
    entries.members().emplace_back(module.name, std::move(entry));
  }
  Json kept = Json::array();
  for (const std::string& name : ignored) kept.push(name);
  Json result;
  result.set("quant_method", "quell");
  result.set("version", kVersion);
  result.set("modules", std::move(entries));
  result.set("ignore", std::move(kept));
  return result;
}

Result<ModulePlan> parse_module(const std::string& name, const Json& entry,
                                const std::string& file) {
  const std::string place = "quantization_config.modules." + printable(name);
  if (!entry.is(Json::Kind::object)) {
    return file_fault(ErrorCode::parse, file, place + " is not an object");
  }
  const JsonFields fields(entry, file);
  QUELL_TRY(word, fields.text("grid"));
  auto grid = parse_grid(word);
  if (!grid) {
    return file_fault(ErrorCode::unsupported, file, place + ".grid: " + grid.error().message);
  }
  const Json* const shape = fields.find("shape");
  if (shape == nullptr || !shape->is(Json::Kind::array) || shape->items().size() != 2) {
    return file_fault(ErrorCode::parse, file, place + ".shape is not an array of two numbers");
  }
  std::array<std::size_t, 2> sizes = {};
  for (std::size_t i = 0; i < 2; ++i) {
    const Json& item = shape->items()[i];
    if (!item.is(Json::Kind::integer) || item.as_integer() < 1 ||
        static_cast<std::uint64_t>(item.as_integer()) > kLargestDimension) {
      return file_fault(ErrorCode::parse, file,
                        place + ".shape holds " + printable(item.dump()) +
                            ", expected numbers from 1 to " + std::to_string(kLargestDimension));
    }
    sizes[i] = static_cast<std::size_t>(item.as_integer());
  }
  ModulePlan plan{name, *grid, sizes[0], sizes[1]};
  QUELL_TRY(kept, fields.optional_unsigned("kept_columns", 1, sizes[1]));
  plan.kept_columns = static_cast<std::size_t>(kept.value_or(0));
  QUELL_TRY(width, fields.optional_unsigned("activation_bits", 1, 64));
  QUELL_TRY(group, fields.optional_unsigned("activation_group", 1, kLargestDimension));
  QUELL_TRY(rotation, fields.optional_unsigned("rotation", 1, sizes[1]));
  QUELL_TRY(seed, fields.optional_unsigned("rotation_seed", 0, kLargestSeed));
  plan.activation_bits = static_cast<unsigned>(width.value_or(0));
  plan.activation_group = static_cast<std::size_t>(group.value_or(0));
  plan.rotation = static_cast<std::size_t>(rotation.value_or(0));
  plan.rotation_seed = seed.value_or(0);
  if (const std::string reason = refuse_input(plan); !reason.empty()) {
    return file_fault(ErrorCode::unsupported, file, place + " has " + reason);
  }
  return plan;
}

}  // namespace

const ExportLayout kNativeLayout = {
    "quell", "the native layout: every grid, read by quell", refuse, tensors, encode, decode,
    config};

Result<std::vector<ModulePlan>> parse_native(const Json& quantization, const std::string& file,
                                             const Checkpoint& checkpoint) {
  const JsonFields fields(quantization, file);
  QUELL_TRY(version, fields.unsigned_integer("version", 0, kLargestDimension));
  if (version != kVersion) {
    return file_fault(ErrorCode::unsupported, file,
                      "quantization_config.version is " + std::to_string(version) +
                          ", this program reads version " + std::to_string(kVersion));
  }
  const Json* const modules = fields.find("modules");
  if (modules == nullptr || !modules->is(Json::Kind::object)) {
    return fields.wrong("modules", "an object");
  }
  std::vector<ModulePlan> plans;
  for (const auto& [name, entry] : modules->members()) {
    QUELL_TRY(plan, parse_module(name, entry, file));
    const TensorInfo* const scales = checkpoint.find(name + ".weight_scales");
    plan.open_direction = scales != nullptr && scales->shape.size() == 1;
    for (const TensorPlan& tensor : tensors(plan)) {
      QUELL_TRY(found,
                expect_tensor(checkpoint, tensor.name, std::span(&tensor.dtype, 1), tensor.shape));
      (void)found;
    }
    if (checkpoint.find(name + ".weight") != nullptr) {
      return file_fault(ErrorCode::parse, file,
                        "module " + printable(name) + " has both weight and weight_codes");
    }
    plans.push_back(std::move(plan));
  }
  return plans;
}

Result<QuantizedTensor> read_native(const ModulePlan& module, const Checkpoint& checkpoint) {
  const std::vector<TensorPlan> plan = tensors(module);
  std::vector<std::vector<std::byte>> bytes;
  for (const TensorPlan& tensor : plan) {
    QUELL_TRY(info,
              expect_tensor(checkpoint, tensor.name, std::span(&tensor.dtype, 1), tensor.shape));
    QUELL_TRY(data, read_bytes(checkpoint, *info));
    bytes.push_back(std::move(data));
  }
  return decode(module, bytes);
}

}  // namespace quell::io
