#!/usr/bin/env python3
"""How long streams wait for their next token beside long prompts, by engine.max_batch_rows.

    benches/rows_of_a_step.py BINARY [--shape qwen2.5-0.5b] [--name COMMIT]

For each number of rows a server is started, some streams begin, prompts of 1,900 tokens are all sent at once, and the streams' tokens are
timed until the last prompt has its answer. The bundled model gets 4 streams and 24 prompts, three times; a random model of the shape at 4
bits gets 2 streams and 3 prompts, twice. Rounds go through all numbers of rows in turn. Writes benches/records/DATE-rows-CPU.json. Only
Python's standard library.
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
from contextlib import contextmanager
from pathlib import Path

from vs_llama import RECORDS, ROOT, cpu_name, run

ROWS = (64, 128, 256, 512)
PROMPT_TOKENS = 1900
BUNDLED = ROOT / "models/rustbook-5m-4bit"


@contextmanager
def server(binary, model, rows):
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as configuration:
        configuration.write(f"engine: {{ max_batch_rows: {rows}, device: cpu }}\n")
        configuration.flush()
        command = [binary, "serve", "--port", "0", "-m", model, "--metal-opts", "none", "--config", configuration.name]
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        try:
            port = next(int(found[1]) for line in process.stderr if (found := re.search(r"on http://[^ ]*:(\d+)", line)))
            threading.Thread(target=process.stderr.read, daemon=True).start()
            while get(port, "/ready") != 200:
                time.sleep(0.05)
            yield port
        finally:
            process.terminate()
            process.wait()


def get(port, path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", path)
    return connection.getresponse().status


def complete(port, body, over=None):
    """The times at which an answer's events came."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    connection.request("POST", "/v1/completions", json.dumps(body), {"content-type": "application/json"})
    answer, times = connection.getresponse(), []
    assert answer.status == 200, answer.read()
    while line := answer.readline():
        if line.startswith(b"data: {"):
            times.append(time.monotonic())
        if over and over.is_set():
            break
    connection.close()
    return times


def measure(port, streams, prompts):
    # Ids that every model here has, and a prefix that no two prompts share.
    ids = lambda tokens: [random.randrange(300, 2000) for _ in range(tokens)]
    over, started, gaps = threading.Event(), [], []
    common = {"ignore_eos": True, "temperature": 0}

    def stream():
        while not over.is_set():
            times = complete(port, {**common, "prompt": ids(16), "max_tokens": 1500, "stream": True}, over)
            if started:
                gaps.extend(b - a for a, b in zip(times, times[1:]) if a >= started[0])

    def prompt():
        complete(port, {**common, "prompt": ids(PROMPT_TOKENS), "max_tokens": 1})

    readers = [threading.Thread(target=stream) for _ in range(streams)]
    [reader.start() for reader in readers]
    time.sleep(0.5)
    started.append(time.monotonic())
    senders = [threading.Thread(target=prompt) for _ in range(prompts)]
    [sender.start() for sender in senders]
    [sender.join() for sender in senders]
    took = time.monotonic() - started[0]
    over.set()
    [reader.join() for reader in readers]
    ordered = sorted(gaps)
    at = lambda share: 1e3 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]
    return {"between_tokens_p50_ms": at(0.5), "between_tokens_p99_ms": at(0.99), "tokens": len(ordered), "all_prompts_s": took}


def medians(runs):
    return {key: statistics.median(run[key] for run in runs) for key in runs[0]}


def table(binary, model, streams, prompts, rounds):
    runs = {rows: [] for rows in ROWS}
    for _ in range(rounds):
        for rows in ROWS:
            with server(binary, model, rows) as port:
                runs[rows].append(measure(port, streams, prompts))
    return {"streams": streams, "prompts": prompts, "prompt_tokens": PROMPT_TOKENS,
            "rows": [{"max_batch_rows": rows, "median": medians(runs[rows]), "runs": runs[rows]} for rows in ROWS]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", type=Path)
    parser.add_argument("--shape", default="qwen2.5-0.5b")
    parser.add_argument("--name", default="", help="the binary's commit")
    args = parser.parse_args()
    binary = args.binary.resolve()
    with tempfile.TemporaryDirectory() as folder:
        run([binary, "bench", "synth", "--shape", args.shape, "--out", Path(folder) / "model"])
        models = {BUNDLED.name: table(binary, BUNDLED, 4, 24, 3), args.shape: table(binary, Path(folder) / "model", 2, 3, 2)}
    date, cpu = datetime.datetime.now(datetime.UTC).date().isoformat(), cpu_name()
    record = {"benchmark": "rows of a step", "date": date, "build": args.name,
              "machine": {"cpu": cpu, "cores": os.cpu_count()}, "models": models}
    slug = "-".join("".join(c if c.isalnum() else " " for c in cpu.lower()).split())
    path = RECORDS / f"{date}-rows-{slug}.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps({name: [{"max_batch_rows": row["max_batch_rows"], **row["median"]} for row in model["rows"]]
                      for name, model in models.items()}, indent=1))
    print(path)


if __name__ == "__main__":
    main()
