#!/usr/bin/env python3
"""Runs what docs/ACTION_PLAN.md says that continuous integration runs: the last column of its tables of commands.

    tools/action-plan/run.py BINARY

Each piece of code in a cell runs by itself in bash, all in one scratch folder, in the order of the page, with `mlx-serving` on the PATH and the
clone at "$REPO". One that ends with 77 cannot run on this machine, and says why. A cell without code begins with "nothing:" and says why. Ends
with 1 if one fails.
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/ACTION_PLAN.md"
# Far above what any takes, so that a slow machine is no failure.
LIMIT_S = 400


def commands(page: str) -> list[tuple[str, list[str]]]:
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
            if code or not cells[-1].startswith("nothing:"):
                found.append((cells[0], code))
    return found


def run(code: str, folder: Path, environment: dict[str, str]) -> tuple[int | str, str]:
    """Runs a piece of code: how it ended, and what it wrote. Nothing of it is left running."""
    process = subprocess.Popen(["bash", "-euo", "pipefail", "-c", code], cwd=folder, env=environment, stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
    try:
        output = process.communicate(timeout=LIMIT_S)[0]
        return process.returncode, output
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return f"no end after {LIMIT_S} s", process.communicate()[0]


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
        for asked, pieces in found:
            print(re.sub("`", "", asked), flush=True)
            if not pieces:
                failed += 1
                print('    FAILED: the cell has no code; give a command, or say after "nothing:" why there is none')
            for code in pieces:
                print(f"    $ {code}", flush=True)
                start = time.monotonic()
                status, output = run(code, scratch, environment)
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
