"""Every way to cancel: the engine computes no more than the steps in flight, and nothing is left."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from conftest import PROMPT, descriptors, eventually, metric, running, threads

from mlx_serving import Engine, GenerationTimeoutError, Stream, Token

LONG: dict[str, Any] = {"max_tokens": 2000, "ignore_eos": True, "temperature": 0}
READ = 5
"""Tokens that are read before the cancellation."""
READ_AHEAD = 64
"""Tokens that an answer may be ahead of its reader."""


BOUNDS = {"engine": 2, "ring_engine": 4}
"""Tokens that may come after a cancellation: the steps in flight, whose number the ring says."""


class Broken(Exception):
    pass


def generated(engine: Engine) -> float:
    return metric(engine, "vllm:generation_tokens_total")


def settled(engine: Engine) -> float:
    """Tokens generated, once nothing runs."""
    assert eventually(lambda: running(engine) == 0), "a generation goes on"
    return generated(engine)


# Ways of threads: each reads some tokens and lets go.


def by_close(stream: Stream) -> None:
    stream.close()


def by_cancel(stream: Stream) -> None:
    stream.cancel()


def by_cancel_of_another_thread(stream: Stream) -> None:
    thread = threading.Thread(target=stream.cancel)
    thread.start()
    thread.join()


def by_context(stream: Stream) -> None:
    with stream:
        pass


def by_exception_in_the_context(stream: Stream) -> None:
    with pytest.raises(Broken), stream:
        raise Broken


def by_dropping(stream: Stream) -> None:
    del stream


THREAD_WAYS = [by_close, by_cancel, by_cancel_of_another_thread, by_context, by_exception_in_the_context, by_dropping]


@pytest.mark.parametrize("which", ["engine", "ring_engine"])
@pytest.mark.parametrize("way", THREAD_WAYS)
def test_a_thread_cancels(way: Callable[[Stream], None], which: str, request: pytest.FixtureRequest) -> None:
    engine: Engine = request.getfixturevalue(which)
    before = settled(engine)
    streams = [engine.stream(PROMPT, **LONG)]
    for _ in range(READ):
        next(streams[0])
    way(streams.pop())
    at_cancel = generated(engine)
    excess = settled(engine) - at_cancel
    print(f"{way.__name__} on {which}: {excess:.0f} tokens after the cancellation")
    assert excess <= BOUNDS[which]
    assert settled(engine) - before < READ + READ_AHEAD + 8


def test_cancellation_is_within_the_steps_in_flight(engine: Engine, ring_engine: Engine) -> None:
    for engine_, bound in ((engine, BOUNDS["engine"]), (ring_engine, BOUNDS["ring_engine"])):
        least = 1e9
        for _ in range(20):
            stream = engine_.stream(PROMPT, **LONG)
            next(stream)
            # The counter is read by the thread that cancels, as near as can be.
            stream.cancel()
            at_cancel = generated(engine_)
            least = min(least, settled(engine_) - at_cancel)
        print(f"at least {least:.0f} tokens after the cancellation, at most {bound} allowed")
        assert least <= bound


# Ways of event loops.


async def by_break(stream: Stream) -> None:
    async for _ in stream:
        break


async def by_aclose(stream: Stream) -> None:
    await stream.aclose()


async def by_async_context(stream: Stream) -> None:
    async with stream:
        pass


async def by_exception_in_the_consumer(stream: Stream) -> None:
    with pytest.raises(Broken):
        async with stream:
            async for _ in stream:
                raise Broken


async def by_cancelled_task(stream: Stream) -> None:
    async def read() -> None:
        async for _ in stream:
            pass

    task = asyncio.create_task(read())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def by_timeout(stream: Stream) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.001):
            async for _ in stream:
                pass


async def by_async_dropping(stream: Stream) -> None:
    del stream


LOOP_WAYS = [
    by_break,
    by_aclose,
    by_async_context,
    by_exception_in_the_consumer,
    by_cancelled_task,
    by_timeout,
    by_async_dropping,
]


@pytest.mark.parametrize("which", ["engine", "ring_engine"])
@pytest.mark.parametrize("way", LOOP_WAYS)
def test_a_loop_cancels(way: Callable[[Stream], Awaitable[None]], which: str, request: pytest.FixtureRequest) -> None:
    engine: Engine = request.getfixturevalue(which)
    open_before = descriptors()

    async def run() -> tuple[float, float]:
        before = settled(engine)
        streams = [engine.stream(PROMPT, **LONG)]
        for _ in range(READ):
            await anext(streams[0])
        await way(streams.pop())
        gc.collect()
        at_cancel = generated(engine)
        return settled(engine) - before, settled(engine) - at_cancel

    made, excess = asyncio.run(run())
    print(f"{way.__name__} on {which}: {made:.0f} tokens in all, of which {READ} were read, {excess:.0f} after the cancellation")
    assert excess <= BOUNDS[which]
    assert made <= READ + 2 * READ_AHEAD, "it went on"
    assert eventually(lambda: descriptors() <= open_before), "a descriptor is left"


def test_a_cancelled_generate_async_ends_the_generation(engine: Engine) -> None:
    async def run() -> None:
        task = asyncio.create_task(engine.generate_async(PROMPT, **LONG))
        while running(engine) == 0:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    settled(engine)


def test_an_iterator_that_is_dropped_unread_ends(engine: Engine) -> None:
    before = settled(engine)
    for _ in range(20):
        engine.stream(PROMPT, **LONG)
    assert settled(engine) - before <= 20 * READ_AHEAD


def test_an_unread_stream_waits_for_its_reader(engine: Engine) -> None:
    before = settled(engine)
    stream = engine.stream(PROMPT, **LONG)
    assert eventually(lambda: generated(engine) - before >= READ_AHEAD // 2)
    last = -1.0
    while generated(engine) != last:
        last = generated(engine)
        time.sleep(0.2)
    assert last - before <= READ_AHEAD + 8, "nobody reads, and it goes on"
    stream.cancel()
    settled(engine)


def test_an_event_loop_that_is_closed_in_mid_stream_ends_the_generation(engine: Engine) -> None:
    open_before = descriptors()

    async def read(stream: Stream) -> None:
        async for _ in stream:
            pass

    loop = asyncio.new_event_loop()

    async def begin() -> list[Any]:
        stream = engine.stream(PROMPT, **LONG)
        await anext(stream)
        return [asyncio.ensure_future(read(stream)), stream]

    held = loop.run_until_complete(begin())
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    held[0]._log_destroy_pending = False
    del held, loop
    gc.collect()
    settled(engine)
    assert eventually(lambda: descriptors() <= open_before), "a descriptor is left"


def test_a_stream_moves_to_the_loop_that_reads_it(engine: Engine) -> None:
    whole = engine.generate(PROMPT, temperature=0, max_tokens=60, ignore_eos=True).text

    async def read(stream: Stream, count: int) -> str:
        return "".join([(await anext(stream)).text for _ in range(count)])

    async def begin() -> Stream:
        return engine.stream(PROMPT, temperature=0, max_tokens=60, ignore_eos=True)

    stream = asyncio.run(begin())
    text = asyncio.run(read(stream, 20)) + "".join(next(stream).text for _ in range(20)) + asyncio.run(read(stream, 20))
    assert text == whole
    with pytest.raises(StopIteration):
        next(stream)


def test_a_stream_has_one_reader(engine: Engine) -> None:
    async def run() -> None:
        stream = engine.stream(PROMPT, **LONG)
        first = asyncio.create_task(anext_of(stream))
        outcomes = await asyncio.gather(first, anext_of(stream), anext_of(stream), return_exceptions=True)
        assert any(isinstance(outcome, (Token, RuntimeError)) for outcome in outcomes)
        await stream.aclose()

    async def anext_of(stream: Stream) -> Token:
        return await anext(stream)

    asyncio.run(run())
    settled(engine)


def test_a_thread_that_waits_finds_the_end_when_another_cancels(engine: Engine) -> None:
    stream = engine.stream(PROMPT, **LONG)
    read: list[Token] = []
    reader = threading.Thread(target=lambda: read.extend(stream))
    reader.start()
    while not read and reader.is_alive():
        time.sleep(0.001)
        if running(engine) == 1:
            break
    stream.cancel()
    reader.join(timeout=20)
    assert not reader.is_alive()
    settled(engine)


def test_requests_that_are_let_go_of_leave_no_thread_and_no_descriptor(engine: Engine) -> None:
    async def run() -> None:
        streams = [engine.stream(PROMPT, **LONG) for _ in range(50)]
        for stream in streams[:25]:
            await anext(stream)
        with pytest.raises(GenerationTimeoutError):
            async for _ in engine.stream(PROMPT, timeout_ms=30, **LONG):
                pass

    asyncio.run(run())
    gc.collect()
    settled(engine)
    open_before, threads_before = descriptors(), threads()
    for _ in range(5):
        asyncio.run(run())
        gc.collect()
    settled(engine)
    assert eventually(lambda: descriptors() <= open_before)
    assert eventually(lambda: threads() <= threads_before)


def test_a_cancelled_load_leaves_no_model(engine: Engine) -> None:
    before = engine.list_models()

    async def run() -> None:
        loop = asyncio.get_running_loop()
        begun = asyncio.Event()
        load = asyncio.create_task(
            engine.load_model_async(name="again", progress=lambda *_: loop.call_soon_threadsafe(begun.set) and None)
        )
        await begun.wait()
        load.cancel()
        with pytest.raises(asyncio.CancelledError):
            await load

    asyncio.run(run())
    assert eventually(lambda: engine.list_models() == before), engine.list_models()
