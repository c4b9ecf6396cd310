"""Code blocks of the documents, in order, with what the comment before one says of it.

``<!-- not run: WHY -->``: its command lines are only parsed. ``<!-- tried with: A => B; C => D -->``: each A of it is B here, so
that what takes minutes for a reader takes seconds. ``<!-- file: NAME -->``: it is kept as that file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

BLOCK = re.compile(r"(?:^<!-- (not run|tried with|file): (.*?) -->\n)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LANGUAGES = {"sh", "python", "bash", "lammps", "yaml", "text"}


@dataclass(frozen=True)
class Block:
    """A code block: its page and line, language and text, and the comment before it."""

    page: Path
    line: int
    language: str
    text: str
    mark: str
    said: str

    @property
    def tried(self) -> str:
        """The text as it is run here."""
        text = self.text
        for pair in self.said.split("; ") if self.mark == "tried with" else ():
            old, arrow, new = pair.partition(" =>")
            assert arrow, f"{self.where}: {pair} is no replacement"
            assert old.strip() in text, f"{self.where}: there is no {old}"
            text = text.replace(old.strip(), new.strip())
        return text

    @property
    def where(self) -> str:
        """Page and line, for messages."""
        return f"{self.page.name}:{self.line}"

    def commands(self, text: str) -> list[str]:
        """Return command lines, each whole, without comments and blank lines."""
        joined = text.replace("\\\n", " ")
        lines = [re.sub(r"(^|\s)#.*$", "", line).strip() for line in joined.splitlines()]
        return [line for line in lines if line]


def blocks(page: Path) -> list[Block]:
    """Return the blocks of a page."""
    text = page.read_text()
    found = []
    for match in BLOCK.finditer(text):
        mark, said, language, body = match.groups()
        line = text.count("\n", 0, match.start(3)) + 1
        found.append(Block(page, line, language, body, mark or "", said or ""))
    return found
