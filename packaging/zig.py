"""Zig as the C compiler and linker for any of the targets, and the settings of a build that is given away."""

import os
import shutil
import sys
from pathlib import Path

from targets import GLIBC, MACOS, PACKAGING, ROOT, TOOLS, WORK, Target, output, run, say


def tools() -> None:
    """Installs maturin, zig and cargo-zigbuild into an environment of their own, and Rust's libraries for the targets."""
    wanted = PACKAGING / "requirements.txt"
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
        # Otherwise the linker writes where it put a library, and names libraries that crates ask for and do not use.
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
        "SDKROOT": str(PACKAGING / "macos-stubs"),
        "MACOSX_DEPLOYMENT_TARGET": f"{MACOS[0]}.{MACOS[1]}",
    }


def program(target: Target) -> Path:
    """Builds `mlx-serving` as it is released."""
    say(f"{target.name}: mlx-serving")
    rust_libraries(target)
    run("cargo", "zigbuild", "--locked", "--release", "--target", target.cargo(), "-p", "mlx-serving", environment=environment(target))
    return WORK / target.triple / "release/mlx-serving"
