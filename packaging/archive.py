"""What a release archive holds, written so that the same input gives the same bytes, and what is wrong with one."""

import gzip
import hashlib
import io
import os
import re
import tarfile
import tempfile
import tomllib
from pathlib import Path

import third_party
from inspection import Findings, binary, folders
from targets import ARCHIVES, MODEL, PACKAGING, ROOT, TARGETS, VERSION, Target, output

REPOSITORY: str = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["repository"]
# What a stripped program may have. Growth beyond it needs a reason in the CHANGELOG.
PROGRAM_BYTES = 25_000_000
PROGRAM = "bin/mlx-serving"
SHARED = "share/mlx-serving"
# For running as a service, by system.
SERVICES = {"linux": PACKAGING / "systemd/mlx-serving.service", "macos": PACKAGING / "launchd/io.github.mlx-serving.plist"}
COMPLETIONS = {
    "bash": "share/bash-completion/completions/mlx-serving",
    "zsh": "share/zsh/site-functions/_mlx-serving",
    "fish": "share/fish/vendor_completions.d/mlx-serving.fish",
}


def name(target: Target) -> str:
    """The archive's name without its suffix, which is also the folder that it unpacks to."""
    return f"mlx-serving-{VERSION}-{target.name}"


def path(target: Target) -> Path:
    """Where the archive of a target is written."""
    return ARCHIVES / f"{name(target)}.tar.gz"


def url(target: Target) -> str:
    """Where the archive of a target can be downloaded once it is released."""
    return f"{REPOSITORY}/releases/download/v{VERSION}/{path(target).name}"


def pages(program: Path) -> dict[str, bytes]:
    """Manual pages and completions, which a program of this machine writes, by their names in the archive."""
    with tempfile.TemporaryDirectory() as folder:
        output(program, "man", "--out", folder)
        written = {f"share/man/man1/{page.name}": page.read_bytes() for page in Path(folder).iterdir()}
    return written | {place: output(program, "completions", shell).encode() + b"\n" for shell, place in COMPLETIONS.items()}


def contents(target: Target, program: Path, written: dict[str, bytes], linked: dict[str, list[Path]]) -> dict[str, bytes]:
    """Everything in an archive, by its name under the archive's folder. `written` is what `pages` gave, `linked` what is linked in and
    no crate."""
    service = SERVICES[target.system]
    readme = filled((PACKAGING / "archive-readme.md").read_text(), {
        "version": VERSION,
        "target": {"linux": "Linux with glibc 2.28 or newer", "macos": "macOS 11 or newer"}[target.system]
            + {"x86_64": " on x86-64", "arm64": " on arm64"}[target.architecture],
        "curl": curl_line(),
        "pages": "its manual pages and completions",
        "service": service.name,
        "repository": REPOSITORY,
    })
    return {
        PROGRAM: program.read_bytes(),
        "README.md": readme.encode(),
        "THIRD_PARTY_LICENSES": third_party.text(target, linked).encode(),
        "share/doc/mlx-serving/COPYRIGHT-rust-library.html": third_party.rust().read_bytes(),
        "config/runtime.yaml": (ROOT / "config/runtime.yaml").read_bytes(),
        f"{SHARED}/{service.name}": service.read_bytes(),
        **{license.name: license.read_bytes() for license in ROOT.glob("LICENSE*")},
        **{f"{SHARED}/models/{MODEL.name}/{file.name}": file.read_bytes() for file in MODEL.iterdir()},
        **written,
    }


def filled(template: str, values: dict[str, str]) -> str:
    """A template with each `@NAME@` replaced. One that is not known is an error."""
    def value(found: re.Match[str]) -> str:
        if found[1] not in values:
            raise SystemExit(f"nothing is known for {found[0]}")
        return values[found[1]]

    return re.sub(r"@([\w.-]+)@", value, template)


def curl_line() -> str:
    """README's first request, as it stands there."""
    [request] = re.findall(r"^curl (?:.*\\\n)*.*", (ROOT / "README.md").read_text(), re.MULTILINE)[:1]
    return request


def packed(folder: str, files: dict[str, bytes], at: int) -> bytes:
    """A compressed archive: entries in order, all of one time (in seconds since 1970) and of no user."""
    names = {folder, *(f"{folder}/{name}" for name in files)}
    names |= {str(parent) for name in names for parent in Path(name).parents if parent != Path(".")}
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name in sorted(names):
            entry, data = tarfile.TarInfo(name), files.get(name.removeprefix(f"{folder}/"))
            entry.mtime, entry.mode = at, 0o755 if data is None or name == f"{folder}/{PROGRAM}" else 0o644
            if data is None:
                entry.type = tarfile.DIRTYPE
            else:
                entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data or b""))
    return gzip.compress(plain.getvalue(), 6, mtime=0)


def time_of_commit() -> int:
    """The time of all entries, in seconds since 1970: what SOURCE_DATE_EPOCH says, else that of the last commit."""
    return int(os.environ.get("SOURCE_DATE_EPOCH") or output("git", "log", "-1", "--format=%ct"))


def write_sums(folder: Path) -> None:
    """Writes SHA256SUMS of all archives in a folder, as sha256sum does."""
    sums = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in sorted(folder.glob("*.tar.gz"))]
    (folder / "SHA256SUMS").write_text("".join(sums))


def formula(template: str) -> str:
    """The Homebrew formula of the archives that were built."""
    values = {"version": VERSION, "repository": REPOSITORY}
    for target in TARGETS.values():
        values[f"{target.name}.url"] = url(target)
        values[f"{target.name}.sha256"] = hashlib.sha256(path(target).read_bytes()).hexdigest()
    # Without its first line, which is the template's.
    return filled(template.partition("\n")[2], values)


def faults(archive: Path, target: Target) -> list[str]:
    """What is wrong with an archive: what it holds, and how it is packed. The program is for `program_faults`."""
    found = Findings(archive)
    folder = name(target)
    with tarfile.open(archive) as tar:
        entries = tar.getmembers()
        files = {entry.name.removeprefix(f"{folder}/"): data.read() for entry in entries if (data := tar.extractfile(entry))}
    names = [entry.name for entry in entries]
    found.want(names == sorted(names), "its entries are in no order")
    found.want(all(n == folder or n.startswith(f"{folder}/") for n in names), f"it unpacks beside {folder}")
    found.want(all(entry.isfile() or entry.isdir() for entry in entries), "it holds links or devices")
    found.want({(e.uid, e.gid, e.uname, e.gname) for e in entries} == {(0, 0, "", "")}, "it names users")
    found.want(len({entry.mtime for entry in entries}) == 1, "its entries are of different times")
    modes = {entry.name: entry.mode for entry in entries if entry.isfile()}
    runs = [n for n, mode in modes.items() if mode & 0o111]
    found.want(runs == [f"{folder}/{PROGRAM}"], f"its programs are {runs}")
    same = {"config/runtime.yaml": ROOT / "config/runtime.yaml", **{license.name: license for license in ROOT.glob("LICENSE*")},
        **{f"{SHARED}/models/{MODEL.name}/{file.name}": file for file in MODEL.iterdir()}}
    for n, source in same.items():
        found.want(files.get(n) == source.read_bytes(), f"{n} is missing or not this repository's")
    licenses = files.get("THIRD_PARTY_LICENSES", b"").decode()
    missing = [crate for crate in third_party.crates(target) if f"\n{crate}: " not in licenses]
    found.want(not missing, f"THIRD_PARTY_LICENSES lacks {missing}")
    for n, data in files.items():
        if n != PROGRAM:
            folders(found, n, data)
    return found.faults


def program_faults(program: Path, target: Target) -> list[str]:
    """What is wrong with a program that is to be given away."""
    found = Findings(program)
    size = program.stat().st_size
    found.want(size <= PROGRAM_BYTES, f"it has {size / 1e6:.1f} MB, more than {PROGRAM_BYTES / 1e6:.0f} MB")
    if read := binary(found, program, target):
        found.want(read.stripped, "it has symbols that only debuggers read: it is not stripped")
    folders(found, PROGRAM, program.read_bytes())
    return found.faults
