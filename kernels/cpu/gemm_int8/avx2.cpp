// SPDX-License-Identifier: Apache-2.0

// Up to four tokens by eight or sixteen output channels. vpmaddubsw adds two products of a byte in
// 16 bits: with a code below 16 at most 2 * 15 * 127 = 3,810, so eight of them fit (30,480) and one
// vpmaddwd widens the eight. A code of eight bits is two of four, and the vpmaddwd that widens the
// upper one multiplies it by 16 as well: exact for every code and activation, where the usual trick
// with signs is not for -128. Of two levels, the vpmaddwd that widens multiplies by the integer of
// the group instead, and the eight end with the group. Of a table, its bytes are looked up in
// halves.

#include <immintrin.h>

#include "kernels/cpu/gemm_int8/contract.hpp"
#include "kernels/target.hpp"

QUELL_TARGET_BEGIN(QUELL_TARGET_AVX2)
namespace quell::kernels::avx2 {
namespace {

namespace family = gemm_int8;
using family::Codes;

constexpr unsigned kTileRows = 4;
constexpr std::size_t kTogether = 8;  // units
constexpr std::size_t kAhead = 2048;  // bytes, as in avx512vnni.cpp

QUELL_INLINE __m256i load(const void* from) {
  return _mm256_load_si256(static_cast<const __m256i*>(from));
}

/// Eight scales from the c-th on.
QUELL_INLINE __m256 scales_of(PanelScales type, const std::byte* tail, std::size_t c) {
  if (type == PanelScales::none) return _mm256_set1_ps(1.0f);
  if (type == PanelScales::f32) return _mm256_load_ps(reinterpret_cast<const float*>(tail) + c);
  const __m128i words = _mm_load_si128(reinterpret_cast<const __m128i*>(tail + 2 * c));
  if (type == PanelScales::f16) return _mm256_cvtph_ps(words);
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(words), 16));
}

/// I of `kRows` tokens and eight channels from the c-th on, as it is before the units of this call.
template <unsigned kRows>
QUELL_INLINE void start(const family::TileProduct& p, std::size_t g, std::size_t c,
                        __m256i (&sums)[kRows]) {
  __m256i zero = _mm256_set1_epi32(1);
  if (p.zeros) {
    const std::byte* zeros = p.tail + g * p.block_bytes + (p.scales == PanelScales::f32 ? 128 : 64);
    zero = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(zeros + c)));
  }
  QUELL_UNROLL
  for (unsigned r = 0; r < kRows; ++r) {
    if (!p.begins) {
      sums[r] = load(p.carry + r * kPanelCols + c);
      continue;
    }
    sums[r] = _mm256_mullo_epi32(zero, _mm256_set1_epi32(p.starts[g * kRows + r]));
  }
}

template <unsigned kRows>
QUELL_INLINE void finish(const family::TileProduct& p, std::size_t g, std::size_t c,
                         const __m256i (&sums)[kRows]) {
  if (!p.ends) {
    QUELL_UNROLL
    for (unsigned r = 0; r < kRows; ++r) {
      _mm256_store_si256(reinterpret_cast<__m256i*>(p.carry + r * kPanelCols + c), sums[r]);
    }
    return;
  }
  const __m256 scale = scales_of(p.scales, p.tail + g * p.block_bytes, c);
  const bool set = p.first && g == 0;
  QUELL_UNROLL
  for (unsigned r = 0; r < kRows; ++r) {
    float* y = p.y + r * kPanelCols + c;
    const __m256 before = set ? _mm256_setzero_ps() : _mm256_load_ps(y);
    _mm256_store_ps(y, _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums[r]), scale, before));
  }
}

/// Integers of a group, channels c .. c + 7 and those 16 further on, in every 16 bits.
struct Integers {
  __m256i first, second;

  QUELL_INLINE Integers(const std::byte* sixteen, std::size_t c) {
    const __m256i both =
        _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(sixteen + c)));
    first = _mm256_and_si256(both, _mm256_set1_epi32(15));
    second = _mm256_srli_epi32(both, 4);
  }
  /// Adds to sums of (code - 8) what sums of codes leave out, for each token of a group.
  template <unsigned kRows>
  QUELL_INLINE void start(const std::int32_t* starts, __m256i (&to_first)[kRows],
                          __m256i (&to_second)[kRows]) const {
    QUELL_UNROLL
    for (unsigned r = 0; r < kRows; ++r) {
      const __m256i start = _mm256_set1_epi32(starts[r]);
      to_first[r] = _mm256_add_epi32(to_first[r], _mm256_mullo_epi32(first, start));
      to_second[r] = _mm256_add_epi32(to_second[r], _mm256_mullo_epi32(second, start));
    }
  }
  static QUELL_INLINE __m256i in_both_halves(__m256i integers) {
    return _mm256_or_si256(integers, _mm256_slli_epi32(integers, 16));
  }
};

QUELL_INLINE __m256i table_of(const std::uint8_t* sixteen) {
  return _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(sixteen)));
}

/// Two sets of eight: of four-bit codes, channels c and c + 16; of bytes, the lower and the upper
/// halves of those of channels c.
template <unsigned kRows, Codes kCodes>
QUELL_INLINE void multiply_eights(const family::TileProduct& p, std::size_t g, std::size_t c) {
  constexpr std::size_t kUnitBytes = family::unit_bytes(kCodes);
  constexpr bool kTable = kCodes == Codes::table, kLevels = kCodes == Codes::two_level;
  constexpr bool kEight = kCodes == Codes::eight_bits || kTable;
  const std::byte* codes = p.codes + g * p.block_bytes + 4 * (kTable ? c % 16 : c);
  const __m256i half = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
  __m256i weight_of_first = ones, weight_of_second = kEight ? _mm256_set1_epi16(16) : ones;
  __m256i table_low, table_high;
  if constexpr (kTable) {
    const __m256i table = table_of(p.table);
    table_low = _mm256_and_si256(table, half);
    table_high = _mm256_and_si256(_mm256_srli_epi16(table, 4), half);
  }
  __m256i first[kRows], second[kRows];
  if (kLevels && p.begins) {
    QUELL_UNROLL
    for (unsigned r = 0; r < kRows; ++r) first[r] = second[r] = _mm256_setzero_si256();
  } else {
    start<kRows>(p, g, c, first);
    if constexpr (!kEight) start<kRows>(p, g, c + 16, second);
  }
  std::size_t level = kLevels ? p.first_unit / p.level_units : 0;
  for (std::size_t u = p.first_unit + g * p.units, end = u + p.units; u < end;) {
    // Eight units are half a block of activations.
    const std::size_t next = (u / kTogether + 1) * kTogether;
    std::size_t stop = next < end ? next : end;
    if constexpr (kLevels) {
      if (u == (level + 1) * p.level_units) ++level;
      const std::size_t level_end = (level + 1) * p.level_units;
      stop = stop < level_end ? stop : level_end;
      const Integers integers(p.integers + level * (kPanelCols / 2), c);
      if (u == level * p.level_units) {
        integers.start<kRows>(p.level_starts + level * kRows, first, second);
      }
      weight_of_first = Integers::in_both_halves(integers.first);
      weight_of_second = Integers::in_both_halves(integers.second);
    }
    const std::int8_t* a = p.a + u / family::kBlockUnits * kRows * family::kBlockBytes +
                           u % family::kBlockUnits * kUnit;
    __m256i narrow[kRows][2];
    QUELL_UNROLL
    for (unsigned r = 0; r < kRows; ++r) narrow[r][0] = narrow[r][1] = _mm256_setzero_si256();
    for (; u < stop; ++u) {
      _mm_prefetch(codes + kAhead, _MM_HINT_T0);
      const __m256i both = load(codes);
      __m256i low = _mm256_and_si256(both, half);
      __m256i high = _mm256_and_si256(_mm256_srli_epi16(both, 4), half);
      if constexpr (kTable) {
        const __m256i chosen = c < 16 ? low : high;
        low = _mm256_shuffle_epi8(table_low, chosen);
        high = _mm256_shuffle_epi8(table_high, chosen);
      }
      QUELL_UNROLL
      for (unsigned r = 0; r < kRows; ++r) {
        std::int32_t four = 0;
        __builtin_memcpy(&four, a + r * family::kBlockBytes, sizeof four);
        const __m256i x = _mm256_set1_epi32(four);
        narrow[r][0] = _mm256_add_epi16(narrow[r][0], _mm256_maddubs_epi16(low, x));
        narrow[r][1] = _mm256_add_epi16(narrow[r][1], _mm256_maddubs_epi16(high, x));
      }
      codes += kUnitBytes;
      a += kUnit;
    }
    QUELL_UNROLL
    for (unsigned r = 0; r < kRows; ++r) {
      __m256i& of_second = kEight ? first[r] : second[r];
      first[r] = _mm256_add_epi32(first[r], _mm256_madd_epi16(narrow[r][0], weight_of_first));
      of_second = _mm256_add_epi32(of_second, _mm256_madd_epi16(narrow[r][1], weight_of_second));
    }
  }
  finish<kRows>(p, g, c, first);
  if constexpr (!kEight) finish<kRows>(p, g, c + 16, second);
}

template <unsigned kRows, Codes kCodes>
void multiply_rows(const family::TileProduct& p) {
  for (std::size_t g = 0; g < p.groups; ++g) {
    constexpr bool kHalf = kCodes == Codes::four_bits || kCodes == Codes::two_level;
    for (std::size_t c = 0; c < (kHalf ? kPanelCols / 2 : kPanelCols); c += 8) {
      multiply_eights<kRows, kCodes>(p, g, c);
    }
  }
}

template <Codes kCodes>
void multiply(const family::TileProduct& p) {
  switch (p.rows) {
    case 1:
      return multiply_rows<1, kCodes>(p);
    case 2:
      return multiply_rows<2, kCodes>(p);
    case 3:
      return multiply_rows<3, kCodes>(p);
    default:
      return multiply_rows<4, kCodes>(p);
  }
}

}  // namespace

extern const gemm_int8::Entry gemm_int8_entries[4] = {
    {Isa::avx2, Codes::four_bits, kTileRows, kTileRows, 1, multiply<Codes::four_bits>},
    {Isa::avx2, Codes::eight_bits, kTileRows, kTileRows, 1, multiply<Codes::eight_bits>},
    {.isa = Isa::avx2,
     .codes = Codes::two_level,
     .lone_rows = kTileRows,
     .tile_rows = kTileRows,
     .tile_panels = 1,
     .multiply = multiply<Codes::two_level>,
     .wants_level_starts = true},
    {Isa::avx2, Codes::table, kTileRows, kTileRows, 1, multiply<Codes::table>}};

}  // namespace quell::kernels::avx2
QUELL_TARGET_END
