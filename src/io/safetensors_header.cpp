// SPDX-License-Identifier: Apache-2.0

// Events go straight into tensor records: a tree of the text would take ten times its size. Names
// are compared only after the last event, by sorting, which also is the order in which they are
// kept.

#include "io/safetensors_header.hpp"

#include <algorithm>
#include <array>

#include "io/bounded_reader.hpp"
#include "io/fault.hpp"
#include "io/json_sax.hpp"
#include "io/limits.hpp"
#include "io/pickled.hpp"
#include "quell/core/checked.hpp"

namespace quell::io {
namespace {

constexpr std::string_view kMetadataKey = "__metadata__";

std::string known_dtypes() {
  std::string text;
  for (const DTypeInfo& entry : kDTypes) {
    if (!text.empty()) text += ", ";
    text += entry.name;
  }
  return text;
}

class HeaderBuilder final : public SaxPlaces {
 public:
  explicit HeaderBuilder(std::string_view text) : SaxPlaces(text, limits::kSafetensorsDepth) {}

  std::vector<TensorInfo> tensors;
  std::vector<MetadataEntry> metadata;
  /// The tensor that a fault is about, or empty.
  const std::string& fault_tensor() const noexcept { return fault_tensor_; }

  bool null() { return in_ == In::root && is_metadata_ ? true : other("null"); }
  bool boolean(bool) { return other("true or false"); }
  bool number_integer(std::int64_t value) { return other(std::to_string(value)); }
  bool number_float(double, const std::string& digits) { return other(printable(digits, 40)); }
  bool number_unsigned(std::uint64_t value) {
    if (in_ != In::list || skipped_ > 0) return other("a number");
    if (value > limits::kLargestInteger) {
      return fail_tensor("has " + std::to_string(value) + " in its " + member_name() +
                         ", more than the largest integer of the format, " +
                         std::to_string(limits::kLargestInteger));
    }
    const std::size_t most = member_ == Member::shape ? limits::kDimensions : 2;
    if (list_.size() == most) {
      return fail_tensor("has more than " + std::to_string(most) + " numbers in its " +
                         member_name());
    }
    list_.push_back(value);
    return true;
  }
  bool string(std::string& value) {
    if (in_ == In::metadata) {
      metadata.back().value = std::move(value);
      return true;
    }
    if (in_ != In::tensor || skipped_ > 0 || member_ != Member::dtype) return other("a string");
    const auto dtype = parse_dtype(value);
    if (!dtype) {
      return fail_tensor("has the unknown dtype \"" + printable(value, 40) +
                         "\", expected one of " + known_dtypes());
    }
    tensors.back().dtype = *dtype;
    return true;
  }

  bool start_object(std::size_t) {
    if (!deeper()) return false;
    switch (in_) {
      case In::start:
        in_ = In::root;
        return true;
      case In::root:
        in_ = is_metadata_ ? In::metadata : In::tensor;
        seen_ = {};
        others_.clear();
        return true;
      default:
        return skip() ? true : other("an object");
    }
  }
  bool end_object() {
    shallower();
    if (skipped_ > 0) return --skipped_, true;
    if (in_ == In::root) {
      in_ = In::end;
      return true;
    }
    if (in_ == In::tensor && !finish_tensor()) return false;
    in_ = In::root;
    return true;
  }
  bool start_array(std::size_t) {
    if (!deeper()) return false;
    if (in_ == In::tensor && skipped_ == 0 &&
        (member_ == Member::shape || member_ == Member::offsets)) {
      in_ = In::list;
      list_.clear();
      return true;
    }
    return skip() ? true : other("a list");
  }
  bool end_array() {
    shallower();
    if (skipped_ > 0) return --skipped_, true;
    in_ = In::tensor;
    if (member_ == Member::shape) {
      tensors.back().shape.assign(list_.begin(), list_.end());
      return true;
    }
    if (list_.size() != 2) {
      return fail_tensor("has " + std::to_string(list_.size()) +
                         " numbers in its data_offsets, expected 2");
    }
    if (list_[1] < list_[0]) {
      return fail_tensor("ends at byte " + std::to_string(list_[1]) +
                         " of the data, before its start at " + std::to_string(list_[0]));
    }
    tensors.back().offset = list_[0];
    tensors.back().bytes = list_[1] - list_[0];
    return true;
  }

  bool key(std::string& name) {
    if (skipped_ > 0) return true;
    if (in_ == In::root) return start_entry(name);
    if (in_ == In::metadata) {
      metadata.push_back({std::move(name), {}});
      return true;
    }
    static constexpr std::array<std::string_view, 3> kMembers = {"dtype", "shape", "data_offsets"};
    const auto known = std::find(kMembers.begin(), kMembers.end(), name);
    if (known == kMembers.end()) {
      member_ = Member::other;
      if (std::find(others_.begin(), others_.end(), name) != others_.end()) return twice(name);
      if (others_.size() == limits::kTensorMembers) {
        return fail_tensor("has more than " + std::to_string(limits::kTensorMembers) +
                           " unknown members");
      }
      others_.push_back(std::move(name));
      return true;
    }
    const auto index = static_cast<std::size_t>(known - kMembers.begin());
    member_ = static_cast<Member>(index);
    if (seen_[index]) return twice(name);
    seen_[index] = true;
    return true;
  }

 private:
  // What the parser is inside of.
  enum class In { start, root, metadata, tensor, list, end };
  enum class Member { dtype, shape, offsets, other };

  std::string member_name() const {
    switch (member_) {
      case Member::dtype:
        return "dtype";
      case Member::shape:
        return "shape";
      case Member::offsets:
        return "data_offsets";
      case Member::other:
        return "unknown member";
    }
    return {};
  }

  // Members that we do not know may hold anything; true if the value that starts here is one.
  bool skip() {
    if (skipped_ == 0 && !(in_ == In::tensor && member_ == Member::other)) return false;
    ++skipped_;
    return true;
  }

  /// A value where `found` may stand only inside an unknown member.
  bool other(const std::string& found) {
    if (skipped_ > 0) return true;
    switch (in_) {
      case In::start:
        return fail("expected an object, found " + found);
      case In::root:
        if (is_metadata_) return fail("__metadata__ is " + found + ", expected an object");
        return fail_tensor("is " + found + ", expected an object");
      case In::metadata:
        return fail("__metadata__ has " + found + " under \"" + printable(metadata.back().key) +
                    "\", expected a string");
      case In::tensor:
        if (member_ == Member::other) return true;
        return fail_tensor("has " + found + " as its " + member_name() + ", expected " +
                           (member_ == Member::dtype ? "a string" : "a list of unsigned integers"));
      case In::list:
        return fail_tensor("has " + found + " in its " + member_name() +
                           ", expected an unsigned integer without fraction or exponent");
      case In::end:
        break;
    }
    return fail("unexpected " + found);
  }

  bool start_entry(std::string& name) {
    is_metadata_ = name == kMetadataKey;
    if (is_metadata_) {
      if (metadata_seen_) return fail("duplicate key \"__metadata__\"");
      metadata_seen_ = true;
      return true;
    }
    if (name.empty()) return fail("a tensor has an empty name");
    if (name.size() > limits::kNameBytes) {
      return fail("the tensor name " + printable(name, 60) + " has " + std::to_string(name.size()) +
                  " bytes, more than the limit of " + std::to_string(limits::kNameBytes));
    }
    if (tensors.size() == limits::kTensorsPerFile) {
      return fail("more tensors than the limit of " + std::to_string(limits::kTensorsPerFile) +
                  " in a file");
    }
    tensors.emplace_back();
    tensors.back().name = std::move(name);
    return true;
  }

  bool finish_tensor() {
    static constexpr std::array<std::string_view, 3> kMembers = {"dtype", "shape", "data_offsets"};
    for (std::size_t i = 0; i < kMembers.size(); ++i) {
      if (!seen_[i]) return fail_tensor("has no " + std::string(kMembers[i]));
    }
    const TensorInfo& tensor = tensors.back();
    const ByteCount count = byte_count(tensor.dtype, tensor.shape);
    if (!count.fault.empty()) return fail_tensor(count.fault);
    if (count.bytes != tensor.bytes) {
      return fail_tensor("of dtype " + std::string(to_string(tensor.dtype)) + " and shape " +
                         shape_text(tensor.shape) + " needs " + std::to_string(count.bytes) +
                         " bytes, but its data_offsets span " + std::to_string(tensor.bytes));
    }
    return true;
  }

  bool twice(std::string_view name) {
    return fail_tensor("has the duplicate key \"" + printable(name) + '"');
  }
  bool fail_tensor(std::string what) {
    fault_tensor_ = tensors.back().name;
    return fail("tensor " + printable(fault_tensor_) + ' ' + std::move(what));
  }

  In in_ = In::start;
  Member member_ = Member::other;
  bool is_metadata_ = false;
  bool metadata_seen_ = false;
  std::array<bool, 3> seen_ = {};
  std::vector<std::string> others_;
  std::vector<std::uint64_t> list_;
  int skipped_ = 0;  // containers open inside an unknown member
  std::string fault_tensor_;
};

std::string at_byte(std::uint64_t offset_in_header) {
  return "header, byte " + std::to_string(kHeaderStart + offset_in_header) + " of the file: ";
}

Status check_names(std::vector<TensorInfo>& tensors, std::vector<MetadataEntry>& metadata,
                   std::string_view file) {
  std::sort(tensors.begin(), tensors.end(),
            [](const TensorInfo& a, const TensorInfo& b) { return a.name < b.name; });
  const auto twin =
      std::adjacent_find(tensors.begin(), tensors.end(),
                         [](const TensorInfo& a, const TensorInfo& b) { return a.name == b.name; });
  if (twin != tensors.end()) {
    return tensor_fault(ErrorCode::parse, file, twin->name,
                        "is in the header twice (duplicate key)");
  }
  std::vector<std::string_view> keys;
  keys.reserve(metadata.size());
  for (const MetadataEntry& entry : metadata) keys.push_back(entry.key);
  std::sort(keys.begin(), keys.end());
  const auto key = std::adjacent_find(keys.begin(), keys.end());
  if (key != keys.end()) {
    return file_fault(ErrorCode::parse, file,
                      "duplicate key \"" + printable(*key) + "\" in __metadata__");
  }
  return ok();
}

// In the order of their offsets, each tensor must begin where the one before ended, and the last
// must end with the file: no overlap, no hole, nothing appended, nothing cut off.
Status check_tiling(const std::vector<TensorInfo>& tensors, std::uint64_t data_bytes,
                    std::string_view file) {
  std::vector<std::uint32_t> order(tensors.size());
  for (std::uint32_t i = 0; i < order.size(); ++i) order[i] = i;
  std::sort(order.begin(), order.end(), [&](std::uint32_t a, std::uint32_t b) {
    if (tensors[a].offset != tensors[b].offset) return tensors[a].offset < tensors[b].offset;
    if (tensors[a].bytes != tensors[b].bytes) return tensors[a].bytes < tensors[b].bytes;
    return a < b;
  });
  std::uint64_t cursor = 0;
  const TensorInfo* last = nullptr;
  for (const std::uint32_t index : order) {
    const TensorInfo& tensor = tensors[index];
    if (tensor.offset < cursor) {
      return tensor_fault(ErrorCode::parse, file, tensor.name,
                          "starts at byte " + std::to_string(tensor.offset) +
                              " of the data and overlaps tensor " + printable(last->name) +
                              ", which ends at " + std::to_string(cursor));
    }
    if (tensor.offset > cursor) {
      return tensor_fault(
          ErrorCode::parse, file, tensor.name,
          "starts at byte " + std::to_string(tensor.offset) + " of the data, but " +
              (last == nullptr ? "the data starts at 0"
                               : "tensor " + printable(last->name) + " before it ends at " +
                                     std::to_string(cursor)) +
              ": a gap of " + std::to_string(tensor.offset - cursor) + " bytes");
    }
    // Both are at most 2^48 - 1, so the sum is exact.
    cursor = tensor.offset + tensor.bytes;
    if (cursor > data_bytes) {
      return tensor_fault(
          ErrorCode::parse, file, tensor.name,
          "ends at byte " + std::to_string(cursor) + " of the data, but the file holds only " +
              std::to_string(data_bytes) + ": it is cut off, copy or download it again");
    }
    last = &tensor;
  }
  if (cursor != data_bytes) {
    return file_fault(ErrorCode::parse, file,
                      "the tensors end at byte " + std::to_string(cursor) +
                          " of the data, but the file holds " + std::to_string(data_bytes) + ": " +
                          std::to_string(data_bytes - cursor) + " bytes belong to no tensor");
  }
  return ok();
}

}  // namespace

ByteCount byte_count(DType dtype, std::span<const std::uint64_t> shape) {
  // A zero among huge dimensions makes no bytes, but the product of the others is what callers
  // compute when they flatten the shape, so it has to fit as well.
  std::optional<std::uint64_t> elements = 1;
  bool empty = false;
  for (const std::uint64_t dimension : shape) {
    empty = empty || dimension == 0;
    if (elements && dimension != 0) elements = checked_multiply(*elements, dimension);
  }
  const auto total_bits = elements ? checked_multiply(*elements, bits(dtype)) : std::nullopt;
  if (!total_bits) {
    return {0, "has the shape " + shape_text(shape) + ", whose size overflows 64 bits"};
  }
  if (empty) return {0, {}};
  if (*total_bits % 8 != 0) {
    return {0, "of dtype " + std::string(to_string(dtype)) + " and shape " + shape_text(shape) +
                   " has " + std::to_string(*total_bits) + " bits and ends inside a byte"};
  }
  return {*total_bits / 8, {}};
}

Result<SafetensorsHeader> parse_safetensors_header(std::string_view text, std::uint64_t data_bytes,
                                                   std::string_view file) {
  if (const auto fault = find_text_fault(text)) {
    return file_fault(ErrorCode::parse, file,
                      at_byte(fault->offset) + std::string(fault->what) + ", expected plain UTF-8");
  }
  HeaderBuilder builder(text);
  if (!run_sax(text, builder)) {
    Error error =
        file_fault(ErrorCode::parse, file, at_byte(builder.fault_offset()) + builder.fault());
    error.tensor = builder.fault_tensor();
    return error;
  }
  QUELL_TRY(check_names(builder.tensors, builder.metadata, file));
  QUELL_TRY(check_tiling(builder.tensors, data_bytes, file));
  const std::uint64_t data_start = kHeaderStart + text.size();
  for (TensorInfo& tensor : builder.tensors) tensor.offset += data_start;
  return SafetensorsHeader{std::move(builder.tensors), std::move(builder.metadata)};
}

Result<SafetensorsHeader> read_safetensors_header(const File& file) {
  if (file.size() == 0) {
    return file_fault(ErrorCode::parse, file.name(),
                      "the file is empty, copy or download it again");
  }
  std::array<std::byte, 512> start = {};
  const auto start_size =
      static_cast<std::size_t>(std::min<std::uint64_t>(file.size(), start.size()));
  const auto first = std::span<std::byte>(start).first(start_size);
  QUELL_TRY(file.read_at(0, first));
  BoundedReader reader(first);
  const auto length = reader.number<std::uint64_t>();
  // The header proper starts with a brace, or with white space before it.
  const auto next = reader.number<std::uint8_t>();
  const bool plausible =
      length && *length <= limits::kSafetensorsHeaderBytes && next &&
      std::string_view("{ \t\r\n").find(static_cast<char>(*next)) != std::string_view::npos;
  if (!plausible) QUELL_TRY(refuse_other_content(first, file.name()));
  if (!length) {
    return file_fault(ErrorCode::parse, file.name(),
                      "the header length is missing: the file has " + std::to_string(file.size()) +
                          " bytes, expected at least 8");
  }
  if (*length > file.size() - kHeaderStart) {
    return file_fault(ErrorCode::parse, file.name(),
                      "the header length is " + std::to_string(*length) +
                          ", but the file has only " + std::to_string(file.size()) +
                          " bytes: it is cut off or no safetensors file");
  }
  if (*length > limits::kSafetensorsHeaderBytes) {
    return file_fault(ErrorCode::parse, file.name(),
                      "the header length is " + std::to_string(*length) +
                          ", more than the limit of " +
                          std::to_string(limits::kSafetensorsHeaderBytes));
  }
  std::string text(static_cast<std::size_t>(*length), '\0');
  QUELL_TRY(file.read_at(kHeaderStart,
                         std::as_writable_bytes(std::span<char>(text.data(), text.size()))));
  return parse_safetensors_header(text, file.size() - kHeaderStart - *length, file.name());
}

}  // namespace quell::io
