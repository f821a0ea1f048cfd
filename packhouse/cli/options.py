"""What several commands take, and where they write: data to stdout, messages to stderr."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from packhouse.consume.fetch import home
from packhouse.release.lookup import Found, at_prefix
from packhouse.store import Retrying, Store, open_store
from packhouse.trust.signatures import Trusted
from packhouse.trust.signed_channels import find_trusted

talk = Console(stderr=True, highlight=False, soft_wrap=True)


StoreOption = Annotated[
    str,
    typer.Option(
        "--store",
        envvar="PACKHOUSE_STORE",
        help="Where releases are: a folder, file:///path or s3://bucket/prefix. Default: $PACKHOUSE_HOME/store.",
    ),
]


TrustOption = Annotated[
    list[Path],
    typer.Option(
        "--trust",
        envvar="PACKHOUSE_TRUST",
        help="Whose signature a release must have: a public key or certificates in PEM, or a policy in TOML. May be "
        "given again. Without it, signatures are not looked at.",
    ),
]


ReleaseArgument = Annotated[str, typer.Argument(help="model@channel, model/release, or the folder of a release.")]


StoredArgument = Annotated[str, typer.Argument(help="model@channel or model/release.")]


ByOption = Annotated[
    str, typer.Option("--by", envvar="USER", help="Who does it; stands in the channel's history. Default: $USER.")
]


def the_store(url: str) -> Store:
    return Retrying(open_store(url or str(home() / "store")))


def resolve(reference: str, store: str, trusted: Trusted | None = None) -> Found:
    """A folder or URL that holds record.json, else a name in the store."""
    is_folder = os.path.isdir(reference)  # noqa: PTH112 - Path.is_dir raises where a name is too long for a folder
    if "://" in reference or reference.startswith((".", "/", "~")) or is_folder:
        url = reference if "://" in reference else str(Path(reference).expanduser())
        return at_prefix(Retrying(open_store(url)), "")
    return find_trusted(the_store(store), reference, trusted)
