"""The benchmark programs, with loads as small as can be."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
SMALL = ["--device", "cpu", "-q", "2", "--prompt-tokens", "8", "--max-tokens", "4"]


def run(name: str, *arguments: str) -> str:
    command = [sys.executable, str(BENCHMARKS / name), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_speed_under_a_load_and_its_comparison_with_later_runs(tmp_path: Path) -> None:
    baseline, after = tmp_path / "results" / "baseline.json", tmp_path / "results" / "final.json"
    assert "throughput_tok_s" in run("flexible_benchmark.py", *SMALL, f"--output={baseline}", "--metal-opts=all")
    result = read(baseline)
    assert result["throughput_tok_s"] > 0 and result["settings"]["questions"] == 2
    assert result["settings"]["metal_optimizations"]["memory_pool"]["enabled"] is True

    compare = [f"--baseline={baseline}", "--optimizations=command_buffer_ring", f"--output={after}", "--repetitions", "1"]
    printed = run("metal_optimization_comparison.py", *SMALL, *compare, "--prefix-tokens", "8")
    assert "\x1b" not in printed and f"Page saved to: {after.with_suffix('.html')}" in printed
    result = read(after)
    assert result["benchmark"] == "compare" and result["outputs_equal"] is True
    assert result["baseline"]["file"].endswith("baseline.json")
    assert after.with_suffix(".html").read_text(encoding="utf-8").startswith("<!")


def test_the_memory_pool(tmp_path: Path) -> None:
    output = tmp_path / "pool.json"
    printed = run("metal_memory_pool_benchmark.py", *SMALL, "--repetitions", "1", "-o", str(output))
    assert "Improvement:" in printed
    assert {"baseline", "with_pool", "improvement_percent"} <= read(output).keys()


def test_the_overhead_of_streams(tmp_path: Path) -> None:
    output = tmp_path / "streams.json"
    run("streaming_overhead.py", "--device", "cpu", "--threads", "1", "--pairs", "1", "--max-tokens", "20", "-o", str(output))
    figures = read(output)
    for way in ("iterator", "asyncio"):
        assert {"generate_us_per_token", "cpu_us_per_token"} <= figures[way].keys()


def test_a_setting_that_cannot_be_is_refused() -> None:
    command = [sys.executable, str(BENCHMARKS / "flexible_benchmark.py"), "--device", "cpu", "-q", "0"]
    refused(command, "flexible_benchmark.py: `questions`", 2)


def test_what_cannot_be_measured_or_written_is_said_in_a_sentence_before_anything_is(tmp_path: Path) -> None:
    missing = tmp_path / "none" / "baseline.json"
    comparison = [sys.executable, str(BENCHMARKS / "metal_optimization_comparison.py")]
    refused([*comparison, *SMALL, f"--baseline={missing}"], str(missing), 2)
    speed = [sys.executable, str(BENCHMARKS / "flexible_benchmark.py")]
    refused([*speed, "--device", "cpu", "-m", str(tmp_path / "nothing")], "flexible_benchmark.py: ", 1)
    refused([*speed, "-o", str(tmp_path)], "cannot be written", 2)
    refused([*speed, "--device", "cpu", "--config", "x.yaml"], "not allowed with", 2)


def refused(command: list[str], said: str, code: int) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert said in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert (done.returncode, done.stdout) == (code, "")
