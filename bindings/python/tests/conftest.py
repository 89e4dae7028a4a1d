"""Fixtures: an engine with the bundled model, and figures of this process."""

from __future__ import annotations

import gc
import os
import re
import time
from collections.abc import Callable, Iterator

import pytest

from mlx_serving import Engine, RuntimeConfig

ONE_THREAD: RuntimeConfig = {"engine": {"device": "cpu", "threads": 1, "kv_cache_tokens": 8192}}
"""Small and quick on any machine."""
RING: RuntimeConfig = {"metal_optimizations": {"enabled": True, "command_buffer_ring": {"enabled": True, "ring_size": 3}}}
PROMPT = "Ownership is"


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    with Engine(ONE_THREAD) as engine:
        engine.load_model()
        yield engine


@pytest.fixture(scope="session")
def ring_engine() -> Iterator[Engine]:
    with Engine({**ONE_THREAD, **RING}) as engine:
        engine.load_model()
        yield engine


def eventually(holds: Callable[[], bool], limit_s: float = 20.0) -> bool:
    """Waits for what the engine's own threads bring about."""
    end = time.monotonic() + limit_s
    while not holds():
        if time.monotonic() > end:
            return False
        gc.collect()
        time.sleep(0.01)
    return True


def metric(engine: Engine, name: str) -> float:
    """A counter of the engine, over all its models and labels."""
    found = re.findall(rf"^{re.escape(name)}(?:{{[^}}]*}})? ([0-9.e+]+)$", engine.metrics(), re.M)
    assert found, f"{name} is not among the metrics"
    return sum(float(value) for value in found)


def running(engine: Engine) -> int:
    return int(metric(engine, "vllm:num_requests_running"))


def threads() -> int:
    return len(os.listdir("/proc/self/task"))


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def resident_kb() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024
