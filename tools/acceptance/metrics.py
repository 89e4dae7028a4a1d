#!/usr/bin/env python3
"""Reads a running server's /metrics in both formats with Prometheus' own parsers, idle and under load, and with promtool where it is on
PATH. Exits non-zero at the first surprise.

    mlx-serving serve -m MODEL -m ANOTHER &
    python3 -m venv /tmp/openai && /tmp/openai/bin/pip install prometheus_client
    /tmp/openai/bin/python tools/acceptance/metrics.py [--url http://127.0.0.1:8080]
"""

import argparse
import json
import shutil
import subprocess
import threading
import time
import urllib.request

from prometheus_client import openmetrics, parser
import prometheus_client.openmetrics.parser  # noqa: F401, the submodule is not imported by its package

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
PLAIN = "text/plain; version=0.0.4"
# What dashboards for vLLM, servers and processes show, by the names that it has in the text format.
EXPECTED = {
    "vllm:num_requests_running": "gauge",
    "vllm:num_requests_waiting": "gauge",
    "vllm:kv_cache_usage_perc": "gauge",
    "vllm:prompt_tokens_total": "counter",
    "vllm:generation_tokens_total": "counter",
    "vllm:request_success_total": "counter",
    "vllm:time_to_first_token_seconds": "histogram",
    "vllm:request_prompt_tokens": "histogram",
    "vllm:request_generation_tokens": "histogram",
    "vllm:request_params_max_tokens": "histogram",
    "http_requests_total": "counter",
    "process_cpu_seconds_total": "counter",
    "process_resident_memory_bytes": "gauge",
}
REASONS = {"stop", "length", "abort", "error"}


def get(url, accept):
    """The body of /metrics and its content type."""
    request = urllib.request.Request(f"{url}/metrics", headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.read().decode(), answer.headers["content-type"]


def openmetrics_families(url):
    """The strict parser refuses a family that comes twice, a sample outside of its family, a counter without _total, a missing EOF."""
    text, kind = get(url, OPENMETRICS)
    assert kind.startswith("application/openmetrics-text"), kind
    return list(openmetrics.parser.text_string_to_metric_families(text))


def plain_families(url):
    """The text format; every sample belongs to a family that has a type and a help text, each family once."""
    text, kind = get(url, PLAIN)
    assert kind.startswith("text/plain"), f"text/plain was asked for, {kind} came"
    families = list(parser.text_string_to_metric_families(text))
    names = [family.name for family in families]
    assert len(names) == len(set(names)), f"families that come twice: {sorted({n for n in names if names.count(n) > 1})}"
    for family in families:
        assert family.type != "unknown" and family.documentation, f"{family.name} has no type or no help"
    return families


def promtool(url):
    """Prometheus' own linter, but for its dislike of vLLM's names: of colons, and of a histogram that ends in _total."""
    if not shutil.which("promtool"):
        return
    text, _ = get(url, PLAIN)
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=30)
    disliked = ("should not contain ':'", 'vllm:iteration_tokens_total non-counter metrics should not have "_total" suffix')
    said = [line for line in (done.stdout + done.stderr).splitlines() if not any(words in line for words in disliked)]
    assert not said, "promtool: " + "; ".join(said)


def samples(families):
    """Values by name and labels."""
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def check(url, models):
    """Samples of the text format: both formats say the same, the linter nothing, and all that dashboards expect is there of every model."""
    strict, plain = openmetrics_families(url), plain_families(url)
    promtool(url)
    # The parsers take _total off a counter's name, so it is put back.
    types = {family.name + ("_total" if family.type == "counter" else ""): family.type for family in plain}
    missing = {name: kind for name, kind in EXPECTED.items() if types.get(name) != kind}
    assert not missing, f"not there, or of another type: {missing}"
    values = samples(plain)
    unsaid = {name for name, _ in samples(strict) if not name.endswith("_created")} - {name for name, _ in values}
    assert not unsaid, f"not in the text format: {unsaid}"
    assert label(values, "vllm:num_requests_running", "model_name") == set(models)
    assert label(values, "vllm:request_success_total", "finished_reason") <= REASONS
    return values


def label(values, family, name):
    """The values of one label of a family."""
    return {dict(labels)[name] for sample, labels in values if sample == family}


def generate(url, model, tokens):
    """One streamed completion, read to its end."""
    body = {"model": model, "prompt": "Ownership is", "max_tokens": tokens, "ignore_eos": True, "stream": True, "temperature": 0}
    request = urllib.request.Request(f"{url}/v1/completions", json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert b"[DONE]" in answer.read()


def under_load(url, models):
    """The same while every model generates; counters never fall, and the tokens are counted."""
    before = check(url, models)
    workers = [threading.Thread(target=generate, args=(url, model, 400)) for model in models for _ in range(4)]
    for worker in workers:
        worker.start()
    busy, last, deadline = False, before, time.monotonic() + 60
    while any(worker.is_alive() for worker in workers):
        assert time.monotonic() < deadline, "the load did not end"
        now = check(url, models)
        for key, value in last.items():
            assert not key[0].endswith(("_total", "_count", "_bucket")) or now[key] >= value, f"{key} fell from {value} to {now.get(key)}"
        busy = busy or any(value > 0 for (name, _), value in now.items() if name == "vllm:num_requests_running")
        last = now
    assert busy, "nothing was running at any look"
    for model in models:
        key = ("vllm:generation_tokens_total", (("model_name", model),))
        while (made := check(url, models)[key] - before[key]) < 1600 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert made == 1600, f"{model}: {made} tokens of 1600 are counted"
    assert "200" in label(check(url, models), "http_requests_total", "status")


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--url", default="http://127.0.0.1:8080")
    url = arguments.parse_args().url.rstrip("/")
    with urllib.request.urlopen(f"{url}/v1/models", timeout=10) as answer:
        models = [model["id"] for model in json.load(answer)["data"]]
    said = f"{len(models)} model(s), promtool {'found' if shutil.which('promtool') else 'not on PATH'}"
    print(f"idle: {said}", flush=True)
    check(url, models)
    print("under load", flush=True)
    under_load(url, models)
    print("2 passed, 0 failed")


if __name__ == "__main__":
    main()
