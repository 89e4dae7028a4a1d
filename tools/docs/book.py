#!/usr/bin/env python3
"""Builds the documentation as a site in target/site/html, and checks each link of its pages: tools/docs/book.py MDBOOK

Pages stay where GitHub shows them, in several folders, and mdbook reads one. So they are copied, in the order and under the names of
docs/SUMMARY.md, and links to files that are no pages lead to the repository.
"""

import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from markdown import FENCE

ROOT = Path(__file__).resolve().parents[2]
PAGES, HTML = ROOT / "target/site/pages", ROOT / "target/site/html"
REPOSITORY = "https://github.com/mlx-serving/mlx-serving"
INLINE = re.compile(r"(`+[^`]+`+)|(\]\(\s*)([^)\s]+)")


def main(mdbook):
    shutil.rmtree(PAGES.parent, ignore_errors=True)
    summary = PurePosixPath("docs/SUMMARY.md")
    chapters = {inside(summary.parent, target) for target in re.findall(r"\]\(([^)]+)\)", (ROOT / summary).read_text())}
    places = {page: renamed(page) for page in chapters} | {summary: PurePosixPath("SUMMARY.md")}
    for page, place in places.items():
        path = PAGES / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(rewritten((ROOT / page).read_text(), page, place, chapters))
    subprocess.run([mdbook, "build"], cwd=ROOT, check=True)
    faults = list(broken())
    print("\n".join(faults))
    missing = {page.as_posix() for page in docs()} - {page.as_posix() for page in chapters}
    assert not missing, f"docs/SUMMARY.md does not name {sorted(missing)}"
    print(f"{len(chapters)} pages in {HTML.relative_to(ROOT)}")
    return 1 if faults else 0


def docs():
    return [path.relative_to(ROOT) for path in (ROOT / "docs").glob("*.md") if path.name != "SUMMARY.md"]


def inside(folder, target):
    """The path in the repository that a link from a folder means."""
    parts = []
    for part in (folder / target).parts:
        parts = parts[:-1] if part == ".." else [*parts, part]
    return PurePosixPath(*parts)


def renamed(page):
    """A folder's first page is its index."""
    return page.with_name("index.md") if page.name == "README.md" else page


def rewritten(text, page, place, chapters):
    """The text of a page with links as they are at `place`."""

    def link(match):
        if match[1] or re.match(r"^([a-z]+:|#)", match[3]):
            return match[0]
        name, _, fragment = match[3].partition("#")
        target, fragment = inside(page.parent, name), fragment and f"#{fragment}"
        if target in chapters:
            up = len(place.parent.parts)
            return match[2] + "../" * up + renamed(target).as_posix() + fragment
        kind = "tree" if (ROOT / target).is_dir() else "blob"
        return f"{match[2]}{REPOSITORY}/{kind}/main/{target}{fragment}"

    pieces, prose, fence = [], [], None
    for line in text.splitlines(keepends=True):
        opened = FENCE.match(line)
        if fence or opened:
            pieces += [INLINE.sub(link, "".join(prose)), line]
            prose = []
            fence = None if fence and opened and opened[2] == fence else fence or opened[2]
        else:
            prose.append(line)
    return "".join([*pieces, INLINE.sub(link, "".join(prose))])


class Links(HTMLParser):
    """Links and names of a page."""

    def __init__(self, text):
        super().__init__()
        self.links, self.names = [], set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name in {"href", "src"} and value:
                self.links.append(value)
            elif name == "id":
                self.names.add(value)


def broken():
    """Links of the built pages that lead nowhere."""
    pages = {path: Links(path.read_text()) for path in HTML.rglob("*.html")}
    for path, page in pages.items():
        # The page for what is not found has links from the root of the site.
        for link in [] if path.name == "404.html" else page.links:
            if re.match(r"^([a-z]+:|//)", link):
                continue
            name, _, fragment = unquote(link).partition("#")
            target = (path.parent / name).resolve() if name else path
            if target.is_dir():
                target /= "index.html"
            if not target.exists():
                yield f"{path.relative_to(HTML)}: {link} leads nowhere"
            elif fragment and target in pages and fragment not in pages[target].names:
                yield f"{path.relative_to(HTML)}: {link} names no heading"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1]))
