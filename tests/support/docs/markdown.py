"""Pieces of Markdown that the generators share."""

from __future__ import annotations

import re
from collections.abc import Iterable

PAGE = re.compile(r"\bdocs/([\w-]+\.md(?:#[\w-]+)?)")
"""A page, as the code names it."""


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A table; a cell is one line."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(_cell(text) for text in line)} |" for line in lines)


def linked(text: str) -> str:
    """Pages that the text names become links, as they are among themselves."""
    return PAGE.sub(lambda found: f"[{found[1].partition('#')[0]}]({found[1]})", text)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
