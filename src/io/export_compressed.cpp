// SPDX-License-Identifier: Apache-2.0
// The two integer formats of compressed-tensors, written. Both follow from one fact: their signed
// number q and ours, the stored code u, differ by the offset 2^(bits-1).
//
//     pack-quantized   u in 32-bit words, lowest bits first, along the row: the bytes of a row of a
//                      QuantizedTensor, padded with zeros to whole words. Zeros (asymmetric) the
//                      same, but packed along the output channels: word [r, g] holds rows r*32/bits
//                      and on.
//     int-quantized    q = u - 128 as one signed byte each: u with its top bit flipped.
#include <algorithm>

#include "io/export_layouts.hpp"
#include "quell/core/bits.hpp"
#include "quell/grid/formats.hpp"
#include "quell/grid/groups.hpp"

namespace quell::io {
namespace {

using Bytes = std::vector<std::byte>;

constexpr std::size_t kWordBytes = 4;
constexpr unsigned kWordBits = 32;
constexpr std::byte kTopBit{0x80};
constexpr std::string_view kPackFormat = "pack-quantized";
constexpr std::string_view kIntFormat = "int-quantized";

std::string numbers(const ModulePlan& module) {
  return std::to_string(module.rows) + " x " + std::to_string(module.cols);
}

std::string refuse_either(const ModulePlan& module) {
  if (module.rows == 0 || module.cols == 0) {
    return "a weight of " + numbers(module) + " elements has no groups";
  }
  if (info(module.grid.format).codebook != nullptr) {
    return std::string(to_string(module.grid.format)) + " is a codebook (" +
           to_string(module.grid) + "); compressed-tensors holds integers (choose --to quell)";
  }
  if (module.kept_columns != 0) {
    return std::to_string(module.kept_columns) +
           " columns are kept in f16; compressed-tensors holds codes only (choose --to quell)";
  }
  if (module.rotation != 0) {
    return "inputs are rotated while the model runs, in blocks of " +
           std::to_string(module.rotation) +
           "; engines that read compressed-tensors do not do that (choose --to quell)";
  }
  if (module.grid.two_level) {
    return "scales have two levels (" + to_string(module.grid) +
           "); compressed-tensors holds one scale per group (choose --to quell)";
  }
  if (module.grid.per == Channel::input) {
    return "groups run down input channels (" + to_string(module.grid) +
           "); compressed-tensors holds groups along output channels only";
  }
  // A group that is longer than the row is the row, which needs no group size in the file.
  if (module.grid.group != 0 && module.grid.group < module.cols &&
      module.cols % module.grid.group != 0) {
    return "rows of " + std::to_string(module.cols) + " are not a multiple of the group " +
           std::to_string(module.grid.group) + " (the last one would have " +
           std::to_string(module.cols % module.grid.group) + ")";
  }
  if (module.activation_bits != 0 && module.activation_bits != 8) {
    return "inputs of " + std::to_string(module.activation_bits) +
           " bits; 8 or none can be written (choose --to quell)";
  }
  return {};
}

std::string refuse_packed(const ModulePlan& module) {
  if (std::string reason = refuse_either(module); !reason.empty()) return reason;
  const unsigned width = bits(module.grid.format);
  if (kWordBits % width != 0) {
    return std::to_string(width) +
           "-bit codes do not divide a 32-bit word, and readers disagree on how to pack them; "
           "2, 4 and 8 bits can be written";
  }
  if (module.grid.scale_type == ScaleType::f32) {
    return "scales are f32; pack-quantized holds the model's 16-bit type (choose --scale-type f16 "
           "or bf16)";
  }
  if (module.activation_bits != 0) {
    return "inputs are quantized to " + std::to_string(module.activation_bits) +
           " bits; pack-quantized holds weights for 16-bit inputs (choose "
           "compressed-tensors:int-quantized)";
  }
  return {};
}

std::string refuse_int8(const ModulePlan& module) {
  if (std::string reason = refuse_either(module); !reason.empty()) return reason;
  const unsigned width = bits(module.grid.format);
  if (width != 8) {
    return "codes of " + std::to_string(width) + " bits; int-quantized holds 8 bits";
  }
  if (module.grid.group != 0 && module.grid.group < module.cols) {
    return "rows of " + std::to_string(module.cols) + " have groups of " +
           std::to_string(module.grid.group) +
           "; engines read int-quantized with one scale per output channel";
  }
  return {};
}

std::size_t words(std::size_t codes, const ModulePlan& module) {
  return static_cast<std::size_t>(
      ceil_divide(packed_size(codes, bits(module.grid.format)), kWordBytes));
}

std::vector<TensorPlan> packed_tensors(const ModulePlan& module) {
  const GroupLayout groups = group_layout(module.grid, module.rows, module.cols);
  std::vector<TensorPlan> plan = {
      {module.name + ".weight_packed", DType::i32, {module.rows, words(module.cols, module)}},
      {module.name + ".weight_scale", dtype_of(module.grid.scale_type), {module.rows, groups.cols}},
      {module.name + ".weight_shape", DType::i64, {2}},
  };
  if (!module.grid.symmetric) {
    plan.push_back({module.name + ".weight_zero_point",
                    DType::i32,
                    {words(module.rows, module), groups.cols}});
  }
  return plan;
}

// Written with one group per row; other writers may have several.
std::vector<TensorPlan> int8_tensors(const ModulePlan& module) {
  const GroupLayout groups = group_layout(module.grid, module.rows, module.cols);
  std::vector<TensorPlan> plan = {
      {module.name + ".weight", DType::i8, {module.rows, module.cols}},
      {module.name + ".weight_scale", DType::f32, {module.rows, groups.cols}},
  };
  if (!module.grid.symmetric) {
    plan.push_back({module.name + ".weight_zero_point", DType::i8, {module.rows, groups.cols}});
  }
  return plan;
}

// The module that a tensor would be planned as; names do not matter here.
ModulePlan plan_of(const QuantizedTensor& weight) {
  return {{}, weight.grid(), weight.rows(), weight.cols(), 0, weight.kept().columns.size()};
}

Bytes pack_zeros(std::span<const std::uint8_t> zeros, const ModulePlan& module,
                 std::size_t groups) {
  const unsigned width = bits(module.grid.format);
  const std::size_t count = words(module.rows, module);
  Bytes out(count * groups * kWordBytes);
  std::vector<std::uint8_t> column(module.rows);
  std::vector<std::uint8_t> packed(count * kWordBytes);
  for (std::size_t g = 0; g < groups; ++g) {
    for (std::size_t row = 0; row < module.rows; ++row) column[row] = zeros[row * groups + g];
    pack_codes(column, width, packed);
    for (std::size_t word = 0; word < count; ++word) {
      for (std::size_t b = 0; b < kWordBytes; ++b) {
        out[(word * groups + g) * kWordBytes + b] =
            static_cast<std::byte>(packed[word * kWordBytes + b]);
      }
    }
  }
  return out;
}

std::vector<std::uint8_t> unpack_zeros(std::span<const std::byte> bytes, const ModulePlan& module,
                                       std::size_t groups) {
  const unsigned width = bits(module.grid.format);
  const std::size_t count = words(module.rows, module);
  std::vector<std::uint8_t> zeros(module.rows * groups);
  std::vector<std::uint8_t> column(module.rows);
  std::vector<std::uint8_t> packed(count * kWordBytes);
  for (std::size_t g = 0; g < groups; ++g) {
    for (std::size_t word = 0; word < count; ++word) {
      for (std::size_t b = 0; b < kWordBytes; ++b) {
        packed[word * kWordBytes + b] =
            std::to_integer<std::uint8_t>(bytes[(word * groups + g) * kWordBytes + b]);
      }
    }
    unpack_codes(packed, width, column);
    for (std::size_t row = 0; row < module.rows; ++row) zeros[row * groups + g] = column[row];
  }
  return zeros;
}

Result<std::vector<Bytes>> encode_packed(const QuantizedTensor& weight) {
  const ModulePlan module = plan_of(weight);
  if (std::string reason = refuse_packed(module); !reason.empty()) {
    return Error{ErrorCode::unsupported, std::move(reason)};
  }
  const std::size_t row_words = words(weight.cols(), module);
  const std::size_t row_bytes = weight.row_bytes();
  Bytes packed(weight.rows() * row_words * kWordBytes);
  const auto codes = std::as_bytes(weight.packed_codes());
  for (std::size_t row = 0; row < weight.rows(); ++row) {
    std::copy_n(codes.begin() + static_cast<std::ptrdiff_t>(row * row_bytes), row_bytes,
                packed.begin() + static_cast<std::ptrdiff_t>(row * row_words * kWordBytes));
  }
  Bytes shape(16);
  for (std::size_t b = 0; b < 8; ++b) {
    shape[b] =
        static_cast<std::byte>((static_cast<std::uint64_t>(weight.rows()) >> (8 * b)) & 0xFFU);
    shape[8 + b] =
        static_cast<std::byte>((static_cast<std::uint64_t>(weight.cols()) >> (8 * b)) & 0xFFU);
  }
  std::vector<Bytes> out;
  out.push_back(std::move(packed));
  out.push_back(scale_bytes(weight.parameters().scales, weight.grid().scale_type));
  out.push_back(std::move(shape));
  if (!weight.grid().symmetric) {
    out.push_back(pack_zeros(weight.parameters().zeros, module, weight.parameters().cols));
  }
  return out;
}

// int8: one byte per code, so packed codes are codes.
Bytes flip_top_bits(std::span<const std::byte> from) {
  Bytes out(from.begin(), from.end());
  for (std::byte& byte : out) byte ^= kTopBit;
  return out;
}

Result<std::vector<Bytes>> encode_int8(const QuantizedTensor& weight) {
  if (std::string reason = refuse_int8(plan_of(weight)); !reason.empty()) {
    return Error{ErrorCode::unsupported, std::move(reason)};
  }
  std::vector<Bytes> out;
  out.push_back(flip_top_bits(std::as_bytes(weight.packed_codes())));
  out.push_back(scale_bytes(weight.parameters().scales, ScaleType::f32));
  if (!weight.grid().symmetric) {
    out.push_back(flip_top_bits(std::as_bytes(std::span(weight.parameters().zeros))));
  }
  return out;
}

std::vector<std::uint8_t> to_codes(std::span<const std::byte> bytes) {
  std::vector<std::uint8_t> codes(bytes.size());
  std::transform(bytes.begin(), bytes.end(), codes.begin(),
                 [](std::byte byte) { return std::to_integer<std::uint8_t>(byte); });
  return codes;
}

Result<QuantizedTensor> decode_packed(const ModulePlan& module, std::span<const Bytes> bytes) {
  QUELL_TRY(check_encoded(module, packed_tensors(module), bytes));
  const std::size_t row_words = words(module.cols, module);
  const std::size_t row_bytes = packed_size(module.cols, bits(module.grid.format));
  std::vector<std::uint8_t> codes;
  codes.reserve(module.rows * row_bytes);
  for (std::size_t row = 0; row < module.rows; ++row) {
    const auto from = std::span(bytes[0]).subspan(row * row_words * kWordBytes, row_bytes);
    for (const std::byte byte : from) codes.push_back(std::to_integer<std::uint8_t>(byte));
  }
  const GroupLayout groups = group_layout(module.grid, module.rows, module.cols);
  GroupParameters parameters;
  parameters.rows = groups.rows;
  parameters.cols = groups.cols;
  parameters.scales = scales_from_bytes(bytes[1], module.grid.scale_type);
  if (!module.grid.symmetric) parameters.zeros = unpack_zeros(bytes[3], module, groups.cols);
  return QuantizedTensor::create(module.grid, module.rows, module.cols, std::move(codes),
                                 std::move(parameters));
}

Result<QuantizedTensor> decode_int8(const ModulePlan& module, std::span<const Bytes> bytes) {
  QUELL_TRY(check_encoded(module, int8_tensors(module), bytes));
  const GroupLayout groups = group_layout(module.grid, module.rows, module.cols);
  GroupParameters parameters;
  parameters.rows = groups.rows;
  parameters.cols = groups.cols;
  parameters.scales = scales_from_bytes(bytes[1], ScaleType::f32);
  if (!module.grid.symmetric) parameters.zeros = to_codes(flip_top_bits(bytes[2]));
  return QuantizedTensor::create(module.grid, module.rows, module.cols,
                                 to_codes(flip_top_bits(bytes[0])), std::move(parameters));
}

// What one group of the config has in common. Readers validate the members strictly, so what only
// we read (the narrow formats) stands apart, in "quell_grids", which others pass over.
struct Scheme {
  Format format;
  bool symmetric;
  std::uint32_t group;  // 0: one per row
  unsigned activation_bits;
  bool operator==(const Scheme&) const = default;
};

Scheme scheme_of(const ModulePlan& module) {
  const bool whole_row = module.grid.group >= module.cols;
  return {module.grid.format, module.grid.symmetric, whole_row ? 0 : module.grid.group,
          module.activation_bits};
}

Json arguments(unsigned width, bool symmetric, std::string_view strategy, Json group, bool dynamic,
               Json observer) {
  Json json;
  json.set("num_bits", width);
  json.set("type", "int");
  json.set("symmetric", symmetric);
  json.set("strategy", strategy);
  json.set("group_size", std::move(group));
  json.set("dynamic", dynamic);
  json.set("actorder", nullptr);
  json.set("block_structure", nullptr);
  json.set("observer", std::move(observer));
  json.set("observer_kwargs", Json::object());
  return json;
}

// `format` is a member that readers before 2025 refuse. Newer ones need it where the scheme alone
// makes them expect another format: int8 without quantized inputs would be taken for
// pack-quantized.
Json group_json(const Scheme& scheme, Json targets, std::string_view format) {
  Json json;
  json.set("targets", std::move(targets));
  json.set("weights",
           arguments(bits(scheme.format), scheme.symmetric, scheme.group == 0 ? "channel" : "group",
                     scheme.group == 0 ? Json() : Json(scheme.group), false, "minmax"));
  json.set("input_activations",
           scheme.activation_bits == 0
               ? Json()
               : arguments(scheme.activation_bits, true, "token", nullptr, true, nullptr));
  json.set("output_activations", nullptr);
  if (format == kIntFormat && scheme.activation_bits == 0) json.set("format", format);
  return json;
}

Json config(std::span<const ModulePlan> modules, std::span<const std::string> ignored,
            std::string_view format) {
  std::vector<Scheme> schemes;
  std::vector<Json> targets;
  for (const ModulePlan& module : modules) {
    const Scheme scheme = scheme_of(module);
    const auto known = std::find(schemes.begin(), schemes.end(), scheme);
    const auto index = static_cast<std::size_t>(known - schemes.begin());
    if (known == schemes.end()) {
      schemes.push_back(scheme);
      targets.push_back(Json::array());
    }
    targets[index].push(module.name);
  }
  // One scheme for all: the class name, as every writer does, with the exceptions listed. Several:
  // names, each in one group, since readers disagree on which of two matching targets wins.
  if (targets.size() == 1) targets[0] = Json::array({Json("Linear")});
  Json groups = Json::object();
  Json grids = Json::object();
  for (std::size_t i = 0; i < schemes.size(); ++i) {
    const std::string name = "group_" + std::to_string(i);
    groups.set(name, group_json(schemes[i], std::move(targets[i]), format));
    GridSpec grid;
    grid.format = schemes[i].format;
    grid.symmetric = schemes[i].symmetric;
    grid.group = schemes[i].group;
    grids.set(name, to_string(grid));
  }
  // A tied head has no tensor and so no name here, but in other readers it is a Linear like any
  // other.
  const std::string head = "lm_head";
  std::vector<std::string> kept(ignored.begin(), ignored.end());
  const bool head_is_named =
      std::find(kept.begin(), kept.end(), head) != kept.end() ||
      std::any_of(modules.begin(), modules.end(),
                  [&](const ModulePlan& module) { return module.name == head; });
  if (!head_is_named) kept.push_back(head);
  Json ignore = Json::array();
  for (const std::string& name : kept) ignore.push(name);
  Json result;
  result.set("quant_method", "compressed-tensors");
  result.set("format", format);
  result.set("quantization_status", "compressed");
  result.set("global_compression_ratio", nullptr);
  result.set("kv_cache_scheme", nullptr);
  result.set("ignore", std::move(ignore));
  result.set("config_groups", std::move(groups));
  result.set("quell_grids", std::move(grids));
  return result;
}

Json config_packed(std::span<const ModulePlan> modules, std::span<const std::string> ignored) {
  return config(modules, ignored, kPackFormat);
}

Json config_int8(std::span<const ModulePlan> modules, std::span<const std::string> ignored) {
  return config(modules, ignored, kIntFormat);
}

}  // namespace

const ExportLayout kPackQuantizedLayout = {
    "compressed-tensors", "packed 2, 4 and 8 bits for vLLM, SGLang and transformers",
    refuse_packed,        packed_tensors,
    encode_packed,        decode_packed,
    config_packed};

const ExportLayout kIntQuantizedLayout = {"compressed-tensors:int-quantized",
                                          "8-bit integers, one scale per output channel",
                                          refuse_int8,
                                          int8_tensors,
                                          encode_int8,
                                          decode_int8,
                                          config_int8};

}  // namespace quell::io
