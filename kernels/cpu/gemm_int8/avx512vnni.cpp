// SPDX-License-Identifier: Apache-2.0

// 24 integer accumulators, and around them as few loads as can be: an Ice Lake server was measured
// to load 64 bytes, or to spread four over a register, once a cycle, while it begins two products.
//
// Codes of 8 bits: 6 tokens by 64 output channels, two panels at once. 10 loads for 24 products
// reach 95 % of the limit of products where 12 tokens by 32 channels, 14 loads, reach 84 %.
//
// Codes of 4 bits: 12 tokens by 32 output channels. A byte holds low + 16 high, and it is
// multiplied as it is; a second product is that of 16 high, the byte with its lower half cleared.
// So a register of codes costs one instruction, not three, and at the end of a group
//     sum of low = first - second,     sum of high = second / 16     (whole numbers, exact)
// 91 % of the limit without groups; 84 % with both halves taken apart, 86 % at 6 by 64.
//
// Codes of two levels, and of a table, become bytes: on the way, where there is one tile of tokens,
// which costs 7 or 5 instructions for 32 OC and 4 IC; else once for many tiles, which then run as
// codes of 8 bits.
//
// Embedded broadcasts ({1to16} operands) are a load for each product: 0.6 times.

#include <immintrin.h>

#include "kernels/cpu/gemm_int8/contract.hpp"
#include "kernels/cpu/gemm_int8/expanded.hpp"
#include "kernels/target.hpp"

QUELL_TARGET_BEGIN(QUELL_TARGET_AVX512VNNI)
namespace quell::kernels::avx512vnni {
namespace {

namespace family = gemm_int8;
using family::Codes;

// How far ahead codes are asked for: decoding is a read of memory, and the machine's own
// prefetching alone left a tenth of it.
constexpr std::size_t kAhead = 2048;
// Rows up to which it is memory that decides. Beyond them a request is one load more among 13.
constexpr unsigned kDecoding = 8;
constexpr unsigned kTileRows = 12;

constexpr std::int32_t kNone[kTileRows] = {};

// Written out: GCC 12 keeps copies of accumulators that start from a common value, and spills.
QUELL_INLINE void add_products(__m512i& sum, __m512i codes, __m512i x) {
  __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(codes), "v"(x));
}

QUELL_INLINE void scales_of(PanelScales type, const std::byte* tail, __m512& low, __m512& high) {
  switch (type) {
    case PanelScales::none:
      low = high = _mm512_set1_ps(1.0f);
      return;
    case PanelScales::f32:
      low = _mm512_load_ps(tail);
      high = _mm512_load_ps(tail + 64);
      return;
    case PanelScales::f16:
      low = _mm512_cvtph_ps(_mm256_load_si256(reinterpret_cast<const __m256i*>(tail)));
      high = _mm512_cvtph_ps(_mm256_load_si256(reinterpret_cast<const __m256i*>(tail + 32)));
      return;
    case PanelScales::bf16: {
      const __m256i* words = reinterpret_cast<const __m256i*>(tail);
      low = _mm512_castsi512_ps(
          _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_load_si256(words)), 16));
      high = _mm512_castsi512_ps(
          _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_load_si256(words + 1)), 16));
      return;
    }
  }
}

QUELL_INLINE __m512i widened(const std::byte* sixteen) {
  return _mm512_cvtepu8_epi32(_mm_load_si128(reinterpret_cast<const __m128i*>(sixteen)));
}

/// 128 + (code - 8) * integer of one group, as (128 - 8 integer) + code * integer: neither has a
/// carry out of its byte, so two codes are multiplied at once in 16 bits.
struct Levels {
  __m512i integer[2], rest[2];  // OC 0..15, OC 16..31: in every 16 bits; in every byte

  Levels() = default;
  QUELL_INLINE explicit Levels(const std::byte* sixteen) {
    const __m128i both = _mm_load_si128(reinterpret_cast<const __m128i*>(sixteen));
    const __m128i half = _mm_set1_epi8(15);
    const __m128i halves[2] = {_mm_and_si128(both, half),
                               _mm_and_si128(_mm_srli_epi16(both, 4), half)};
    QUELL_UNROLL
    for (unsigned v = 0; v < 2; ++v) {
      const __m512i wide = _mm512_cvtepu8_epi32(halves[v]);
      integer[v] = _mm512_or_si512(wide, _mm512_slli_epi32(wide, 16));
      const __m512i bytes = _mm512_or_si512(integer[v], _mm512_slli_epi32(integer[v], 8));
      rest[v] = _mm512_sub_epi8(_mm512_set1_epi8(-128), _mm512_slli_epi32(bytes, 3));
    }
  }
  /// Of both halves of the bytes of a unit.
  QUELL_INLINE void expand(__m512i unit, __m512i& low, __m512i& high) const {
    const __m512i half = _mm512_set1_epi8(15);
    const __m512i first = _mm512_and_si512(unit, half);
    const __m512i second = _mm512_and_si512(_mm512_srli_epi16(unit, 4), half);
    low = _mm512_add_epi8(_mm512_mullo_epi16(first, integer[0]), rest[0]);
    high = _mm512_add_epi8(_mm512_mullo_epi16(second, integer[1]), rest[1]);
  }
};

struct Table {
  __m512i bytes;

  Table() = default;
  QUELL_INLINE explicit Table(const std::uint8_t* sixteen)
      : bytes(_mm512_broadcast_i32x4(_mm_load_si128(reinterpret_cast<const __m128i*>(sixteen)))) {}
  QUELL_INLINE void expand(__m512i unit, __m512i& low, __m512i& high) const {
    const __m512i half = _mm512_set1_epi8(15);
    low = _mm512_shuffle_epi8(bytes, _mm512_and_si512(unit, half));
    high = _mm512_shuffle_epi8(bytes, _mm512_and_si512(_mm512_srli_epi16(unit, 4), half));
  }
};

/// One group of kRows tokens and 32 kPanels output channels.
template <unsigned kRows, Codes kCodes, unsigned kPanels>
QUELL_INLINE void multiply_group(const family::TileProduct& p, std::size_t g) {
  constexpr std::size_t kUnitBytes = family::unit_bytes(kCodes);
  constexpr unsigned kVectors = 2 * kPanels;
  // The second vector of a panel of four-bit codes holds sixteen times its sum.
  constexpr bool kBoth = kCodes == Codes::four_bits;
  const std::byte* tail = p.tail + g * p.block_bytes;
  const std::byte* zeros = tail + (p.scales == PanelScales::f32 ? 128 : 64);
  const std::int32_t* starts = p.starts + g * kRows;
  const std::size_t y_second = p.y_panel;

  __m512i sum[kRows][kVectors];
  if (!p.begins) {
    QUELL_UNROLL
    for (unsigned r = 0; r < kRows; ++r) {
      QUELL_UNROLL
      for (unsigned v = 0; v < kVectors; ++v) {
        sum[r][v] = _mm512_load_si512(p.carry + v / 2 * y_second + r * kPanelCols + v % 2 * 16);
      }
    }
  } else if (p.zeros) {
    QUELL_UNROLL
    for (unsigned v = 0; v < kVectors; v += 2) {
      const std::byte* of_panel = zeros + v / 2 * p.panel_bytes;
      const __m512i low = widened(of_panel), high = widened(of_panel + 16);
      QUELL_UNROLL
      for (unsigned r = 0; r < kRows; ++r) {
        const __m512i start = _mm512_set1_epi32(starts[r]);
        sum[r][v] = _mm512_mullo_epi32(low, start);
        sum[r][v + 1] = _mm512_mullo_epi32(high, start);
        if constexpr (kBoth) {
          sum[r][v + 1] = _mm512_slli_epi32(sum[r][v + 1], 4);
          sum[r][v] = _mm512_add_epi32(sum[r][v], sum[r][v + 1]);
        }
      }
    }
  } else {
    QUELL_UNROLL
    for (unsigned r = 0; r < kRows; ++r) {
      const __m512i start = _mm512_set1_epi32(starts[r]);
      QUELL_UNROLL
      for (unsigned v = 0; v < kVectors; ++v) {
        sum[r][v] = kBoth && v % 2 == 1 ? _mm512_setzero_si512() : start;
      }
    }
  }

  const std::byte* codes = p.codes + g * p.block_bytes;
  const __m512i upper = _mm512_set1_epi8(static_cast<char>(0xf0));
  // Of two levels: the unit behind the group at hand, and its integers.
  std::size_t group_end = 0;
  const std::byte* integers = nullptr;
  Levels levels;
  Table table;
  if constexpr (kCodes == Codes::table) table = Table(p.table);
  if constexpr (kCodes == Codes::two_level) {
    const std::size_t group = p.first_unit / p.level_units;
    group_end = (group + 1) * p.level_units;
    integers = p.integers + group * (kPanelCols / 2);
    levels = Levels(integers);
  }
  // The units of this group, block by block of activations.
  for (std::size_t u = p.first_unit + g * p.units, end = u + p.units; u < end;) {
    const std::size_t next_block = (u / family::kBlockUnits + 1) * family::kBlockUnits;
    std::size_t stop = next_block < end ? next_block : end;
    if constexpr (kCodes == Codes::two_level) {
      if (u == group_end) {
        group_end += p.level_units;
        integers += kPanelCols / 2;
        levels = Levels(integers);
      }
      stop = stop < group_end ? stop : group_end;
    }
    const std::int8_t* a = p.a + u / family::kBlockUnits * kRows * family::kBlockBytes +
                           u % family::kBlockUnits * kUnit;
    for (; u < stop; ++u) {
      __m512i unit[kVectors];
      QUELL_UNROLL
      for (unsigned v = 0; v < kVectors; v += 2) {
        const std::byte* at = codes + v / 2 * p.panel_bytes;
        if constexpr (kPanels == 1 && kRows <= kDecoding) {
          QUELL_UNROLL
          for (std::size_t i = 0; i < kUnitBytes; i += 64) {
            _mm_prefetch(at + kAhead + i, _MM_HINT_T0);
          }
        }
        unit[v] = _mm512_load_si512(at);
        if constexpr (kCodes == Codes::two_level) {
          levels.expand(unit[v], unit[v], unit[v + 1]);
        } else if constexpr (kCodes == Codes::table) {
          table.expand(unit[v], unit[v], unit[v + 1]);
        } else if constexpr (kBoth) {
          unit[v + 1] = _mm512_and_si512(unit[v], upper);
        } else {
          unit[v + 1] = _mm512_load_si512(at + 64);
        }
      }
      QUELL_UNROLL
      for (unsigned r = 0; r < kRows; ++r) {
        std::int32_t four = 0;
        __builtin_memcpy(&four, a + r * family::kBlockBytes, sizeof four);
        const __m512i x = _mm512_set1_epi32(four);
        QUELL_UNROLL
        for (unsigned v = 0; v < kVectors; ++v) add_products(sum[r][v], unit[v], x);
      }
      codes += kUnitBytes;
      a += kUnit;
    }
  }

  if (!p.ends) {
    QUELL_UNROLL
    for (unsigned r = 0; r < kRows; ++r) {
      QUELL_UNROLL
      for (unsigned v = 0; v < kVectors; ++v) {
        _mm512_store_si512(p.carry + v / 2 * y_second + r * kPanelCols + v % 2 * 16, sum[r][v]);
      }
    }
    return;
  }
  __m512 scale[kVectors];
  QUELL_UNROLL
  for (unsigned v = 0; v < kVectors; v += 2) {
    scales_of(p.scales, tail + v / 2 * p.panel_bytes, scale[v], scale[v + 1]);
  }
  // Without zeros the upper half starts here: one addition, where a start of 16 took three.
  const std::int32_t* late = p.zeros ? kNone : starts;
  const bool set = p.first && g == 0;
  QUELL_UNROLL
  for (unsigned r = 0; r < kRows; ++r) {
    if constexpr (kBoth) {
      const __m512i start = _mm512_set1_epi32(late[r]);
      QUELL_UNROLL
      for (unsigned v = 0; v < kVectors; v += 2) {
        sum[r][v] = _mm512_sub_epi32(sum[r][v], sum[r][v + 1]);
        sum[r][v + 1] = _mm512_add_epi32(_mm512_srai_epi32(sum[r][v + 1], 4), start);
      }
    }
    QUELL_UNROLL
    for (unsigned v = 0; v < kVectors; ++v) {
      float* y = p.y + v / 2 * y_second + r * kPanelCols + v % 2 * 16;
      const __m512 before = set ? _mm512_setzero_ps() : _mm512_load_ps(y);
      _mm512_store_ps(y, _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[r][v]), scale[v], before));
    }
  }
}

using Multiply = void (*)(const family::TileProduct&);

template <unsigned kRows, Codes kCodes, unsigned kPanels>
void multiply_rows(const family::TileProduct& p) {
  for (std::size_t g = 0; g < p.groups; ++g) multiply_group<kRows, kCodes, kPanels>(p, g);
}

template <Codes kCodes>
void multiply_one(const family::TileProduct& p) {
  constexpr Multiply kByRows[kTileRows] = {
      multiply_rows<1, kCodes, 1>,  multiply_rows<2, kCodes, 1>,  multiply_rows<3, kCodes, 1>,
      multiply_rows<4, kCodes, 1>,  multiply_rows<5, kCodes, 1>,  multiply_rows<6, kCodes, 1>,
      multiply_rows<7, kCodes, 1>,  multiply_rows<8, kCodes, 1>,  multiply_rows<9, kCodes, 1>,
      multiply_rows<10, kCodes, 1>, multiply_rows<11, kCodes, 1>, multiply_rows<12, kCodes, 1>};
  kByRows[p.rows - 1](p);
}

/// Codes that become bytes on the way: more tokens are worth writing the bytes out.
template <Codes kCodes>
void multiply_few(const family::TileProduct& p) {
  constexpr Multiply kByRows[kDecoding] = {
      multiply_rows<1, kCodes, 1>, multiply_rows<2, kCodes, 1>, multiply_rows<3, kCodes, 1>,
      multiply_rows<4, kCodes, 1>, multiply_rows<5, kCodes, 1>, multiply_rows<6, kCodes, 1>,
      multiply_rows<7, kCodes, 1>, multiply_rows<8, kCodes, 1>};
  kByRows[p.rows - 1](p);
}

constexpr unsigned kPairRows = 6;

void multiply_eight_bits(const family::TileProduct& p) {
  constexpr Codes kCodes = Codes::eight_bits;
  constexpr Multiply kByRows[kPairRows] = {
      multiply_rows<1, kCodes, 2>, multiply_rows<2, kCodes, 2>, multiply_rows<3, kCodes, 2>,
      multiply_rows<4, kCodes, 2>, multiply_rows<5, kCodes, 2>, multiply_rows<6, kCodes, 2>};
  if (p.panels == 1) return multiply_one<kCodes>(p);
  kByRows[p.rows - 1](p);
}

// Of one panel; as bytes they are as many as a span of codes of eight bits.
constexpr std::size_t kExpandedUnits = 128;
// Groups of one unit have the most scales.
constexpr std::size_t kTableWork = 2 * kExpandedUnits * expanded_bytes(1);
// What open returns where a group has more units than there is room for.
constexpr std::byte kNotExpanded{};

template <Codes kCodes>
void multiply_bytes(const family::TileProduct& p) {
  if (p.opened != nullptr && p.opened != &kNotExpanded) {
    return multiply_eight_bits(of_expanded(p, p.opened));
  }
  family::TileProduct panel = p;
  for (unsigned i = 0; i < p.panels; ++i) {
    multiply_few<kCodes>(panel);
    panel.codes += p.panel_bytes;
    panel.tail += p.panel_bytes;
    if constexpr (kCodes == Codes::two_level) panel.integers += p.panel_bytes;
    panel.carry += p.y_panel;
    panel.y += p.y_panel;
  }
}

/// Writes `units` units out as bytes.
template <typename Bytes>
QUELL_INLINE void expand(const Bytes& bytes, const std::byte* codes, std::size_t units,
                         std::byte* to) {
  for (std::size_t u = 0; u < units; ++u) {
    __m512i low, high;
    bytes.expand(_mm512_load_si512(codes), low, high);
    _mm512_store_si512(to, low);
    _mm512_store_si512(to + 64, high);
    codes += family::unit_bytes(Codes::two_level);
    to += family::unit_bytes(Codes::eight_bits);
  }
}

const std::byte* open_two_level(const family::TileProduct& p, std::byte* work) {
  for (std::size_t panel = 0; panel < p.panels; ++panel) {
    const std::byte* codes = p.codes + panel * p.panel_bytes;
    const std::byte* integers = p.integers + panel * p.panel_bytes;
    std::byte* to = work + panel * expanded_bytes(p.units);
    std::size_t group = p.first_unit / p.level_units;
    for (std::size_t u = p.first_unit, end = u + p.units; u < end; ++group) {
      const std::size_t group_end = (group + 1) * p.level_units;
      const std::size_t units = (group_end < end ? group_end : end) - u;
      expand(Levels(integers + group * (kPanelCols / 2)), codes, units, to);
      codes += units * family::unit_bytes(Codes::two_level);
      to += units * family::unit_bytes(Codes::eight_bits);
      u += units;
    }
    copy_scales(p, p.tail + panel * p.panel_bytes, to);
  }
  return work;
}

const std::byte* open_table(const family::TileProduct& p, std::byte* work) {
  if (p.groups * p.units > kExpandedUnits) return &kNotExpanded;
  const Table table(p.table);
  for (std::size_t panel = 0; panel < p.panels; ++panel) {
    for (std::size_t g = 0; g < p.groups; ++g) {
      const std::size_t at = panel * p.panel_bytes + g * p.block_bytes;
      std::byte* to = work + (panel * p.groups + g) * expanded_bytes(p.units);
      expand(table, p.codes + at, p.units, to);
      copy_scales(p, p.tail + at, to + expanded_bytes(p.units) - 128);
    }
  }
  return work;
}

}  // namespace

extern const gemm_int8::Entry gemm_int8_entries[4] = {
    {Isa::avx512vnni, Codes::four_bits, kTileRows, kTileRows, 1, multiply_one<Codes::four_bits>},
    {Isa::avx512vnni, Codes::eight_bits, kTileRows, kPairRows, 2, multiply_eight_bits},
    {Isa::avx512vnni, Codes::two_level, kDecoding, kPairRows, 2, multiply_bytes<Codes::two_level>,
     kExpandedUnits* family::unit_bytes(Codes::two_level), 2 * expanded_bytes(kExpandedUnits),
     open_two_level},
    {Isa::avx512vnni, Codes::table, kDecoding, kPairRows, 2, multiply_bytes<Codes::table>,
     kExpandedUnits* family::unit_bytes(Codes::table), kTableWork, open_table}};

}  // namespace quell::kernels::avx512vnni
QUELL_TARGET_END
