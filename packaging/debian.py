"""Debian's packages, downloaded and unpacked into a folder; nothing is installed on this machine."""

import shutil
import subprocess
from pathlib import Path

from targets import output, run, say


def arm64(folder: Path, packages: list[str]) -> list[str | Path]:
    """Unpacks QEMU and Debian's packages for arm64 into a folder, once. Gives the beginning of a command that runs their programs."""
    unpacked(folder, "arm64", packages)
    return [unpacked(folder / "qemu", "amd64", ["qemu-user-static"]) / "usr/bin/qemu-aarch64-static", "-L", folder]


def unpacked(folder: Path, architecture: str, packages: list[str]) -> Path:
    """Unpacks Debian's packages, and what they need, into a folder, unless it has them. Gives the folder."""
    complete = folder / "complete"
    if not complete.is_file() or complete.read_text() != " ".join(packages):
        say(f"Debian's {' '.join(packages)} for {architecture}")
        shutil.rmtree(folder, ignore_errors=True)
        debian(architecture, packages, folder)
        complete.write_text(" ".join(packages))
    return folder


def debian(architecture: str, packages: list[str], into: Path) -> None:
    """Downloads Debian's packages with what they need, by apt with lists and settings of its own, and unpacks them."""
    apt = into / "apt"
    for name in ("lists/partial", "archives/partial"):
        (apt / name).mkdir(parents=True)
    (apt / "status").touch()
    (apt / "sources.list").write_text(f"deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {debian_site()} bookworm main\n")
    settings = {
        "APT::Architecture": architecture, "APT::Architectures": architecture, "APT::Sandbox::User": "", "Debug::NoLocking": "1",
        "Dir::Etc::SourceList": apt / "sources.list", "Dir::Etc::SourceParts": "/dev/null", "Dir::State::Lists": apt / "lists",
        "Dir::State::Status": apt / "status", "Dir::Cache": apt, "Dir::Cache::Archives": apt / "archives",
    }
    get = ["apt-get", "-qq", *(word for name, value in settings.items() for word in ("-o", f"{name}={value}"))]
    run(*get, "update")
    run(*get, "install", "--download-only", "--yes", "--no-install-recommends", *packages)
    for package in sorted((apt / "archives").glob("*.deb")):
        subprocess.run(["dpkg", "-x", package, into], check=True)
    shutil.rmtree(apt)


def debian_site() -> str:
    """Where apt has Debian's packages from."""
    sites = output("apt-get", "indextargets", "--format", "$(SITE)", "Created-By: Packages").splitlines()
    found = [site for site in sites if site.rstrip("/").endswith("/debian")]
    if not found:
        raise SystemExit("apt has no source of Debian's packages: see /etc/apt/sources.list.d")
    return found[0]
