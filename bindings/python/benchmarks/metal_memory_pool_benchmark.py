"""The memory pool against plain runs, each between two of them."""

from __future__ import annotations

from pathlib import Path

from _common import add_count, add_load, config, parse, parser, run, save, show

from krserve_native import _native


def main() -> None:
    arguments = parser(__doc__, output=Path("results/memory-pool-benchmark.json"))
    add_load(arguments, questions=32)
    add_count(arguments, None, "--repetitions", 11, "runs with the pool")
    args = parse(arguments)
    names = ("model", "questions", "repetitions", "prompt_tokens", "max_tokens", "concurrency")
    asked = {name: getattr(args, name) for name in names}
    print("=== Memory Pool Benchmark ===\n")
    result = _native.bench_compare({**asked, "optimizations": "memory_pool"}, config(args), show)["memory_pool"]
    print("\n=== Results ===")
    print(f"Baseline:     {result['baseline']['throughput_tok_s']:.2f} tok/s")
    print(f"With Pool:    {result['with_pool']['throughput_tok_s']:.2f} tok/s")
    print(f"Improvement:  {result['improvement_percent']:+.1f}%")
    save(result, args.output)


if __name__ == "__main__":
    run(main)
