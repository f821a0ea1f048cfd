"""The table of formats: one row for each, and every fact that depends on the format is in its row.

All other lists of formats are read from here. Installed packages add rows: installed.py. A row names
the code that makes a file and the code that opens it as `module:function`; nothing is imported before it is needed.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from importlib.metadata import EntryPoint
from typing import Any

from packhouse.errors import FormatUnknown
from packhouse.formats import installed
from packhouse.formats.row import FormatName as FormatName
from packhouse.formats.row import Row


class Format(StrEnum):
    """The formats that are built in; the value is the name in `[formats]`."""

    ONNX = "onnx"
    TORCHSCRIPT = "torchscript"
    PROGRAM = "program"
    ONNX_INT8 = "onnx-int8"
    TORCHSCRIPT_INT8 = "torchscript-int8"

    @property
    def int8(self) -> bool:
        return row(self).int8

    @property
    def base(self) -> Format:
        """The fp32 format that an INT8 format is measured against; itself for the others."""
        return Format(row(self).base or self)

    @property
    def file(self) -> str:
        return row(self).file


_ONNX: dict[str, Any] = {
    "media_type": "application/vnd.onnx",
    "runtime": "packhouse.formats.runtime:open_onnx",
    "session": "packhouse.formats.runtime:onnx_session",
    "package": "onnxruntime",
    "requires": ("onnxruntime",),
    "served": True,
    "text": True,
    "threads": "session",
}
_TORCHSCRIPT: dict[str, Any] = {
    "media_type": "application/vnd.pytorch.torchscript",
    "runtime": "packhouse.formats.runtime:open_torchscript",
    "package": "torch",
    "requires": ("torch",),
    "threads": "process",
}
ROWS = {
    row.name: row
    for row in (
        Row(
            name=Format.ONNX.value,
            files=("model.onnx",),
            data="model.onnx.data",
            job="tasks.jobs.export_onnx:run",
            cuda=True,
            ways={"torch.export": "dynamo"},
            **_ONNX,
        ),
        Row(
            name=Format.TORCHSCRIPT.value,
            files=("model.ts",),
            job="tasks.jobs.export_torchscript:run",
            cuda=True,
            **_TORCHSCRIPT,
        ),
        Row(
            name=Format.PROGRAM.value,
            files=("model.pt2",),
            media_type="application/vnd.pytorch.export",
            job="tasks.jobs.export_program:run",
            runtime="packhouse.formats.runtime:open_program",
            package="torch",
            requires=("torch",),
            threads="process",
            way="export",
        ),
        Row(
            name=Format.ONNX_INT8.value,
            files=("model.int8.onnx",),
            job="tasks.jobs.quantise_onnx:run",
            base=Format.ONNX.value,
            made_from=Format.ONNX.value,
            way="quantised",
            **_ONNX,
        ),
        Row(
            name=Format.TORCHSCRIPT_INT8.value,
            files=("model.int8.ts",),
            job="tasks.jobs.quantise_torchscript:run",
            base=Format.TORCHSCRIPT.value,
            **_TORCHSCRIPT,
        ),
    )
}
"""The formats that are built in, each base before its INT8."""


def row(name: str) -> Row:
    """The row of a format that is built in, or that an installed package adds.

    Args:
        name: Of the format.

    Returns:
        The row.

    Raises:
        FormatUnknown: No installed package adds it, or what the package says of it is no row.
    """
    if found := _row(name):
        return found
    got = ", ".join(every())
    raise FormatUnknown("PH-0678 no installed package adds it", where=f"format {name!r}", got=f"these: {got}")


def every() -> list[str]:
    """The names of all formats that are built in or that installed packages add."""
    return [*ROWS, *(name for name in installed.names() if name not in ROWS)]


def _row(name: str) -> Row | None:
    """A package can not change a format that is built in."""
    if name in ROWS:
        return ROWS[name]
    added = installed.find(name)
    return added.row if added else None


def known(name: str) -> Format | str | None:
    """The format by its name.

    Args:
        name: As a manifest has it.

    Returns:
        The format that is built in, or the name of one that an installed package adds. None: nothing here opens it.

    Raises:
        FormatUnknown: A package adds it, and what the package says of it is no row.
    """
    return Format(name) if name in ROWS else (name if _row(name) else None)


def is_int8(name: str) -> bool:
    """False for a format that is not known here."""
    found = _row(name)
    return found is not None and found.int8


def base_of(name: str) -> str:
    """The fp32 format that an INT8 format is compared with; the format itself where it is none, or is not known."""
    found = _row(name)
    return (found.base if found else None) or name


def before(name: str) -> str | None:
    """The format that must have been made before this one: what it is made from, or is compared with."""
    return row(name).made_from or row(name).base


def in_order(names: Iterable[str]) -> list[str]:
    """Those that are built in, in the table's order; then the others by name, INT8 last."""
    return sorted(names, key=place)


def place(name: str) -> tuple[int, str]:
    """Where a format stands among others. What it is made from or compared with stands before it."""
    order = list(ROWS)
    return (order.index(name), "") if name in ROWS else (len(order) + is_int8(name), name)


def groups(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Formats that are timed side by side: an fp32 format, and the INT8 formats that are compared with it."""
    found: dict[str, list[str]] = {}
    for name in in_order(names):
        found.setdefault(base_of(name), []).append(name)
    return [tuple(group) for group in found.values()]


SERVED = frozenset(each.name for each in ROWS.values() if each.served)
"""What the model server, images and MLflow's models run."""


def load(function: str) -> Any:
    """What `module:function` names. Imports the module."""
    return EntryPoint(name="", value=function, group=installed.GROUP).load()
