"""Prose: the text of Markdown or of a docstring without its code, and the sentences of a text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from markdown_it import MarkdownIt
from markdown_it.token import Token

PLACEHOLDER = "…"
"""Stands for a code span, a URL or a value that is filled in, and counts as one word."""
CODE = re.compile(r"``[^`]+``|`[^`]+`|[a-z][a-z0-9+]*://[^\s|)>\]]*[^\s|)>\].,;:]")
SENTENCE_END = re.compile(r"[.!?][\"')\]”]*\s+")
ABBREVIATION = re.compile(r"\b(?:e\.g|i\.e|etc|vs|cf|approx)\.$", re.IGNORECASE)
ERROR_CODE = re.compile(r"PH-[0-9]{4}\b")
DOCSTRING_ITEM = re.compile(r"\s+\*{0,2}\w+(?: \([^)]*\))?: |(?:Args|Attributes|Raises|Returns|Yields|Examples?):$")


@dataclass(frozen=True)
class Block:
    """A paragraph, heading, list item or table cell: its first line and its prose."""

    line: int
    text: str


@dataclass(frozen=True)
class Sentence:
    """A sentence without line breaks, and the line on which it begins."""

    line: int
    text: str

    @property
    def words(self) -> int:
        """A dash or an arrow between spaces is no word; `and/or` is one."""
        return sum(any(char.isalnum() or char == PLACEHOLDER for char in word) for word in self.text.split())


def without_code(text: str) -> str:
    """Puts the placeholder for each code span and URL."""
    return CODE.sub(PLACEHOLDER, text)


def sentences(block: Block) -> Iterator[Sentence]:
    """The sentences of a block. An abbreviation such as "e.g." ends none."""
    begin = 0
    ends = [end for end in SENTENCE_END.finditer(block.text) if not ABBREVIATION.search(block.text[: end.start() + 1])]
    for end in (*(each.end() for each in ends), len(block.text)):
        part = block.text[begin:end]
        if part.strip():
            before = block.text[: begin + len(part) - len(part.lstrip())]
            yield Sentence(block.line + before.count("\n"), " ".join(part.split()))
        begin = end


def markdown_blocks(page: str) -> Iterator[Block]:
    """The prose of a page. Code, HTML, link targets and rows about one error code are left out.

    Error messages are checked in the source, where they are written.
    """
    line, in_error_row = 0, False
    for token in MarkdownIt("commonmark").enable("table").parse(page):
        line = token.map[0] + 1 if token.map else line  # a table's cells have no line, but their row has
        if token.type == "tr_open":
            in_error_row = False
        elif token.type == "inline":
            in_error_row = in_error_row or bool(ERROR_CODE.fullmatch(token.content.strip("`")))
            if not in_error_row:
                yield Block(line, "".join(_prose(token.children or [])))


def _prose(tokens: list[Token]) -> Iterator[str]:
    for token in tokens:
        match token.type:
            case "text":
                yield without_code(token.content)
            case "code_inline":
                yield PLACEHOLDER
            case "softbreak" | "hardbreak":
                yield "\n"
            case "image":
                yield from _prose(token.children or [])


def docstring_blocks(text: str, line: int) -> Iterator[Block]:
    """The paragraphs of a docstring, and the items of its Google-style sections; no doctests."""
    begin, lines = line, list[str]()
    for number, each in enumerate([*text.splitlines(), ""], line):
        is_code = each.lstrip().startswith((">>>", "..."))
        if lines and (is_code or not each.strip() or DOCSTRING_ITEM.match(each)):
            yield Block(begin, without_code("\n".join(lines)))
            lines = []
        if each.strip() and not is_code:
            begin = begin if lines else number
            lines.append(each)
