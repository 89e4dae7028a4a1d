#!/usr/bin/env python3
"""Records every JSON object that a running server says in a mixed run and validates it with the `openai` package's own models, made
strict: a missing required field, a value of another type, and a field that the package does not know are errors. Exits non-zero if any is.

    mlx-serving serve &
    python3 -m venv /tmp/openai && /tmp/openai/bin/pip install openai
    /tmp/openai/bin/python tools/acceptance/strict_objects.py [--url http://127.0.0.1:8080] [--model ID]
"""

import argparse
import collections
import concurrent.futures
import json
import types
import typing
import urllib.error
import urllib.request

import pydantic
from openai.types import Completion, CompletionChoice, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.shared import ErrorObject

# Fields beyond OpenAI's, by the package's class, with the type and the default: what vLLM says too. Of a stream's chunks only the last says
# why it stopped.
STOP_REASON = {"stop_reason": (typing.Optional[str], None)}
EXTENSIONS = {
    "Model": {"max_model_len": (int, ...)},
    "Choice": STOP_REASON,
    "CompletionChoice": STOP_REASON,
    "ChunkChoice": STOP_REASON,
}
# Fields that OpenAI's server says null in, though the package's class does not: chunks before the last have no finish reason, and the
# first token of an echoed prompt has no probability.
NULLABLE = {
    ("ChunkChoice", "finish_reason"): lambda kind: typing.Optional[kind],
    ("Logprobs", "token_logprobs"): lambda kind: typing.Optional[list[typing.Optional[float]]],
    ("Logprobs", "top_logprobs"): lambda kind: typing.Optional[list[typing.Optional[dict[str, float]]]],
}


class Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", strict=True, protected_namespaces=())


class ChunkChoice(CompletionChoice):
    """The choice of a streamed text completion; the package has one class for both."""


class CompletionChunk(Completion):
    choices: list[ChunkChoice]


class ModelList(pydantic.BaseModel):
    """What the package calls a page."""

    object: typing.Literal["list"]
    data: list[Model]


class Failure(pydantic.BaseModel):
    """What surrounds the package's error object."""

    error: ErrorObject


made = {}


def strict(kind):
    """The type with every model class in it replaced by one that forbids unknown fields."""
    if isinstance(kind, type) and issubclass(kind, pydantic.BaseModel):
        if kind not in made:
            fields = {}
            for name, field in kind.model_fields.items():
                widen = NULLABLE.get((kind.__name__, name), lambda kind: kind)
                fields[name] = (strict(widen(field.annotation)), field.default if not field.is_required() else ...)
            fields.update(EXTENSIONS.get(kind.__name__, {}))
            made[kind] = pydantic.create_model(kind.__name__, __base__=Strict, **fields)
        return made[kind]
    arguments = typing.get_args(kind)
    origin = typing.get_origin(kind)
    if not arguments or origin is typing.Literal:
        return kind
    if origin is typing.Annotated:
        return typing.Annotated[(strict(arguments[0]), *arguments[1:])]
    if origin in (typing.Union, types.UnionType):
        return typing.Union[tuple(map(strict, arguments))]
    return origin[tuple(map(strict, arguments))]


QUESTION = [{"role": "user", "content": "What Is Ownership?"}]
HISTORY = QUESTION + [{"role": "assistant", "content": "Rules."}, {"role": "user", "content": [{"type": "text", "text": "And?"}]}]
USAGE = {"stream": True, "stream_options": {"include_usage": True}}
LOGPROBS = {"logprobs": True, "top_logprobs": 3}


def run(model):
    """(path, body, whole class, chunk class, status) of the run: bodies of None are GETs."""
    chat = [
        {},
        {"messages": HISTORY, "n": 2, "seed": 1, "temperature": 1.2},
        {"stop": [" a"], **USAGE},
        {"stream": True, "n": 2, "seed": 2, "temperature": 1.0, **LOGPROBS},
        {**LOGPROBS},
        {"logprobs": True, **USAGE},
        {"max_tokens": 1, "stop": ["no such text"], "stream": True},
    ]
    text = [
        {},
        {"prompt": ["Each value", "has an"], "n": 2, "seed": 3, "temperature": 1.0},
        {"logprobs": 0},
        {"logprobs": 5, "temperature": 1.9, "seed": 4},
        {"echo": True, "logprobs": 1},
        {"echo": True, "logprobs": 1, "max_tokens": 0},
        {"echo": True, "logprobs": 1, **USAGE},
        {"echo": True, "stream": True, "n": 2},
        {"prompt": [1, 2604, 201], "echo": True, "logprobs": 2},
        {"stop": [" a"], "logprobs": 1, **USAGE},
    ]
    wrong = [
        ("/v1/chat/completions", {"model": model, "messages": QUESTION, "temperature": -1}, 400),
        ("/v1/chat/completions", {"model": model, "messages": [["user", "x"]]}, 400),
        ("/v1/chat/completions", {"model": model, "messages": QUESTION, "tools": [{"type": "function", "function": {"name": "f"}}]}, 400),
        ("/v1/chat/completions", {"model": model, "messages": QUESTION, "no_such_parameter": 1}, 400),
        ("/v1/chat/completions", {"model": "no-such-model", "messages": QUESTION}, 404),
        ("/v1/completions", {"model": model, "prompt": "word " * 5000, "max_tokens": 1}, 400),
        ("/v1/completions", {"model": model}, 400),
        ("/v1/completions", [], 400),
        ("/v1/models/no-such-model", None, 404),
        ("/v1/no-such-route", None, 404),
        ("/v1/models", {}, 405),
    ]
    common = {"model": model, "max_tokens": 8, "temperature": 0}
    for body in chat:
        yield "/v1/chat/completions", {**common, "messages": QUESTION, **body}, ChatCompletion, ChatCompletionChunk, 200
    for body in text:
        yield "/v1/completions", {**common, "prompt": "Ownership is", **body}, Completion, CompletionChunk, 200
    for path, body, status in wrong:
        yield path, body, Failure, Failure, status
    yield "/v1/models", None, ModelList, None, 200
    yield f"/v1/models/{model}", None, Model, None, 200


def said(url, body):
    """(status, objects): one object, or those of a stream."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            status, headers, text = answer.status, answer.headers, answer.read().decode()
    except urllib.error.HTTPError as answer:
        status, headers, text = answer.code, answer.headers, answer.read().decode()
    if "text/event-stream" not in headers.get("content-type", ""):
        return status, [text]
    events = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    assert events[-1:] == ["[DONE]"], f"a stream that ends in {text[-200:]!r}"
    return status, events[:-1]


REQUIRED = {"id", "object", "choices", "index", "data", "message", "delta", "prompt_tokens"}


def spoil(value):
    """Copies with an unknown field more or a required one less, at every depth: what the strict models must refuse."""
    if isinstance(value, list):
        yield from ([spoilt] for spoilt in spoil(value[0])) if value else ()
    # A map of token to probability takes any name.
    if not isinstance(value, dict) or all(isinstance(child, float) for child in value.values()):
        return
    yield {**value, "no_such_field": 1}
    for key, child in value.items():
        yield from ({**value, key: spoilt} for spoilt in spoil(child))
        if key in REQUIRED:
            yield {name: other for name, other in value.items() if name != key}


def faults(url, case):
    """(objects, complaints) of one request."""
    path, body, whole, chunk, expected = case
    status, objects = said(url + path, body)
    if status != expected:
        return 0, [f"{path} {json.dumps(body)[:160]}: {status}, not {expected}: {objects[0][:200]}"]
    streamed = isinstance(body, dict) and body.get("stream")
    adapter = pydantic.TypeAdapter(strict(chunk if streamed else whole))
    for spoilt in spoil(json.loads(objects[0])):
        try:
            adapter.validate_json(json.dumps(spoilt))
        except pydantic.ValidationError:
            continue
        raise AssertionError(f"this check would let pass: {spoilt}")
    complaints = []
    for text in objects:
        try:
            adapter.validate_json(text)
        except pydantic.ValidationError as error:
            for fault in error.errors():
                place = ".".join(str(part) for part in fault["loc"] if not isinstance(part, int))
                complaints.append(f"{path} {json.dumps(body)[:160]}: {place}: {fault['msg']}, {json.dumps(fault['input'])[:80]}")
    return len(objects), complaints


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--model", help="default: the first that the server lists")
    args = parser.parse_args()
    url = args.url.rstrip("/")
    model = args.model or json.loads(said(f"{url}/v1/models", None)[1][0])["data"][0]["id"]
    cases = list(run(model))
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda case: faults(url, case), cases))
    complaints = collections.Counter(line for _, lines in results for line in lines)
    for line, count in complaints.items():
        print(f"{line}{f' ({count} times)' if count > 1 else ''}")
    failed = sum(bool(lines) for _, lines in results)
    print(f"{sum(count for count, _ in results)} objects of {len(cases)} requests")
    print(f"{len(cases) - failed} passed, {failed} failed")
    raise SystemExit(failed > 0)


if __name__ == "__main__":
    main()
