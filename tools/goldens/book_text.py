#!/usr/bin/env python3
"""Writes two pages of the Rust Book as plain text, for perplexity, from the HTML of the toolchain's rust-docs component."""

import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path

OUT = Path(__file__).resolve().parents[2] / "crates/cli/tests/goldens/book.txt"
PAGES = ["ch04-02-references-and-borrowing", "ch11-03-test-organization"]


class Prose(HTMLParser):
    """Collects headings, paragraphs, list items and code blocks of a page's <main>."""

    BLOCKS = {"h1", "h2", "h3", "h4", "p", "li", "pre"}
    VOID = {"br", "img", "hr", "input", "meta", "link"}

    def __init__(self):
        super().__init__()
        self.path = []  # open elements inside <main>, with their classes
        self.inside = False
        self.blocks = []

    def handle_starttag(self, tag, attrs):
        if tag == "main":
            self.inside = True
        elif self.inside and tag not in self.VOID:
            self.path.append((tag, dict(attrs).get("class") or ""))
            if tag in self.BLOCKS:
                self.blocks.append((tag, []))

    def handle_endtag(self, tag):
        if tag == "main":
            self.inside = False
        elif self.inside and any(tag == t for t, _ in self.path):
            while self.path.pop()[0] != tag:
                pass

    def handle_data(self, data):
        hidden = any("boring" in c or "buttons" in c or "caption" in c for _, c in self.path)
        if self.inside and not hidden and any(t in self.BLOCKS for t, _ in self.path):
            self.blocks[-1][1].append(data)

    def text(self):
        out = []
        for tag, parts in self.blocks:
            raw = "".join(parts)
            if tag == "pre":
                out.append("```\n" + raw.strip("\n") + "\n```")
            else:
                line = re.sub(r"\s+", " ", raw).strip()
                out.append("- " + line if tag == "li" and line else line)
        return "\n\n".join(block for block in out if block and not block.startswith("Filename:")) + "\n"


def main():
    sysroot = Path(subprocess.check_output(["rustc", "--print", "sysroot"], text=True).strip())
    texts = []
    for page in PAGES:
        prose = Prose()
        prose.feed((sysroot / f"share/doc/rust/html/book/{page}.html").read_text())
        texts.append(prose.text())
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text("\n".join(texts))


if __name__ == "__main__":
    main()
