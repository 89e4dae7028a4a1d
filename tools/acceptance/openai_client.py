#!/usr/bin/env python3
"""Talks to a running server with the `openai` Python package, as an application would. Exits non-zero if anything surprised it.

    mlx-serving serve &
    python3 -m venv /tmp/openai && /tmp/openai/bin/pip install openai
    /tmp/openai/bin/python tools/acceptance/openai_client.py [--url http://127.0.0.1:8080] [--model ID]
"""

import argparse
import re
import time
import traceback
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
    assert not deltas[-1].choices[0].delta.content, "a client that stops at the reason must not lose text"
    assert len(deltas) > 10, "an answer of 48 tokens comes in pieces"


def stops(client, model):
    """A stop string ends the answer and is not part of it; so does the model's own end."""
    text, _ = whole(client, model)
    stop = text[40:52]
    answer = client.chat.completions.create(model=model, messages=QUESTION, temperature=0, max_tokens=48, stop=[stop])
    assert answer.choices[0].message.content == text[: text.index(stop)], answer
    assert answer.choices[0].finish_reason == "stop", answer


    # Text that was held back, because a stop string might have begun there, comes before the reason.
    held = text[-3:] + "no such text"
    settings = dict(model=model, messages=QUESTION, temperature=0, max_tokens=48, stop=[held])
    *deltas, last = [chunk.choices[0] for chunk in client.chat.completions.create(**settings, stream=True)]
    assert last.finish_reason == "length" and not last.delta.content, last
    assert "".join(choice.delta.content or "" for choice in deltas) == text


def second_turn(client, model):
    """The answer's own message is taken back, in each of the forms that the package gives it."""
    message = client.chat.completions.create(model=model, messages=QUESTION, temperature=0, max_tokens=8).choices[0].message
    plain = {"role": "assistant", "content": message.content}
    answers = set()
    for form in (plain, message, message.model_dump(), message.to_dict()):
        messages = [*QUESTION, form, {"role": "user", "content": "And borrowing?"}]
        answers.add(client.chat.completions.create(model=model, messages=messages, temperature=0, max_tokens=8).choices[0].message.content)
    assert len(answers) == 1, answers


def completions(client, model):
    """The older endpoint, with its token by token stream."""
    settings = dict(model=model, prompt="Each value in Rust has an", temperature=0, max_tokens=16)
    text = client.completions.create(**settings).choices[0].text
    assert "".join(chunk.choices[0].text for chunk in client.completions.create(**settings, stream=True)) == text
    # The sampled token is among the top ones even where it is unlikely; the offsets hold where text was held back for a stop string.
    answer = client.completions.create(**{**settings, "temperature": 1.9}, seed=3, logprobs=1, stop=[" no such text"]).choices[0]
    logprobs = answer.logprobs
    assert "".join(logprobs.tokens) == answer.text, (answer.text, logprobs.tokens)
    for token, chosen, top in zip(logprobs.tokens, logprobs.token_logprobs, logprobs.top_logprobs):
        assert top[token] == chosen, (token, chosen, top)
    offset = 0
    for token, here in zip(logprobs.tokens, logprobs.text_offset):
        assert here == offset, (logprobs.tokens, logprobs.text_offset)
        offset += len(token)


def score(client, model, context, continuation):
    """The log-probability of a text after another and whether it is what greedy sampling says, as evaluation harnesses ask for it: ids,
    an echo, and the slice between the context and the token that had to be generated."""
    both = tokenize(client, model, context + continuation)
    start = len(tokenize(client, model, context))
    answer = client.completions.create(model=model, prompt=both, max_tokens=1, temperature=0, logprobs=1, echo=True)
    logprobs = answer.choices[0].logprobs
    assert len(logprobs.tokens) == len(both) + 1, f"{len(both)} tokens of the prompt and one of the answer, not {logprobs.tokens}"
    scored = range(start, len(both))
    greedy = all(logprobs.token_logprobs[i] == max(logprobs.top_logprobs[i].values()) for i in scored)
    return sum(logprobs.token_logprobs[i] for i in scored), greedy


def tokenize(client, model, text):
    """Ids of a text."""
    return client.post("/tokenize", body={"model": model, "prompt": text}, cast_to=object)["tokens"]


def echoed_logprobs(client, model):
    """The prompt's log-probabilities are there, are those that generation gives the same tokens, and tell likely from unlikely."""
    prompt = "Each value in Rust has an"
    settings = dict(model=model, temperature=0, logprobs=2)
    made = client.completions.create(**settings, prompt=prompt, max_tokens=12).choices[0]
    for more in ({"max_tokens": 1}, {"max_tokens": 0}, {"max_tokens": 1, "stream": True}):
        answer = client.completions.create(**settings, prompt=prompt + made.text, echo=True, **more)
        pieces = [chunk.choices[0] for chunk in answer if chunk.choices] if "stream" in more else answer.choices
        text = "".join(piece.text for piece in pieces)
        fields = ("tokens", "token_logprobs", "top_logprobs", "text_offset")
        tokens, chosen, top, offsets = ([x for p in pieces if p.logprobs for x in getattr(p.logprobs, field)] for field in fields)
        assert text.startswith(prompt + made.text) and "".join(tokens) == text, (text, tokens)
        assert chosen[0] is None and top[0] is None, (chosen[0], top[0])
        assert all(text[at:].startswith(token) for at, token in zip(offsets, tokens)), (text, offsets, tokens)
        assert all(names[token] == value for names, token, value in zip(top[1:], tokens[1:], chosen[1:])), (tokens, top)
        start = tokens.index(made.logprobs.tokens[0], len(tokenize(client, model, prompt)))
        for said, here in zip(made.logprobs.token_logprobs, chosen[start:], strict=False):
            assert abs(said - here) < 1e-4, (made.logprobs.token_logprobs, chosen[start:])
    likely, is_greedy = score(client, model, prompt, made.text)
    unlikely, is_not = score(client, model, prompt, " zebra zebra purple")
    assert is_greedy and not is_not and unlikely < likely < 0, (likely, is_greedy, unlikely, is_not)


def refusals(client, model):
    """What cannot be honored is a 400 with the parameter's name, an unknown model a 404."""
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


def hang_up(client, model):
    """A client that goes away ends its generation: nothing runs soon after, and few tokens were made for nobody."""
    url = str(client.base_url).removesuffix("/v1/")
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
    checks = [streamed, stops, second_turn, completions, echoed_logprobs, refusals, hang_up]
    failed = 0
    for check in checks:
        print(check.__name__, flush=True)
        try:
            check(client, model)
        except Exception:
            traceback.print_exc()
            failed += 1
    print(f"{len(checks) - failed} passed, {failed} failed")
    raise SystemExit(failed > 0)


if __name__ == "__main__":
    main()
