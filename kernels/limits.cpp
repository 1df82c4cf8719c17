// SPDX-License-Identifier: Apache-2.0

#include "quell/kernels/limits.hpp"

#include <chrono>

#include "kernels/target.hpp"
#include "quell/kernels/isa.hpp"

#if QUELL_X86
#include <immintrin.h>
#endif

namespace quell::kernels {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace
}  // namespace quell::kernels

#if QUELL_X86
// 24 chains (12 with 16 registers) cover two units of latency 4 with room to spare. The
// instructions are written out because a compiler may keep copies of equal accumulators and spill.
QUELL_TARGET_BEGIN(QUELL_TARGET_AVX512)
namespace quell::kernels {
namespace {
void multiply_512(std::size_t rounds) {
  __m512 sum[24];
  QUELL_UNROLL
  for (int i = 0; i < 24; ++i) sum[i] = _mm512_set1_ps(static_cast<float>(i));
  const __m512 x = _mm512_set1_ps(1.0001f), y = _mm512_set1_ps(0.999f);
  for (std::size_t round = 0; round < rounds; ++round) {
    QUELL_UNROLL
    for (int i = 0; i < 24; ++i) {
      __asm__("vfmadd231ps %1, %2, %0" : "+v"(sum[i]) : "v"(x), "v"(y));
    }
  }
  QUELL_UNROLL
  for (int i = 0; i < 24; ++i) __asm__ volatile("" ::"v"(sum[i]));
}
}  // namespace
}  // namespace quell::kernels
QUELL_TARGET_END

QUELL_TARGET_BEGIN(QUELL_TARGET_AVX512VNNI)
namespace quell::kernels {
namespace {
void multiply_bytes_512(std::size_t rounds) {
  __m512i sum[24];
  QUELL_UNROLL
  for (int i = 0; i < 24; ++i) sum[i] = _mm512_set1_epi32(i);
  const __m512i x = _mm512_set1_epi8(3), y = _mm512_set1_epi8(5);
  for (std::size_t round = 0; round < rounds; ++round) {
    QUELL_UNROLL
    for (int i = 0; i < 24; ++i) __asm__("vpdpbusd %2, %1, %0" : "+v"(sum[i]) : "v"(x), "v"(y));
  }
  QUELL_UNROLL
  for (int i = 0; i < 24; ++i) __asm__ volatile("" ::"v"(sum[i]));
}
}  // namespace
}  // namespace quell::kernels
QUELL_TARGET_END

QUELL_TARGET_BEGIN(QUELL_TARGET_AVX2)
namespace quell::kernels {
namespace {
void multiply_256(std::size_t rounds) {
  __m256 sum[12];
  QUELL_UNROLL
  for (int i = 0; i < 12; ++i) sum[i] = _mm256_set1_ps(static_cast<float>(i));
  const __m256 x = _mm256_set1_ps(1.0001f), y = _mm256_set1_ps(0.999f);
  for (std::size_t round = 0; round < rounds; ++round) {
    QUELL_UNROLL
    for (int i = 0; i < 12; ++i) {
      __asm__("vfmadd231ps %1, %2, %0" : "+x"(sum[i]) : "x"(x), "x"(y));
    }
  }
  QUELL_UNROLL
  for (int i = 0; i < 12; ++i) __asm__ volatile("" ::"x"(sum[i]));
}
void multiply_bytes_256(std::size_t rounds) {
  __m256i sum[8];
  QUELL_UNROLL
  for (int i = 0; i < 8; ++i) sum[i] = _mm256_set1_epi32(i);
  const __m256i x = _mm256_set1_epi8(3), y = _mm256_set1_epi8(5), ones = _mm256_set1_epi16(1);
  for (std::size_t round = 0; round < rounds; ++round) {
    QUELL_UNROLL
    for (int i = 0; i < 8; ++i) {
      __m256i part;
      __asm__("vpmaddubsw %3, %2, %1\n\tvpmaddwd %4, %1, %1\n\tvpaddd %1, %0, %0"
              : "+x"(sum[i]), "=&x"(part)
              : "x"(x), "x"(y), "x"(ones));
    }
  }
  QUELL_UNROLL
  for (int i = 0; i < 8; ++i) __asm__ volatile("" ::"x"(sum[i]));
}
}  // namespace
}  // namespace quell::kernels
QUELL_TARGET_END
#endif

namespace quell::kernels {

double fma_limit(Executor& executor, unsigned repeats) {
#if QUELL_X86
  const bool wide = has(Isa::avx512);
  if (!has(Isa::avx2)) return 0;
  // 12 or 6 cycles a round.
  const std::size_t rounds = (wide ? std::size_t{250000} : std::size_t{500000}) * repeats;
  const unsigned threads = executor.width();
  const auto start = Clock::now();
  executor.run(threads, 1, [&](std::size_t begin, std::size_t end, unsigned) {
    for (std::size_t i = begin; i < end; ++i) {
      if (wide) {
        multiply_512(rounds);
      } else {
        multiply_256(rounds);
      }
    }
  });
  const double flops =
      static_cast<double>(threads) * static_cast<double>(rounds) * 2 * (wide ? 24 * 16 : 12 * 8);
  return flops / seconds_since(start) * 1e-9;
#else
  static_cast<void>(executor);
  static_cast<void>(repeats);
  return 0;
#endif
}

double int8_limit(Executor& executor, unsigned repeats) {
#if QUELL_X86
  const bool wide = has(Isa::avx512vnni);
  if (!has(Isa::avx2)) return 0;
  const std::size_t rounds = std::size_t{250000} * repeats;
  const unsigned threads = executor.width();
  const auto start = Clock::now();
  executor.run(threads, 1, [&](std::size_t begin, std::size_t end, unsigned) {
    for (std::size_t i = begin; i < end; ++i) {
      if (wide) {
        multiply_bytes_512(rounds);
      } else {
        multiply_bytes_256(rounds);
      }
    }
  });
  const double operations =
      static_cast<double>(threads) * static_cast<double>(rounds) * 2 * (wide ? 24 * 64 : 8 * 32);
  return operations / seconds_since(start) * 1e-9;
#else
  static_cast<void>(executor);
  static_cast<void>(repeats);
  return 0;
#endif
}

double read_limit(Executor& executor, const std::byte* data, std::size_t bytes) {
  constexpr std::size_t kLine = 64, kGrain = std::size_t{1} << 20;
  const auto start = Clock::now();
  executor.run(bytes / kLine, kGrain / kLine, [&](std::size_t begin, std::size_t end, unsigned) {
    // One word of each line, in four independent sums: the lines are what costs.
    std::size_t sum[4] = {};
    for (std::size_t line = begin; line < end; ++line) {
      __builtin_prefetch(data + line * kLine + 2048);
      sum[line % 4] += *reinterpret_cast<const std::size_t*>(data + line * kLine);
    }
    __asm__ volatile("" ::"r"(sum[0] + sum[1] + sum[2] + sum[3]));
  });
  return static_cast<double>(bytes) / seconds_since(start) * 1e-9;
}

}  // namespace quell::kernels
