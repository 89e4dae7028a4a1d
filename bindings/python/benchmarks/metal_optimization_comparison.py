"""Each Metal-layer optimization alone and all together, each run between two plain ones, as `mlx-serving bench compare` measures them."""

from __future__ import annotations

import re
import sys

from _common import add_count, add_load, config, parse, parser, run, save, show

from krserve_native import _native


def main() -> None:
    arguments = parser(__doc__)
    add_load(arguments, questions=32)
    arguments.add_argument("--baseline", help="an earlier result, with whose throughput_tok_s plain runs are compared")
    arguments.add_argument("--optimizations", default="all", help="all, or names separated by commas; default: %(default)s")
    add_count(arguments, None, "--repetitions", 11, "runs of each optimization")
    add_count(arguments, None, "--prefix-tokens", 512, "tokens of the prompt whose cached prefix is evicted and asked for again")
    args = parse(arguments)
    names = ("model", "optimizations", "questions", "repetitions", "prompt_tokens", "max_tokens", "concurrency", "prefix_tokens", "baseline")
    asked = {name: getattr(args, name) for name in names}
    compared = _native.bench_compare({**asked, "command": sys.argv}, config(args), show)
    table: str = compared["table"]
    print(table if sys.stdout.isatty() else re.sub(r"\x1b\[[0-9;]*m", "", table))
    save(compared["result"], args.output)
    if args.output is not None:
        page = args.output.with_suffix(".html")
        page.write_text(compared["page"], encoding="utf-8")
        print(f"Page saved to: {page}")


if __name__ == "__main__":
    run(main)
