#!/usr/bin/env python3
"""llama.cpp's speed on a random Q4_0 model of a named shape, as one line of JSON.

    llama_cpp_speed.py SHAPE [--prompt-tokens 256] [--max-tokens 64] [--threads 2] [--questions 3] [--cache DIR]

Runs in an environment with llama-cpp-python, gguf and numpy. The model file is written once into the cache folder. One question
of warm-up is not measured. Each question: the prompt in one batch, then one token at a time; logits of the last
position only; nothing is sampled.
"""

import argparse
import ctypes
import json
import statistics
import tempfile
import time
from pathlib import Path

import gguf
import llama_cpp as llama
import numpy as np

SHAPES = {  # hidden, layers, feed-forward, heads, key/value heads, vocabulary, tied embeddings
    "qwen2.5-0.5b": (896, 24, 4864, 14, 2, 151936, True),
    "qwen2.5-1.5b": (1536, 28, 8960, 12, 2, 151936, True),
    "qwen2.5-7b": (3584, 28, 18944, 28, 4, 152064, False),
}
CONTEXT = 32768


class ModelFile:
    """Writes a qwen2 GGUF with random Q4_0 matrices: blocks of an f16 scale and 32 four-bit values."""

    def __init__(self, path, shape):
        self.hidden, self.layers, self.inner, self.heads, self.kv_heads, self.vocabulary, self.tied = SHAPES[shape]
        self.rng = np.random.default_rng(7)
        self.writer = gguf.GGUFWriter(str(path), "qwen2")

    def write(self):
        self.metadata()
        self.matrix("token_embd", self.vocabulary, self.hidden)
        if not self.tied:
            self.matrix("output", self.vocabulary, self.hidden)
        self.vector("output_norm.weight", self.hidden, 1.0)
        for layer in range(self.layers):
            self.layer(f"blk.{layer}.")
        self.writer.write_header_to_file()
        self.writer.write_kv_data_to_file()
        self.writer.write_tensors_to_file()
        self.writer.close()

    def metadata(self):
        w = self.writer
        w.add_context_length(CONTEXT)
        w.add_embedding_length(self.hidden)
        w.add_block_count(self.layers)
        w.add_feed_forward_length(self.inner)
        w.add_head_count(self.heads)
        w.add_head_count_kv(self.kv_heads)
        w.add_layer_norm_rms_eps(1e-6)
        w.add_rope_freq_base(1e6)
        w.add_tokenizer_model("gpt2")
        w.add_tokenizer_pre("qwen2")
        w.add_token_list([b"<%d>" % i for i in range(self.vocabulary)])
        w.add_token_types([int(gguf.TokenType.NORMAL)] * self.vocabulary)
        w.add_token_merges(["a b"])
        w.add_bos_token_id(0)
        w.add_eos_token_id(0)

    def layer(self, prefix):
        kv = self.hidden // self.heads * self.kv_heads
        for name in ("attn_norm", "ffn_norm"):
            self.vector(f"{prefix}{name}.weight", self.hidden, 1.0)
        for name, rows in (("attn_q", self.hidden), ("attn_k", kv), ("attn_v", kv)):
            self.matrix(prefix + name, rows, self.hidden)
            self.vector(f"{prefix}{name}.bias", rows, 0.0)
        self.matrix(prefix + "attn_output", self.hidden, self.hidden)
        self.matrix(prefix + "ffn_gate", self.inner, self.hidden)
        self.matrix(prefix + "ffn_up", self.inner, self.hidden)
        self.matrix(prefix + "ffn_down", self.hidden, self.inner)

    def matrix(self, name, rows, columns):
        kind = gguf.GGMLQuantizationType.Q4_0
        values, size = gguf.GGML_QUANT_SIZES[kind]
        blocks = self.rng.integers(0, 256, (rows * columns // values, size), dtype=np.uint8)
        blocks[:, :2] = np.frombuffer(np.float16(0.1 / columns**0.5).tobytes(), np.uint8)
        self.writer.add_tensor(f"{name}.weight", blocks.reshape(rows, -1), raw_dtype=kind)

    def vector(self, name, length, value):
        self.writer.add_tensor(name, np.full(length, value, np.float32))


class Session:
    """One context of llama.cpp that takes tokens and throws the answers away."""

    def __init__(self, path, length, threads):
        llama.llama_backend_init()
        self.model = llama.llama_model_load_from_file(str(path).encode(), llama.llama_model_default_params())
        params = llama.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = length, 512, 512
        params.n_threads = params.n_threads_batch = threads
        self.context = llama.llama_init_from_model(self.model, params)
        self.batch = llama.llama_batch_init(512, 0, 1)

    def clear(self):
        llama.llama_memory_clear(llama.llama_get_memory(self.context), True)

    def feed(self, tokens, start):
        batch = self.batch
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i] = token, start + i
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
            batch.logits[i] = i + 1 == len(tokens)
        if llama.llama_decode(self.context, batch):
            raise SystemExit("llama_decode failed")
        llama.llama_synchronize(self.context)


def question(session, prompt, answer):
    """(prefill, decode) tokens a second."""
    session.clear()
    start = time.perf_counter()
    session.feed(prompt, 0)
    middle = time.perf_counter()
    for i, token in enumerate(answer):
        session.feed([token], len(prompt) + i)
    end = time.perf_counter()
    return len(prompt) / (middle - start), len(answer) / (end - middle)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("--prompt-tokens", type=int, default=256)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--questions", type=int, default=3)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()))
    args = parser.parse_args()
    if args.prompt_tokens > 512:
        parser.error("--prompt-tokens: at most 512, one batch")

    path = args.cache / f"{args.shape}-random-q4_0.gguf"
    if not path.exists():
        partial = path.with_suffix(".partial")
        ModelFile(partial, args.shape).write()
        partial.rename(path)
    quiet = llama.llama_log_callback(lambda *_: None)
    llama.llama_log_set(quiet, ctypes.c_void_p())
    session = Session(path, args.prompt_tokens + args.max_tokens + 8, args.threads)
    rng = np.random.default_rng(1)
    speeds = []
    for _ in range(args.questions + 1):
        ids = rng.integers(1, 100_000, args.prompt_tokens + args.max_tokens).tolist()
        speeds.append(question(session, ids[: args.prompt_tokens], ids[args.prompt_tokens :]))
    prefill, decode = (statistics.median(column) for column in zip(*speeds[1:]))
    answer = {
        "prefill_tok_s": prefill,
        "decode_tok_s": decode,
        "model_bytes": path.stat().st_size,
        "llama_cpp_python": llama.__version__,
        "features": llama.llama_print_system_info().decode().strip(),
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
