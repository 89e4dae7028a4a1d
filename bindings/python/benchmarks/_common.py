"""Arguments, progress, files and errors that the benchmarks share."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlx_serving import EngineError


def parser(description: str | None, output: Path | None = None) -> argparse.ArgumentParser:
    """A parser with what every benchmark takes."""
    arguments = argparse.ArgumentParser(description=description)
    arguments.add_argument("-m", "--model", help="folder or hub id; default: the bundled model")
    arguments.add_argument("-o", "--output", type=Path, default=output, help=f"file for the result as JSON; default: {output or 'none'}")
    where = arguments.add_mutually_exclusive_group()
    where.add_argument("--device", help="auto, metal, vulkan, vulkan:N or cpu; default: auto")
    where.add_argument("--config", type=Path, help="a runtime.yaml")
    return arguments


def add_load(arguments: argparse.ArgumentParser, questions: int) -> None:
    """Adds the arguments of a load."""
    add_count(arguments, "-q", "--questions", questions, "requests of a run")
    add_count(arguments, None, "--prompt-tokens", 128, "tokens of a prompt")
    add_count(arguments, None, "--max-tokens", 64, "tokens of an answer")
    add_count(arguments, None, "--concurrency", 1, "requests at once")


def add_count(arguments: argparse.ArgumentParser, short: str | None, name: str, default: int, help: str) -> None:
    """Adds an argument that is a whole number."""
    names = [name] if short is None else [short, name]
    arguments.add_argument(*names, type=int, default=default, help=f"{help}; default: %(default)s")


def parse(arguments: argparse.ArgumentParser) -> argparse.Namespace:
    """Reads the arguments, and finds out before anything is measured whether the result can be written."""
    args = arguments.parse_args()
    output: Path | None = args.output
    if output is not None:
        try:
            output.parent.mkdir(parents=True, exist_ok=True)
            is_new = not output.exists()
            output.open("a").close()
            if is_new:
                output.unlink()
        except OSError as error:
            arguments.error(f"--output {output} cannot be written: {error.strerror}")
    return args


def config(args: argparse.Namespace) -> Any:
    """The engine's configuration."""
    return args.config if args.config is not None else {"engine": {"device": args.device or "auto"}}


def show(line: str) -> None:
    """Tells of progress on standard error."""
    print(line, file=sys.stderr)


def save(result: Any, output: Path | None) -> None:
    """Writes a result, if it is wanted."""
    if output is not None:
        output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        print(f"Results saved to: {output}")


def run(main: Callable[[], None]) -> None:
    """Runs a benchmark. An error ends it with a sentence: code 2 for an argument, 1 for everything else."""
    try:
        main()
    except EngineError as error:
        print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        raise SystemExit(2 if error.code == "InvalidParams" else 1) from None
