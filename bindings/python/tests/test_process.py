"""Signals, forks and exits: programs that are interrupted, forked or ended in the middle of an answer."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from conftest import ONE_THREAD, PROMPT

from mlx_serving import Engine

WAITS = {
    "generate": "engine.generate('x', **long)",
    "stream": "list(engine.stream('x', **long))",
    "load_model": "engine.load_model(name='again', progress=lambda *_: __import__('time').sleep(0.02) or begin())",
}


@pytest.mark.parametrize("call", WAITS)
def test_an_interrupt_ends_a_wait(call: str) -> None:
    code = f"""
import os, signal, sys, threading, time
from mlx_serving import Engine
# Whoever starts the tests in the background may have the signal ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
engine = Engine({ONE_THREAD!r})
engine.load_model()
long = dict(max_tokens=2000, ignore_eos=True)
sent = []
def begin():
    if not sent:
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)
def later():
    time.sleep(0.2)
    begin()
if {call!r} != "load_model":
    threading.Thread(target=later).start()
try:
    while True:
        {WAITS[call]}
except KeyboardInterrupt:
    print(f"{{(time.monotonic() - sent[0]) * 1000:.1f}} ms")
end = time.monotonic() + 20
while [m["id"] for m in engine.list_models() if m["state"] != "loading"] != ["rustbook-5m-4bit"]:
    assert time.monotonic() < end, engine.list_models()
    time.sleep(0.01)
engine.close()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    took = re.fullmatch(r"([0-9.]+) ms\n", done.stdout)
    assert took, done.stdout
    print(f"{call}: {took[1]} ms from the signal to the exception")
    assert float(took[1]) < 2000, "two shared cores are slow, but not that slow"


def test_after_a_fork_the_child_is_refused_and_ends() -> None:
    code = f"""
import asyncio, os
from mlx_serving import Engine, EngineClosedError
engine = Engine({ONE_THREAD!r})
engine.load_model()
stream = engine.stream("x", max_tokens=2000, ignore_eos=True)
next(stream)
child = os.fork()
if child == 0:
    for call in [lambda: engine.generate("x"), lambda: engine.stream("x"), lambda: list(stream), engine.list_models,
                 engine.load_model, engine.metrics, lambda: asyncio.run(engine.generate_async("x"))]:
        try:
            call()
        except EngineClosedError as error:
            assert "fork" in str(error), error
        except StopIteration:
            pass
        else:
            os._exit(1)
    engine.close()
    print(engine.health_check()["status"], flush=True)
else:
    assert os.waitpid(child, 0)[1] == 0
    next(stream)
    engine.close()
    print("parent works")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.split("\n")) == ["", "parent works", "unhealthy"]


def test_a_program_that_ends_in_mid_stream_ends() -> None:
    code = f"""
import asyncio
from mlx_serving import Engine
engine = Engine({ONE_THREAD!r})
engine.load_model()
stream = engine.stream("x", max_tokens=2000, ignore_eos=True)
next(stream)
async def run():
    await anext(engine.stream("x", max_tokens=2000, ignore_eos=True))
asyncio.run(run())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


HANGING_HUB = """
import asyncio, os, socket, sys, threading
hub = socket.create_server(("127.0.0.1", 0))
os.environ["HF_ENDPOINT"] = f"http://127.0.0.1:{hub.getsockname()[1]}"
os.environ["HF_HUB_CACHE"] = sys.argv[1]
from mlx_serving import Engine

async def main():
    engine = Engine()
    try:
        await asyncio.wait_for(engine.load_model_async("org/model"), 0.5)
    except TimeoutError:
        print("timed out", flush=True)

asyncio.run(main())
print("the loop has ended", flush=True)
"""


def test_a_download_that_hangs_holds_up_neither_the_loops_end_nor_the_programs(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", HANGING_HUB, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "timed out\nthe loop has ended\n"), done.stderr


def test_threads_that_share_a_stream_get_every_token(engine: Engine) -> None:
    for _ in range(20):
        stream = engine.stream(PROMPT, max_tokens=30, ignore_eos=True)
        counts: list[int] = []
        readers = [threading.Thread(target=lambda: counts.append(sum(1 for _ in stream))) for _ in range(4)]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
        assert sum(counts) == 30
