"""Pages of Markdown, as GitHub reads them: code blocks, code spans, links, and the anchors of headings."""

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

FENCE = re.compile(r"^( *)(```+|~~~+) *([\w-]*)")
ITEM = re.compile(r"^( *)([-*]|\d+\.)( +)")
LINK = re.compile(r"\[(?:[^\[\]]|\[[^\]]*\])*\]\(\s*<?([^)\s>]+)>?[^)]*\)")
DEFINITION = re.compile(r"^\[[^\]]+\]:\s*(\S+)", re.MULTILINE)
ADDRESS = re.compile(r"(?:href|src)=\"([^\"]+)\"")
SPAN = re.compile(r"(`+)((?:(?!\1).)+?)\1(?!`)", re.DOTALL)


@dataclass
class Block:
    """A code block; `language` is empty where none is named, `line` is that of its first line of code."""

    language: str
    text: str
    line: int


class Page:
    """A page; `path` is relative to the root of the repository."""

    def __init__(self, path, text):
        self.path = Path(path)
        self.blocks = []
        # The text outside of code blocks, with as many lines.
        self.prose = "\n".join(self._split(text.split("\n")))

    def _split(self, lines):
        fence, block, content, blank = None, None, 0, True
        for number, line in enumerate(lines, 1):
            indent = len(line) - len(line.lstrip(" "))
            if fence:
                if line.strip().startswith(fence) and not line.strip().strip(fence[0]):
                    fence = block = None
                else:
                    block.text += line.removeprefix(" " * margin) + "\n"
                yield ""
                continue
            if opened := FENCE.match(line):
                margin, fence = len(opened[1]), opened[2]
                block = Block(opened[3], "", number + 1)
                self.blocks.append(block)
                yield ""
                continue
            if line.strip() and indent >= content + 4 and (blank or block):
                if not block:
                    block = Block("", "", number)
                    self.blocks.append(block)
                block.text += line[content + 4 :] + "\n"
                blank = False
                yield ""
                continue
            if not line.strip():
                if block:
                    block.text += "\n"
                blank = True
                yield ""
                continue
            block, blank = None, False
            if item := ITEM.match(line):
                content = len(item[0])
            elif not indent:
                content = 0
            yield line

    @cached_property
    def spans(self):
        """Texts of code spans, each with its line."""
        return [(" ".join(m[2].split()), self.line_of(m.start())) for m in SPAN.finditer(self.prose)]

    @cached_property
    def bare(self):
        """The prose without its code spans."""
        return SPAN.sub(lambda m: re.sub(r"[^\n]", " ", m[0]), self.prose)

    @cached_property
    def links(self):
        """Targets of links and images, each with its line."""
        found = [m for pattern in (LINK, DEFINITION, ADDRESS) for m in pattern.finditer(self.bare)]
        return [(m[1], self.line_of(m.start(1))) for m in found]

    @cached_property
    def anchors(self):
        """Names that a link's fragment may have."""
        found = set(re.findall(r"<a (?:id|name)=\"([^\"]+)\"", self.prose))
        for title in re.findall(r"^#{1,6} +(.*?)(?: #+)? *$", self.prose, re.MULTILINE):
            name, again = anchor(title), 0
            while name in found:
                again += 1
                name = f"{anchor(title)}-{again}"
            found.add(name)
        return found

    def line_of(self, position):
        return self.prose.count("\n", 0, position) + 1


def anchor(title):
    """GitHub's name for a heading."""
    title = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title)
    return re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-")
