// SPDX-License-Identifier: Apache-2.0

// Mistral (MistralForCausalLM): Llama with a sliding window, the number of keys a query sees
// including its own. A config without the field means the 4096 of the first release; later releases
// say null, which means no window.

#include "model/architecture_list.hpp"
#include "model/llama_family.hpp"

namespace quell::model {
namespace {

constexpr std::uint32_t kFirstReleaseWindow = 4096;

Result<ModelConfig> parse_mistral(const io::JsonFields& fields) {
  QUELL_TRY(config, parse_llama_family(fields));
  QUELL_TRY(given, fields.optional_unsigned("sliding_window", 1, kMaxPositions));
  const bool absent = fields.object().find("sliding_window") == nullptr;
  const std::uint32_t window =
      given ? static_cast<std::uint32_t>(*given) : (absent ? kFirstReleaseWindow : 0);
  QUELL_TRY(parse_windows(fields, window, 0, config));
  return config;
}

}  // namespace

const Architecture kMistral = {"MistralForCausalLM", "mistral",   kLlamaSizes, "num_hidden_layers",
                               parse_mistral,        llama_frame, llama_block};

}  // namespace quell::model
