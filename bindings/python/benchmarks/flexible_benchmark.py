"""Speed of a model under a fixed load, as `mlx-serving bench throughput` measures it."""

from __future__ import annotations

from _common import add_load, config, parse, parser, run, save, show

from krserve_native import _native


def main() -> None:
    arguments = parser(__doc__)
    add_load(arguments, questions=16)
    arguments.add_argument("--metal-opts", help="none, all, or names of optimizations separated by commas; default: the configuration's")
    args = parse(arguments)
    asked = {name: getattr(args, name) for name in ("model", "questions", "prompt_tokens", "max_tokens", "concurrency")}
    result = _native.bench_throughput(asked, config(args), args.metal_opts, show)
    for name in ("throughput_tok_s", "prefill_tok_s", "decode_tok_s"):
        value = result[name]
        print(f"{name}: {'n/a' if value is None else format(value, '.2f')}")
    print(f"ttft_ms: p50 {result['ttft_ms']['p50']:.1f}, p99 {result['ttft_ms']['p99']:.1f}")
    save(result, args.output)


if __name__ == "__main__":
    run(main)
