#!/usr/bin/env python3
"""Talks to a running server with the `openai` Python package, as an application would. Exits non-zero at the first surprise.

    mlx-serving serve &
    python3 -m venv /tmp/openai && /tmp/openai/bin/pip install openai
    /tmp/openai/bin/python tools/acceptance/openai_client.py [--url http://127.0.0.1:8080] [--model ID]
"""

import argparse
import re
import time
import urllib.request

import openai

QUESTION = [{"role": "user", "content": "What Is Ownership?"}]


def whole(client, model):
    """A whole answer, to compare the stream with."""
    answer = client.chat.completions.create(model=model, messages=QUESTION, temperature=0, max_tokens=48)
    choice = answer.choices[0]
    assert answer.object == "chat.completion" and choice.message.role == "assistant", answer
    assert choice.finish_reason == "length", choice.finish_reason
    assert answer.usage.completion_tokens == 48, answer.usage
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 48, answer.usage
    return choice.message.content, answer.usage


def streamed(client, model):
    """The same answer as deltas, the finish reason in the last of them, and the usage in a chunk of its own."""
    text, usage = whole(client, model)
    chunks = list(
        client.chat.completions.create(
            model=model, messages=QUESTION, temperature=0, max_tokens=48, stream=True, stream_options={"include_usage": True}
        )
    )
    assert len({chunk.id for chunk in chunks}) == 1, "chunks of one answer carry one id"
    assert all(chunk.object == "chat.completion.chunk" for chunk in chunks)
    *deltas, last = chunks
    assert last.choices == [] and last.usage == usage, last
    assert all(chunk.usage is None for chunk in deltas)
    assert deltas[0].choices[0].delta.role == "assistant", deltas[0]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in deltas) == text
    reasons = [chunk.choices[0].finish_reason for chunk in deltas]
    assert reasons[-1] == "length" and not any(reasons[:-1]), reasons
    assert len(deltas) > 10, "an answer of 48 tokens comes in pieces"


def stops(client, model):
    """A stop string ends the answer and is not part of it; so does the model's own end."""
    text, _ = whole(client, model)
    stop = text[40:52]
    answer = client.chat.completions.create(model=model, messages=QUESTION, temperature=0, max_tokens=48, stop=[stop])
    assert answer.choices[0].message.content == text[: text.index(stop)], answer
    assert answer.choices[0].finish_reason == "stop", answer


def completions(client, model):
    """The older endpoint, with its token by token stream."""
    settings = dict(model=model, prompt="Each value in Rust has an", temperature=0, max_tokens=16)
    text = client.completions.create(**settings).choices[0].text
    assert "".join(chunk.choices[0].text for chunk in client.completions.create(**settings, stream=True)) == text


def refusals(client, model):
    """What cannot be honoured is a 400 with the parameter's name, an unknown model a 404."""
    for bad in ({"temperature": -1.0}, {"max_tokens": -5}, {"extra_body": {"no_such_parameter": 1}}):
        try:
            client.chat.completions.create(**{"model": model, "messages": QUESTION, **bad})
        except openai.BadRequestError as error:
            assert error.param, f"{bad}: {error}"
        else:
            raise AssertionError(f"{bad} was accepted")
    try:
        client.chat.completions.create(model="no-such-model", messages=QUESTION)
    except openai.NotFoundError as error:
        assert "no-such-model" in error.message, error
    else:
        raise AssertionError("an unknown model was accepted")


def gauge(url, name):
    """The sum of a metric over its labels."""
    text = urllib.request.urlopen(f"{url}/metrics", timeout=10).read().decode()
    values = re.findall(rf"^{re.escape(name)}(?:\{{[^}}]*\}})? ([-+.\deE]+)$", text, re.M)
    assert values, f"/metrics has no {name}"
    return sum(map(float, values))


def hang_up(client, model, url):
    """A client that goes away ends its generation: nothing runs soon after, and few tokens were made for nobody."""
    before = gauge(url, "vllm:generation_tokens_total")
    stream = client.chat.completions.create(model=model, messages=QUESTION, max_tokens=1500, stream=True, extra_body={"ignore_eos": True})
    for _, _chunk in zip(range(4), stream):
        pass
    assert gauge(url, "vllm:num_requests_running") == 1
    stream.close()
    deadline = time.monotonic() + 5
    while gauge(url, "vllm:num_requests_running"):
        assert time.monotonic() < deadline, "the request still runs five seconds after its client left"
        time.sleep(0.02)
    made = gauge(url, "vllm:generation_tokens_total") - before
    assert made < 1500, f"{made:.0f} tokens: it ran to its end"
    print(f"  {made:.0f} of 1500 tokens were made")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--model", help="default: the first that the server lists")
    args = parser.parse_args()
    client = openai.OpenAI(base_url=f"{args.url}/v1", api_key="none", max_retries=0, timeout=60)
    models = [model.id for model in client.models.list()]
    model = args.model or models[0]
    assert model in models, f"{model} is not among {models}"
    checks = [streamed, stops, completions, refusals]
    for check in checks:
        print(check.__name__, flush=True)
        check(client, model)
    print("hang_up", flush=True)
    hang_up(client, model, args.url.rstrip("/"))
    print(f"{len(checks) + 1} passed, 0 failed")


if __name__ == "__main__":
    main()
