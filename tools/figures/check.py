#!/usr/bin/env python3
"""Checks that every figure in the documentation has its record.

A figure is a number with a unit, outside of code. `figures.toml` says of each where it comes from:

    [[record]]                        a figure that was measured: its numbers are those of a record, rounded as the text rounds them
    page = "README.md"
    text = "3.4 times"                as it stands on the page, with as many numbers as there are values
    file = "2026-11-25-vs-llama-….json"    in benches/records
    values = ["summary.prefill_tok_s.ratio"]

    [[comparison]]                    changes that `bench compare` found, each with its interval
    page, file
    findings = { "memory_pool/throughput" = "−3.9 % (−8.9 to +10.6)" }

    [[test]]                          a figure that a test asserts
    page, text
    file = "crates/engine/tests/ring_utilization.rs"
    asserts = "utilization >= 0.95"   text of that file

    [[given]]                         figures that are not measured: limits, sizes, aims, examples
    page
    why = "limits and defaults; the configuration's tests hold them"
    texts = ["64 KiB", "8 MiB"]

A value is a path into the record's JSON (`a.b`, `a[key.with.dots]`, `list[3]`, `list[key=value]`, `list[]` for every element), alone or in `median(…)`, `least(…)`,
`most(…)`, `count(…)`, with a factor after it (`path * 100`); `1 / path` is its reciprocal.
"""

import json
import re
import statistics
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RECORDS = ROOT / "benches/records"
LEDGER = Path(__file__).with_name("figures.toml")

NUMBER = r"[+\-−]?\d+(?:[,\u202f]\d{3})*(?:\.\d+)?(?:e[+\-−]?\d+)?"
UNIT = (
    r"%|percent\b|×|x\b|-fold\b|times\b|points?\b|ms\b|milliseconds?\b|µs\b|us\b|ns\b|s\b|seconds?\b|min\b|minutes?\b|h\b|hours?\b"
    r"|k? ?tok/s(?:ec)?|(?:tokens|requests)(?:/s| a second| per second)|[kKMGT]i?B(?:/s)?\b|[KMGT](?:FL)?OPS?(?:/s)?\b"
)
FIGURE = re.compile(rf"(?<![\w.,/:@#-]){NUMBER}(?:\s?(?:to|and|–|-|/|or)\s?{NUMBER})*[\s\u00a0]{{0,3}}(?:{UNIT})(?![\w/])")
INTERVAL = re.compile(rf"\({NUMBER} (?:to|–) {NUMBER}(?=[;):])")


@dataclass(frozen=True)
class Span:
    """Part of a page."""

    start: int
    end: int

    def holds(self, other: "Span") -> bool:
        return self.start <= other.start and other.end <= self.end


def prose(text: str) -> str:
    """A page with its code blanked out, each character in its place."""
    blank = lambda match: re.sub(r"[^\n]", " ", match[0])
    text = re.sub(r"^```.*?^```", blank, text, flags=re.M | re.S)
    text = re.sub(r"(?m)^(?: {4}|\t)(?! *(?:[-*|]|\d+\. )).*$", blank, text)
    text = re.sub(r"`[^`\n]+`", blank, text)
    text = re.sub(r"\*\*|__", lambda match: " " * len(match[0]), text)
    # The address of a link is no text; what it stands under is.
    return re.sub(r"\]\([^)\n]*\)", blank, text)


def figures(text: str) -> list[Span]:
    """Numbers with units, and intervals, in a page's prose."""
    found = {Span(*match.span()) for pattern in (FIGURE, INTERVAL) for match in pattern.finditer(prose(text))}
    return sorted(found, key=lambda span: span.start)


def numbers(text: str) -> list[str]:
    """The numbers of a text, as they are written."""
    return re.findall(NUMBER, text)


def plain(number: str) -> str:
    """A number as Python reads it."""
    return number.replace("−", "-").replace(",", "").replace("\u202f", "")


def rounds_to(value: float, written: str) -> bool:
    """Whether a value is what was written, in the digits that were written."""
    text = plain(written)
    mantissa, _, exponent = text.partition("e")
    digits = len(mantissa.partition(".")[2])
    scale = 10.0 ** int(exponent or 0)
    # Half a unit of the last digit, and what binary fractions lose.
    return abs(value / scale - float(mantissa)) <= 0.5 * 10.0**-digits * (1 + 1e-9)


def select(document: object, path: str) -> list[object]:
    """The elements of a JSON document that a path names."""
    found = [document]
    for step in re.findall(r"[^.\[\]]+|\[[^\]]*\]", path):
        if step == "[]":
            found = [element for value in found for element in value]
        elif step.startswith("["):
            key, equals, wanted = step[1:-1].partition("=")
            if equals:
                found = [element for value in found for element in value if str(element.get(key)) == wanted]
            else:
                # An index of a list, or a key that has dots in it.
                found = [value[key] if isinstance(value, dict) else value[int(key)] for value in found]
        else:
            found = [value[step] for value in found]
    return found


def value_of(document: object, expression: str) -> float:
    """The number that an expression names; a `ValueError` says what is wrong with it."""
    match = re.fullmatch(r"(1 / )?(?:(median|least|most|count)\((.*)\)|(.*?))(?: \* ([\d.e+-]+))?", expression)
    reciprocal, function, inner, path, factor = match.groups()
    try:
        found = select(document, inner or path)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{expression}: not in the record ({error!r})") from error
    if function == "count":
        value = float(len(found))
    elif function:
        if not found:
            raise ValueError(f"{expression}: nothing is there")
        value = {"median": statistics.median, "least": min, "most": max}[function](found)
    elif len(found) == 1:
        value = found[0]
    else:
        raise ValueError(f"{expression}: {len(found)} elements are there, where one is wanted")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{expression}: {value!r} is no number")
    return (1 / value if reciprocal else value) * float(factor or 1)


def places(page: str, text: str) -> list[Span]:
    """Where a text stands on a page, whatever breaks its lines."""
    pattern = r"\s+".join(re.escape(word) for word in re.split(r"[ \n]+", text))
    return [Span(*match.span()) for match in re.finditer(pattern, page)]


def record_faults(entry: dict, records: Path) -> list[str]:
    """Faults of an entry about a measured figure."""
    file = records / entry["file"]
    if not file.is_file():
        return [f"{entry['text']!r}: there is no record {entry['file']}"]
    document = json.loads(file.read_text())
    written = numbers(entry["text"])
    if len(written) != len(entry["values"]):
        return [f"{entry['text']!r} has {len(written)} numbers, and its entry {len(entry['values'])} values"]
    faults = []
    for number, expression in zip(written, entry["values"], strict=True):
        try:
            value = value_of(document, expression)
        except ValueError as error:
            faults.append(f"{entry['text']!r}: {error}")
            continue
        if not rounds_to(value, number):
            faults.append(f"{entry['text']!r} says {number}, and {expression} in {entry['file']} is {value:.6g}")
    return faults


def expanded(ledger: dict, records: Path) -> dict:
    """The ledger with comparisons as records: each finding is a change and the two ends of its interval."""
    found = [entry for entry in ledger.get("record", [])]
    for comparison in ledger.get("comparison", []):
        file = records / comparison["file"]
        findings = json.loads(file.read_text())["findings"] if file.is_file() else []
        for name, text in comparison["findings"].items():
            arm, figure = name.split("/")
            at = next((i for i, f in enumerate(findings) if f["arm"] == arm and f["figure"].startswith(figure)), len(findings))
            # Records up to 2026-11-26 have the interval beside the median.
            old = at < len(findings) and isinstance(findings[at]["change"], dict)
            values = ["change.median", "change.low", "change.high"] if old else ["change", "interval.low", "interval.high"]
            paths = [f"findings[{at}].{value}" for value in values][: len(numbers(text))]
            found.append({"page": comparison["page"], "file": comparison["file"], "text": text, "values": paths})
    return {**{kind: entries for kind, entries in ledger.items() if kind != "comparison"}, "record": found}


def check(root: Path, ledger: dict, records: Path, pages: list[str]) -> list[str]:
    """All faults of the pages and of the ledger."""
    faults, texts = [], {page: (root / page).read_text() for page in pages}
    covered: dict[str, list[Span]] = {page: [] for page in pages}
    for kind, entries in expanded(ledger, records).items():
        for entry in entries:
            page = entry["page"]
            if page not in texts:
                faults.append(f"figures.toml: {page} is no page")
                continue
            for text in entry.get("texts", [entry.get("text")]):
                spans = places(texts[page], text)
                if not spans:
                    faults.append(f"{page}: figures.toml has {text!r}, which is not there")
                covered[page] += spans
            if kind == "record":
                faults += [f"{page}: {fault}" for fault in record_faults(entry, records)]
            elif kind == "test" and entry["asserts"] not in (root / entry["file"]).read_text():
                faults.append(f"{page}: {entry['text']!r}: {entry['file']} does not have {entry['asserts']!r}")
    for page, text in texts.items():
        for figure in figures(text):
            if not any(span.holds(figure) for span in covered[page]):
                line = text.count("\n", 0, figure.start) + 1
                faults.append(f"{page}:{line}: {text[figure.start : figure.end]!r} has no entry in figures.toml")
    return faults


def all_pages() -> list[str]:
    """The pages that users read. The changelog and the records' own pages tell of other times."""
    found = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("dashboards/*.md"), *ROOT.glob("packaging/*.md")]
    found += [*ROOT.glob("bindings/README.md"), *ROOT.glob("bindings/*/README.md"), ROOT / "benches/README.md"]
    return sorted(str(page.relative_to(ROOT)) for page in found if page.name != "CHANGELOG.md")


def main() -> None:
    pages = all_pages()
    faults = check(ROOT, tomllib.loads(LEDGER.read_text()), RECORDS, pages)
    for fault in faults:
        print(fault)
    count = sum(len(figures((ROOT / page).read_text())) for page in pages)
    print(f"{count} figures on {len(pages)} pages, {len(faults)} faults")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
