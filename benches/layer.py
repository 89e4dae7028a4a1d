#!/usr/bin/env python3
"""The three optimizations' micro-benchmarks, as a record.

    benches/layer.py [--name COMMIT]

Runs `cargo bench` for each of them and writes the medians that criterion found, with their 95 % intervals, to
benches/records/DATE-layer-CPU.json. Only Python's standard library.
"""

import argparse
import datetime
import json
import os
import re
import shutil
import subprocess

from vs_llama import RECORDS, ROOT, cpu_name

BENCHES = ("memory_pool", "blit_coordinator", "command_buffer_ring")
CRITERION = ROOT / "target/criterion"


def seconds(interval):
    """A median in seconds, with its interval."""
    low, high = interval["confidence_interval"]["lower_bound"], interval["confidence_interval"]["upper_bound"]
    return {"median_s": interval["point_estimate"] / 1e9, "low_s": low / 1e9, "high_s": high / 1e9}


def measure(bench):
    shutil.rmtree(CRITERION, ignore_errors=True)
    command = ["cargo", "bench", "--locked", "-p", "mlx-serving-metal-layer", "--bench", bench, "--",
               "--warm-up-time", "0.5", "--measurement-time", "2", "--noplot"]
    subprocess.run(command, cwd=ROOT, check=True)
    found = {}
    for path in sorted(CRITERION.glob("**/new/estimates.json")):
        name = json.loads(path.with_name("benchmark.json").read_text())["full_id"]
        found[re.sub(r"\s+", " ", name)] = seconds(json.loads(path.read_text())["median"])
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default="", help="the commit")
    args = parser.parse_args()
    date, cpu = datetime.datetime.now(datetime.UTC).date().isoformat(), cpu_name()
    record = {"benchmark": "layer", "date": date, "build": args.name, "machine": {"cpu": cpu, "cores": os.cpu_count()},
              "benches": {bench: measure(bench) for bench in BENCHES}}
    slug = "-".join("".join(c if c.isalnum() else " " for c in cpu.lower()).split())
    path = RECORDS / f"{date}-layer-{slug}.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))
    print(path)


if __name__ == "__main__":
    main()
