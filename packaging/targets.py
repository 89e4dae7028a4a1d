"""The systems that archives and packages are built for, and where everything is."""

import os
import re
import subprocess
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BINDINGS = ROOT / "bindings"
PACKAGING = ROOT / "packaging"
# Packages of the bindings, and archives of the program.
OUT = ROOT / "target/packages"
ARCHIVES = ROOT / "target/archives"
WORK = ROOT / "target/packaging"
TOOLS = ROOT / ".peers/packaging"
MODEL = ROOT / "models/rustbook-5m-4bit"
VERSION: str = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"]
# As Python writes it: 0.9.0-alpha.1 is 0.9.0a1.
PYTHON_VERSION = re.sub(r"-(a|b|rc)[a-z]*\.", r"\1", VERSION)

# The C library of the oldest Linux that the packages run on: Debian 10, Ubuntu 18.10, RHEL 8.
GLIBC = (2, 28)
# The oldest macOS for which Apple's processors were sold; what newer ones add, the Metal backend asks for at run time.
MACOS = (11, 0)


@dataclass(frozen=True)
class Target:
    """A system and a processor, under the names that Rust, wheels and Node.js give them."""

    name: str
    triple: str
    system: str
    architecture: str
    wheel: str
    node: str
    npm_os: str
    npm_cpu: str

    def cargo(self) -> str:
        """The target as cargo-zigbuild takes it."""
        return self.triple if self.system == "macos" else f"{self.triple}.{GLIBC[0]}.{GLIBC[1]}"


MANYLINUX = f"manylinux_{GLIBC[0]}_{GLIBC[1]}"
TARGETS = {
    target.name: target
    for target in (
        Target("linux-x64", "x86_64-unknown-linux-gnu", "linux", "x86_64", f"{MANYLINUX}_x86_64", "linux-x64-gnu", "linux", "x64"),
        Target("linux-arm64", "aarch64-unknown-linux-gnu", "linux", "arm64", f"{MANYLINUX}_aarch64", "linux-arm64-gnu", "linux", "arm64"),
        Target("macos-arm64", "aarch64-apple-darwin", "macos", "arm64", f"macosx_{MACOS[0]}_{MACOS[1]}_arm64", "darwin-arm64", "darwin", "arm64"),
    )
}


def say(text: str) -> None:
    """A line of progress."""
    print(f"== {text}", flush=True)


def run(*command: str | Path, environment: dict[str, str] | None = None, folder: Path = ROOT) -> None:
    """Runs a command that must succeed."""
    print("$", *(str(word) for word in command), flush=True)
    subprocess.run([str(word) for word in command], cwd=folder, env={**os.environ, **(environment or {})}, check=True)


def output(*command: str | Path, environment: dict[str, str] | None = None, folder: Path = ROOT) -> str:
    """What a command that must succeed writes."""
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=folder, env={**os.environ, **(environment or {})}, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.strip()
