"""The table of formats: one row for each, and every fact that depends on the format is in its row.

What looks like a list of formats anywhere else is read from here. A row names the code that makes a file and the code
that opens it as `module:function`, so that nothing is imported before it is needed.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from importlib.metadata import EntryPoint
from typing import Annotated, Any, Literal

from pydantic import Field

from packhouse.artifact import Frozen, Name

GROUP = "packhouse.formats"
FormatName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
Function = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$")]
"""`module:function`."""


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


class Row(Frozen):
    """One format.

    Attributes:
        name: In `[formats]`, in the manifest and on the command line.
        files: What it consists of. The first is opened, the others lie beside it.
        data: A file beside the first one, which is there only where the weights do not fit into the first.
        media_type: Of the first file. An INT8 format has that of its base.
        job: Makes the files, in the sandbox.
        runtime: Opens the first file: `(path, outputs, text, threads)` gives a Runner.
        session: Opens the first file as the runtime's own object, for `packhouse.open_session`: `(path, threads)`.
        package: What a reader must install to run it. The manifest names it.
        requires: Modules without which the runtime can not start.
        base: Of an INT8 format, the fp32 format that it is compared with in size and speed.
        made_from: The format whose file the job takes. None: the job takes the trained model.
        served: The model server, images and MLflow's models run it.
        cuda: It is checked on a GPU, where there is one.
        text: It takes text as text. The others take codes.
        threads: How it is timed with more threads. session: it is opened again. process: torch is told.
        way: Which exporter makes it, where the job does not say.
        ways: What the manifest calls an exporter that the job calls otherwise.
    """

    name: FormatName
    files: Annotated[tuple[Name, ...], Field(min_length=1, max_length=2)]
    data: Name | None = None
    media_type: Annotated[str, Field(pattern=r"^[a-z]+/[A-Za-z0-9.+-]+$")]
    job: Function
    runtime: Function
    session: Function | None = None
    package: Name
    requires: tuple[str, ...]
    base: FormatName | None = None
    made_from: FormatName | None = None
    served: bool = False
    cuda: bool = False
    text: bool = False
    threads: Literal["session", "process"]
    way: str = ""
    ways: dict[str, str] = {}

    @property
    def int8(self) -> bool:
        return self.base is not None

    @property
    def file(self) -> str:
        """What is opened."""
        return self.files[0]


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
    """Raises KeyError: there is no such format."""
    return ROWS[name]


def known(name: str) -> Format | None:
    """The format by its name; None: this version does not know it."""
    return Format(name) if name in ROWS else None


def is_int8(name: str) -> bool:
    """False for a format that this version does not know."""
    return name in ROWS and ROWS[name].int8


def base_of(name: str) -> str:
    """The fp32 format that an INT8 format is compared with; the format itself where it is none, or is not known."""
    return (ROWS[name].base if name in ROWS else None) or name


def in_order(names: Iterable[str]) -> list[str]:
    """Those that this version knows in the table's order, then the others by name."""
    return sorted(names, key=place)


def place(name: str) -> tuple[int, str]:
    """Where a format stands among others."""
    order = list(ROWS)
    return (order.index(name), "") if name in ROWS else (len(order), name)


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
    return EntryPoint(name="", value=function, group=GROUP).load()
