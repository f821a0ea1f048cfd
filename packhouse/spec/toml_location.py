"""A document in TOML: reading it, and the line on which a key stands."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from typing import Any

from packhouse.errors import SpecInvalid

SPEC_FILE = "package.toml"
MAX_SPEC_BYTES = 1024 * 1024
MAX_KEY_PARTS = 32
"""Parts of a dotted key. tomllib's time grows with their square: one key of 1 MiB keeps it busy for many minutes."""

Path = tuple[int | str, ...]
"""The keys from the top of the document to one of its values."""

MAX_SHOWN = 80
"""Characters of a value or key of somebody's file that a message repeats."""


def read(data: bytes, *, where: str = SPEC_FILE) -> dict[str, Any]:
    """The TOML document, whatever it says. Raises SpecInvalid: it is none, or one that keeps a parser busy for good."""
    if len(data) > MAX_SPEC_BYTES:
        raise SpecInvalid(
            "PH-0236 too large", where=where, got=f"{len(data):,} bytes", want=f"at most {MAX_SPEC_BYTES:,}"
        )
    try:
        text = data.decode("utf-8")
        if deep := DEEP_KEY.search(text):
            place = f"{where}:{text.count(chr(10), 0, deep.start()) + 1}"
            raise SpecInvalid("PH-0237 nested too deep", where=place, want=f"keys of at most {MAX_KEY_PARTS} parts")
        return tomllib.loads(text)
    except UnicodeDecodeError as error:
        raise SpecInvalid("PH-0238 not UTF-8", where=f"{where} byte {error.start}") from error
    except tomllib.TOMLDecodeError as error:
        at = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)$", str(error))
        line = (at[1] or str(text.count("\n") + 1)) if at else ""
        raise SpecInvalid(f"PH-0239 not TOML: {error}", where=f"{where}:{line}".rstrip(":")) from error
    except RecursionError as error:
        raise SpecInvalid("PH-0237 nested too deep", where=where) from error
    except ValueError as error:  # a number of more digits than Python reads
        raise SpecInvalid(f"PH-0240 not TOML that can be read: {error}", where=where) from error


def key_of(path: Path) -> str:
    """As a person writes it: `inputs[1].shape`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")[:MAX_SHOWN]


_PART = r"""(?:"(?:\\.|[^"\\\n])*"|'[^'\n]*'|[A-Za-z0-9_-]+)"""
_STATEMENT = re.compile(rf"\s*(\[\[?)?\s*({_PART}(?:\s*\.\s*{_PART})*)\s*[=\]]")
DEEP_KEY = re.compile(rf"(?:^|[\[{{,])[ \t]*(?:{_PART}[ \t]*\.[ \t]*){{{MAX_KEY_PARTS}}}", re.MULTILINE)
_TOKEN = re.compile(
    r"""
    \"\"\"(?:\\.|[^\\])*?\"\"\"(?!\") | '''.*?'''(?!') | "(?:\\.|[^"\\\n])*" | '[^'\n]*' | \#[^\n]*
    | (?P<open>[\[{]) | (?P<close>[\]}]) | (?P<end>\n)
    """,
    re.VERBOSE | re.DOTALL,
)


def line_of(path: Path, text: str) -> int | None:
    """The line, from 1, of the deepest part of the path that is written in the text; None where none is."""
    best: tuple[int, int] | None = None
    table: tuple[int | str, ...] = ()
    elements: Counter[tuple[int | str, ...]] = Counter()
    for number, statement in _statements(text):
        if not (found := _STATEMENT.match(statement)):
            continue
        names = [part.strip("\"'") for part in re.findall(_PART, found[2])]
        if found[1]:
            table = ()
            for depth, name in enumerate(names, start=1):
                table = (*table, name)
                if found[1] == "[[" and depth == len(names):
                    elements[table] += 1
                if elements[table]:
                    table = (*table, elements[table] - 1)
        here = table if found[1] else (*table, *names)
        if here and here == path[: len(here)] and (best is None or len(here) > best[0]):
            best = (len(here), number)
    return best[1] if best else None


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """The line number and text of each table header and each `key = value`, whose value may go over many lines."""
    start, line, depth, first = 0, 1, 0, 1
    for token in _TOKEN.finditer(f"{text}\n"):
        depth += bool(token["open"]) - bool(token["close"])
        line += token[0].count("\n")
        if token["end"] and not depth:
            yield first, text[start : token.start()]
            start, first = token.end(), line
