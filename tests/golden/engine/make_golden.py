#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the golden logits of this folder with the reference implementation (transformers on PyTorch,
float32, eager attention): python3 make_golden.py, in this folder. Not part of the build.

Each case is a random model of two layers. No weights are stored: element i of tensor NAME is a function
of both, which tests/engine/golden_model.hpp repeats:

    h = splitmix64(fnv1a64(NAME) + i * 0x9E3779B97F4A7C15)      u = (h >> 40) * 2^-23 - 1, in [-1, 1)
    2-D: u * 1.7 / sqrt(columns)     1-D norm weight: 1 + u / 2     other 1-D: 0.3 * u

A file NAME.json holds config (as in config.json), tensors (names and shapes), ids, and logits of the rows
listed under rows, nine digits each; of an encoder, hidden: its last hidden states in those rows.

python3 make_golden.py NAME... writes only these.
"""
import json
import math
import os
import sys

import numpy as np
import torch
import transformers

MASK = (1 << 64) - 1
ROWS = [0, 1, 4, 5, 6, 11, 15, 16]
IDS = [3, 130, 17, 55, 55, 101, 2, 88, 64, 9, 120, 41, 77, 30, 0, 99, 63]
HERE = os.path.dirname(os.path.abspath(__file__))

BASE = dict(hidden_size=96, num_attention_heads=6, num_key_value_heads=2, intermediate_size=160,
            vocab_size=131, num_hidden_layers=2, max_position_embeddings=64, rms_norm_eps=1e-5,
            tie_word_embeddings=False, bos_token_id=1, eos_token_id=2)
GPT2 = dict(n_embd=96, n_head=6, n_layer=2, n_positions=32, vocab_size=131, n_inner=160,
            bos_token_id=1, eos_token_id=2)
OPT = dict(hidden_size=96, num_attention_heads=6, ffn_dim=160, num_hidden_layers=2, vocab_size=131,
           max_position_embeddings=32, word_embed_proj_dim=96, bos_token_id=2, eos_token_id=2,
           pad_token_id=1)
BERT = dict(hidden_size=96, num_attention_heads=6, intermediate_size=160, num_hidden_layers=2, vocab_size=131,
            max_position_embeddings=32, type_vocab_size=2, hidden_act="gelu", layer_norm_eps=1e-12,
            pad_token_id=0)
HALF = [1.0, 1.05, 1.1, 1.3, 1.6, 2.0, 2.5, 3.0]

LLAMA, MISTRAL, QWEN2, QWEN3 = "LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"
# name -> (class, config, prefix removed from tensor names)
CASES = {
    "llama": (LLAMA, BASE, ""),
    "llama_bare_tied": (LLAMA, {**BASE, "tie_word_embeddings": True}, "model."),
    "llama_bias": (LLAMA, {**BASE, "attention_bias": True, "mlp_bias": True, "head_dim": 24}, ""),
    "llama_gelu_mha": (LLAMA, {**BASE, "num_key_value_heads": 6, "hidden_act": "gelu"}, ""),
    "llama_llama3": (LLAMA, {**BASE, "rope_parameters": {
        "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 16}}, ""),
    "llama_linear": (LLAMA, {**BASE, "rope_theta": 20000.0,
                             "rope_scaling": {"type": "linear", "factor": 2.5}}, ""),
    "llama_dynamic": (LLAMA, {**BASE, "max_position_embeddings": 8,
                              "rope_scaling": {"type": "dynamic", "factor": 4.0}}, ""),
    "llama_yarn": (LLAMA, {**BASE, "rope_scaling": {
        "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}}, ""),
    "llama_yarn_full": (LLAMA, {**BASE, "rope_parameters": {
        "rope_type": "yarn", "rope_theta": 1000.0, "factor": 8.0, "original_max_position_embeddings": 8,
        "beta_fast": 8.0, "beta_slow": 0.5, "truncate": False, "mscale": 1.2, "mscale_all_dim": 0.7}}, ""),
    "llama_longrope_long": (LLAMA, {**BASE, "rope_parameters": {
        "rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0] * 8, "long_factor": HALF,
        "original_max_position_embeddings": 8}}, ""),
    "llama_longrope_short": (LLAMA, {**BASE, "rope_parameters": {
        "rope_type": "longrope", "rope_theta": 10000.0, "short_factor": HALF, "long_factor": [4.0] * 8,
        "original_max_position_embeddings": 32, "attention_factor": 1.1}}, ""),
    "mistral_window": (MISTRAL, {**BASE, "sliding_window": 5, "head_dim": 24}, ""),
    "mistral": (MISTRAL, {**BASE, "sliding_window": None}, ""),
    "qwen2": (QWEN2, {**BASE, "rope_theta": 1000000.0, "rms_norm_eps": 1e-6}, ""),
    "qwen2_window": (QWEN2, {**BASE, "use_sliding_window": True, "sliding_window": 5,
                             "max_window_layers": 1, "tie_word_embeddings": True}, ""),
    "qwen3": (QWEN3, {**BASE, "head_dim": 24, "rms_norm_eps": 1e-6}, ""),
    "gpt2": ("GPT2LMHeadModel", GPT2, ""),
    "gpt2_bare": ("GPT2LMHeadModel", {**GPT2, "n_inner": None, "scale_attn_by_inverse_layer_idx": True},
                  "transformer."),
    "gpt2_unscaled": ("GPT2LMHeadModel", {**GPT2, "scale_attn_weights": False,
                                          "activation_function": "quick_gelu"}, ""),
    "opt": ("OPTForCausalLM", OPT, ""),
    "opt_350m": ("OPTForCausalLM", {**OPT, "word_embed_proj_dim": 40, "do_layer_norm_before": False},
                 "model."),
    "opt_plain": ("OPTForCausalLM", {**OPT, "enable_bias": False,
                                     "layer_norm_elementwise_affine": False}, ""),
    "bert": ("BertModel", BERT, ""),
    "bert_masked_lm": ("BertForMaskedLM", {**BERT, "hidden_act": "gelu_new", "type_vocab_size": 1,
                                           "layer_norm_eps": 1e-5}, ""),
}
# Names as the oldest files have them.
OLD_NAMES = {"bert_masked_lm": [("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta")]}


def splitmix64(x):
    x = x ^ (x >> np.uint64(30))
    x = x * np.uint64(0xBF58476D1CE4E5B9)
    x = x ^ (x >> np.uint64(27))
    x = x * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def fnv1a64(text):
    h = 0xCBF29CE484222325
    for byte in text.encode():
        h = ((h ^ byte) * 0x100000001B3) & MASK
    return h


def values(name, shape):
    count = int(np.prod(shape))
    index = np.arange(count, dtype=np.uint64)
    with np.errstate(over="ignore"):
        h = splitmix64(np.uint64(fnv1a64(name)) + index * np.uint64(0x9E3779B97F4A7C15))
    u = (h >> np.uint64(40)).astype(np.float64) * 2.0**-23 - 1
    if len(shape) == 2:
        x = u * (1.7 / math.sqrt(shape[1]))
    elif name.endswith("weight"):
        x = 1 + u / 2
    else:
        x = 0.3 * u
    return x.astype(np.float32).reshape(shape)


def main():
    versions = f"transformers {transformers.__version__}, torch {torch.__version__}"
    for case, (kind, settings, bare) in CASES.items():
        if sys.argv[1:] and case not in sys.argv[1:]:
            continue
        config_class = getattr(transformers, kind).config_class
        config = config_class(**json.loads(json.dumps(settings)))
        config._attn_implementation = "eager"
        model = getattr(transformers, kind)(config).eval().float()
        tensors = {}
        for name, tensor in model.state_dict().items():
            if name == "lm_head.weight" and config.tie_word_embeddings:
                continue
            stored = name[len(bare):] if bare and name.startswith(bare) else name
            if stored.startswith("cls.predictions.decoder."):
                continue  # the embedding and the bias before it, once more
            for new, old in OLD_NAMES.get(case, []):
                stored = stored.replace(new, old)
            tensors[stored] = list(tensor.shape)
            tensor.copy_(torch.from_numpy(values(stored, list(tensor.shape))))
        model.tie_weights()
        with torch.no_grad():
            encoder = kind.startswith("Bert")
            network = model.bert if kind == "BertForMaskedLM" else model
            outputs = network(torch.tensor([IDS]))
            logits = (outputs.last_hidden_state if encoder else outputs.logits)[0].numpy()
        written = {"architectures": [kind], "model_type": config.model_type, **settings}
        lines = ['{', f' "made_by": {json.dumps("make_golden.py with " + versions)},',
                 f' "config": {json.dumps(written)},', f' "tensors": {json.dumps(tensors)},',
                 f' "ids": {json.dumps(IDS)},', f' "rows": {json.dumps(ROWS)},', f' "{"hidden" if encoder else "logits"}": [']
        rows = ["  [" + ",".join("%.9g" % x for x in logits[row]) + "]" for row in ROWS]
        lines += [",\n".join(rows), " ]", "}"]
        with open(os.path.join(HERE, case + ".json"), "w", encoding="ascii") as f:
            f.write("\n".join(lines) + "\n")
        print(case, len(tensors), float(np.abs(logits).max()))


if __name__ == "__main__":
    main()
