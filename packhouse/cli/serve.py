"""`packhouse serve`: the model server."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from packhouse.cli.worker import insist_on


def serve(
    folder: Annotated[
        Path | None,
        typer.Argument(help="A release, as `packhouse fetch` leaves it. Default: $MODEL_DIR, else /models."),
    ] = None,
    uds: Annotated[
        Path | None, typer.Option("--uds", metavar="PATH", help="Listen on a Unix socket instead of HOST and PORT.")
    ] = None,
    fd: Annotated[
        int | None, typer.Option("--fd", metavar="N", help="Listen on a socket that is open as this descriptor.", min=0)
    ] = None,
) -> None:
    """Serve a release by the Open Inference Protocol, after it was verified and loaded. Its settings are environment
    variables, such as HOST, PORT and PACKHOUSE_FORMAT: docs/serving.md. The same as `python -m packhouse.serving`."""
    if uds is not None and fd is not None:
        raise typer.BadParameter("--uds and --fd: only one of them")
    insist_on("serving")
    from packhouse.serving.__main__ import serve as run
    from packhouse.serving.settings import from_environment

    run(from_environment(os.environ | ({"MODEL_DIR": str(folder)} if folder else {})), uds=uds, fd=fd)
