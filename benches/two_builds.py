#!/usr/bin/env python3
"""Two builds of mlx-serving in one sitting: they take turns, A B A B, because machines drift.

    benches/two_builds.py OLD NEW [--pairs 9] [--shape qwen2.5-0.5b] [--threads 2] [--names OLD NEW]

OLD and NEW are binaries; a name says which commit one is of. Measured are prefill and decode of one stream and decode of eight, on a
random model of the shape at 4 bits, and the time of a whole process that loads the bundled model and prints one token, without and with
all optimizations. Both get one configuration, so that other defaults are no other speed. Writes benches/records/DATE-two-builds-CPU.json with each pair. Only Python's standard library.
"""

import argparse
import datetime
import json
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from vs_llama import RECORDS, ROOT, cpu_name, run


CONFIGURATION = "engine: { max_batch_rows: 512 }\n"


def throughput(binary, folder, threads, prompt_tokens, max_tokens, concurrency):
    with tempfile.TemporaryDirectory() as out:
        report = Path(out) / "report.json"
        load = ["--config", folder.parent / "runtime.yaml", "-q", max(3, concurrency), "--prompt-tokens", prompt_tokens, "--max-tokens", max_tokens, "--concurrency", concurrency]
        run([binary, "bench", "throughput", "-m", folder, "--device", "cpu", "--threads", threads, *load, "--output", report])
        return json.loads(report.read_text())


def first_token(binary, folder, optimizations):
    command = [binary, "generate", "--config", folder.parent / "runtime.yaml", "-m", ROOT / "models/rustbook-5m-4bit", "--raw",
               "-p", "Ownership is", "--max-tokens", "1", "--device", "cpu", "--metal-opts", optimizations]
    times = []
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return 1 / statistics.median(times)


def measure(binary, folder, threads):
    alone = throughput(binary, folder, threads, 256, 64, 1)
    return {
        "prefill of one stream, tokens/s": alone["prefill_tok_s"],
        "decode of one stream, tokens/s": alone["decode_tok_s"],
        "eight streams, tokens/s": throughput(binary, folder, threads, 32, 64, 8)["throughput_tok_s"],
        "process to first token, none, 1/s": first_token(binary, folder, "none"),
        "process to first token, all, 1/s": first_token(binary, folder, "all"),
    }


def summarize(pairs):
    """For each measure the median of the ratios new : old, and the interval of order statistics that holds it with at least 93 %."""
    summary = {}
    for key in pairs[0]["old"]:
        ratios = sorted(pair["new"][key] / pair["old"][key] for pair in pairs)
        cut = {7: 0, 8: 1, 9: 1, 10: 1, 11: 2, 12: 2, 13: 3, 15: 3}.get(len(ratios), 0)
        summary[key] = {
            "old": round(statistics.median(pair["old"][key] for pair in pairs), 3),
            "new": round(statistics.median(pair["new"][key] for pair in pairs), 3),
            "ratio": round(statistics.median(ratios), 4),
            "interval": [round(ratios[cut], 4), round(ratios[-1 - cut], 4)],
        }
    return summary


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--names", nargs=2, default=["old", "new"])
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--shape", default="qwen2.5-0.5b")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    old, new = args.old.resolve(), args.new.resolve()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / args.shape
        (Path(scratch) / "runtime.yaml").write_text(CONFIGURATION)
        run([new, "bench", "synth", "--shape", args.shape, "--bits", 4, "--group-size", 64, "--out", folder])
        pairs = []
        for n in range(args.pairs):
            # Whoever is first meets another machine than whoever is second.
            order = [("old", old), ("new", new)] if n % 2 == 0 else [("new", new), ("old", old)]
            pairs.append({which: measure(binary, folder, args.threads) for which, binary in order})
            print(f"pair {n + 1}: " + "  ".join(f"{pairs[-1]['new'][k] / pairs[-1]['old'][k]:.3f} {k}" for k in pairs[-1]["old"]), flush=True)
    date, cpu = datetime.datetime.now(datetime.UTC).date().isoformat(), cpu_name()
    record = {
        "benchmark": "two builds",
        "date": date,
        "builds": dict(zip(("old", "new"), args.names)),
        "settings": {"configuration": CONFIGURATION.strip(), "pairs": args.pairs, "shape": args.shape, "threads": args.threads},
        "machine": {"cpu": cpu, "cores": os.cpu_count()},
        "summary": summarize(pairs),
        "pairs": pairs,
    }
    slug = "-".join(part for part in "".join(c if c.isalnum() else " " for c in cpu.lower()).split())
    path = RECORDS / f"{date}-two-builds-{slug}.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record["summary"], indent=1))
    print(path)


if __name__ == "__main__":
    main()
