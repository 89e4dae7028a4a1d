#!/usr/bin/env python3
"""Writes the goldens that the tests compare with: mlx-lm's answers, in float32 arithmetic on the CPU.

    make_goldens.py checkpoints [NAME…]    random checkpoints with their logits, crates/model/tests/goldens/
    make_goldens.py greedy                 the bundled model's greedy text, crates/cli/tests/goldens/greedy.json
    make_goldens.py perplexity             the bundled model's perplexity of book.txt, …/goldens/perplexity.json
    make_goldens.py all

MLX's CPU kernels accumulate in the type of their tensors, so every parameter is widened to float32 before a forward pass;
quantized weights stay packed, their scales and biases widen exactly.
"""

import argparse
import copy
import dataclasses
import json
import math
import re
import shutil
import sys
import tempfile
from importlib import import_module, metadata
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten, tree_map_with_path
from mlx_lm.generate import generate_step
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.utils import MODEL_REMAPPING, load, load_model

from cases import every_case
from prompts import PROMPTS

ROOT = Path(__file__).resolve().parents[2]
CHECKPOINTS = ROOT / "crates/model/tests/goldens"
TEXTS = ROOT / "crates/cli/tests/goldens"
BUNDLED = ROOT / "models/rustbook-5m-4bit"
WINDOW = 512


def random_model(case, seed):
    """A model whose weights spread enough that logits differ clearly, with biases and norms that a wrong order would show."""
    model_type = case.config["model_type"]
    module = import_module("mlx_lm.models." + MODEL_REMAPPING.get(model_type, model_type))
    mx.random.seed(seed)
    # The arguments of some models change the object that they are made of.
    model = module.Model(module.ModelArgs.from_dict(copy.deepcopy(case.config)))
    text, keys = getattr(model, "language_model", model), case.config.get("text_config", case.config)
    if keys.get("tie_word_embeddings") and "lm_head" in text:
        # Tied where a checkpoint has none, whatever the configuration says.
        text.pop("lm_head")

    def draw(path, value):
        if value.ndim >= 2:  # a matrix, or one of each expert
            return mx.random.normal(value.shape) * (1.5 / math.sqrt(value.shape[-1]))
        return (1.0 if "norm" in path else 0.0) + 0.2 * mx.random.normal(value.shape)

    model.update(tree_map_with_path(draw, model.parameters()))
    model.set_dtype(getattr(mx, case.dtype))
    return model


def write_checkpoint(case, model, folder):
    """Quantizes `model` as `case` says and writes config.json and the tensors, in one file or in shards with an index."""
    config = dict(case.config)
    if case.bits:
        settings = {"group_size": case.group_size, "bits": case.bits}
        if case.mode != "affine":
            settings["mode"] = case.mode

        def choose(path, module):
            return hasattr(module, "to_quantized") and case.overrides.get(path, settings)

        nn.quantize(model, **settings, class_predicate=choose)
        config["quantization"] = {**settings, **case.overrides}
        if case.legacy_quantization_config:
            config["quantization_config"] = config["quantization"]
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")

    tensors = dict(sorted(tree_flatten(model.parameters())))
    total = sum(t.nbytes for t in tensors.values())
    names = list(tensors)
    if case.shards == 1:
        mx.save_safetensors(str(folder / "model.safetensors"), tensors, metadata={"format": "mlx"})
        return
    weight_map = {}
    for shard in range(case.shards):
        file = f"model-{shard + 1:05}-of-{case.shards:05}.safetensors"
        part = names[shard * len(names) // case.shards : (shard + 1) * len(names) // case.shards]
        mx.save_safetensors(str(folder / file), {name: tensors[name] for name in part}, metadata={"format": "mlx"})
        weight_map.update({name: file for name in part})
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def load_oracle(case, folder):
    """mlx-lm's model of a written checkpoint, widened to float32."""
    changes = None
    if case.window_everywhere:
        # mlx-lm reads `sliding_window` only together with `layer_types`, of which one must be full attention. Mistral's
        # own definition slides in every layer: load a mixture, then let every layer slide.
        count = case.config["num_hidden_layers"]
        changes = {"layer_types": ["sliding_attention"] * (count - 1) + ["full_attention"]}
    model, _ = load_model(folder, model_config=changes)
    if case.window_everywhere:
        for layer in model.layers:
            layer.use_sliding = True
    model.set_dtype(mx.float32)
    return model


def logits_of(model, tokens, prefill):
    """f32 [tokens][vocabulary]: the first `prefill` tokens in one call, the others one at a time through the cache."""
    cache = make_prompt_cache(model)
    parts = [model(mx.array([tokens[:prefill]]), cache=cache)[0]]
    for token in tokens[prefill:]:
        parts.append(model(mx.array([[token]]), cache=cache)[0])
    return np.array(mx.concatenate(parts)).astype(np.float32)


def make_checkpoints(names):
    cases = every_case()
    unknown = set(names) - {case.name for case in cases}
    if unknown:
        sys.exit(f"no such case: {', '.join(sorted(unknown))}")
    for place, case in enumerate(cases):
        if names and case.name not in names:
            continue
        seed = place if case.seed is None else case.seed
        folder = CHECKPOINTS / case.name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        rng = np.random.default_rng(seed)
        tokens = rng.integers(0, case.config["vocab_size"], case.tokens).tolist()
        prefill = case.prefill or case.tokens
        if case.embeds:
            make_embeddings(case, seed, tokens, folder)
            continue
        write_checkpoint(case, random_model(case, seed), folder)
        model = load_oracle(case, folder)
        logits = logits_of(model, tokens, prefill)
        assert logits.shape == (case.tokens, case.config["vocab_size"]) and np.isfinite(logits).all()
        given = {"tokens": tokens, "prefill": prefill}
        if case.greedy:
            given["greedy"], margins, _ = greedy(model, tokens, set(), case.greedy)
            print(f"{case.name:28} least margin {min(margins):.5f}")
        (folder / "tokens.json").write_text(json.dumps(given) + "\n")
        np.save(folder / "logits.npy", logits)
        size = sum(f.stat().st_size for f in folder.iterdir())
        print(f"{case.name:28} {size / 1024:7.1f} KiB  logits rms {np.sqrt((logits**2).mean()):.3f}")


def make_embeddings(case, seed, tokens, folder):
    """An embedding model's checkpoint, and mlx-lm's hidden states of `tokens`, pooled in two ways and scaled to length 1.

    mlx-lm loads no checkpoint like that: it reads the same tensors under their usual names, with the head tied, which it does not apply.
    """
    with tempfile.TemporaryDirectory() as usual:
        tied = dataclasses.replace(case, config={**case.config, "tie_word_embeddings": True})
        write_checkpoint(tied, random_model(tied, seed), Path(usual))
        states = np.array(load_oracle(tied, Path(usual)).model(mx.array([tokens]))[0]).astype(np.float64)
        tensors = mx.load(str(Path(usual) / "model.safetensors"))
        config = {**json.loads((Path(usual) / "config.json").read_text()), **case.config}
    tensors = {name.removeprefix("model."): tensor for name, tensor in sorted(tensors.items())}
    mx.save_safetensors(str(folder / "model.safetensors"), tensors, metadata={"format": "mlx"})
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    package = "sentence_transformers.models."
    modules = [{"idx": i, "name": str(i), "path": path, "type": package + name} for i, (path, name) in enumerate(modules)]
    (folder / "1_Pooling").mkdir()
    for name, value in {
        "config.json": config,
        "modules.json": modules,
        "1_Pooling/config.json": {"word_embedding_dimension": case.config["hidden_size"], "pooling_mode_lasttoken": True},
    }.items():
        (folder / name).write_text(json.dumps(value, indent=2) + "\n")
    pooled = {"last": states[-1], "mean": states.mean(axis=0)}
    vectors = {name: (vector / np.linalg.norm(vector)).tolist() for name, vector in pooled.items()}
    (folder / "embeddings.json").write_text(json.dumps({"tokens": tokens, **vectors}) + "\n")
    print(f"{case.name:28} {states.shape}")


def greedy(model, prompt_ids, stops, limit):
    """(tokens, margins, stop token or None): the margin is the distance in nats from the best token to the second."""
    tokens, margins = [], []
    steps = generate_step(mx.array(prompt_ids), model, max_tokens=limit, sampler=lambda x: mx.argmax(x, axis=-1))
    for token, logprobs in steps:
        second, first = np.partition(np.array(logprobs.astype(mx.float32)), -2)[-2:]
        margins.append(round(float(first - second), 6))
        if int(token) in stops:
            return tokens, margins, int(token)
        tokens.append(int(token))
    return tokens, margins, None


def make_greedy():
    model, tokenizer = load(str(BUNDLED))
    stops = set(json.loads((BUNDLED / "generation_config.json").read_text())["eos_token_id"])
    entries = []
    for prompt in PROMPTS:
        if "messages" in prompt:
            rendered = tokenizer.apply_chat_template(prompt["messages"], add_generation_prompt=True, tokenize=False)
            prompt = {**prompt, "prompt": rendered}
        ids = tokenizer.encode(prompt["prompt"])
        native, _, native_stop = greedy(model, ids, stops, 64)
        entries.append({**prompt, "prompt_token_ids": list(ids), "native": (native, native_stop)})
    model.set_dtype(mx.float32)
    for entry in entries:
        tokens, margins, stop = greedy(model, entry["prompt_token_ids"], stops, 64)
        same = entry.pop("native") == (tokens, stop)
        entry.update(
            token_ids=tokens,
            text=tokenizer.decode(tokens),
            finish_reason="length" if stop is None else "stop",
            stop_token_id=stop,
            margins=margins,
            bf16_agrees=same,
        )
        print(f"{len(tokens):3} tokens  least margin {min(margins):8.5f}  bf16 {'same' if same else 'differs'}  {entry['text'][:60]!r}")
    write_json("greedy.json", {"model": BUNDLED.name, "max_tokens": 64, "prompts": entries})


def make_perplexity():
    model, tokenizer = load(str(BUNDLED))
    model.set_dtype(mx.float32)
    ids = tokenizer.encode((TEXTS / "book.txt").read_text())
    predicted, nll = mean_nll(model, ids)
    answer = {"tokens": len(ids), "predicted": predicted, "nll": nll, "perplexity": math.exp(nll)}
    print(answer)
    write_json("perplexity.json", {"model": BUNDLED.name, "text": "book.txt", "window": WINDOW, **answer})


def mean_nll(model, ids):
    """(tokens predicted, mean negative log-likelihood in nats) over windows that do not overlap.

    The first token of a window is context only; a last window of one token is left out.
    """
    total, count = 0.0, 0
    for start in range(0, len(ids) - 1, WINDOW):
        window = ids[start : start + WINDOW]
        losses = nn.losses.cross_entropy(model(mx.array([window[:-1]]))[0], mx.array(window[1:]))
        total += float(np.array(losses).astype(np.float64).sum())
        count += len(window) - 1
    return count, total / count


def write_json(name, value):
    TEXTS.mkdir(parents=True, exist_ok=True)
    value = {"made_with": {p: metadata.version(p) for p in ("mlx", "mlx-lm", "transformers")}, **value}
    text = json.dumps(value, indent=1, ensure_ascii=False)
    (TEXTS / name).write_text(collapse_number_lists(text) + "\n")


def collapse_number_lists(text):
    """One line for each list of numbers: json's own indentation would take a line a token."""
    return re.sub(r"\[\s+([-\d.,e\s]+?)\s+\]", lambda m: "[" + re.sub(r"\s+", " ", m[1]) + "]", text)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["checkpoints", "greedy", "perplexity", "all"])
    parser.add_argument("names", nargs="*", help="some checkpoints only")
    args = parser.parse_args()
    mx.set_default_device(mx.cpu)
    if args.what in ("checkpoints", "all"):
        make_checkpoints(args.names)
    if args.what in ("greedy", "all"):
        make_greedy()
    if args.what in ("perplexity", "all"):
        make_perplexity()


if __name__ == "__main__":
    main()
