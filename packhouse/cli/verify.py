"""`packhouse verify`: proves a release from its bytes alone."""

from __future__ import annotations

from packhouse.cli.options import (
    ReleaseArgument,
    StoreOption,
    TrustOption,
    resolve,
    talk,
)
from packhouse.digest import short
from packhouse.trust.signatures import Trusted
from packhouse.trust.verify import verify


def verify_command(release: ReleaseArgument, store: StoreOption = "", trust: TrustOption = []) -> None:
    """Prove a release from its bytes alone: digests, then every format on the golden inputs, without model code. With
    --trust, also who signed it."""
    trusted = Trusted.asked(trust)
    found = resolve(release, store, trusted)
    with talk.status(f"verifying {release}"):
        proven = verify(found, trusted)
    formats = " ".join(proven.formats)
    signed = f" signed by {proven.signed_by}" if trusted else ""
    words = f"{proven.model}/{proven.release} record {short(proven.record)} {proven.files} files {formats}{signed}"
    print(f"verified {words}")
