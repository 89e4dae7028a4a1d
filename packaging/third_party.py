"""The licenses of everything that is linked into the program."""

import json
import re
from functools import cache
from pathlib import Path

from targets import ROOT, TOOLS, VERSION, Target, output

LICENSE_FILE = re.compile(r"(?i)(.*[-_.])?(licen[sc]e|copying|notice|unlicense|copyright)([-_.].*)?")
CODE = {".rs", ".py", ".pl", ".toml", ".c", ".h"}
# The terms of packages that name them and bring no text.
MIT = (ROOT / "LICENSE-MIT").read_text().partition("Permission is hereby granted")
APACHE = (ROOT / "LICENSE-APACHE").read_text()


@cache
def crates(target: Target) -> list[str]:
    """Packages of others that are linked into the program on a target, as `NAME VERSION`, sorted."""
    tree = output("cargo", "tree", "--locked", "--package", "mlx-serving", "--edges", "no-dev,no-build,no-proc-macro",
        "--target", target.triple, "--prefix", "none", "--format", "{p}")
    lines = {line.removesuffix(" (*)") for line in tree.splitlines() if line}
    # A package of this repository has its folder behind its version.
    return sorted(line.replace(" v", " ", 1) for line in lines if "(/" not in line)


def text(target: Target, linked: dict[str, list[Path]]) -> str:
    """THIRD_PARTY_LICENSES of a target: its packages, then every text once, below the names of those that it is for. `linked` has what
    is linked in and no crate: names with their texts."""
    metadata = json.loads(output("cargo", "metadata", "--locked", "--format-version", "1"))
    packages = {f"{package['name']} {package['version']}": package for package in metadata["packages"]}
    listed: list[str] = []
    owners: dict[str, tuple[str, list[str]]] = {}

    def add(name: str, words: str) -> None:
        # Texts that differ in nothing but line breaks are the same.
        _, names = owners.setdefault(" ".join(words.split()), (words, []))
        if name not in names:
            names.append(name)

    for name in crates(target):
        package = packages[name]
        listed.append(f"{name}: {package['license']}, {package['repository'] or 'https://crates.io/crates/' + package['name']}")
        for words in texts(package):
            add(name, words)
    for name, files in linked.items():
        listed.append(name)
        for file in files:
            add(name, file.read_text())
    rule = "-" * 80
    sections = [f"{rule}\n{wrapped(names)}\n{rule}\n\n{words.strip()}\n" for words, names in owners.values()]
    return "\n".join([
        f"mlx-serving {VERSION} for {target.name} is linked with these packages. Where several licenses are named with OR, each may be chosen.",
        "The notices of Rust's standard library are in share/doc/mlx-serving/COPYRIGHT-rust-library.html.\n",
        *listed, "", *sections])


def texts(package: dict) -> list[str]:
    """The license texts that a crate brings, or else the terms it names."""
    folder = Path(package["manifest_path"]).parent
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and LICENSE_FILE.fullmatch(path.name) and path.suffix not in CODE]
    if files:
        return [path.read_text(errors="replace") for path in files]
    if "Apache-2.0" in package["license"]:
        return [APACHE]
    if package["license"] == "MIT":
        return [f"MIT License\n\nCopyright (c) the authors of {package['repository']}\n\n{''.join(MIT[1:])}"]
    raise SystemExit(f"{package['name']} {package['version']} is under {package['license']} and brings no text of it: have third_party.py add one")


def wrapped(names: list[str]) -> str:
    """Names in lines of at most 80 columns."""
    lines = [""]
    for name in (f"{name}," for name in names):
        if len(lines[-1]) + 1 + len(name) > 80:
            lines.append("")
        lines[-1] = f"{lines[-1]} {name}".strip()
    return "\n".join(lines).removesuffix(",")


def zig() -> dict[str, list[Path]]:
    """What zig links into programs: parts of the compiler's runtime and of LLVM."""
    [package] = TOOLS.glob("lib/python3*/site-packages/ziglang")
    return {
        "compiler_rt of zig: MIT, https://ziglang.org": [package / "LICENSE"],
        "libunwind of LLVM: Apache-2.0 WITH LLVM-exception, https://llvm.org": [package / "lib/libunwind/LICENSE.TXT"],
    }


def rust() -> Path:
    """The notices of Rust's standard library, as the toolchain brings them."""
    path = Path(output("rustc", "--print", "sysroot")) / "share/doc/rust/COPYRIGHT-library.html"
    if not path.is_file():
        raise SystemExit(f"Rust's notices are not at {path}: install the toolchain with rustup")
    return path
