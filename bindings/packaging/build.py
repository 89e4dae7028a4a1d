"""Builds wheels and npm packages for any of the targets, on Linux."""

import json
import shutil
from pathlib import Path

from targets import BINDINGS, MANYLINUX, MODEL, OUT, ROOT, TARGETS, VERSION, WORK, Target, run, say
from zig import environment


def wheels(target: Target, profile: str) -> None:
    """One wheel for every Python from 3.11 on, and one for the free-threaded 3.14, which has no stable interface."""
    for kind, interpreter in (("abi3", "python3.11"), ("free-threaded", "python3.14t")):
        say(f"{target.name}: wheel, {kind}")
        oldest = ["--compatibility", MANYLINUX] if target.system == "linux" else []
        run("maturin", "build", "--zig", "--profile", profile, "--target", target.triple, "--interpreter", interpreter, *oldest,
            "--out", OUT, environment=environment(target), folder=BINDINGS / "python")


def prebuild(target: Target, profile: str) -> None:
    """The addon in a package that npm installs on its system only."""
    say(f"{target.name}: addon")
    run("cargo", "zigbuild", "--locked", "--profile", profile, "--target", target.cargo(), "-p", "mlx-serving-node",
        environment=environment(target))
    built = WORK / target.triple / ("debug" if profile == "dev" else profile)
    library = built / f"libmlx_serving_node.{'dylib' if target.system == 'macos' else 'so'}"
    addon = f"mlx-serving.{target.node}.node"
    package = {
        **common(),
        "name": f"@mlx-serving/{target.node}",
        "description": f"The addon of mlx-serving for {target.name}",
        "main": addon,
        "files": [addon, "LICENSE*"],
        "os": [target.npm_os],
        "cpu": [target.npm_cpu],
        **({"libc": ["glibc"]} if target.system == "linux" else {}),
    }
    pack(package, {addon: library})


def main_package() -> None:
    """The package that programs import: TypeScript compiled, the bundled model, and the platforms' packages to choose from."""
    say("npm: main package")
    node = BINDINGS / "node"
    run("npm", "ci", "--ignore-scripts", "--silent", folder=node)
    shutil.rmtree(node / "dist", ignore_errors=True)
    run("npm", "run", "build:ts", folder=node)
    package = json.loads((node / "package.json").read_text())
    del package["scripts"], package["devDependencies"]
    # Only here: in the source tree they would be asked of the registry, and may not be there.
    package["optionalDependencies"] = {f"@mlx-serving/{target.node}": VERSION for target in TARGETS.values()}
    pack(package, {"dist": node / "dist", "README.md": node / "README.md", f"models/{MODEL.name}": MODEL})


def common() -> dict[str, object]:
    """What every package says of itself."""
    package = json.loads((BINDINGS / "node/package.json").read_text())
    if package["version"] != VERSION:
        raise SystemExit(f"bindings/node/package.json has version {package['version']}, Cargo.toml {VERSION}: make them the same")
    return {key: package[key] for key in ("version", "license", "repository", "engines")}


def pack(package: dict[str, object], content: dict[str, Path]) -> None:
    """Lays a package out in a folder of its own and has npm make the archive."""
    folder = WORK / "npm" / str(package["name"]).replace("/", "-")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "package.json").write_text(json.dumps(package, indent=2) + "\n")
    for name, source in {**content, **{path.name: path for path in ROOT.glob("LICENSE*")}}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, folder / name)
        else:
            shutil.copy(source, folder / name)
    run("npm", "pack", "--silent", "--pack-destination", OUT, folder=folder)
