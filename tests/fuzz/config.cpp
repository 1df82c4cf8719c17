// SPDX-License-Identifier: Apache-2.0

// config.json of a model: an accepted configuration has sizes that later code can multiply and
// divide.

#include "quell/model/config.hpp"
#include "fuzz/target.hpp"
#include "quell/io/json.hpp"

namespace {

using namespace quell;
using fuzz::require;

// The smallest configuration of each architecture; fields of the others come by crossing.
std::string config(std::string_view architecture, std::string_view type, std::string_view more) {
  std::string text = "{\"architectures\":[\"";
  text += architecture;
  text += "\"],\"model_type\":\"";
  text += type;
  text += "\",\"vocab_size\":512,";
  text += more;
  return text + "}";
}

}  // namespace

std::vector<std::string> quell::fuzz::seeds() {
  const std::string llama =
      R"("hidden_act":"silu","hidden_size":128,"intermediate_size":352,"num_hidden_layers":4,)"
      R"("num_attention_heads":4,"num_key_value_heads":2,"head_dim":32,"max_position_embeddings":256,)"
      R"("rms_norm_eps":1e-06,"rope_theta":10000.0,"tie_word_embeddings":false,"bos_token_id":1,)"
      R"("eos_token_id":[2,3],"torch_dtype":"bfloat16")";
  return {
      config("LlamaForCausalLM", "llama", llama),
      config("LlamaForCausalLM", "llama",
             llama + R"(,"rope_scaling":{"rope_type":"llama3","factor":8.0,"low_freq_factor":1.0,)"
                     R"("high_freq_factor":4.0,"original_max_position_embeddings":8192})"),
      config("LlamaForCausalLM", "llama",
             llama + R"(,"rope_scaling":{"type":"linear","factor":2.0})"),
      config("LlamaForCausalLM", "llama",
             llama + R"(,"rope_scaling":{"type":"yarn","factor":4.0,"beta_fast":32,"beta_slow":1,)"
                     R"("original_max_position_embeddings":4096})"),
      config("MistralForCausalLM", "mistral", llama + R"(,"sliding_window":64)"),
      config("Qwen2ForCausalLM", "qwen2",
             llama + R"(,"use_sliding_window":true,"sliding_window":64,"max_window_layers":2)"),
      config("Qwen3ForCausalLM", "qwen3", llama + R"(,"attention_bias":true)"),
      config("GPT2LMHeadModel", "gpt2",
             R"("n_embd":64,"n_layer":2,"n_head":4,"n_positions":128,"n_inner":null,)"
             R"("activation_function":"gelu_new","layer_norm_epsilon":1e-5)"),
      config(
          "OPTForCausalLM", "opt",
          R"("hidden_size":64,"ffn_dim":256,"num_hidden_layers":2,"num_attention_heads":4,)"
          R"("max_position_embeddings":128,"word_embed_proj_dim":32,"do_layer_norm_before":true,)"
          R"("activation_function":"relu")"),
      config("BertModel", "bert",
             R"("hidden_size":64,"intermediate_size":256,"num_hidden_layers":2,)"
             R"("num_attention_heads":4,"max_position_embeddings":128,"type_vocab_size":2,)"
             R"("hidden_act":"gelu","layer_norm_eps":1e-12,"position_embedding_type":"absolute")"),
      "{}"};
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(bytes), size);
  const auto json = io::parse_json(text, "config.json");
  if (!json) return 0;
  const auto config = model::parse_config(*json, "config.json");
  if (!config) {
    require(!config.error().message.empty(), "an error says what is wrong");
    require(config.error().message.find('\n') == std::string::npos, "an error is one line");
    return 0;
  }
  require(config->layers >= 1 && config->layers <= model::kMaxLayers, "layers are counted");
  require(config->hidden >= 1 && config->vocabulary >= 1, "sizes are positive");
  require(config->heads >= 1 && config->kv_heads >= 1, "heads are counted");
  require(config->heads % config->kv_heads == 0, "heads share key-value heads evenly");
  (void)model::position_limit(*config);
  return 0;
}
