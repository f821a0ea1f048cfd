"""Schemas: which documents this version reads, and what it says of those that a later one wrote."""

from __future__ import annotations

import re
from typing import Any

from packhouse.errors import PackhouseError, ReleaseInvalid

NEEDS = "0.2"
"""The oldest packhouse that reads what this one writes in documents of schema 2."""
_PLAIN = re.compile(r"[0-9]{1,4}(\.[0-9]{1,4}){0,2}")


def refuse_newer(
    document: Any, newest: int, *, where: str, error: type[PackhouseError] = ReleaseInvalid, default: int = 1
) -> None:
    """Looks at the parsed document before anything else does, since nothing is known about a later schema but its
    number and `needs`. default: of a document that has no `schema`.

    Raises `error`: the schema is a later one than `newest`."""
    schema = document.get("schema", default) if isinstance(document, dict) else default
    if not isinstance(schema, int) or isinstance(schema, bool) or schema <= newest:
        return
    from packhouse import __version__  # the package imports this module

    needs = document.get("needs")
    known = isinstance(needs, str) and _PLAIN.fullmatch(needs)
    reader = f"packhouse {needs} or later" if known else "a later packhouse"
    raise error(f"is of schema {str(schema)[:20]}, and this is packhouse {__version__}: needs {reader}", where=where)
