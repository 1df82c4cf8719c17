// SPDX-License-Identifier: Apache-2.0
#pragma once

// GridSpec: the set of values a weight may take. A weight W [OC, IC] is cut into groups; a group
// shares one scale (and one zero), and an element is stored as a small unsigned code:
//
//     value = (code - zero) * scale           zero = 2^(bits-1) on symmetric grids
//
//     per output channel, group 4              per input channel, group 2
//     row 0:  [a a a a][b b b b]                col 0  col 1
//     row 1:  [c c c c][d d d d]                 [e]    [f]    rows 0, 1
//     scales [OC, ceil(IC / 4)]                  [e]    [f]
//                                                [g]    [h]    rows 2, 3
//                                               scales [ceil(OC / 2), IC]
//
// The last group of a run may be shorter. A grid prints and parses as one word, for example
// `int4:sym:oc:g128` or `int8:asym:ic:row:f32`: format, symmetry, direction, group (`row` = the whole
// run), then the scale type unless it is f16.

#include <cstdint>
#include <string>
#include <string_view>

#include "quell/core/result.hpp"

namespace quell {

/// What the codes mean. formats.hpp has the table of ranges and bits.
enum class Format : std::uint8_t {
  int2,      // symmetric: [-2, 1]
  int3,      // symmetric: [-4, 3]
  int4,      // symmetric: [-8, 7], absmax scale = absmax / 7.5, as the common loaders
  int4n,     // the narrow form, [-7, 7], absmax scale = absmax / 7
  int8,      // symmetric: [-127, 127]; -128 is left out for kernels that negate
  int8full,  // symmetric: [-128, 127], absmax scale = absmax / 127.5
};

/// Direction of a group: along a row of W (one output channel) or down a column (one input channel).
enum class Channel : std::uint8_t { output, input };

/// Type in which scales are stored; a scale is rounded to it before any code is chosen.
enum class ScaleType : std::uint8_t { f16, bf16, f32 };

struct GridSpec {
  Format format = Format::int4;
  bool symmetric = true;
  Channel per = Channel::output;
  std::uint32_t group = 0;  // elements that share a scale; 0 = the whole run
  ScaleType scale_type = ScaleType::f16;

  bool operator==(const GridSpec&) const = default;
};

/// The word of a grid; parse_grid(to_string(g)) == g.
std::string to_string(const GridSpec& grid);

/// Parts may be left out from the right: `int4` is `int4:sym:oc:row`, `int4:asym` and so on.
/// Errors (usage) name the part that was not understood and the words it may be.
Result<GridSpec> parse_grid(std::string_view word);

}  // namespace quell
