"""What packhouse has to know of a format: one row of the table."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from packhouse.artifact import Frozen, Name

FormatName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
Function = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$")]
"""`module:function`."""
Module = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")]
"""Of the top level: whether it is installed can be seen without importing anything."""


class Row(Frozen):
    """One format.

    Attributes:
        name: In `[formats]`, in the manifest and on the command line.
        files: One or two. The first is opened, the other lies beside it.
        data: A file beside the first one, which is there only where the weights do not fit into the first.
        media_type: Of the first file. An INT8 format has that of its base.
        job: Makes the files, in the sandbox.
        runtime: Opens the first file: `(path, *, outputs, text, threads)` gives a Runner.
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
    requires: tuple[Module, ...]
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
