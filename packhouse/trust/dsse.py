"""A signed statement: an in-toto statement in a DSSE envelope in a Sigstore bundle, opened with a public key.

Needs `cryptography` and nothing else, so that whoever serves or fetches a release can check it. Sources:
https://github.com/secure-systems-lab/dsse/blob/v1.0.2/protocol.md (what is signed),
https://github.com/sigstore/protobuf-specs/blob/v0.5.0/protos/sigstore_bundle.proto (the bundle).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packhouse.digest import unique
from packhouse.errors import NotInstalled, SignatureInvalid, SpecInvalid

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

STATEMENT = "https://in-toto.io/Statement/v1"
PAYLOAD = "application/vnd.in-toto+json"
BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
CURVES = {"secp256r1": "SHA256", "secp384r1": "SHA384", "secp521r1": "SHA512"}
"""Curve -> the hash that goes with it, as OpenSSF model signing has them."""


class PublicKey:
    """One whose signatures count, from a file or from its text in PEM; of a private key, with `private`, its public
    part.

    Raises SpecInvalid: it is no key of a curve that is taken."""

    def __init__(self, source: Path | bytes, *, private: bool = False, password: bytes | None = None) -> None:
        serialization = _cryptography()
        where = str(source) if isinstance(source, Path) else "a key in PEM"
        try:
            data = source.read_bytes() if isinstance(source, Path) else source
            key: Any = (
                serialization.load_pem_private_key(data, password).public_key()
                if private
                else serialization.load_pem_public_key(data)
            )
        except (OSError, ValueError, TypeError) as error:
            kind = "private key in PEM, or has another password" if private else "public key in PEM"
            raise SpecInvalid(f"PH-0132 is no {kind}", where=where) from error
        curve = getattr(getattr(key, "curve", None), "name", type(key).__name__)
        if curve not in CURVES:
            raise SpecInvalid("PH-0131 is no key that is taken here", where=where, got=curve, want=", ".join(CURVES))
        self._key: EllipticCurvePublicKey = key
        pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        self.hint = hashlib.sha256(pem).hexdigest()

    def __str__(self) -> str:
        return f"key {self.hint[:12]}"

    def signed(self, payload: bytes, signature: bytes) -> bool:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec

        try:
            self._key.verify(signature, pae(payload), ec.ECDSA(getattr(hashes, CURVES[self._key.curve.name])()))
        except InvalidSignature:
            return False
        return True


def pae(payload: bytes) -> bytes:
    """What is signed: DSSE's pre-authentication encoding."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD), PAYLOAD.encode(), len(payload), payload)


def opened(bundle: bytes, key: PublicKey, *, where: str) -> dict[str, Any] | None:
    """The statement, or nothing where another key signed it. Nothing of it is read before the signature is checked.

    Raises SignatureInvalid: no such bundle, or its signature is no signature of what is in it.
    """
    envelope, hint = _envelope(read_unique(bundle, where), where)
    if hint != key.hint:
        return None
    payload, signature = envelope
    if not key.signed(payload, signature):
        raise SignatureInvalid("PH-0140 its signature is not of these bytes", where=where, got=str(key))
    statement = read_unique(payload, where)
    if statement.get("_type") != STATEMENT:
        raise SignatureInvalid("PH-0141 signs something that is no statement", where=where)
    return statement


def unchecked(bundle: bytes, *, where: str) -> dict[str, Any]:
    """The statement, whoever signed it, and whether it was signed at all: for those who sign, not for readers."""
    (payload, _), _ = _envelope(read_unique(bundle, where), where)
    return read_unique(payload, where)


def _envelope(bundle: dict[str, Any], where: str) -> tuple[tuple[bytes, bytes], str]:
    """(payload, signature), and which key it names."""
    try:
        envelope, hint = bundle["dsseEnvelope"], bundle["verificationMaterial"].get("publicKey", {}).get("hint", "")
        (signature,) = envelope["signatures"]
        if (bundle["mediaType"], envelope["payloadType"]) != (BUNDLE, PAYLOAD):
            raise SignatureInvalid("PH-0138 is of another kind", where=where, got=str(envelope["payloadType"])[:80])
        decoded = tuple(base64.b64decode(text, validate=True) for text in (envelope["payload"], signature["sig"]))
    except (KeyError, TypeError, ValueError, AttributeError, binascii.Error) as error:
        raise SignatureInvalid("PH-0139 is no bundle with one signed statement", where=where) from error
    return (decoded[0], decoded[1]), str(hint)


def read_unique(data: bytes, where: str) -> dict[str, Any]:
    """JSON in which no key stands twice. Raises SignatureInvalid."""
    try:
        document = json.loads(data, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise SignatureInvalid("PH-0137 is not JSON", where=where) from error
    if not isinstance(document, dict):
        raise SignatureInvalid("PH-0136 is not a JSON object", where=where)
    return document


def _cryptography() -> Any:
    try:
        from cryptography.hazmat.primitives import serialization
    except ImportError as error:
        raise NotInstalled("PH-0135 cryptography is not installed", next="pip install 'packhouse[trust]'") from error
    return serialization


def check_certificates(path: Path) -> None:
    """Raises SpecInvalid: one of them can not be read."""
    _cryptography()
    from cryptography import x509

    try:
        x509.load_pem_x509_certificates(path.read_bytes())
    except ValueError as error:
        raise SpecInvalid("PH-0134 holds something that is no certificate", where=str(path)) from error


def make_keys(folder: Path) -> tuple[Path, Path]:
    """The private key, which only its owner may read, and the public one. Raises SpecInvalid: there is one already."""
    serialization = _cryptography()
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    private_path, public_path = folder / "signing.pem", folder / "signing.pub.pem"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with os.fdopen(os.open(private_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secret)
    except FileExistsError as error:
        raise SpecInvalid(
            "PH-0133 there is a key already", where=str(private_path), next="choose another folder"
        ) from error
    public_path.write_bytes(public)
    return private_path, public_path
