"""`packhouse release` and `packhouse demo`: start the pipeline here."""

from __future__ import annotations

from typing import Annotated

import typer

from packhouse.cli.options import (
    StoreOption,
)
from packhouse.cli.worker import worker, worker_root
from packhouse.cli.worker_arguments import ReleaseArguments, written


def release(
    context: typer.Context,
    sources: Annotated[list[str], typer.Argument(help="Folders or s3:// prefixes that `packhouse stage` wrote.")],
    channel: Annotated[str, typer.Option(help="The name that moves to the new release.")] = "latest",
    store: StoreOption = "",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document a model on stdout.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Every stage on stderr, and Prefect's own log.")
    ] = False,
) -> None:
    """Release models: export, check, publish. Prints one line a model: outcome, model, release or reason."""
    everything = verbose or bool(context.parent and context.parent.params["verbose"])
    arguments = ReleaseArguments(sources=tuple(sources), channel=channel, json=as_json, verbose=everything)
    worker(["-m", "flows", *written(arguments)], store)


def demo(store: StoreOption = "") -> None:
    """Train three small models, release them end to end, verify and load them back, show the reports."""
    examples = worker_root() / "examples"
    worker([str(examples / "demo.py")], store, path=(examples,))
