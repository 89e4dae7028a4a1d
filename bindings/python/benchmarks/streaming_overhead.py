"""Cost of reading an answer token by token, beside generate: pairs of runs in turn, in one process, with the same prompt.

For each way: process CPU and wall time a token beyond generate's, and the share of wall time.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from _common import add_count, config, parse, parser, run, save

from mlx_serving import Engine


def measured(run: Callable[[], int]) -> tuple[float, float]:
    """Process CPU and wall time of a run, seconds a token."""
    cpu, wall = time.process_time(), time.perf_counter()
    tokens = run()
    return (time.process_time() - cpu) / tokens, (time.perf_counter() - wall) / tokens


def quartiles(values: list[float]) -> list[float]:
    return statistics.quantiles(values, n=4) if len(values) > 1 else values * 3


def main() -> None:
    arguments = parser(__doc__)
    add_count(arguments, None, "--pairs", 20, "pairs of runs")
    add_count(arguments, None, "--max-tokens", 400, "tokens of an answer")
    arguments.add_argument("--threads", type=int, help="threads of the CPU device, 0 for all cores; default: the configuration's")
    args = parse(arguments)
    if args.pairs < 1:
        arguments.error("--pairs takes 1 or more")
    options = config(args)
    if args.threads is not None:
        if args.config is not None:
            arguments.error("--threads is the configuration's to set where there is a --config")
        options["engine"]["threads"] = args.threads

    with Engine(options) as engine:
        card = engine.load_model(args.model)
        asked: dict[str, Any] = {"max_tokens": args.max_tokens, "ignore_eos": True, "temperature": 0}
        prompt = "The difference between a slice and an array is"

        def whole() -> int:
            return len(engine.generate(prompt, **asked).token_ids)

        def by_thread() -> int:
            return sum(1 for _ in engine.stream(prompt, **asked))

        async def read() -> int:
            count = 0
            async for _ in engine.stream(prompt, **asked):
                count += 1
            return count

        def by_loop() -> int:
            return runner.run(read())

        figures: dict[str, Any] = {"model": card["id"], "device": card["device"], "pairs": args.pairs, "max_tokens": args.max_tokens}
        with asyncio.Runner() as runner:
            for name, way in (("iterator", by_thread), ("asyncio", by_loop)):
                whole(), way()
                pairs = [(measured(whole), measured(way)) for _ in range(args.pairs)]
                cpu = [way[0] - whole[0] for whole, way in pairs]
                wall = [way[1] / whole[1] - 1 for whole, way in pairs]
                figures[name] = {
                    "generate_us_per_token": statistics.median(whole[1] for whole, _ in pairs) * 1e6,
                    "cpu_us_per_token": statistics.median(cpu) * 1e6,
                    "overhead_percent": statistics.median(wall) * 100,
                    "overhead_percent_quartiles": [q * 100 for q in quartiles(wall)],
                }
    json.dump(figures, sys.stdout, indent=2)
    print()
    save(figures, args.output)


if __name__ == "__main__":
    run(main)
