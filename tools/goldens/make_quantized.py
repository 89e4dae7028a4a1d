#!/usr/bin/env python3
"""What `mx.quantize` makes of matrices: crates/convert/tests/goldens/quantized.safetensors, from the CPU.

Of each type a matrix of rows that are random, of one value, of zeros, of one sign, of values in the middle between two codes, and very large
and small; and its codes, scales and biases in every format, by the names TYPE, TYPE.FORMAT.weight, .scales and .biases.
"""

from pathlib import Path

import mlx.core as mx
import numpy as np

OUT = Path(__file__).parents[2] / "crates/convert/tests/goldens/quantized.safetensors"
COLS = 128
MIDDLES = [6, 5, 3.5, 2.5, 1.75, 1.25, 0.75, 0.25]


def rows(rng):
    random = rng.standard_normal((4, COLS))
    return np.stack([
        *random * np.array([[1], [0.02], [3e-3], [40]]),
        np.full(COLS, 0.3),
        np.zeros(COLS),
        -np.abs(random[0]),
        np.resize(MIDDLES + [-x for x in MIDDLES], COLS),
        rng.standard_normal(COLS) * 2e4,
        rng.standard_normal(COLS) * 1e-7,
    ]).astype(np.float32)


def main():
    mx.set_default_device(mx.cpu)
    values, out = rows(np.random.default_rng(1)), {}
    for dtype in (mx.float32, mx.float16, mx.bfloat16):
        name = str(dtype).removeprefix("mlx.core.")
        out[name] = matrix = mx.array(values).astype(dtype)
        affine = [(f"{bits}:{group}", bits, group, "affine") for bits in (2, 3, 4, 5, 6, 8) for group in (32, 64, 128)]
        for label, bits, group, mode in [*affine, ("mxfp4", 4, 32, "mxfp4"), ("nvfp4", 4, 16, "nvfp4"), ("mxfp8", 8, 32, "mxfp8")]:
            parts = mx.quantize(matrix, group_size=group, bits=bits, mode=mode)
            out |= {f"{name}.{label}.{tensor}": part for tensor, part in zip(("weight", "scales", "biases"), parts)}
    OUT.parent.mkdir(parents=True, exist_ok=True)
    mx.save_safetensors(str(OUT), out)


if __name__ == "__main__":
    main()
