"""Uses whose types mypy checks; nothing runs it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from typing import assert_type

from krserve_native import (
    BlitCoordinator,
    BlitCoordinatorConfig,
    CommandBufferRing,
    CommandBufferRingConfig,
    DeviceBuffer,
    MetalMemoryPool,
    MetalMemoryPoolConfig,
    MetalMemoryPoolStats,
)
from mlx_serving import (
    Completion,
    Engine,
    EngineError,
    FinishReason,
    Message,
    Model,
    Parameters,
    Stream,
    Token,
    Usage,
)


def layer() -> None:
    config = MetalMemoryPoolConfig()
    config.warmup_sizes = [1, 2]
    pool = MetalMemoryPool(config)
    pool.release_heap(pool.acquire_heap())
    assert_type(pool.get_statistics(), MetalMemoryPoolStats)
    blit = BlitCoordinator(BlitCoordinatorConfig())
    upload = blit.upload_async(memoryview(b"x"))
    assert_type(blit.wait_for_completion(upload), DeviceBuffer)
    assert_type(blit.wait_for_completion(blit.download_async(upload.buffer), timeout_ms=5), bytes)
    ring = CommandBufferRing(CommandBufferRingConfig())
    ring.release_buffer(ring.acquire_buffer())
    assert_type(ring.get_statistics().avg_wait_time_us, float)


def whole(path: os.PathLike[str]) -> None:
    with Engine(path) as engine:
        engine.load_model(path, name="x", progress=lambda stage, file, done, total: print(stage, done / total))
        messages: list[Message] = [{"role": "user", "content": "x"}]
        parameters: Parameters = {"max_tokens": 3, "stop": ["a"], "logit_bias": {3: 1.0}}
        assert_type(engine.chat(messages, **parameters), Completion)
        answer = engine.generate([1, 2], temperature=0, logprobs=3)
        assert_type(answer.usage, Usage)
        if answer.logprobs is not None:
            assert_type(answer.logprobs[0].top_logprobs, list[tuple[int, float]])
        assert_type(engine.tokenize("x"), list[int])
        assert_type(engine.list_models(), list[Model])


def options() -> None:
    Engine({"engine": {"device": "cpu", "kv_cache_tokens": 8192}})
    # A misspelled key is an error; if it were none, the comment would be.
    Engine({"engine": {"devise": "cpu"}})  # type: ignore[arg-type]


def stream(engine: Engine) -> Iterator[Token]:
    stream = engine.stream("x")
    assert_type(stream, Stream)
    try:
        for token in stream:
            assert_type(token, Token)
            assert_type(token.id, int | None)
    except EngineError as error:
        assert_type(error.param, str | None)
    assert_type(stream.finish_reason, FinishReason | None)
    return stream


async def loop(engine: Engine) -> AsyncIterator[Token]:
    assert_type(await engine.generate_async("x"), Completion)
    async with engine, engine.stream("x") as stream:
        async for token in stream:
            assert_type(token, Token)
    return stream
