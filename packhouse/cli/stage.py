"""`packhouse stage`: hands a trained model over."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from packhouse.cli.options import (
    talk,
)
from packhouse.errors import SpecInvalid
from packhouse.spec.model import SPEC_FILE, read
from packhouse.training.source import stage_folder


def stage(
    folder: Annotated[
        Path, typer.Argument(help="Holds package.toml, the weights and the samples.", exists=True, file_okay=False)
    ],
    to: Annotated[str, typer.Option("--to", help="A folder or s3:// prefix, one for each training run.")],
    announce: Annotated[
        str,
        typer.Option(
            help="The Prefect API to tell, so that the release starts at once; `off`: nobody.", envvar="PREFECT_API_URL"
        ),
    ] = "",
) -> None:
    """Hand a trained model over: fill in digests, upload the files, package.toml last. Prints the source's URL."""
    draft = folder / SPEC_FILE
    if not draft.is_file():
        raise SpecInvalid("PH-0127 is not there", where=str(draft), next="docs/spec.md shows one")
    data = draft.read_bytes()
    document = read(data, where=str(draft))
    staged = stage_folder(folder, document, to=to, text=data.decode(), announce_to=announce)
    for note in staged.notes:
        talk.print(note, markup=False)
    print(staged.url)
