// SPDX-License-Identifier: Apache-2.0
#pragma once

// Target regions. Wide code is compiled for its instruction set between QUELL_TARGET_BEGIN and
// QUELL_TARGET_END, whatever flags the host's build uses; everything outside stays at the
// architecture's floor. Headers, the intrinsics' included, come before a region, never inside: an
// inline function of theirs compiled for a wide set could be the copy that the linker keeps.

#define QUELL_DETAIL_PRAGMA(text) _Pragma(#text)

#if defined(__clang__)
#define QUELL_TARGET_BEGIN(features) \
  QUELL_DETAIL_PRAGMA(clang attribute push(__attribute__((target(features))), apply_to = function))
#define QUELL_TARGET_END _Pragma("clang attribute pop")
#else
// The warning is switched off because GCC 12's own intrinsics leave the result of an unmasked
// operation undefined on purpose, and it reports them.
#define QUELL_TARGET_BEGIN(features)                                                             \
  _Pragma("GCC push_options") QUELL_DETAIL_PRAGMA(GCC target(features))                          \
      _Pragma("GCC diagnostic push") _Pragma("GCC diagnostic ignored \"-Wmaybe-uninitialized\"") \
          _Pragma("GCC diagnostic ignored \"-Wuninitialized\"")
#define QUELL_TARGET_END _Pragma("GCC diagnostic pop") _Pragma("GCC pop_options")
#endif

// What has(Isa) promises, and so what the files of an instruction set may use.
#define QUELL_TARGET_AVX2 "avx,avx2,fma,f16c"
#define QUELL_TARGET_AVX512 "avx,avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl"
#define QUELL_TARGET_AVX512VNNI "avx,avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni"

#if defined(__x86_64__) || defined(_M_X64)
#define QUELL_X86 1
#else
#define QUELL_X86 0
#endif

#if defined(__aarch64__)
#define QUELL_NEON 1
#else
#define QUELL_NEON 0
#endif

// Loops over registers must unroll whole, or the registers become an array on the stack.
#if defined(__clang__)
#define QUELL_UNROLL _Pragma("clang loop unroll(full)")
#else
#define QUELL_UNROLL _Pragma("GCC unroll 32")
#endif

#define QUELL_INLINE inline __attribute__((always_inline))
