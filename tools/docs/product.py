"""What the program itself says: whether it takes a command line or a configuration, and the names that it knows."""

import json
import os
import re
import shlex
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Command lines of the docs that are run: they are quick, and change nothing.
HARMLESS = ["--version", "config check", "config show", "config schema", "doctor", "list", "man", "completions bash"]


class Product:
    """The binary; `folder` is an empty one in which it runs, so that no configuration of this repository counts."""

    def __init__(self, binary, folder):
        self.binary, self.folder = Path(binary).resolve(), Path(folder)
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLX_SERVING_", "HF_"))}
        self.written = 0
        self.environment = kept | {"HF_HOME": str(self.folder / "hub"), "HF_HUB_OFFLINE": "1"}

    @cache
    def run(self, *args):
        """Exit code, and what was said on both outputs."""
        done = subprocess.run(
            [self.binary, *args], cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
        )
        return done.returncode, done.stdout, done.stderr

    def refuses(self, args):
        """The reason for which a command line is refused, or None. It is parsed and not run: `--help` at its end prints a page."""
        if args[:1] == ["help"]:
            args = [arg for arg in args if arg != "COMMAND"]
        code, _, said = self.run(*args, *([] if args[:1] == ["help"] else ["--help"]))
        if not code and args[:1] == ["serve"] and not {"--config", "--chat-template", "--help"} & set(args):
            # Values that are checked later than the page is printed.
            code, _, said = self.run("config", "show", *args[1:])
        if not code and " ".join(args) in HARMLESS:
            code, _, said = self.run(*args)
        return said.strip().split("\n")[0] if code else None

    def refuses_configuration(self, text, here):
        """The reason for which a configuration is refused, or None. `here` is the same without models and files of its writer's machine."""
        for content, command in ((text, "show"), (here, "check")):
            self.written += 1
            name = f"{self.written}.yaml"
            (self.folder / name).write_text(content)
            code, _, said = self.run("config", command, "--config", name, "--device", "cpu")
            if code:
                return said.strip()
        return None

    @cache
    def keys(self):
        """Names of the configuration's keys."""

        def names(schema):
            if isinstance(schema, dict):
                yield from schema.get("properties", {})
                for part in schema.values():
                    yield from names(part)
            elif isinstance(schema, list):
                for part in schema:
                    yield from names(part)

        return set(names(json.loads(self.run("config", "schema")[1])))

    @cache
    def flags(self):
        """Long flags of all commands, from the script that completes them."""
        return set(re.findall(r"--([a-z][a-z0-9-]+)", self.run("completions", "bash")[1]))


class Server:
    """A server of the bundled model, with all optimizations, that has answered once."""

    def __init__(self, product):
        self.said = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            [product.binary, "serve", "--port", "0", "--device", "cpu", "--metal-opts", "all"],
            cwd=product.folder,
            env=product.environment | {"NO_COLOR": "1"},
            stdout=self.said,
            stderr=self.said,
        )
        self.address = self._address()
        body = {"messages": [{"role": "user", "content": "What Is Ownership?"}], "max_tokens": 4}
        request = urllib.request.Request(f"{self.address}/v1/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"})
        urllib.request.urlopen(request, timeout=60).read()

    def _address(self):
        end = time.monotonic() + 60
        while time.monotonic() < end and self.process.poll() is None:
            self.said.seek(0)
            if found := re.search(r" on (http://[^ ]+)", self.said.read()):
                return found[1]
            time.sleep(0.05)
        self.said.seek(0)
        raise SystemExit(f"the server did not start:\n{self.said.read()}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(60)

    def get(self, path):
        """Status and text of an answer."""
        try:
            with urllib.request.urlopen(self.address + path, timeout=60) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    @cache
    def names(self):
        """Names of metrics, and of the fields of the statistics."""

        def fields(value):
            if isinstance(value, dict):
                for key, below in value.items():
                    yield key
                    yield from fields(below)

        exposition = self.get("/metrics")[1]
        samples = re.findall(r"^([a-zA-Z_:][\w:]*)[{ ]", exposition, re.MULTILINE)
        families = re.findall(r"^# TYPE (\S+)", exposition, re.MULTILINE)
        return set(samples) | set(families) | {f"{f}_total" for f in families} | set(fields(json.loads(self.get("/v1/metal/stats")[1])))


def command_lines(text, prompts):
    """For each line of a block that calls the program: the line, and its readings, each a list of argument lists. What stands behind two
    spaces may be a remark, so there is a reading without it. With `prompts`, only lines after a $ are read."""
    for line in re.sub(r"\\\n\s*", " ", text).split("\n"):
        if prompts and not line.startswith("$ "):
            continue
        line = line.removeprefix("$ ")
        readings = [[args for words in commands(reading) if (args := arguments(words)) is not None] for reading in without_remark(line)]
        if readings[0]:
            yield line, readings


def without_remark(line):
    yield line
    for gap in reversed(list(re.finditer(r"(?<=\S) {2,}(?=\w)", line))):
        yield line[: gap.start()]


def arguments(words):
    """The program's arguments, if it is called, after variables and sudo."""
    while words and re.match(r"^([A-Z_]+=.*|sudo)$", words[0]):
        words = words[1:]
    return words[1:] if words[:1] == ["mlx-serving"] else None


def commands(line):
    """Words of each simple command of a line, without redirections and what follows them."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    try:
        words = list(lexer)
    except ValueError:
        # A quote that is not closed: no line of a shell.
        return
    if words[-1:] == ["…"]:
        # And so on; elsewhere it is some value.
        words.pop()
    command, skipped = [], False
    for word in words:
        if word in {"&&", "||", "|", ";", "&"}:
            yield command
            command, skipped = [], False
        elif re.match(r"^\d?[<>]", word):
            skipped = True
        elif not skipped:
            command.append(word)
    yield command
