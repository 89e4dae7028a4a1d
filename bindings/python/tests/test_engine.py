"""Answers: whole, by iterators, by event loops; all the same text."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import ONE_THREAD, PROMPT, RING, eventually, metric, running

from mlx_serving import (
    Engine,
    EngineClosedError,
    EngineError,
    GenerationTimeoutError,
    InternalError,
    InvalidParamsError,
    InvalidTypeError,
    LoadError,
    ModelNotFoundError,
    ModelNotLoadedError,
    RuntimeConfig,
    Token,
)

GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 40, "ignore_eos": True}


def test_stream_async_and_generate_give_the_same_text(engine: Engine) -> None:
    whole = engine.generate(PROMPT, **GREEDY)
    assert whole.finish_reason == "length"
    assert whole.usage.completion_tokens == len(whole.token_ids) == 40
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + 40
    assert whole.logprobs is None

    stream = engine.stream(PROMPT, **GREEDY)
    assert (stream.usage, stream.finish_reason) == (None, None)
    tokens = list(stream)
    assert "".join(token.text for token in tokens) == whole.text
    assert [token.id for token in tokens if token.id is not None] == whole.token_ids
    assert stream.finish_reason == "length"
    assert stream.usage is not None and stream.usage.completion_tokens == 40
    assert list(stream) == [], "it stays at its end"

    async def by_loop() -> None:
        stream = engine.stream(PROMPT, **GREEDY)
        assert "".join([token.text async for token in stream]) == whole.text
        assert stream.finish_reason == "length"
        assert [token async for token in stream] == []
        completion = await engine.generate_async(PROMPT, **GREEDY)
        assert (completion.text, completion.token_ids) == (whole.text, whole.token_ids)

    asyncio.run(by_loop())


def test_a_prompt_may_be_token_ids(engine: Engine) -> None:
    ids = engine.tokenize(PROMPT)
    assert engine.detokenize(ids).endswith(PROMPT)
    assert engine.generate(ids, **GREEDY).text == engine.generate(PROMPT, **GREEDY).text
    assert engine.generate(tuple(ids), **GREEDY).text == engine.generate(PROMPT, **GREEDY).text


def test_log_probabilities_come_where_they_are_asked_for(engine: Engine) -> None:
    answer = engine.generate(PROMPT, logprobs=3, **GREEDY)
    assert answer.logprobs is not None and len(answer.logprobs) == 40
    for token in answer.logprobs:
        assert token.logprob is not None and token.logprob <= 0
        assert [token.id, token.logprob] == list(token.top_logprobs[0]), "greedy takes the most likely"
        assert len(token.top_logprobs) == 3
    chosen = engine.generate(PROMPT, logprobs=True, **GREEDY).logprobs
    assert chosen is not None and [token.top_logprobs for token in chosen] == [[]] * 40
    assert engine.generate(PROMPT, logprobs=False, **GREEDY).logprobs is None


def test_a_token_can_be_matched_and_shown(engine: Engine) -> None:
    token = next(engine.stream(PROMPT, **GREEDY))
    match token:
        case Token(text, id):
            assert isinstance(text, str) and isinstance(id, int)
    assert repr(token).startswith("Token(text=")


def test_stop_strings_and_text_that_was_held_back(engine: Engine) -> None:
    whole = engine.generate(PROMPT, **GREEDY).text
    stop = whole[10:14]
    stopped = engine.generate(PROMPT, stop=stop, **GREEDY)
    assert stopped.text == whole[: whole.index(stop)]
    assert stopped.finish_reason == "stop"
    assert engine.generate(PROMPT, stop=[stop, "\0"], **GREEDY).text == stopped.text
    assert "".join(token.text for token in engine.stream(PROMPT, stop=stop, **GREEDY)) == stopped.text


def test_other_libraries_numbers_and_sequences_are_taken(engine: Engine) -> None:
    class Whole:
        def __index__(self) -> int:
            return 7

    class Real:
        def __float__(self) -> float:
            return 0.5

    parameters: Any = {"max_tokens": Whole(), "temperature": Real(), "seed": Whole()}
    assert len(engine.generate(range(3, 6), ignore_eos=True, **parameters).token_ids) == 7


@pytest.mark.parametrize("count", [5, 50])
def test_requests_of_threads_at_once_get_their_own_answers(engine: Engine, count: int) -> None:
    prompts = [f"Question {n}: what is" for n in range(count)]
    alone = [engine.generate(prompt, **GREEDY).text for prompt in prompts]
    together = [""] * count

    def ask(n: int) -> None:
        if n % 2:
            together[n] = engine.generate(prompts[n], **GREEDY).text
        else:
            together[n] = "".join(token.text for token in engine.stream(prompts[n], **GREEDY))

    asking = [threading.Thread(target=ask, args=(n,)) for n in range(count)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    assert together == alone


def test_other_threads_run_while_an_answer_is_waited_for(engine: Engine) -> None:
    ticks, over = 0, threading.Event()

    def tick() -> None:
        nonlocal ticks
        while not over.is_set():
            ticks += 1
            over.wait(0.001)

    ticking = threading.Thread(target=tick)
    ticking.start()
    engine.generate(PROMPT, max_tokens=500, temperature=0, ignore_eos=True)
    for _ in engine.stream(PROMPT, max_tokens=500, temperature=0, ignore_eos=True):
        pass
    over.set()
    ticking.join()
    assert ticks > 10


@pytest.mark.parametrize("count", [5, 50])
def test_requests_of_tasks_at_once_get_their_own_answers_at_one_wake_a_step(engine: Engine, count: int) -> None:
    prompts = [f"Question {n}: what is" for n in range(count)]
    alone = [engine.generate(prompt, **GREEDY).text for prompt in prompts]

    async def ask(prompt: str) -> tuple[str, int]:
        stream = engine.stream(prompt, **GREEDY)
        mailbox = stream._mailbox
        assert mailbox is not None
        text = "".join([token.text async for token in stream])
        return text, mailbox.native.wakes

    async def together() -> list[tuple[str, int]]:
        return await asyncio.gather(*[ask(prompt) for prompt in prompts])

    before = metric(engine, "vllm:iteration_tokens_total_count")
    answers = asyncio.run(together())
    assert [text for text, _ in answers] == alone
    wakes = max(wakes for _, wakes in answers)
    steps = metric(engine, "vllm:iteration_tokens_total_count") - before
    print(f"{count} streams: {wakes} wakes, {steps:.0f} steps, {40 * count} tokens")
    assert wakes <= steps


def test_two_engines_live_side_by_side(engine: Engine) -> None:
    with Engine(ONE_THREAD) as other:
        assert other.list_models() == []
        with pytest.raises(ModelNotLoadedError):
            other.generate(PROMPT)
        other.load_model(name="other")
        assert [model["id"] for model in other.list_models()] == ["other"]
        first, second = engine.stream(PROMPT, **GREEDY), other.stream(PROMPT, **GREEDY)
        assert [a.text == b.text for a, b in zip(first, second, strict=True)] == [True] * 40
        with pytest.raises(ModelNotLoadedError):
            engine.generate(PROMPT, model="other")


def test_progress_is_told_and_its_exception_ends_the_load() -> None:
    told: list[tuple[str, str, int, int]] = []
    with Engine(ONE_THREAD) as engine:
        card = engine.load_model(progress=lambda *progress: told.append(progress))
        assert card["state"] == "ready" and card["backend"] == "cpu"
        assert told and told[-1][0] == "load" and told[-1][2] == told[-1][3] > 0

    with Engine(ONE_THREAD) as engine:

        def fail(stage: str, file: str, done: int, total: int) -> None:
            raise KeyError(stage)

        with pytest.raises(KeyError):
            engine.load_model(progress=fail)
        assert eventually(lambda: engine.list_models() == []), "what was loaded is unloaded"


def test_models_that_are_no_models(tmp_path: Path) -> None:
    with Engine(ONE_THREAD) as engine:
        with pytest.raises(ModelNotFoundError) as missing:
            engine.load_model(tmp_path / "missing")
        assert (missing.value.code, missing.value.param) == ("ModelNotFound", "model")
        with pytest.raises(LoadError):
            engine.load_model(str(tmp_path))
        engine.load_model()
        engine.unload_model()
        with pytest.raises(ModelNotLoadedError):
            engine.unload_model()


def test_the_configuration_may_be_a_file(tmp_path: Path) -> None:
    path = tmp_path / "runtime.yaml"
    path.write_text("engine: {device: cpu, threads: 1, kv_cache_tokens: 1024}\n")
    for config in (path, str(path)):
        with Engine(config) as engine:
            engine.load_model()
            assert len(engine.generate(PROMPT, **GREEDY).token_ids) == 40
    path.write_text("engine: {kv_cache_tokens: 1}\n")
    with pytest.raises(InvalidParamsError, match="kv_cache_tokens"):
        Engine(path)
    with pytest.raises(InvalidParamsError, match="missing.yaml"):
        Engine(tmp_path / "missing.yaml")
    with pytest.raises(InvalidTypeError, match="config"):
        Engine(3)  # type: ignore[arg-type]


def test_statistics_and_metrics_tell_what_is_on() -> None:
    pool: RuntimeConfig = {"metal_optimizations": {"enabled": True, "memory_pool": {"enabled": True, "num_heaps": 4}}}
    with Engine({**ONE_THREAD, **pool}) as engine:
        engine.load_model()
        engine.generate(PROMPT, **GREEDY)
        stats = engine.metal_stats()
        assert stats["memory_pool"]["enabled"] is True
        assert stats["memory_pool"]["total_acquired"] > 0
        assert stats["command_buffer_ring"] == {"enabled": False}
        assert metric(engine, "vllm:generation_tokens_total") == 40
        assert engine.health_check()["status"] == "healthy"


def test_an_engine_that_was_closed_refuses_and_its_streams_fail() -> None:
    engine = Engine(ONE_THREAD)
    engine.load_model()
    stream = engine.stream(PROMPT, max_tokens=1000, ignore_eos=True)
    next(stream)
    engine.close()
    with pytest.raises(EngineClosedError) as closed:
        for _ in stream:
            pass
    assert closed.value.code == "Disposed"
    engine.close()
    calls: list[Callable[[], Any]] = [
        engine.load_model,
        engine.unload_model,
        engine.list_models,
        engine.metal_stats,
        engine.metrics,
        lambda: engine.generate(PROMPT),
        lambda: engine.stream(PROMPT),
        lambda: engine.tokenize("x"),
        lambda: engine.detokenize([1]),
    ]
    for call in calls:
        with pytest.raises(EngineClosedError):
            call()
    assert engine.health_check()["status"] == "unhealthy"
    with pytest.raises(EngineClosedError):
        asyncio.run(engine.generate_async(PROMPT))


def test_closing_fails_the_tasks_that_wait() -> None:
    async def run() -> None:
        engine = Engine(ONE_THREAD)
        await engine.load_model_async()

        async def read() -> None:
            async for _ in engine.stream(PROMPT, max_tokens=1000, ignore_eos=True):
                pass

        readers = [asyncio.create_task(read()) for _ in range(5)]
        while running(engine) < 5:
            await asyncio.sleep(0.001)
        await engine.close_async()
        outcomes = await asyncio.gather(*readers, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [EngineClosedError] * 5

    asyncio.run(run())


def test_the_ring_changes_nothing_of_the_text(engine: Engine, ring_engine: Engine) -> None:
    assert RING
    assert engine.generate(PROMPT, **GREEDY).text == ring_engine.generate(PROMPT, **GREEDY).text


def test_a_generation_that_takes_too_long_fails_and_ends(engine: Engine) -> None:
    slow: dict[str, Any] = {"max_tokens": 2000, "ignore_eos": True, "timeout_ms": 20}
    with pytest.raises(GenerationTimeoutError) as late:
        engine.generate(PROMPT, **slow)
    assert late.value.code == "Timeout" and isinstance(late.value, TimeoutError)
    with pytest.raises(TimeoutError):
        list(engine.stream(PROMPT, **slow))

    async def by_loop() -> None:
        with pytest.raises(TimeoutError):
            async for _ in engine.stream(PROMPT, **slow):
                pass

    asyncio.run(by_loop())
    assert eventually(lambda: running(engine) == 0)


def test_a_panic_is_an_error_and_makes_the_engine_unhealthy() -> None:
    engine: Any = Engine(ONE_THREAD)
    if not hasattr(engine._native, "_panic"):
        pytest.skip("a release build has no way to panic")
    with pytest.raises(InternalError, match="as a test asked for") as panic:
        engine._native._panic()
    assert panic.value.code == "Internal"
    health = engine.health_check()
    assert health["status"] == "unhealthy" and "as a test asked for" in health["reason"]
    engine.close()


def test_every_error_is_an_engine_error_with_its_fields(engine: Engine) -> None:
    import pickle

    with pytest.raises(EngineError) as caught:
        engine.generate(PROMPT, top_p=2)
    error = caught.value
    assert isinstance(error, ValueError)
    assert (error.code, error.param) == ("InvalidParams", "top_p")
    assert str(error) == error.message and "top_p" in error.message
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), again.code, again.message, again.param) == (type(error), error.code, error.message, error.param)
