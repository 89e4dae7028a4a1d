"""Every option and every argument: what is of the wrong type or out of range is refused by name before anything happens."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from conftest import PROMPT

from mlx_serving import Engine, EngineError, InvalidParamsError, InvalidTypeError

TEXT, FLAG, NUMBER, WHOLE = "text", "flag", "number", "whole"
WRONG: dict[str, list[Any]] = {
    TEXT: [1, True, 1.5, [], {}, b"x", object()],
    FLAG: [1, "x", 1.5, [], {}, b"x", object()],
    NUMBER: ["1", True, [], {}, b"x", object(), 1j],
    WHOLE: ["1", True, [], {}, b"x", object(), 1j],
}

PARAMETERS: list[tuple[str, str, list[Any]]] = [
    ("model", TEXT, []),
    ("add_special_tokens", FLAG, []),
    ("max_tokens", WHOLE, [0, -1, 1.5, 2**40, 2**70]),
    ("temperature", NUMBER, [-0.1, 1e9, math.nan, math.inf, -math.inf]),
    ("top_p", NUMBER, [-0.1, 1.1, math.nan]),
    ("top_k", WHOLE, [-1, 1.5, 2**40]),
    ("min_p", NUMBER, [-0.1, 1.1, math.nan]),
    ("repetition_penalty", NUMBER, [0, -1, math.nan, math.inf]),
    ("presence_penalty", NUMBER, [-2.1, 2.1, math.nan]),
    ("frequency_penalty", NUMBER, [-2.1, 2.1, math.nan]),
    ("seed", WHOLE, [-1, 1.5, 2**64]),
    ("ignore_eos", FLAG, []),
    ("timeout_ms", WHOLE, [0, -1, 1.5, 2**40]),
]
OTHERS: list[tuple[str, list[Any], list[Any]]] = [
    # Name, values of the wrong type, values out of range.
    ("logprobs", ["1", [], {}, object()], [-1, 21, 1.5]),
    ("stop", [1, {}, [1], object(), b"x"], [[""], ""]),
    ("logit_bias", [1, "x", [], {(1,): 1.0}, {1: "x"}], [{"x": 1}, {-1: 1}, {1: math.nan}, {1: 1e9}, {10**7: 1}]),
    ("chat_template_kwargs", [1, "x", [], {(): 1}], [{"x": math.nan}]),
]


def refused(call: Callable[[], Any], name: str, kind: type[EngineError]) -> None:
    with pytest.raises(kind) as caught:
        call()
    error = caught.value
    assert error.code == "InvalidParams"
    assert error.param is not None and error.param.split(".")[0].split("[")[0] == name, error.param
    assert name in error.message or "outside the vocabulary" in error.message


def wrong_types() -> list[tuple[str, Any]]:
    listed = [(name, value) for name, kind, _ in PARAMETERS for value in WRONG[kind]]
    return listed + [(name, value) for name, wrong, _ in OTHERS for value in wrong]


def out_of_range() -> list[tuple[str, Any]]:
    listed = [(name, value) for name, _, values in PARAMETERS for value in values]
    return listed + [(name, value) for name, _, values in OTHERS for value in values]


@pytest.mark.parametrize(("name", "value"), wrong_types(), ids=repr)
def test_a_parameter_of_the_wrong_type_is_a_type_error(engine: Engine, name: str, value: Any) -> None:
    arguments: Any = {name: value}
    for call in (engine.generate, engine.stream):
        refused(lambda: call(PROMPT, **arguments), name, InvalidTypeError)


@pytest.mark.parametrize(("name", "value"), out_of_range(), ids=repr)
def test_a_parameter_out_of_range_is_a_value_error(engine: Engine, name: str, value: Any) -> None:
    arguments: Any = {name: value}
    for call in (engine.generate, engine.stream):
        refused(lambda: call(PROMPT, **arguments), name, InvalidParamsError)


def test_a_prompt_is_text_or_ids(engine: Engine) -> None:
    for wrong in [1, True, {}, b"x", object(), ["x"], [1.5], [True], {1, 2}]:
        kind: type[EngineError] = InvalidParamsError if wrong == [1.5] else InvalidTypeError
        refused(lambda value=wrong: engine.generate(value), "prompt", kind)  # type: ignore[misc]
    for value in [[-1], [2**40], [10**7], [], "\ud800"]:
        refused(lambda value=value: engine.generate(value), "prompt", InvalidParamsError)  # type: ignore[misc]
    refused(lambda: engine.generate(), "prompt", InvalidParamsError)
    of_bytes: Any = b"x"
    with pytest.raises(InvalidTypeError, match="^`prompt` takes text or a list of token ids, not bytes$"):
        engine.generate(of_bytes)
    refused(lambda: engine.generate(PROMPT, messages=[{"role": "user", "content": "x"}]), "messages", InvalidParamsError)


def test_messages_are_checked_by_place_and_name(engine: Engine) -> None:
    user: Any = {"role": "user", "content": "x"}
    for wrong in [1, "x", {}, [1], ["x"], [user, {"role": 1, "content": "x"}], [{"role": "user", "content": 1}]]:
        refused(lambda value=wrong: engine.chat(value), "messages", InvalidTypeError)  # type: ignore[misc]
    for value in [[], [{}], [{"role": "clown", "content": "x"}], [{"role": "user"}], [{**user, "mood": "x"}]]:
        refused(lambda value=value: engine.chat(value), "messages", InvalidParamsError)  # type: ignore[misc]
    clown: Any = {"role": "clown", "content": "x"}
    with pytest.raises(InvalidParamsError, match=r"messages\[1\]\.role"):
        engine.chat([user, clown])


def test_unknown_parameters_are_refused_with_the_one_that_was_meant(engine: Engine) -> None:
    arguments: Any = {"max_token": 3}
    with pytest.raises(InvalidParamsError, match="did you mean `max_tokens`"):
        engine.generate(PROMPT, **arguments)


def test_a_value_that_holds_itself_is_refused(engine: Engine) -> None:
    endless: Any = []
    endless.append(endless)
    with pytest.raises(InvalidParamsError, match="too deep"):
        engine.generate(endless)


def test_arguments_of_the_other_calls(engine: Engine) -> None:
    call: Any = engine
    for wrong in [1, True, [], b"x"]:
        refused(lambda value=wrong: call.tokenize(value), "text", InvalidTypeError)  # type: ignore[misc]
        refused(lambda value=wrong: call.load_model(value), "model", InvalidTypeError)  # type: ignore[misc]
        refused(lambda value=wrong: call.load_model(name=value), "name", InvalidTypeError)  # type: ignore[misc]
        refused(lambda value=wrong: call.load_model(chat_template=value), "chat_template", InvalidTypeError)  # type: ignore[misc]
        refused(lambda value=wrong: call.unload_model(value), "model", InvalidTypeError)  # type: ignore[misc]
        refused(lambda value=wrong: call.metal_stats(value), "model", InvalidTypeError)  # type: ignore[misc]
    for wrong in [1, True, "x", ["x"], {}]:
        refused(lambda value=wrong: call.detokenize(value), "tokens", InvalidTypeError)  # type: ignore[misc]
    for value in [[-1], [10**7], [1.5]]:
        refused(lambda value=value: call.detokenize(value), "tokens", InvalidParamsError)  # type: ignore[misc]
    refused(lambda: call.tokenize("x", add_special_tokens=1), "add_special_tokens", InvalidTypeError)


def nested(key: str, value: Any) -> Any:
    for name in reversed(key.split(".")):
        value = {name: value}
    return value


METAL = "metal_optimizations"
# Every key of the configuration: kind, values out of range. A test compares the list with the schema.
OPTIONS: list[tuple[str, str, list[Any]]] = [
    ("server.host", TEXT, [""]),
    ("server.port", WHOLE, [-1, 65_536]),
    ("server.body_limit_mb", WHOLE, [0, 1025]),
    ("server.shutdown_grace_s", WHOLE, [-1, 3601]),
    ("server.wedged_after_s", WHOLE, [0, 3601]),
    ("server.allowed_hosts", "texts", []),
    ("server.cors_origins", "texts", [["x"]]),
    ("server.strip_billing_header", FLAG, []),
    ("server.limits.connections", WHOLE, [0, 1_000_001]),
    ("server.limits.header_s", WHOLE, [0, 3601]),
    ("server.limits.body_s", WHOLE, [0, 86_401]),
    ("server.limits.pause_s", WHOLE, [0, 3601]),
    ("server.limits.idle_s", WHOLE, [0, 86_401]),
    ("server.limits.write_s", WHOLE, [0, 86_401]),
    ("server.limits.bodies_mb", WHOLE, [0, 1_048_577]),
    ("server.limits.answer_mb", WHOLE, [0, 1_048_577]),
    ("server.limits.unread_mb", WHOLE, [0, 1_048_577]),
    ("server.limits.stored_responses", WHOLE, [-1, 1_000_001]),
    ("server.limits.stored_responses_mb", WHOLE, [0, 1_048_577]),
    ("engine.device", TEXT, ["abacus"]),
    ("engine.arithmetic", TEXT, ["sloppy"]),
    ("engine.threads", WHOLE, [-1, 1025]),
    ("engine.max_sequences", WHOLE, [0, 257]),
    ("engine.max_batch_rows", WHOLE, [15, 8193]),
    ("engine.kv_cache_tokens", WHOLE, [255, 16_777_217]),
    ("engine.max_waiting", WHOLE, [-1, 65_537]),
    ("engine.step_limit_s", WHOLE, [0, 3601]),
    ("engine.kv_spill_mb", WHOLE, [-1, 1_048_577]),
    ("engine.kv_spill_file", TEXT, [""]),
    ("engine.kv_spill_file_mb", WHOLE, [0, 16_777_217]),
    ("models.serve", "texts", []),
    ("models.chat_template", TEXT, []),
    ("models.tool_call_format", TEXT, ["telegrams"]),
    ("models.reasoning_format", TEXT, ["aloud"]),
    (f"{METAL}.enabled", FLAG, []),
    (f"{METAL}.memory_pool.enabled", FLAG, []),
    (f"{METAL}.memory_pool.heap_size_mb", WHOLE, [63, 2049]),
    (f"{METAL}.memory_pool.num_heaps", WHOLE, [1, 17]),
    (f"{METAL}.memory_pool.warmup_buffer_sizes_mb", "wholes", [[0], [1025]]),
    (f"{METAL}.memory_pool.track_statistics", FLAG, []),
    (f"{METAL}.memory_pool.log_pool_exhaustion", FLAG, []),
    (f"{METAL}.memory_pool.max_heap_size_mb", WHOLE, [255, 4097]),
    (f"{METAL}.memory_pool.min_heaps", WHOLE, [0, 9]),
    (f"{METAL}.blit_queue.enabled", FLAG, []),
    (f"{METAL}.blit_queue.max_pending_ops", WHOLE, [0, 101]),
    (f"{METAL}.blit_queue.timeout_ms", WHOLE, [99, 30_001]),
    (f"{METAL}.blit_queue.staging_buffer_size_mb", WHOLE, [0, 1025]),
    (f"{METAL}.blit_queue.use_shared_events", FLAG, []),
    (f"{METAL}.blit_queue.verify_checksums", FLAG, []),
    (f"{METAL}.blit_queue.track_metrics", FLAG, []),
    (f"{METAL}.command_buffer_ring.enabled", FLAG, []),
    (f"{METAL}.command_buffer_ring.ring_size", WHOLE, [1, 9]),
    (f"{METAL}.command_buffer_ring.max_wait_ms", WHOLE, [99, 10_001]),
    (f"{METAL}.command_buffer_ring.track_statistics", FLAG, []),
    (f"{METAL}.command_buffer_ring.log_wait_events", FLAG, []),
    (f"{METAL}.graceful_fallback", FLAG, []),
    (f"{METAL}.log_fallbacks", FLAG, []),
    (f"{METAL}.expose_metrics", FLAG, []),
    ("telemetry.log_format", TEXT, ["yaml"]),
    ("telemetry.log_level", TEXT, ["loud"]),
]
WRONG_LISTS: dict[str, list[Any]] = {"texts": [1, "x", True, {}, [1]], "wholes": [1, "x", True, {}, ["x"], [True]]}


@pytest.mark.parametrize(("key", "kind", "values"), OPTIONS, ids=[key for key, _, _ in OPTIONS])
def test_an_option_is_checked_by_its_dotted_name(key: str, kind: str, values: list[Any]) -> None:
    for wrong in WRONG_LISTS.get(kind) or [value for value in WRONG[kind]]:
        with pytest.raises((InvalidTypeError, InvalidParamsError)) as caught:
            Engine(nested(key, wrong))
        assert isinstance(caught.value, InvalidTypeError), (wrong, caught.value)
        assert caught.value.param is not None and caught.value.param.split("[")[0] == key, (wrong, caught.value.param)
    for value in values:
        with pytest.raises(InvalidParamsError) as out:
            Engine(nested(key, value))
        assert out.value.param is not None and out.value.param.split("[")[0] == key, (value, out.value.param)


@pytest.mark.parametrize("key", ["engine.thread", "metal.enabled", "metal_optimizations.memory_pool.heap_size", "x"])
def test_an_unknown_option_is_refused(key: str) -> None:
    with pytest.raises(InvalidParamsError) as caught:
        Engine(nested(key, 1))
    assert caught.value.param == key or caught.value.param == key.split(".")[0]


def test_an_option_that_is_not_finite_is_refused_by_its_dotted_name() -> None:
    with pytest.raises(InvalidParamsError, match="engine.threads"):
        Engine(nested("engine.threads", math.inf))


def test_options_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(InvalidParamsError, match="max_heap_size_mb"):
        Engine({"metal_optimizations": {"memory_pool": {"heap_size_mb": 1024, "max_heap_size_mb": 512}}})
