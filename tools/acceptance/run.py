#!/usr/bin/env python3
"""Runs each client's script against one server: every client in an environment of its own, at its newest version.

    tools/acceptance/run.py [--fast] [--refresh] [--only NAME]… [--output FILE] BINARY

The server has a scripted model (model/), so that every answer is known, the bundled model, and one for embeddings. Environments are kept in
.peers/acceptance; --refresh makes them anew, with what is newest then. --fast leaves out clients that bring a machine-learning framework, and schemathesis.
Prints a table, writes a record to FILE, and ends with 1 if a case failed, with 77 if no client can be installed.
"""

import argparse
import concurrent.futures
import contextlib
import dataclasses
import datetime
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = ROOT / "tools/acceptance"
KEPT = ROOT / ".peers/acceptance"
# What ./test counts as skipped.
SKIPPED = 77
# Variables that would lead clients elsewhere, or that say who uses them.
LEFT_OUT = re.compile(r"^(OPENAI|ANTHROPIC|LITELLM|LLM|HF|MLX_SERVING)_|_proxy$|_PROXY$|^PYTHONPATH$")


@dataclasses.dataclass
class Client:
    """A client: its script clients/NAME, and the packages of its environment, the first of which it is about."""

    script: str
    packages: list
    # It brings a machine-learning framework along.
    slow: bool = False
    # It asks for anything, and has a server of its own: the scripted model alone, with a small context.
    alone: bool = False

    @property
    def name(self):
        return self.script.rsplit(".", 1)[0]

    @property
    def folder(self):
        return KEPT / self.name

    @property
    def is_python(self):
        return self.script.endswith(".py")


CLIENTS = [
    Client("openai-python.py", ["openai"]),
    Client("openai-node.mjs", ["openai", "zod"]),
    Client("anthropic-python.py", ["anthropic"]),
    Client("anthropic-node.mjs", ["@anthropic-ai/sdk"]),
    Client("litellm-python.py", ["litellm"]),
    Client("langchain-openai.py", ["langchain-openai"]),
    Client("ai-sdk.mjs", ["ai", "@ai-sdk/openai-compatible", "@ai-sdk/openai", "@ai-sdk/anthropic", "zod"]),
    Client("instructor-python.py", ["instructor"]),
    Client("pydantic-ai.py", ["pydantic-ai-slim[openai,anthropic]"]),
    Client("openai-agents.py", ["openai-agents"]),
    Client("llm-cli.py", ["llm"]),
    Client("schemathesis-cli.py", ["schemathesis"], alone=True, slow=True),
    Client("lm-eval.py", ["lm-eval[api]", "mlx-lm", "mlx[cpu]"], slow=True),
    Client("guidellm-cli.py", ["guidellm"], slow=True),
]


class Missing(Exception):
    """An environment that cannot be had here."""


def called(command, what, **settings):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=900, **settings)
    if done.returncode:
        raise Missing(f"{what}: {(done.stderr or done.stdout).strip()[-600:]}")
    return done.stdout


once = threading.Lock()


def uv():
    """The installer of Python's packages, itself one of them."""
    with once:
        path = KEPT / "uv/bin/uv"
        if not path.exists():
            called([sys.executable, "-m", "venv", KEPT / "uv"], "a virtual environment")
            called([KEPT / "uv/bin/python", "-m", "pip", "install", "--quiet", "uv"], "pip")
        return path


def install(client, refresh):
    """The client's environment, and the versions in it."""
    wanted, marker = json.dumps(client.packages), client.folder / "installed"
    if refresh or not marker.exists() or marker.read_text() != wanted:
        shutil.rmtree(client.folder, ignore_errors=True)
        client.folder.mkdir(parents=True)
        if client.is_python:
            called([uv(), "venv", "--quiet", "--python", sys.executable, "--allow-existing", client.folder], "uv")
            called([uv(), "pip", "install", "--quiet", "--python", client.folder / "bin/python", *client.packages], "uv")
        else:
            newest = [f"{package}@latest" for package in client.packages]
            (client.folder / "package.json").write_text('{"private": true}')
            command = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", *newest]
            called(command, "npm", cwd=client.folder)
        marker.write_text(wanted)
    return versions(client)


def versions(client):
    if client.is_python:
        listed = json.loads(called([uv(), "pip", "list", "--format", "json", "--python", client.folder / "bin/python"], "uv"))
        found = {package["name"].lower(): package["version"] for package in listed}
        names = [re.sub(r"\[.*", "", package) for package in client.packages]
    else:
        names = client.packages
        manifests = {name: client.folder / "node_modules" / name / "package.json" for name in names}
        found = {name: json.loads(manifest.read_text())["version"] for name, manifest in manifests.items()}
    return {name: found[name] for name in names}


def run(client, url, scratch, args):
    """The client's record: versions, and each case with its fault or none."""
    begin = time.monotonic()
    try:
        record = {"client": client.name, "versions": install(client, args.refresh)}
    except (Missing, OSError, subprocess.TimeoutExpired) as error:
        return {"client": client.name, "versions": {}, "cases": [{"case": "it can be installed", "fault": str(error)}]}
    record["installed_s"] = round(time.monotonic() - begin, 1)
    begin, folder = time.monotonic(), scratch / client.name
    folder.mkdir()
    lines = folder / "record.jsonl"
    lines.touch()
    environment = {name: value for name, value in os.environ.items() if not LEFT_OUT.search(name)}
    environment |= {
        "ACCEPTANCE_URL": url,
        "ACCEPTANCE_RECORD": str(lines),
        "ACCEPTANCE_ROOT": str(ROOT),
        "ACCEPTANCE_ANSWERS": str(HERE / "model/answers.json"),
        "ACCEPTANCE_EXAMPLES": "5" if args.fast else "100",
        "PYTHONPATH": str(HERE),
        "HOME": str(folder),
        "HF_HUB_OFFLINE": "1",
        "DO_NOT_TRACK": "1",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "OPENAI_AGENTS_DISABLE_TRACING": "1",
        "OPENAI_API_KEY": "none",
        "AI_SDK_LOG_WARNINGS": "false",
    }
    if client.is_python:
        command = [client.folder / "bin/python", HERE / "clients" / client.script]
    else:
        # A module finds packages beside itself.
        for file in (HERE / "clients" / client.script, HERE / "cases.mjs"):
            shutil.copy(file, client.folder)
        command = ["node", client.folder / client.script]
    with open(folder / "output", "w") as output:
        try:
            timeout = 240 if args.fast else 900
            done = subprocess.run(list(map(str, command)), cwd=folder, env=environment, stdout=output, stderr=output, timeout=timeout)
            fault = f"its script ended with {done.returncode}" if done.returncode else None
        except subprocess.TimeoutExpired:
            fault = f"its script did not end within {timeout} s"
    record["cases"] = [json.loads(line) for line in lines.read_text().splitlines()]
    if fault or not record["cases"]:
        said = (folder / "output").read_text()[-1500:]
        record["cases"].append({"case": "its script runs to its end", "fault": f"{fault}: {said}"})
    record["ran_s"] = round(time.monotonic() - begin, 1)
    return record


class Models:
    """Folders of models, made by the binary."""

    def __init__(self, binary, scratch):
        answers = json.loads((HERE / "model/answers.json").read_text())
        added = [{"content": content} for content in ("<think>", "</think>", "<tool_call>", "</tool_call>")]
        script = {"answers": answers, "added_tokens": added, "chat_template": (HERE / "model/template.jinja").read_text()}
        (scratch / "script.json").write_text(json.dumps(script))
        self.scripted, self.embedder = scratch / "scripted", scratch / "embedder"
        self.bundled = ROOT / "models/rustbook-5m-4bit"
        called([binary, "bench", "synth", "--script", scratch / "script.json", "--out", self.scripted], "bench synth", cwd=ROOT)
        called([binary, "bench", "synth", "--shape", "tiny-qwen3", "--out", self.embedder], "bench synth", cwd=ROOT)


@contextlib.contextmanager
def server(binary, scratch, models, *more):
    """The address of a server of these models."""
    path = scratch / f"server-{len(models)}.log"
    command = [binary, "serve", "--port=0", "--device=cpu", "--arithmetic=exact", *(f"--model={model}" for model in models), *more]
    with open(path, "w") as log:
        process = subprocess.Popen(list(map(str, command)), cwd=ROOT, stdout=log, stderr=log)
    try:
        for _ in range(600):
            said = re.sub(r"\x1b\[[0-9;]*m", "", path.read_text())
            if found := re.search(r" on (http://[\w.:]+\w)", said):
                break
            if process.poll() is not None:
                raise SystemExit(f"the server did not start:\n{said}")
            time.sleep(0.1)
        yield found[1]
    finally:
        process.terminate()
        process.wait(timeout=60)


def table(records):
    for record in records:
        failed = [case for case in record["cases"] if case["fault"]]
        named = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
        passed = len(record["cases"]) - len(failed)
        print(f"{record['client']:20} {passed:3} passed {len(failed):3} failed {record.get('ran_s', 0):6.1f} s   {named}")
        for case in failed:
            print(f"    FAILED {case['case']}: {' '.join(case['fault'].split())[:400]}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast", action="store_true")
    parser.add_argument("--refresh", action="store_true")
    parser.add_argument("--only", action="append", metavar="NAME", choices=[client.name for client in CLIENTS])
    parser.add_argument("--output", type=Path, metavar="FILE")
    parser.add_argument("binary", type=Path)
    args = parser.parse_args()
    chosen = [client for client in CLIENTS if not (args.fast and client.slow) and (not args.only or client.name in args.only)]
    KEPT.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix="acceptance-"))
    try:
        binary = args.binary.resolve()
        models = Models(binary, scratch)
        (scratch / "small.yaml").write_text("engine: {kv_cache_tokens: 1024}\n")
        small = ["--config", scratch / "small.yaml"]
        with (
            server(binary, scratch, [models.scripted, models.bundled, models.embedder]) as url,
            server(binary, scratch, [models.scripted], *small) as alone,
            concurrent.futures.ThreadPoolExecutor(2) as pool,
        ):
            records = list(pool.map(lambda client: run(client, alone if client.alone else url, scratch, args), chosen))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    table(records)
    if all(record["versions"] == {} for record in records):
        print("no client can be installed here")
        raise SystemExit(SKIPPED)
    if args.output:
        machine = {"python": sys.version.split()[0], "date": datetime.date.today().isoformat()}
        args.output.write_text(json.dumps({**machine, "clients": records}, indent=1) + "\n")
    cases = [case for record in records for case in record["cases"]]
    failed = sum(bool(case["fault"]) for case in cases)
    print(f"{len(cases) - failed} passed, {failed} failed")
    raise SystemExit(failed > 0)


if __name__ == "__main__":
    main()
