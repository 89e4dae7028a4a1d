"""Engines that come and go leave nothing: no memory, no thread, no descriptor."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

ROUNDS = """
import gc, sys
sys.path.insert(0, {tests!r})
from conftest import ONE_THREAD, PROMPT, descriptors, eventually, resident_kb, threads
from mlx_serving import Engine

def round():
    with Engine(ONE_THREAD) as engine:
        engine.load_model()
        engine.generate(PROMPT, max_tokens=3)
        next(engine.stream(PROMPT, max_tokens=30))
    gc.collect()
    return resident_kb()

open_before, threads_before = descriptors(), threads()
sizes = [round() for _ in range({rounds})]
assert eventually(lambda: threads() <= threads_before), (threads(), threads_before)
assert eventually(lambda: descriptors() <= open_before), (descriptors(), open_before)
# What the C library's allocator keeps goes up and down by megabytes from round to round, and what leaks never goes down.
window = {window}
print(min(sizes[-window:]) - min(sizes[{base} - window:{base}]))
"""


def growth_kb(rounds: int, base: int, window: int) -> int:
    code = ROUNDS.format(tests=os.path.dirname(__file__), rounds=rounds, base=base, window=window)
    # One arena: with several, which threads come to share one decides by megabytes.
    environment = {**os.environ, "MALLOC_ARENA_MAX": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=1800, env=environment)
    assert done.returncode == 0, done.stderr
    grown = int(done.stdout)
    print(f"{rounds} rounds: {grown} KiB more than after {base}")
    return grown


def test_a_few_rounds_leave_nothing() -> None:
    assert growth_kb(60, 30, 20) < 8192


@pytest.mark.skipif(not os.environ.get("MLX_SERVING_LONG_TESTS"), reason="takes minutes; MLX_SERVING_LONG_TESTS=1 runs it")
def test_a_thousand_rounds_leave_nothing() -> None:
    assert growth_kb(1000, 100, 50) < 2048
