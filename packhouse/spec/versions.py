"""Schemas: which documents this version reads, and what it says of those that a later one wrote."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import Field

from packhouse.errors import PackhouseError, ReleaseInvalid

NEEDS = "0.2"
"""The oldest packhouse that reads what this one writes in documents of schema 2."""
VERSION = r"[0-9]{1,4}(\.[0-9]{1,4}){0,2}"
Version = Annotated[str, Field(pattern=f"^{VERSION}$")]


def refuse_newer(
    document: Any, newest: int, *, where: str, error: type[PackhouseError] = ReleaseInvalid, default: int = 1
) -> None:
    """Looks at the parsed document before anything else does, since nothing is known about a later schema but its
    number and `needs`. default: of a document that has no `schema`.

    Raises `error`: the schema is a later one than `newest`, or the document says that this version is too old."""
    from packhouse import __version__  # the package imports this module

    if not isinstance(document, dict):
        return
    schema, needs = document.get("schema", default), document.get("needs")
    known = needs if isinstance(needs, str) and re.fullmatch(VERSION, needs) else ""
    if isinstance(schema, int) and not isinstance(schema, bool) and schema > newest:
        what = f"PH-0636 is of schema {str(schema)[:20]}, and this is packhouse {__version__}"
        raise error(f"{what}: needs {f'packhouse {known} or later' if known else 'a later packhouse'}", where=where)
    if known and _order(known) > max(_order(NEEDS), _order(__version__)):
        raise error(f"PH-0241 needs packhouse {known} or later, and this is packhouse {__version__}", where=where)


def _order(version: str) -> tuple[int, ...]:
    """Of the numbers at the beginning, without zeros at the end: 0.2 and 0.2.0 are one."""
    numbers = re.match(VERSION, version)
    parts = [int(part) for part in numbers[0].split(".")] if numbers else []
    while parts and not parts[-1]:
        parts.pop()
    return tuple(parts)
