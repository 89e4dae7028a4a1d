"""Looks into wheels and npm packages: nothing that is built is run here."""

import re
import subprocess
import tarfile
import tempfile
import zipfile
from pathlib import Path

from inspection import Findings, binary, folders
from targets import MODEL, OUT, PYTHON_VERSION, ROOT, TOOLS, VERSION, Target, say


def wheel(path: Path, target: Target, abi: str) -> list[str]:
    """Faults of a wheel for an interface of Python: `cp311-abi3` or `cp314-cp314t`."""
    found = Findings(path)
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
        [info] = (name for name in names if name.endswith(".dist-info/WHEEL"))
        tags = archive.read(info).decode()
        metadata = archive.read(info.replace("WHEEL", "METADATA")).decode()
        libraries = [name for name in names if re.search(r"\.(so|dylib|pyd)$", name)]
        found.want(f"Tag: {abi}-{target.wheel}\n" in tags, f"its tag is not {abi}-{target.wheel}: {tags}")
        found.want("Root-Is-Purelib: false" in tags, "it says that it has no library")
        suffix = ".abi3.so" if abi == "cp311-abi3" else ".cpython-314t-"
        found.want(len(libraries) == 1 and suffix in libraries[0], f"its library is not one *{suffix}*: {libraries}")
        for field in ("Name: mlx-serving", "Requires-Python: >=3.11", "License-Expression: MIT OR Apache-2.0"):
            found.want(f"{field}\n" in metadata, f"its metadata lack {field}")
        contents(found, names, "mlx_serving/", info.removesuffix("WHEEL") + "licenses/")
        for name in ("krserve_native/__init__.py", "krserve_native/_native.pyi", "krserve_native/py.typed", "mlx_serving/py.typed"):
            found.want(name in names, f"it lacks {name}")
        for name in names:
            folders(found, name, archive.read(name))
        with tempfile.TemporaryDirectory() as folder:
            library(found, Path(archive.extract(libraries[0], folder)), target)
    if abi == "cp311-abi3":
        audit = subprocess.run([TOOLS / "bin/abi3audit", "--strict", path], capture_output=True, text=True, check=False)
        found.want(audit.returncode == 0, f"abi3audit: {audit.stdout}{audit.stderr}")
    return found.faults


def platform_package(path: Path, target: Target) -> list[str]:
    """Faults of an npm package with an addon."""
    found = Findings(path)
    with tarfile.open(path) as archive, tempfile.TemporaryDirectory() as folder:
        addon = f"package/mlx-serving.{target.node}.node"
        licenses = {f"package/{path.name}" for path in ROOT.glob("LICENSE*")}
        wanted = {"package/package.json", addon} | licenses
        found.want(set(archive.getnames()) == wanted, f"it holds {sorted(set(archive.getnames()) ^ wanted)} or lacks it")
        archive.extract(addon, folder, filter="data")
        folders(found, addon, Path(folder, addon).read_bytes())
        library(found, Path(folder, addon), target)
    return found.faults


def main_package(path: Path) -> list[str]:
    """Faults of the npm package that programs import."""
    found = Findings(path)
    with tarfile.open(path) as archive:
        names = set(archive.getnames())
        contents(found, names, "package/", "package/")
        for name in ("package/dist/index.js", "package/dist/index.d.ts"):
            found.want(name in names, f"it lacks {name}")
        found.want(not any(name.endswith(".node") for name in names), "it holds an addon")
        for name in names:
            if file := archive.extractfile(name):
                folders(found, name, file.read())
    return found.faults


def contents(found: Findings, names: set[str], package: str, licenses: str) -> None:
    """What every package that is imported holds, and what none does."""
    for name in (f"{package}models/{MODEL.name}/{path.name}" for path in MODEL.iterdir()):
        found.want(name in names, f"it lacks {name}")
    for name in (licenses + path.name for path in ROOT.glob("LICENSE*")):
        found.want(name in names, f"it lacks {name}")
    stray = [name for name in names if re.search(r"(^|/)(tests?|benchmarks|__pycache__|node_modules)(/|$)|\.(rs|pyc)$|\.test\.", name)]
    found.want(not stray, f"it holds what only this source tree needs: {stray}")


def library(found: Findings, path: Path, target: Target) -> None:
    """Faults of the shared library within a package."""
    binary(found, path, target)
    data = path.read_bytes()
    for allocator in (b"mimalloc", b"mi_malloc", b"jemalloc"):
        found.want(allocator not in data, f"it brings an allocator, {allocator.decode()}, that the whole program would get")


def everything(targets: list[Target]) -> bool:
    """Checks all packages of some targets, prints what is found, and says whether nothing is wrong."""
    say("Inspection")
    results: list[tuple[str, list[str]]] = []
    for target in targets:
        for abi in ("cp311-abi3", "cp314-cp314t"):
            path = OUT / f"mlx_serving-{PYTHON_VERSION}-{abi}-{target.wheel}.whl"
            results.append((path.name, wheel(path, target, abi) if path.is_file() else ["it was not built"]))
        path = OUT / f"mlx-serving-{target.node}-{VERSION}.tgz"
        results.append((path.name, platform_package(path, target) if path.is_file() else ["it was not built"]))
    path = OUT / f"mlx-serving-{VERSION}.tgz"
    results.append((path.name, main_package(path) if path.is_file() else ["it was not built"]))
    for name, faults in results:
        size = (OUT / name).stat().st_size / 1e6 if (OUT / name).is_file() else 0
        print(f"{'ok    ' if not faults else 'FAULTY'} {size:6.2f} MB  {name}")
        for fault in faults:
            print(f"       {fault}")
    return not any(faults for _, faults in results)
