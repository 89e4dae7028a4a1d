"""What is wrong with a file that is given away, found without running it."""

import os
import re
import tempfile
from pathlib import Path, PurePosixPath

import binaries
from targets import GLIBC, MACOS, ROOT, Target

# What a system has by itself. macOS: its own libraries, and what the Metal backend is for.
ALLOWED = {
    "linux": r"lib(c|m|dl|rt|pthread|gcc_s)\.so\.\d|ld-linux-(x86-64|aarch64)\.so\.\d",
    "macos": r"/usr/lib/lib(System\.B|objc\.A)\.dylib"
    r"|/System/Library/Frameworks/(Metal|Foundation|CoreFoundation|CoreGraphics)\.framework/(Versions/[A-Z]/)?\w+",
}


class Findings:
    """What is wrong with a package or an archive."""

    def __init__(self, package: Path) -> None:
        self.package = package
        self.faults: list[str] = []

    def want(self, true: bool, otherwise: str) -> None:
        """Notes a fault unless what was looked at is so."""
        if not true:
            self.faults.append(otherwise)


def binary(found: Findings, path: Path, target: Target) -> binaries.Binary | None:
    """Notes the faults of a shared library or a program. Gives what could be read of it."""
    try:
        read = binaries.read(path)
    except ValueError as error:
        found.faults.append(str(error))
        return None
    made_for = f"{read.system} {read.architecture}"
    found.want((read.system, read.architecture) == (target.system, target.architecture), f"it is for {made_for}")
    stray = [name for name in read.needed if not re.fullmatch(ALLOWED[target.system], name)]
    found.want(not stray, f"it needs what not every system has: {stray}")
    found.want(not read.search_paths, f"it looks for libraries in {read.search_paths}")
    if target.system == "linux":
        oldest = read.oldest_glibc()
        found.want(oldest <= GLIBC, f"it needs glibc {'.'.join(map(str, oldest))}: {sorted(read.versions)}")
    else:
        found.want(read.minimum_system == MACOS, f"it is for macOS {read.minimum_system} and newer, not {MACOS}")
        found.want(read.signed, "it has no signature, or not that of its pages")
        name = read.install_name or ""
        found.want(not PurePosixPath(name).is_absolute(), f"its own name is {name}, a path of this machine")
    return read


def folders(found: Findings, name: str, data: bytes) -> None:
    """Notes a file of a package that names a folder of this machine."""
    places = {ROOT, Path.home(), Path(tempfile.gettempdir())}
    places |= {Path(os.environ[name]) for name in ("CARGO_HOME", "RUSTUP_HOME") if name in os.environ}
    for place in places:
        at = data.find(f"{place}/".encode())
        found.want(at < 0, f"{name} names a folder of this machine: {data[max(at, 0) : at + 120]!r}")
