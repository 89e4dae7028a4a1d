#!/usr/bin/env python3
"""Runs what docs/ACTION_PLAN.md says that continuous integration runs: the last column of its tables of commands.

    tools/action-plan/run.py BINARY

Each cell is a line of bash, which runs in one scratch folder, in the order of the page, with `mlx-serving` on the PATH and the clone at
"$REPO". One that ends with 77 cannot run on this machine, and says why; a cell without code says why there is nothing to run. Ends with 1 if
one fails.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/ACTION_PLAN.md"
LIMIT_S = 120


def commands(page: str) -> list[tuple[str, str]]:
    """What the plan asks for, and the code of the last column, of every table whose last column is "run by CI"."""
    found, on = [], False
    for line in page.splitlines():
        cells = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if not cells:
            on = False
        elif cells[-1] == "run by CI":
            on = True
        elif on and not set(cells[-1]) <= set("-: "):
            code = re.findall(r"`([^`]+)`", cells[-1])
            if code or not cells[-1]:
                found.append((cells[0], "; ".join(code)))
    return found


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    found = commands(PAGE.read_text())
    if not found:
        sys.exit(f"{PAGE} has no table whose last column is \"run by CI\"")
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        binaries = Path(folder) / "bin"
        binaries.mkdir()
        (binaries / "mlx-serving").symlink_to(Path(sys.argv[1]).resolve())
        scratch = Path(folder) / "scratch"
        scratch.mkdir()
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MLX_SERVING_")}
        environment |= {"PATH": f"{binaries}:{os.environ['PATH']}", "REPO": str(ROOT), "HF_HUB_OFFLINE": "1"}
        for asked, code in found:
            print(f"{re.sub('`', '', asked)}\n    $ {code}", flush=True)
            start = time.monotonic()
            if not code:
                failed += 1
                print("    FAILED: the cell is empty: give a command, or say why there is none")
                continue
            try:
                done = subprocess.run(["bash", "-euo", "pipefail", "-c", code], cwd=scratch, env=environment, timeout=LIMIT_S,
                                      stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
                status, output = done.returncode, done.stdout
            except subprocess.TimeoutExpired as error:
                status, output = f"no end after {LIMIT_S} s", (error.stdout or b"").decode(errors="replace")
            if status == 77:
                print(f"    skipped: {output.strip()}")
            elif status:
                failed += 1
                print(f"    FAILED ({status}):\n{output}")
            else:
                print(f"    ok, {time.monotonic() - start:.1f} s")
    print(f"{len(found)} commands, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
