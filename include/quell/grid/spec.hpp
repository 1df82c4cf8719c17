// SPDX-License-Identifier: Apache-2.0
#pragma once

// GridSpec: the set of values a weight may take. A weight W [OC, IC] is cut into groups; a group
// shares one scale (and one zero), and an element is stored as a small unsigned code:
//
//     value = (code - zero) * scale           zero = 2^(bits-1) on symmetric grids
//     value = level[code] * scale             codebook formats (codebook.hpp)
//
//     per output channel, group 4              per input channel, group 2
//     row 0:  [a a a a][b b b b]                col 0  col 1
//     row 1:  [c c c c][d d d d]                 [e]    [f]    rows 0, 1
//     scales [OC, ceil(IC / 4)]                  [e]    [f]
//                                                [g]    [h]    rows 2, 3
//                                               scales [ceil(OC / 2), IC]
//
// With two levels (`u4`), the scale of a group is a product: one scale for each row of the array of
// scales above, in the scale type, times an integer of 1 to 15 for each group, in 4 bits. code *
// integer then fits int8 (-8 * 15 = -120), so a kernel folds the integers into the codes and leaves
// the integers only once for a row (the progressive groups of QServe, Lin et al. 2024, and the
// sub-block scales of llama.cpp's K formats).
//
// The last group of a run may be shorter. A grid prints and parses as one word, for example
// `int4:sym:oc:g128`, `int8:asym:ic:row:f32` or `int4:sym:oc:g32:f32:u4`: format, symmetry,
// direction, group (`row` = the whole run), then the scale type unless it is f16, then `u4` if
// there are two levels.

#include <charconv>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "quell/core/result.hpp"
#include "quell/grid/formats.hpp"     // Format
#include "quell/grid/scale_type.hpp"  // ScaleType

namespace quell {

/// Direction of a group: along a row of W (one output channel) or down a column (one input
/// channel).
enum class Channel : std::uint8_t { output, input };

struct GridSpec {
  Format format = Format::int4;
  bool symmetric = true;
  Channel per = Channel::output;
  std::uint32_t group = 0;  // elements that share a scale; 0 = the whole run
  ScaleType scale_type = ScaleType::f16;
  bool two_level = false;  // group scale = row scale x integer from 1 to kHighestGroupInteger

  bool operator==(const GridSpec&) const = default;
};

/// The integers of two-level scales are 1 to this, in 4 bits.
inline constexpr std::uint8_t kHighestGroupInteger = 15;
inline constexpr unsigned kGroupIntegerBits = 4;

/// The word of a grid; parse_grid(to_string(g)) == g.
inline std::string to_string(const GridSpec& grid);

/// Parts may be left out from the right: `int4` is `int4:sym:oc:row`, `int4:asym` and so on.
/// Errors (usage) name the part that was not understood and the words it may be.
inline Result<GridSpec> parse_grid(std::string_view word);

/// Can this grid be? Codebook formats are symmetric only; two levels need a symmetric grid of
/// integers whose products with the group's integer fit int8. Error: usage.
inline Status check_grid(const GridSpec& grid);

/// Stored codes an element may take, both ends included.
struct CodeRange {
  std::uint8_t lowest = 0;
  std::uint8_t highest = 0;
};
constexpr CodeRange code_range(const GridSpec& grid) noexcept {
  const FormatInfo& f = info(grid.format);
  if (!grid.symmetric) return {0, static_cast<std::uint8_t>((1u << f.bits) - 1)};
  const int zero = symmetric_zero(f.format);
  return {static_cast<std::uint8_t>(zero + f.lowest), static_cast<std::uint8_t>(zero + f.highest)};
}

/// True if scales may be negative: only where the values are lopsided does the sign buy anything
/// (it points the longer side, or the denser one of a codebook, where it serves better). On two
/// levels groups share the sign of their row's scale, so it is left positive.
constexpr bool allows_negative_scale(const GridSpec& grid) noexcept {
  const FormatInfo& f = info(grid.format);
  return grid.symmetric && !grid.two_level && f.lowest + f.highest != 0;
}

/// The scale chosen for an all-zero group: 1; 0 where no code means zero, and where a group that
/// asks for nothing takes any scale of its row (two_level.hpp).
constexpr float empty_scale(const GridSpec& grid) noexcept {
  return has_zero(grid.format) && !grid.two_level ? 1.0f : 0.0f;
}

// ------------------------------------------------------------------ definitions

inline std::string to_string(const GridSpec& grid) {
  std::string word(to_string(grid.format));
  word += grid.symmetric ? ":sym" : ":asym";
  word += grid.per == Channel::output ? ":oc" : ":ic";
  word += grid.group == 0 ? ":row" : ":g" + std::to_string(grid.group);
  if (grid.scale_type != ScaleType::f16) word.append(":").append(to_string(grid.scale_type));
  if (grid.two_level) word += ":u4";
  return word;
}

inline Status check_grid(const GridSpec& grid) {
  const auto refuse = [&](std::string_view reason) {
    std::string message = "grid `" + to_string(grid) + "`: ";
    return Error{ErrorCode::usage, message.append(reason)};
  };
  if (info(grid.format).codebook != nullptr && !grid.symmetric) {
    return refuse("codebook formats have no zero point and are symmetric only; write " +
                  std::string(to_string(grid.format)) + ":sym");
  }
  if (grid.two_level && !grid.symmetric) {
    return refuse("two-level scales (u4) are for symmetric grids only");
  }
  const int largest = -info(grid.format).lowest * kHighestGroupInteger;
  if (grid.two_level && (info(grid.format).codebook != nullptr || largest > 127)) {
    return refuse(
        "two-level scales (u4) multiply codes by up to 15 within int8, which holds for "
        "int2, int3, int4 and int4n");
  }
  return ok();
}

namespace detail {

inline Error grid_part_error(std::string_view word, std::string_view kind, std::string_view part,
                             std::string_view choices) {
  std::string message = "grid `";
  message.append(word).append("`: the ").append(kind).append(" `").append(part);
  message.append("` is not one of ").append(choices);
  return {ErrorCode::usage, std::move(message)};
}

inline std::string format_names() {
  std::string names;
  for (const FormatInfo& entry : kFormats) {
    if (!names.empty()) names += ", ";
    names += entry.name;
  }
  return names;
}

// `row`, or g and a number from 1 to 4294967295 without sign or leading zero; 0 stands for `row`.
inline bool parse_group(std::string_view part, std::uint32_t& group) {
  group = 0;
  if (part == "row") return true;
  if (part.size() < 2 || part[0] != 'g' || part[1] < '1' || part[1] > '9') return false;
  const char* end = part.data() + part.size();
  const auto parsed = std::from_chars(part.data() + 1, end, group);
  return parsed.ec == std::errc{} && parsed.ptr == end;
}

}  // namespace detail

inline Result<GridSpec> parse_grid(std::string_view word) {
  GridSpec grid;
  std::string_view rest = word;
  for (std::size_t position = 0;; ++position) {
    const std::size_t colon = rest.find(':');
    const std::string_view part = rest.substr(0, colon);
    bool known = false;
    switch (position) {
      case 0:
        for (const FormatInfo& entry : kFormats) {
          if (part != entry.name) continue;
          grid.format = entry.format;
          known = true;
        }
        if (!known) return detail::grid_part_error(word, "format", part, detail::format_names());
        break;
      case 1:
        if (part != "sym" && part != "asym") {
          return detail::grid_part_error(word, "symmetry", part, "sym, asym");
        }
        grid.symmetric = part == "sym";
        break;
      case 2:
        if (part != "oc" && part != "ic") {
          return detail::grid_part_error(word, "direction", part,
                                         "oc (per output channel), ic (per input channel)");
        }
        grid.per = part == "oc" ? Channel::output : Channel::input;
        break;
      case 3:
        if (!detail::parse_group(part, grid.group)) {
          return detail::grid_part_error(word, "group", part,
                                         "row, g<elements> with 1 to 4294967295 (such as g128)");
        }
        break;
      case 4:
        if (part == "u4") {
          grid.two_level = known = true;
          break;
        }
        for (const ScaleType type : {ScaleType::f16, ScaleType::bf16, ScaleType::f32}) {
          if (part != to_string(type)) continue;
          grid.scale_type = type;
          known = true;
        }
        if (!known) return detail::grid_part_error(word, "scale type", part, "f16, bf16, f32, u4");
        break;
      case 5:
        if (!grid.two_level && part == "u4") {
          grid.two_level = true;
          break;
        }
        [[fallthrough]];
      default:
        return Error{ErrorCode::usage,
                     "grid `" + std::string(word) + "`: `" + std::string(rest) +
                         "` follows the last part; a grid is format:symmetry:direction:group:scale"
                         " type, such as int4:sym:oc:g128:f16, and :u4 for two-level scales"};
    }
    if (colon == std::string_view::npos) break;
    rest.remove_prefix(colon + 1);
  }
  QUELL_TRY(check_grid(grid));
  return grid;
}

}  // namespace quell
