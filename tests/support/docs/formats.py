"""The tables of docs/formats.md: what is built in, what a package says of its format, and the example's own files."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from packhouse.formats.installed import KEYS
from packhouse.formats.row import Row
from packhouse.formats.table import ROWS
from tests.support.docs.markdown import table

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "openvino-format"
HEAD = ("format", "files", "opened by", "made from", "size and speed against", "served")
GIVEN = {"threads": '`"session"`', "text": "`false`"}
"""Keys that a package may leave out, though a row of packhouse's own may not."""


def blocks() -> dict[str, str]:
    return {
        "formats: built in": table(
            ("format", "files", "opened by", "made from", "size and speed against", "served"),
            map(_built_in, ROWS.values()),
        ),
        "formats: keys": table(
            ("key", "default", "description"), [_key(name) for name in Row.model_fields if name in KEYS]
        ),
        "formats: pyproject.toml": f"```toml\n{(EXAMPLE / 'pyproject.toml').read_text()}```",
        "formats: packhouse_openvino.py": f"```python\n{(EXAMPLE / 'packhouse_openvino.py').read_text()}```",
    }


def _built_in(row: Row) -> tuple[str, ...]:
    files = ", ".join(f"`{name}`" for name in row.files) + (f"; `{row.data}` for large weights" if row.data else "")
    source = f"`{row.made_from}`" if row.made_from else "the trained model"
    return (
        f"`{row.name}`",
        files,
        row.package,
        source,
        f"`{row.base}`" if row.base else "",
        _yes(row.served),
    )


def _yes(flag: bool) -> str:
    return "yes" if flag else "no"


def _key(name: str) -> tuple[str, str, str]:
    field = Row.model_fields[name]
    default = GIVEN.get(name) or (
        "required" if field.is_required() else f"`{field.default!r}`" if field.default else "none"
    )
    return f"`{name}`", default, described()[name]


def described() -> dict[str, str]:
    """Field of a row -> what it means, as the docstring says it."""
    text = inspect.cleandoc(Row.__doc__ or "")
    found = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", text, re.MULTILINE)
    return {name: " ".join(words.split()) for name, words in found}
