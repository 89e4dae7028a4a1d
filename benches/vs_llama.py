#!/usr/bin/env python3
"""Our speed against llama.cpp's, in one sitting: the two programs take turns, A B A B, because machines drift.

    benches/vs_llama.py [--shape qwen2.5-0.5b] [--rounds 5] [--threads 2] [--prompt-tokens 256] [--max-tokens 64] [--questions 3]

Needs `cargo build --release` and `.peers/llama` (benches/README.md). Writes benches/records/DATE-vs-llama-CPU.{json,md}.
Only Python's standard library.
"""

import argparse
import datetime
import json
import os
import platform
import re
import statistics
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OURS = ROOT / "target/release/mlx-serving"
PEER_PYTHON = ROOT / ".peers/llama/bin/python"
PEER = ROOT / "benches/llama_cpp_speed.py"
RECORDS = ROOT / "benches/records"
TARGETS = {"prefill_tok_s": 1.3, "decode_tok_s": 1.1}


def run(command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\nended with {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout


def our_checkpoint(shape, cache):
    folder = cache / f"{shape}-4bit"
    if not (folder / "config.json").exists():
        run([OURS, "bench", "synth", "--shape", shape, "--bits", 4, "--group-size", 64, "--out", folder])
    return folder


def load_flags(args):
    return ["--prompt-tokens", args.prompt_tokens, "--max-tokens", args.max_tokens, "--threads", args.threads]


def run_ours(args, folder):
    with tempfile.TemporaryDirectory() as out:
        report = Path(out) / "report.json"
        command = [OURS, "bench", "throughput", "-m", folder, "-q", args.questions, "--concurrency", 1, "--device", "cpu"]
        run([*command, *load_flags(args), "--output", report])
        return json.loads(report.read_text())


def run_peer(args, cache):
    return json.loads(run([PEER_PYTHON, PEER, args.shape, "--questions", args.questions, "--cache", cache, *load_flags(args)]))


def cpu_name():
    """The model's name, with family and model number where a virtual machine hides the rest."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    fields = dict(re.findall(r"^(model name|cpu family|model)\s*:\s*(.+?)\s*$", text, re.M))
    if "model name" not in fields:
        return platform.machine()
    return f"{fields['model name']} (family {fields['cpu family']}, model {fields['model']})"


def our_version():
    commit = run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"]).strip()
    dirty = "+changes" if run(["git", "-C", ROOT, "status", "--porcelain", "-uno"]).strip() else ""
    return f"{run([OURS, '--version']).strip()} ({commit}{dirty})"


def summarize(ours, peer):
    out = {}
    for key, target in TARGETS.items():
        a, b = [r[key] for r in ours], [r[key] for r in peer]
        out[key] = {
            "ours": round(statistics.median(a), 2),
            "ours_range": [round(min(a), 2), round(max(a), 2)],
            "llama_cpp": round(statistics.median(b), 2),
            "llama_cpp_range": [round(min(b), 2), round(max(b), 2)],
            "ratio": round(statistics.median(a) / statistics.median(b), 3),
            "ratio_of_rounds": [round(x / y, 3) for x, y in zip(a, b)],
            "target": target,
        }
    return out


def as_markdown(record):
    s = record["settings"]
    lines = [
        f"# {record['date']}: mlx-serving and llama.cpp, {s['shape']} at 4 bits",
        "",
        f"{record['machine']['cpu']}, {s['threads']} threads, {s['rounds']} rounds in turn, each {s['questions']} questions of "
        f"{s['prompt_tokens']} + {s['max_tokens']} tokens after one of warm-up. Medians over the rounds (least – most).",
        "",
        "| tokens/s | mlx-serving | llama.cpp | ratio | target |",
        "| --- | --- | --- | --- | --- |",
    ]
    for key, row in record["summary"].items():
        cells = [f"{row[n]:.1f} ({row[n + '_range'][0]:.1f} – {row[n + '_range'][1]:.1f})" for n in ("ours", "llama_cpp")]
        lines.append(f"| {key.removesuffix('_tok_s')} | {cells[0]} | {cells[1]} | {row['ratio']:.2f} | {row['target']:.1f} |")
    lines += ["", f"{record['versions']['mlx_serving']}; llama-cpp-python {record['versions']['llama_cpp_python']}."]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="qwen2.5-0.5b")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompt-tokens", type=int, default=256)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--questions", type=int, default=3)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "mlx-serving-bench")
    parser.add_argument("--dry-run", action="store_true", help="print the record, write nothing")
    args = parser.parse_args()
    for needed in (OURS, PEER_PYTHON):
        if not needed.exists():
            raise SystemExit(f"{needed.relative_to(ROOT)} is missing: see benches/README.md")
    args.cache.mkdir(parents=True, exist_ok=True)

    folder = our_checkpoint(args.shape, args.cache)
    ours, peer = [], []
    for n in range(1, args.rounds + 1):
        ours.append(run_ours(args, folder))
        peer.append(run_peer(args, args.cache))
        speeds = "  ".join(f"{k} {ours[-1][k]:.1f} : {peer[-1][k]:.1f}" for k in TARGETS)
        print(f"round {n}: {speeds}", flush=True)

    cpu = cpu_name()
    keys = ("shape", "rounds", "threads", "prompt_tokens", "max_tokens", "questions")
    record = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "settings": {key: getattr(args, key) for key in keys},
        "machine": {"cpu": cpu, "cores": os.cpu_count(), "system": f"{platform.system()} {platform.machine()}"},
        "versions": {"mlx_serving": our_version(), "llama_cpp_python": peer[0]["llama_cpp_python"], "llama_cpp_features": peer[0]["features"]},
        "summary": summarize(ours, peer),
        "ours": ours,
        "llama_cpp": peer,
    }
    print(as_markdown(record))
    if args.dry_run:
        return
    RECORDS.mkdir(exist_ok=True)
    slug = re.sub(r"[^a-z0-9]+", "-", cpu.lower()).strip("-")
    stem = RECORDS / f"{record['date']}-vs-llama-{slug}"
    stem.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
    stem.with_suffix(".md").write_text(as_markdown(record))
    print(f"wrote {stem.relative_to(ROOT)}.json and .md")


if __name__ == "__main__":
    main()
