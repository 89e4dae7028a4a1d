"""What a shared library or a program says of itself: ELF and Mach-O, read with nothing but the standard library."""

import hashlib
import struct
from dataclasses import dataclass, field
from pathlib import Path

ELF_MACHINES = {62: "x86_64", 183: "arm64"}
MACH_ARM64 = 0x0100000C


@dataclass
class Binary:
    """A shared library or a program: for which processor and system, what it needs, and how it is signed."""

    system: str
    architecture: str
    needed: list[str] = field(default_factory=list)
    search_paths: list[str] = field(default_factory=list)
    # Whether it has symbols that only debuggers read.
    stripped: bool = True
    # ELF: the versions that are asked of each library, such as GLIBC_2.17.
    versions: set[str] = field(default_factory=set)
    # Mach-O: the oldest system, the name under which others would load it, and whether each page has the hash that is signed.
    minimum_system: tuple[int, int] | None = None
    install_name: str | None = None
    signed: bool = False

    def oldest_glibc(self) -> tuple[int, ...]:
        """The version of the C library that has everything that is asked of it."""
        found = [v.removeprefix("GLIBC_") for v in self.versions if v.startswith("GLIBC_")]
        return max((tuple(map(int, v.split("."))) for v in found), default=(0,))


def read(path: Path) -> Binary:
    """Reads a file; a `ValueError` says why that cannot be done."""
    data = path.read_bytes()
    try:
        if data[:4] == b"\x7fELF":
            return _elf(data)
        if data[:4] == b"\xcf\xfa\xed\xfe":
            return _mach(data)
    except (struct.error, IndexError, StopIteration) as error:
        raise ValueError(f"{path} is cut short or damaged: {error!r}") from error
    raise ValueError(f"{path} is neither ELF nor 64-bit Mach-O")


def _text(data: bytes, at: int) -> str:
    return data[at : data.index(b"\0", at)].decode()


def _elf(data: bytes) -> Binary:
    if data[4:6] != b"\x02\x01":
        raise ValueError("not a 64-bit little-endian ELF file")
    machine = struct.unpack_from("<H", data, 18)[0]
    (headers,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    segments = [struct.unpack_from("<IIQQQQQQ", data, headers + i * size) for i in range(count)]

    def offset(address: int) -> int:
        segment = next(s for s in segments if s[0] == 1 and s[3] <= address < s[3] + s[5])
        return address - segment[3] + segment[2]

    dynamic = next(s for s in segments if s[0] == 2)
    entries = list(struct.iter_unpack("<qQ", data[dynamic[2] : dynamic[2] + dynamic[5]]))
    entries = entries[: next(i for i, (tag, _) in enumerate(entries) if tag == 0)]
    once = dict(entries)
    strings = offset(once[5])
    binary = Binary("linux", ELF_MACHINES.get(machine, f"machine {machine}"))
    binary.needed = [_text(data, strings + value) for tag, value in entries if tag == 1]
    binary.search_paths = [_text(data, strings + value) for tag, value in entries if tag in (15, 29)]
    (sections,) = struct.unpack_from("<Q", data, 40)
    size, count = struct.unpack_from("<HH", data, 58)
    kinds = (struct.unpack_from("<I", data, sections + i * size + 4)[0] for i in range(count))
    binary.stripped = 2 not in kinds
    at = offset(once[0x6FFFFFFE]) if 0x6FFFFFFE in once else 0
    for _ in range(once.get(0x6FFFFFFF, 0)):
        _, versions, _, first, after = struct.unpack_from("<HHIII", data, at)
        version = at + first
        for _ in range(versions):
            _, _, _, name, following = struct.unpack_from("<IHHII", data, version)
            binary.versions.add(_text(data, strings + name))
            version += following
        at += after
    return binary


def _mach(data: bytes) -> Binary:
    processor, _, _, count = struct.unpack_from("<IIII", data, 4)
    binary = Binary("macos", "arm64" if processor == MACH_ARM64 else f"processor {processor:#x}")
    at = 32
    for _ in range(count):
        command, size = struct.unpack_from("<II", data, at)
        command &= 0x7FFFFFFF  # without the mark of what an old loader must know
        if command in (0x0C, 0x18, 0x1F, 0x23):  # load: plainly, weakly, to be passed on, above itself
            binary.needed.append(_text(data, at + struct.unpack_from("<I", data, at + 8)[0]))
        elif command == 0x0B:
            binary.stripped = struct.unpack_from("<I", data, at + 12)[0] == 0
        elif command == 0x0D:
            binary.install_name = _text(data, at + struct.unpack_from("<I", data, at + 8)[0])
        elif command == 0x1C:
            binary.search_paths.append(_text(data, at + struct.unpack_from("<I", data, at + 8)[0]))
        elif command == 0x32:
            version = struct.unpack_from("<I", data, at + 12)[0]
            binary.minimum_system = (version >> 16, version >> 8 & 0xFF)
        elif command == 0x1D:
            binary.signed = _signed(data, struct.unpack_from("<I", data, at + 8)[0])
        at += size
    return binary


def _signed(data: bytes, at: int) -> bool:
    """Whether each page up to the signature has the hash that the signature's code directory lists."""
    magic, _, count = struct.unpack_from(">III", data, at)
    if magic != 0xFADE0CC0:
        return False
    blobs = dict(struct.iter_unpack(">II", data[at + 12 : at + 12 + 8 * count]))
    directory = at + blobs[0]
    magic, _, _, _, hashes, _, _, slots, limit, width, kind, _, page = struct.unpack_from(">IIIIIIIIIBBBB", data, directory)
    if magic != 0xFADE0C02 or kind != 2 or limit != at:
        return False
    pages = range(0, limit, 1 << page)
    listed = (data[directory + hashes + i * width :][:width] for i in range(slots))
    made = (hashlib.sha256(data[p : min(p + (1 << page), limit)]).digest() for p in pages)
    return slots == len(pages) and all(a == b for a, b in zip(listed, made, strict=True))
