// SPDX-License-Identifier: Apache-2.0
#pragma once

// Hashes of results of the small job, computed by this program on its first green run on AVX-512
// with two threads and repeated on AVX2 and scalar with one to three.
#define QUELL_GOLDEN_RTN "8455a5ceb81ef615e068eef232d1054378c170613e9d61af198be40c00a3fc5a"
#define QUELL_GOLDEN_GPTQ "27a9daf0229012079e19916c333dd99dd1ddf6dbe531982c3317aad690814ab7"
#define QUELL_GOLDEN_NATIVE "efbc77ae4cde1db025b89b74dafa43e2c9dfcfe9d8e5a59fb34c86086bb58dbb"
#define QUELL_GOLDEN_BALANCED "4b69fc49725e2fde424a6b48ccbca620bdb855d543b4a0ac5b1d9d6cb89c5a7c"
