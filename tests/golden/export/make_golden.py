# SPDX-License-Identifier: Apache-2.0
"""Writes compressed_tensors.json: weights compressed and decompressed by the compressed-tensors package,
which tests/io/export_test.cpp compares with our own layouts, bit for bit.

Made with compressed-tensors 0.20.0, torch 2.15.0, Python 3.11:

    python make_golden.py > compressed_tensors.json

Each case draws signed codes, zeros and scales (random.Random of Python, seed = number of the case),
makes the weight (code - zero) * scale from them in float32, and lets the package's own compressor of the
named format quantize and pack it. Codes are checked to come back. Integers of 16 and 32 bits are the
bit patterns of scales and values.
"""
import json
import random
import struct
import sys

import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

CASES = [
    # format, bits, symmetric, group (0: one per row), rows, cols, type of the scales
    ("pack-quantized", 4, True, 8, 3, 16, "BF16"),
    ("pack-quantized", 4, True, 0, 5, 13, "F16"),
    ("pack-quantized", 4, False, 4, 11, 12, "F16"),
    ("pack-quantized", 4, False, 0, 9, 7, "BF16"),
    ("pack-quantized", 8, True, 4, 2, 8, "F16"),
    ("pack-quantized", 8, True, 0, 3, 5, "BF16"),
    ("pack-quantized", 8, False, 3, 6, 9, "F16"),
    ("pack-quantized", 2, True, 16, 4, 32, "F16"),
    ("pack-quantized", 2, False, 5, 18, 20, "BF16"),
    ("int-quantized", 8, True, 0, 4, 6, "F32"),
    ("int-quantized", 8, False, 0, 3, 7, "F32"),
]
TYPES = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32}


def bits_of(tensor):
    """The bit patterns of a tensor's elements, unsigned, row-major."""
    width = {2: torch.int16, 4: torch.int32, 1: torch.int8}[tensor.element_size()]
    mask = (1 << (8 * tensor.element_size())) - 1
    return [int(v) & mask for v in tensor.contiguous().view(width).flatten().tolist()]


def make(number, case):
    form, bits, symmetric, group, rows, cols, kind = case
    random_numbers = random.Random(number)
    half = 1 << (bits - 1)
    length = group or cols
    groups = cols // length
    codes = torch.tensor([[random_numbers.randrange(-half, half) for _ in range(cols)] for _ in range(rows)])
    zeros = torch.zeros(rows, groups, dtype=torch.int64)
    if not symmetric:
        zeros = torch.tensor([[random_numbers.randrange(-half, half) for _ in range(groups)] for _ in range(rows)])
    scale = torch.tensor([[random_numbers.uniform(0.001, 0.1) for _ in range(groups)] for _ in range(rows)])
    scale = scale.to(TYPES[kind])
    spread = lambda t: t.repeat_interleave(length, dim=1)
    weight = (codes - spread(zeros)).to(torch.float32) * spread(scale).to(torch.float32)

    scheme = QuantizationScheme(
        targets=["Linear"],
        weights=QuantizationArgs(num_bits=bits, type="int", symmetric=symmetric,
                                 strategy="group" if group else "channel",
                                 group_size=group or None))
    compressor = BaseCompressor.get_value_from_registry(form)
    state = {"weight": weight, "weight_scale": scale.to(torch.float32)}
    if not symmetric:
        state["weight_zero_point"] = zeros.to(torch.int8)
    compressed = compressor.compress(state, scheme)
    values = compressor.decompress(dict(compressed), scheme)["weight"]
    assert values.dtype == torch.float32 and torch.equal(values, weight), case
    result = {"format": form, "bits": bits, "symmetric": symmetric, "group": group, "rows": rows,
              "cols": cols, "scale_type": kind,
              "codes": (codes + half).flatten().tolist(), "scales": bits_of(scale),
              "values": bits_of(values)}
    if form == "pack-quantized":
        result["weight_packed"] = bits_of(compressed["weight_packed"])
        result["weight_shape"] = compressed["weight_shape"].tolist()
    else:
        result["weight"] = bits_of(compressed["weight"])
    if not symmetric:
        result["zeros"] = (zeros + half).flatten().tolist()
        result["weight_zero_point"] = bits_of(compressed["weight_zero_point"])
    return result


json.dump({"cases": [make(i, c) for i, c in enumerate(CASES)]}, sys.stdout, separators=(",", ":"))
sys.stdout.write("\n")
