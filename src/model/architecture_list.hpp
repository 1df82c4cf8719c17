// SPDX-License-Identifier: Apache-2.0
#pragma once

// One line per architecture; each is defined in the file of its name.

#include "quell/model/architecture.hpp"

namespace quell::model {

extern const Architecture kLlama;            // llama.cpp
extern const Architecture kMistral;          // mistral.cpp
extern const Architecture kQwen2;            // qwen.cpp
extern const Architecture kQwen3;            // qwen.cpp
extern const Architecture kGpt2;             // gpt2.cpp
extern const Architecture kOpt;              // opt.cpp
extern const Architecture kBert;             // bert.cpp
extern const Architecture kBertForMaskedLm;  // bert.cpp

}  // namespace quell::model
