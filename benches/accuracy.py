#!/usr/bin/env python3
"""What `fast` arithmetic costs in accuracy: its perplexity of a text beside that of `exact` on the same device, with the bundled model.

    benches/accuracy.py BINARY --label TEXT [--device cpu] [--through RUNNER] [--name COMMIT]

The text is crates/cli/tests/goldens/book.txt. RUNNER is a program that starts another, such as tools/newer-mesa. Adds the run to
benches/records/DATE-accuracy.json, under its label. Only Python's standard library.
"""

import argparse
import datetime
import json
import subprocess
from pathlib import Path

from vs_llama import RECORDS, ROOT, cpu_name

TEXT = ROOT / "crates/cli/tests/goldens/book.txt"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", type=Path)
    parser.add_argument("--label", required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--through", type=Path)
    parser.add_argument("--name", default="", help="the binary's commit")
    args = parser.parse_args()
    runner = [args.through.resolve()] if args.through else []
    command = [*runner, args.binary.resolve(), "eval", "perplexity", "--text", TEXT, "--device", args.device, "--compare-exact", "--json"]
    result = json.loads(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout)
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    path = RECORDS / f"{date}-accuracy.json"
    record = json.loads(path.read_text()) if path.is_file() else {"benchmark": "accuracy", "date": date, "runs": {}}
    record["text"] = str(TEXT.relative_to(ROOT))
    changed = 1 - result["top1_agreement"]
    record["runs"][args.label] = {**result, "top1_changed": changed, "build": args.name, "device": args.device, "cpu": cpu_name()}
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record["runs"][args.label], indent=1))


if __name__ == "__main__":
    main()
