"""`packhouse sign` and `packhouse keys`, and what this machine knows about signing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from packhouse.cli.options import (
    StoreOption,
)
from packhouse.cli.worker import EXTRA, insist_on, worker, worker_root
from packhouse.cli.worker_arguments import SignArguments, written
from packhouse.trust.dsse import make_keys
from packhouse.trust.signing_settings import SigningSettings, from_environment


def sign(
    releases: Annotated[
        list[str], typer.Argument(help="model/release; or model@channel: the channel, of a release that is signed.")
    ] = [],
    renew: Annotated[bool, typer.Option("--renew", help="Also every channel whose signature is due.")] = False,
    store: StoreOption = "",
) -> None:
    """Sign releases that are in the store, and channels as they stand, by the key of PACKHOUSE_SIGNING_KEY: after all
    digests were checked, also what is signed already."""
    if not (releases or renew):
        raise typer.BadParameter("name a release or a channel, or say --renew")
    worker(["-m", "flows.sign", *written(SignArguments(references=tuple(releases), renew=renew))], store)


def keys(
    folder: Annotated[Path, typer.Argument(help="Gets signing.pem, which is secret, and signing.pub.pem.")],
) -> None:
    """Make a pair of keys to sign releases with: ECDSA on P-256. Never overwrites one."""
    for path in make_keys(folder):
        print(path)


def signing_here() -> SigningSettings:
    """Who signs on this machine. Raises Refused, NotInstalled, KeyAbsent: it is to sign and can not, which
    must be known before a channel moves."""
    settings = from_environment(os.environ)
    if settings.signs:
        worker_root()
        insist_on(EXTRA)
        settings.own()
    return settings
