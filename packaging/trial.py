"""Runs the program of an unpacked archive as its user would: from anywhere, with nothing else installed."""

import json
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import archive
import debian
from targets import VERSION, WORK, Target, run, say

# What a process of a fresh login has, as far as a program may rely on it.
EMPTY = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
START_S, STOP_S = 300, 120


def unpack(target: Target, folder: Path) -> Path:
    """Unpacks the archive of a target. Gives the folder that it made."""
    with tarfile.open(archive.path(target)) as tar:
        tar.extractall(folder, filter="tar")
    return folder / archive.name(target)


@contextmanager
def served(command: list[str | Path], folder: Path) -> Iterator[str]:
    """A server on a free port, started in a folder: gives its address. It must stop by itself, with success, when it is asked to."""
    log = folder / "serve.log"
    with log.open("wb") as output:
        server = subprocess.Popen([*command, "serve", "--port", "0"], cwd=folder, env=EMPTY, stderr=output, stdin=subprocess.DEVNULL)
    try:
        yield address(server, log)
        server.terminate()
        if status := server.wait(STOP_S):
            raise SystemExit(f"the server ended with {status} when it was asked to stop:\n{log.read_text()}")
    finally:
        server.kill()
        server.wait()


def address(server: subprocess.Popen, log: Path) -> str:
    """The address in a server's log, once it is there."""
    for _ in range(START_S * 10):
        if found := re.search(r"on http://([\d.]+:\d+)", re.sub(r"\x1b\[[\d;]*m", "", log.read_text())):
            return found[1]
        try:
            server.wait(0.1)
        except subprocess.TimeoutExpired:
            continue
        break
    raise SystemExit(f"the server did not start:\n{log.read_text()}")


def asked(address: str, inside: Sequence[str | Path] = ()) -> str:
    """What README's request gets from an address, asked by a shell; `inside` is a command that runs others."""
    request = archive.curl_line().replace("127.0.0.1:8080", address).replace("curl ", "curl --silent --show-error --fail --max-time 300 ", 1)
    return subprocess.run([*inside, "/bin/sh", "-c", request], env=EMPTY, stdout=subprocess.PIPE, text=True, check=True).stdout


def answers(command: list[str | Path], folder: Path, inside: Sequence[str | Path] = ()) -> None:
    """Has a program say its version and serve README's request."""
    version = subprocess.run([*command, "--version"], env=EMPTY, cwd=folder, stdout=subprocess.PIPE, text=True, check=True).stdout
    if version != f"mlx-serving {VERSION}\n":
        raise SystemExit(f"it says that it is {version!r}")
    with served(command, folder) as at:
        answer = asked(at, inside)
    print(answer)
    said = json.loads(answer)
    if said["usage"]["completion_tokens"] != 40 or "Ownership is a set of rules" not in said["choices"][0]["message"]["content"]:
        raise SystemExit("that is not the answer of the bundled model")


def in_a_root(target: Target) -> None:
    """In a Debian of a few packages, without Rust: nothing outside of that folder can be seen from inside."""
    root = debian.unpacked(WORK / "debian-amd64", "amd64", ["base-files", "bash", "coreutils", "curl", "dash", "libc-bin", "libgcc-s1"])
    # Mounts that end with the process.
    inside: list[str | Path] = ["unshare", "--mount", "/bin/sh", "-c",
        'mount -t proc proc "$0/proc" && mount --bind /dev "$0/dev" && exec chroot "$0" "$@"', root]
    if subprocess.run([*inside, "/bin/true"], check=False).returncode:
        raise SystemExit("this user may not change the root folder: run it as root, in a container with --privileged")
    say(f"{target.name}: in a Debian without Rust")
    run(*inside, "/bin/sh", "-c", "cat /etc/debian_version; ! command -v cargo rustc cc python3")
    shutil.rmtree(root / "opt", ignore_errors=True)
    (root / "opt").mkdir()
    unpacked = unpack(target, root / "opt")
    program = f"/{unpacked.relative_to(root)}/{archive.PROGRAM}"
    with tempfile.TemporaryDirectory() as folder:
        answers([*inside, program], Path(folder), inside)


def emulated(target: Target) -> None:
    """Under QEMU, with Debian's C library for arm64."""
    qemu = debian.arm64(WORK / "debian-arm64-libc", ["libc6", "libgcc-s1"])
    say(f"{target.name}: emulated")
    with tempfile.TemporaryDirectory() as folder:
        answers([*qemu, unpack(target, Path(folder)) / archive.PROGRAM], Path(folder))
