"""Types: the packages, these tests and the benchmarks under mypy --strict, and the stubs beside what they describe."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PYTHON = HERE.parent / "python"

pytestmark = pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="needs mypy")


def run(*command: str) -> None:
    # The packages as they are here, wherever they are installed.
    environment = {**os.environ, "MYPYPATH": str(PYTHON)}
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, timeout=600, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr


def test_mypy_finds_nothing(tmp_path: Path) -> None:
    paths = [PYTHON / "mlx_serving", PYTHON / "krserve_native", HERE, HERE.parent / "benchmarks"]
    run("mypy", "--strict", "--cache-dir", str(tmp_path), *map(str, paths))


def test_the_stubs_describe_what_is_there(tmp_path: Path) -> None:
    # Names of a Literal, which stubtest takes for functions.
    literals = tmp_path / "literals"
    literals.write_text("mlx_serving.errors.ErrorCode\nmlx_serving.results.FinishReason\n", encoding="utf-8")
    run("mypy.stubtest", "--allowlist", str(literals), "krserve_native", "mlx_serving")
