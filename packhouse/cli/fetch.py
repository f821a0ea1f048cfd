"""`packhouse fetch`: a release as a folder for use."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from packhouse.cli.options import (
    StoredArgument,
    StoreOption,
    TrustOption,
    talk,
)
from packhouse.consume.fetch import fetch, home


def fetch_command(
    release: StoredArgument,
    destination: Annotated[Path, typer.Argument(help="The folder that it becomes; not there yet, or this release.")],
    format: Annotated[
        list[str], typer.Option("--format", help="Only what a server needs of this format; may be given again.")
    ] = [],
    floor: Annotated[
        int, typer.Option("--floor", help="The least serial that the channel may have; more is remembered.", min=0)
    ] = 0,
    trust: TrustOption = [],
    store: StoreOption = "",
) -> None:
    """Download a release for use: every byte checked, the folder whole or not there. Prints the folder. A channel that
    shows an older serial than it did here before is refused."""
    fetched = fetch(
        release,
        destination,
        store=store or str(home() / "store"),
        trust=trust,
        floor=floor,
        formats=format,
    )
    talk.print(f"{fetched.release}: {fetched.got} files fetched, {fetched.kept} were there", markup=False)
    if fetched.late:
        talk.print(f"{release}: {fetched.late}", markup=False)
    print(fetched.folder)
