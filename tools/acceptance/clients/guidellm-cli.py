"""guidellm: a benchmark against the bundled model, of which no request fails."""

import json
import subprocess
import sys

from cases import *

ROOT = Path(os.environ["ACCEPTANCE_ROOT"])


@case
def every_request_of_a_run_succeeds():
    out = Path.cwd() / "guidellm.json"
    command = [str(Path(sys.executable).parent / "guidellm"), "run"]
    for flag, value in [
        ("backend", f"kind=openai_http,target={URL},model={BUNDLED}"),
        ("profile", "kind=synchronous"),
        ("constraint", "kind=max_requests,count=5"),
        ("tokenizer", f"kind=hf_auto,model={ROOT / 'models/rustbook-5m-4bit'}"),
        ("data", "kind=synthetic_text,prompt_tokens=64,output_tokens=16"),
        ("output", f"kind=json,path={out}"),
    ]:
        command += [f"--{flag}", value]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    totals = json.loads(out.read_text())["benchmarks"][0]["metrics"]["request_totals"]
    assert totals["successful"] == 5 and totals["errored"] == 0, totals


main()
