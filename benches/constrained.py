#!/usr/bin/env python3
"""What a JSON schema costs: eight constrained streams against eight free ones, and free streams beside constrained ones, in pairs.

    benches/constrained.py BINARY [--shape qwen2.5-0.5b] [--pairs 9] [--device cpu] [--threads N] [--name COMMIT]

On the bundled model and on a random model of the shape at 4 bits, a server answers eight requests at once, with a schema and without, in
turn; then eight free ones while eight others go on beside them, with a schema and without. Every answer has the same number of tokens: the
schema's array never ends before. Ratios are constrained to free, of tokens per second. Writes benches/records/DATE-constrained-CPU.json.
Only Python's standard library.
"""

import argparse
import datetime
import http.client
import json
import os
import random
import re
import statistics
import subprocess
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from vs_llama import RECORDS, ROOT, cpu_name, run

BUNDLED = ROOT / "models/rustbook-5m-4bit"
STREAMS = 8
PROMPT_TOKENS, MAX_TOKENS = 32, 128
LEAST_S = 2
ENTRY = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 20},
        "kind": {"enum": ["person", "place", "thing"]},
        "count": {"type": "integer", "minimum": 0, "maximum": 999},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 8}, "maxItems": 3},
    },
    "required": ["name", "kind", "count", "tags"],
    "additionalProperties": False,
}
SCHEMA = {"type": "array", "items": ENTRY, "minItems": 100}


@contextmanager
def server(binary, model, device, threads):
    command = [binary, "serve", "--port", "0", "-m", model, "--device", device, "--metal-opts", "command_buffer_ring"]
    command += ["--threads", str(threads)] if threads else []
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        port = next(int(found[1]) for line in process.stderr if (found := re.search(r"on http://[^ ]*:(\d+)", line)))
        threading.Thread(target=process.stderr.read, daemon=True).start()
        while get(port, "/ready")[0] != 200:
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait()


def get(port, path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def complete(port, constrained):
    """Tokens of one answer."""
    body = {"prompt": [random.randrange(300, 2000) for _ in range(PROMPT_TOKENS)], "max_tokens": MAX_TOKENS, "temperature": 1, "ignore_eos": True}
    body |= {"guided_json": SCHEMA} if constrained else {}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    connection.request("POST", "/v1/completions", json.dumps(body), {"content-type": "application/json"})
    answer = connection.getresponse()
    text = answer.read()
    assert answer.status == 200, text
    tokens = json.loads(text)["usage"]["completion_tokens"]
    assert tokens == MAX_TOKENS, text
    return tokens


def speed(port, constrained):
    """Tokens per second of answers that begin at once, in rounds until two seconds are over."""
    with ThreadPoolExecutor(STREAMS) as pool:
        began, tokens = time.perf_counter(), 0
        while (took := time.perf_counter() - began) < LEAST_S:
            tokens += sum(pool.map(lambda _: complete(port, constrained), range(STREAMS)))
        return tokens / took


def speed_beside(port, constrained):
    """Tokens per second of free answers, while as many others, with a schema or without, go on beside them."""
    over = threading.Event()

    def go_on(_):
        while not over.is_set():
            complete(port, constrained)

    with ThreadPoolExecutor(STREAMS) as pool:
        others = [pool.submit(go_on, i) for i in range(STREAMS)]
        time.sleep(0.3)
        try:
            return speed(port, False)
        finally:
            over.set()
            [other.result() for other in others]


def sampled(port):
    """The server's own figures of masks."""
    names = ("mask_seconds_sum", "mask_seconds_count", "forced_tokens_total", "late_masks_total")
    text = get(port, "/metrics")[1]
    found = {name: re.search(rf"^mlx_serving_grammar_{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE) for name in names}
    return {name: float(value[1]) for name, value in found.items() if value}


def measure(binary, model, args):
    pairs = []
    with server(binary, model, args.device, args.threads) as port:
        for constrained in (True, False):
            speed(port, constrained)
        for n in range(args.pairs):
            order = (True, False) if n % 2 else (False, True)
            pair = {}
            for what, figure in (("alone", speed), ("free beside", speed_beside)):
                by = {constrained: figure(port, constrained) for constrained in order}
                pair[what] = {"constrained": round(by[True], 2), "free": round(by[False], 2), "ratio": round(by[True] / by[False], 4)}
            pairs.append(pair)
            print(f"{model.name}, pair {n + 1}: " + ", ".join(f"{what} {pair[what]['ratio']:.3f}" for what in pair), flush=True)
        masks = sampled(port)
    medians = {what: statistics.median(pair[what]["ratio"] for pair in pairs) for what in pairs[0]}
    return {"ratios": medians, "masks": masks, "pairs": pairs}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", type=Path)
    parser.add_argument("--shape", default="qwen2.5-0.5b")
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--name", default="unknown")
    args = parser.parse_args()
    binary = args.binary.resolve()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / args.shape
        run([binary, "bench", "synth", "--shape", args.shape, "--bits", 4, "--group-size", 64, "--out", folder])
        results = {model.name: measure(binary, model, args) for model in (BUNDLED, folder)}
    date, cpu = datetime.datetime.now(datetime.UTC).date().isoformat(), cpu_name()
    settings = {"streams": STREAMS, "prompt_tokens": PROMPT_TOKENS, "max_tokens": MAX_TOKENS, "pairs": args.pairs, "device": args.device, "threads": args.threads}
    record = {
        "benchmark": "constrained",
        "date": date,
        "build": args.name,
        "machine": {"cpu": cpu, "cores": os.cpu_count()},
        "settings": settings,
        "models": results,
    }
    slug = "-".join("".join(c if c.isalnum() else " " for c in cpu.lower()).split())
    path = RECORDS / f"{date}-constrained-{slug}.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps({name: result["ratios"] for name, result in results.items()}, indent=1))
    print(path)


if __name__ == "__main__":
    main()
