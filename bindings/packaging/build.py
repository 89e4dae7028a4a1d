"""Builds wheels and npm packages for any of the targets, on Linux."""

import json
import os
import shutil
import sys
from pathlib import Path

from targets import BINDINGS, GLIBC, MACOS, MANYLINUX, MODEL, OUT, ROOT, TARGETS, TOOLS, VERSION, WORK, Target, output, run, say


def tools() -> None:
    """Installs maturin, zig and cargo-zigbuild into an environment of their own, and Rust's libraries for the targets."""
    wanted = BINDINGS / "packaging/requirements.txt"
    have = TOOLS / "requirements.txt"
    if not have.is_file() or have.read_text() != wanted.read_text():
        say("Tools")
        run(sys.executable, "-m", "venv", TOOLS)
        run(TOOLS / "bin/pip", "install", "--quiet", "--requirement", wanted)
        shutil.copy(wanted, have)


def rust_libraries(target: Target) -> None:
    """Installs Rust's libraries for a target, if they are not there."""
    if not (Path(output("rustc", "--print", "sysroot")) / "lib/rustlib" / target.triple / "lib").is_dir():
        run("rustup", "target", "add", target.triple)


def compiler(target: Target) -> dict[str, str]:
    """Zig as the C compiler and linker for a target, under one path for maturin and cargo-zigbuild: each would otherwise call it by a path
    of its own, and cargo would compile everything once for either."""
    folder = WORK / "zig" / target.name
    folder.mkdir(parents=True, exist_ok=True)
    system = f"macos.{MACOS[0]}.{MACOS[1]}-none" if target.system == "macos" else f"linux-gnu.{GLIBC[0]}.{GLIBC[1]}"
    processor = target.triple.split("-")[0]
    zig = output(TOOLS / "bin/python", "-m", "ziglang", "version")
    for name, command in (("cc", f"cc -- -fno-sanitize=all -target {processor}-{system}"), ("ar", "ar --"), ("ranlib", "ranlib --")):
        (folder / name).write_text(f"""#!/bin/sh
export CARGO_ZIGBUILD_ZIG_VERSION={zig} CARGO_ZIGBUILD_ZIG_COMMAND={TOOLS}/bin/python CARGO_ZIGBUILD_ZIG_COMMAND_ARGS='-m ziglang'
exec {TOOLS}/bin/cargo-zigbuild zig {command} "$@"
""")
        (folder / name).chmod(0o755)
    triple = target.triple.replace("-", "_")
    tools = {f"CC_{triple}": "cc", f"AR_{triple}": "ar", f"RANLIB_{triple}": "ranlib", f"CARGO_TARGET_{triple.upper()}_LINKER": "cc"}
    return {variable: str(folder / name) for variable, name in tools.items()}


def environment(target: Target) -> dict[str, str]:
    """Settings of a build that is given away: it names no folder of this machine and carries no symbols that only debuggers read."""
    cargo = os.environ.get("CARGO_HOME", str(Path.home() / ".cargo"))
    folders = {str(ROOT): "/mlx-serving", cargo: "/cargo", output("rustc", "--print", "sysroot"): "/rust"}
    flags = [f"--remap-path-prefix={folder}={name}" for folder, name in folders.items()]
    if target.system == "macos":
        # Otherwise the linker writes where it put the file, and names libraries that crates ask for and do not use.
        flags.append("-Clink-arg=-Wl,-install_name,@rpath/mlx-serving.dylib,-dead_strip_dylibs")
    return {
        **compiler(target),
        "PATH": f"{TOOLS / 'bin'}:{os.environ['PATH']}",
        "CARGO_TARGET_DIR": str(WORK),
        "CARGO_PROFILE_RELEASE_DEBUG": "false",
        "CARGO_PROFILE_RELEASE_STRIP": "symbols",
        "CARGO_ENCODED_RUSTFLAGS": "\x1f".join(flags),
        "CFLAGS": " ".join(f"-ffile-prefix-map={folder}={name}" for folder, name in folders.items()),
        "MLX_SERVING_PACKAGED": "1",
        "SDKROOT": str(BINDINGS / "macos-stubs"),
        "MACOSX_DEPLOYMENT_TARGET": f"{MACOS[0]}.{MACOS[1]}",
    }


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
