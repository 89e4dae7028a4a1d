#!/usr/bin/env python3
"""How long /ready takes, and the tokens of a stream, beside four clients that send bodies of 8 MB one after the other.

    benches/probes_beside_bodies.py BINARY [--seconds 20] [--name COMMIT]

Writes benches/records/DATE-probes-CPU.json. Only Python's standard library.
"""

import argparse
import datetime
import http.client
import json
import os
import re
import subprocess
import threading
import time
from pathlib import Path

from vs_llama import RECORDS, ROOT, cpu_name

# Prompts of one token each, more than are taken: the most values in the fewest bytes, found out only when all have been read.
BODY = b'{"prompt":[' + b"[1]," * 1_950_000 + b'"x"]}'


def post(port, body, until):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", "/v1/completions", body, {"content-type": "application/json"})
    answer = connection.getresponse()
    times = []
    while answer.readline():
        times.append(time.monotonic())
        if until.is_set():
            break
    connection.close()
    return answer.status, times


def percentiles(seconds):
    ordered = sorted(seconds)
    at = lambda share: round(1e3 * ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1)
    return {"count": len(ordered), "p50_ms": at(0.5), "p99_ms": at(0.99), "max_ms": round(1e3 * ordered[-1], 1)}


def measure(port, seconds, clients):
    end, over, probes, gaps, bodies = time.monotonic() + seconds, threading.Event(), [], [], []

    def probe():
        while not over.is_set():
            start = time.monotonic()
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            connection.request("GET", "/ready")
            assert connection.getresponse().status == 200
            connection.close()
            probes.append(time.monotonic() - start)
            time.sleep(0.02)

    def stream():
        body = json.dumps({"prompt": "Ownership is", "max_tokens": 300, "ignore_eos": True, "temperature": 0, "stream": True})
        while not over.is_set():
            # Every second line is empty.
            times = post(port, body, over)[1][::2]
            gaps.extend(b - a for a, b in zip(times, times[1:]))

    def send():
        while time.monotonic() < end:
            bodies.append(post(port, BODY, over)[0])

    threads = [threading.Thread(target=of) for of in [probe, stream] + [send] * clients]
    [thread.start() for thread in threads]
    time.sleep(max(0, end - time.monotonic()))
    over.set()
    [thread.join() for thread in threads]
    statuses = {str(status): bodies.count(status) for status in set(bodies)}
    return {"clients": clients, "bodies": statuses, "ready": percentiles(probes), "between_tokens": percentiles(gaps)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", type=Path)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--name", default="")
    args = parser.parse_args()
    command = [args.binary.resolve(), "serve", "--port", "0", "--device", "cpu", "--metal-opts", "none"]
    server = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        port = next(int(found[1]) for line in server.stderr if (found := re.search(r"on http://[^ ]*:(\d+)", line)))
        threading.Thread(target=server.stderr.read, daemon=True).start()
        runs = [measure(port, args.seconds, clients) for clients in (0, 4)]
        peak = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{server.pid}/status").read_text())[1]
    finally:
        server.terminate()
        server.wait()
    date, cpu = datetime.datetime.now(datetime.UTC).date().isoformat(), cpu_name()
    record = {"benchmark": "probes beside bodies", "date": date, "build": args.name, "body_bytes": len(BODY),
              "machine": {"cpu": cpu, "cores": os.cpu_count()}, "peak_resident_kib": int(peak), "runs": runs}
    slug = "-".join("".join(c if c.isalnum() else " " for c in cpu.lower()).split())
    path = RECORDS / f"{date}-probes-{slug}.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))
    print(path)


if __name__ == "__main__":
    main()
