"""`packhouse sign` and `packhouse keys`, and what this machine knows about signing."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from packhouse.cli.options import (
    StoreOption,
)
from packhouse.cli.worker import worker, worker_root
from packhouse.errors import KeyAbsent, SpecInvalid
from packhouse.trust.dsse import PublicKey, make_keys
from packhouse.trust.signatures import Trusted, known


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
    worker(["-m", "flows.sign", *(["--renew"] if renew else []), "--", *releases], store)


def keys(
    folder: Annotated[Path, typer.Argument(help="Gets signing.pem, which is secret, and signing.pub.pem.")],
) -> None:
    """Make a pair of keys to sign releases with: ECDSA on P-256. Never overwrites one."""
    for path in make_keys(folder):
        print(path)


def signs_here() -> bool:
    """Whether there is a key to sign with, here or in a pool. Raises Refused, KeyAbsent: it can not be done, which
    whoever moves a channel should know before it has moved."""
    key = os.environ.get("PACKHOUSE_SIGNING_KEY", "")
    keyless = os.environ.get("PACKHOUSE_SIGNING_KEYLESS", "").lower() in ("1", "true", "yes", "on", "t", "y")
    if not (key or keyless or os.environ.get("PACKHOUSE_SIGN_POOL")):
        return False
    worker_root()
    if key and not os.access(Path(key).expanduser(), os.R_OK):
        raise KeyAbsent("PH-0121 is not there, or may not be read", where="PACKHOUSE_SIGNING_KEY")
    return True


def known_here() -> Trusted:
    """Whose signatures this machine's settings know, as infra.worker.signer.known says it for a worker.

    Raises KeyAbsent: nobody's. SpecInvalid: a setting is no JSON, or names no key."""
    key, chain = os.environ.get("PACKHOUSE_SIGNING_KEY", ""), listed_in("PACKHOUSE_SIGNING_CERTIFICATES")
    own = Trusted()
    if key and not chain:
        password = os.environ.get("PACKHOUSE_SIGNING_PASSWORD", "").encode() or None
        own = Trusted(keys=(PublicKey(Path(key).expanduser(), private=True, password=password),))
    return known([*listed_in("PACKHOUSE_SIGNERS"), *(chain[1:] or chain)], own)


def listed_in(name: str) -> list[str]:
    try:
        return [str(each) for each in json.loads(os.environ.get(name) or "[]")]
    except (ValueError, TypeError) as error:
        raise SpecInvalid("PH-0120 is no list in JSON", where=name) from error
