#!/usr/bin/env python3
"""Holds what the pages say against the repository and the program.

    tools/docs/check.py BINARY [PAGE…]

Without pages, all of the repository. Checked are links with their anchors; each code block by its language, configurations by the program, and
command lines by its parser; variables, metrics, routes, and the messages that troubleshooting quotes. Prints each fault with its place, and ends
with 1 if there is one.
"""

import ast
import configparser
import json
import re
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import yaml
from markdown import Page
from product import ROOT, Product, Server, command_lines

OURS = "https://github.com/mlx-serving/mlx-serving/blob/main/"
SECTIONS = {"server", "engine", "models", "metal_optimizations", "telemetry"}
# Output, and languages of programs that their own checks or no checks here read.
UNREAD = {"text", "nginx"}
METRIC = re.compile(r"\b(?:vllm:|metal_pool_|metal_device_|blit_|command_ring_|kv_spill_|process_|http_requests|request_failure|mlx_serving_b|mlx_serving_g)\w+")
# Text that reads like a sentence of the log or of an answer, and programs whose command lines read like one too.
SENTENCE = re.compile(r"^[a-z][\w',;:… -]* [\w',;:… -]+ [\w',;:… -]+$")
PROGRAMS = {"mlx-serving", "systemctl", "cargo", "git", "pip", "npm"}
QUOTING = {"docs/TROUBLESHOOTING.md", "docs/ROLLBACK.md"}


def main(binary, *names):
    pages = [Page(name, (ROOT / name).read_text()) for name in names or tracked()]
    with tempfile.TemporaryDirectory() as folder:
        product = Product(binary, folder)
        with Server(product) as server:
            faults = [fault for page in pages for fault in check(page, product, server)]
    for fault in faults:
        print(fault)
    blocks = sum(len(page.blocks) for page in pages)
    links = sum(len(page.links) for page in pages)
    print(f"{len(pages)} pages, {links} links, {blocks} code blocks: {len(faults)} faults")
    return 1 if faults else 0


def tracked():
    """Pages of the repository, new ones too; the history of changes is not held against the present."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    return [name for name in listed if name != "CHANGELOG.md" and not (ROOT / name).is_symlink()]


def check(page, product, server):
    """Faults of a page, each a line with its place."""
    for checked in (links, code, variables, metrics, routes, sentences):
        for line, fault in checked(page, product, server):
            yield f"{page.path}:{line}: {fault}"


def links(page, _, __):
    for target, line in page.links:
        # Pages that are read elsewhere too name this repository's files by their address.
        folder = ROOT if target.startswith(OURS) else (ROOT / page.path).parent
        name, _, fragment = target.removeprefix(OURS).partition("#")
        if re.match(r"^[a-z]+:", name):
            continue
        path = folder / name
        if name and not path.exists():
            yield line, f"the link to {target} leads nowhere"
        elif fragment and (not name or path.suffix == ".md") and fragment not in (anchors_of(path.resolve()) if name else page.anchors):
            yield line, f"{name or 'this page'} has no heading #{fragment}"


@cache
def anchors_of(path):
    return Page(path.relative_to(ROOT), path.read_text()).anchors


def code(page, product, _):
    for block in page.blocks:
        yield from ((block.line, fault) for fault in code_of(block, product))
    for text, line in page.spans:
        if text.startswith("mlx-serving "):
            # In a table a pipe has a backslash.
            yield from ((line, fault) for fault in lines_of(text.replace("\\|", "|"), False, product))


def code_of(block, product):
    match block.language:
        case "yaml":
            yield from yaml_of(block.text, product)
        case "json":
            yield from tried(json.loads, block.text)
        case "python":
            yield from tried(lambda text: compile(text, "block", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, True), block.text)
        case "js":
            yield from by_program(["node", "--check"], ".mjs", block.text)
        case "ini":
            yield from tried(configparser.ConfigParser(strict=False, interpolation=None).read_string, block.text)
        case "sh" | "bash":
            yield from by_program(["bash", "-n"], ".sh", block.text)
        case language if language and language not in UNREAD | {"console"}:
            yield f"no check knows the language {language}: add it to tools/docs/check.py"
    if block.language in {"", "sh", "bash", "console", "text"}:
        yield from lines_of(block.text, block.language in {"console", "text"}, product)


def lines_of(text, prompts, product):
    for line, readings in command_lines(text, prompts):
        reasons = [next(filter(None, map(product.refuses, reading)), None) for reading in readings]
        if all(reasons):
            yield f"`{line.strip()}` is refused: {reasons[0]}"


def tried(parse, text):
    try:
        parse(text)
    except Exception as error:
        yield f"{type(error).__name__}: {error}"


def by_program(command, suffix, text):
    with tempfile.NamedTemporaryFile("w", suffix=suffix) as file:
        file.write(text)
        file.flush()
        try:
            done = subprocess.run([*command, file.name], capture_output=True, text=True, timeout=60)
        except FileNotFoundError:
            print(f"{command[0]} is not here: a block of its language is not checked")
            return
        if done.returncode:
            yield done.stderr.strip().replace("\n", " ")


def yaml_of(text, product):
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        yield f"not YAML: {error}"
        return
    if isinstance(values, dict) and values.keys() <= SECTIONS:
        # Models and folders of whoever wrote it are not here.
        here = json.loads(json.dumps(values))
        (here.get("models") or {}).pop("serve", None)
        if (here.get("engine") or {}).get("kv_spill_file"):
            here["engine"]["kv_spill_file"] = "spilled"
        if reason := product.refuses_configuration(text, yaml.safe_dump(here)):
            yield f"not a configuration: {reason}"


def variables(page, product, _):
    known = {"MLX_SERVING_" + flag.replace("-", "_").upper() for flag in product.flags()} | named_in_sources()
    whole = "\n".join([page.prose, *(block.text for block in page.blocks)])
    for name in sorted(set(re.findall(r"\bMLX_SERVING_[A-Z_]*[A-Z]\b", whole)) - known):
        yield line_with(page, name), f"no flag and no source has the variable {name}"


@cache
def named_in_sources():
    """Variables of tests and of measurements, which no command has."""
    listed = subprocess.run(
        ["git", "grep", "-hoE", "MLX_SERVING_[A-Z_]*[A-Z]", "--", ":!*.md", ":!tools/docs"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(listed.stdout.split())


def metrics(page, product, server):
    known = server.names() | product.keys()
    whole = "\n".join([*(text for text, _ in page.spans), *(block.text for block in page.blocks)])
    # Benchmarks of the code have such names too.
    whole = re.sub(r"--(bench|test) \w+", "", whole)
    for name in sorted({found.rstrip(":") for found in METRIC.findall(whole)} - known):
        yield line_with(page, name), f"neither a metric nor a key nor a statistic: {name}"


def routes(page, _, server):
    whole = "\n".join([page.prose, *(block.text for block in page.blocks)])
    for path in sorted(set(re.findall(r"(?:localhost|127\.0\.0\.1):8080(/[\w/.-]*)", whole))):
        if path != "/v1" and server.get(path)[0] == 404:
            yield line_with(page, path), f"the server has no route {path}"


def sentences(page, _, __):
    if page.path.as_posix() not in QUOTING:
        return
    quoted = page.spans + [(text, page.line_of(page.prose.index(text))) for text in re.findall(r'"([^"\n]+)"', page.bare)]
    for text, line in quoted:
        if SENTENCE.match(text) and text.split()[0] not in PROGRAMS:
            for piece in filter(None, (piece.strip() for piece in text.split("…"))):
                if piece not in sources():
                    yield line, f"no source says: {piece}"


@cache
def sources():
    """The product's sources in one, strings that go over lines joined."""
    whole = "\n".join(path.read_text() for path in sorted(ROOT.glob("crates/*/src/**/*.rs")) if "tests" not in path.name)
    return re.sub(r"\\\n\s*", "", whole)


def line_with(page, text):
    for block in page.blocks:
        if text in block.text:
            return block.line + block.text[: block.text.index(text)].count("\n")
    return page.line_of(page.prose.find(text))


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
