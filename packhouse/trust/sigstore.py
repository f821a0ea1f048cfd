"""Signatures by certificates, and by identities at an issuer (keyless): opened by OpenSSF's own library.

`pip install 'packhouse[signing]'`; keys alone need none of it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from packhouse.errors import NotInstalled, SignatureInvalid, squeezed
from packhouse.trust.dsse import PAYLOAD, read_unique


@dataclass(frozen=True)
class Identity:
    """Such as `release@acme.example`, vouched for by the OpenID Connect issuer `https://accounts.acme.example`."""

    name: str
    issuer: str


def opened_by_authority(
    bundle: bytes, authorities: Sequence[Path], identities: Sequence[Identity], *, where: str
) -> tuple[dict[str, Any], str]:
    """The statement, and who signed it. Raises SignatureInvalid: nobody whom these vouch for; NotInstalled: the library
    is not installed."""
    why = ""
    with tempfile.TemporaryDirectory(prefix="packhouse-signature-") as folder:
        path = Path(folder) / "model.sig"
        path.write_bytes(bundle)
        for made, signature, name in _verifiers(authorities, identities):
            try:
                kind, payload = made()._verify_signed_content(signature.read(path))
            except Exception as error:  # the library and OpenSSL raise what they like: none of it means "signed"
                why = squeezed(error or type(error).__name__, 160)
                continue
            if kind == PAYLOAD:
                return read_unique(payload, where), name
    raise SignatureInvalid("PH-0148 is not signed by anybody who is trusted here", where=where, got=why)


def _verifiers(
    authorities: Sequence[Path], identities: Sequence[Identity]
) -> Iterator[tuple[Callable[[], Any], Any, str]]:
    try:
        from model_signing._signing import sign_certificate, sign_sigstore, sign_sigstore_pb
    except ImportError as error:
        raise NotInstalled(
            f"PH-0147 model-signing can not be imported: {error}", next="pip install 'packhouse[signing]'"
        ) from error
    if authorities:
        names = ", ".join(path.name for path in authorities)
        made = partial(sign_certificate.Verifier, authorities)
        yield made, sign_sigstore_pb.Signature, f"a certificate of {names}"
    for who in identities:
        keyless = partial(sign_sigstore.Verifier, identity=who.name, oidc_issuer=who.issuer)
        yield keyless, sign_sigstore.Signature, f"{who.name} of {who.issuer}"
