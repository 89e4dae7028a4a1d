"""The README's examples run when they are pasted one after the other, and print what it says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
EXAMPLE = re.compile(r"```python\n((?:(?!```).)*)```(?:\n\n(?:prints\n\n)?```text\n((?:(?!```).)*)```)?", re.S)
MARK = "--- the next example ---\n"


def test_the_examples_run_in_order_and_print_what_the_readme_says() -> None:
    examples = EXAMPLE.findall(README)
    assert len(examples) == README.count("```python") >= 6
    code = f"print({MARK!r}, end='')\n".join(code for code, _ in examples)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    outputs = done.stdout.split(MARK)
    assert len(outputs) == len(examples)
    for (code, printed), output in zip(examples, outputs, strict=True):
        assert output, code
        assert printed in ("", output)
