"""The signer: signs what was released, by a key, by a certificate, or keyless, all by OpenSSF's model signing.

Its key is read from a file by the process that signs, and stands in no argument, log, state or artifact. With
PACKHOUSE_SIGN_POOL it is on another worker altogether, which runs no model and parses nothing foreign.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from infra.settings import Settings
from packhouse.errors import KeyAbsent, SignerUnavailable, squeezed
from packhouse.release.manifest import IMAGE_BUNDLES, MEASURED, SIGNATURE

if TYPE_CHECKING:
    from model_signing.signing import Config


class Signer:
    """config: makes what signs, each time anew: an identity's token does not last. Raises SignerUnavailable: there is
    no such key, it can not be read, or the service that vouches for an identity does not."""

    def __init__(self, config: Callable[[], Config]) -> None:
        self._config = config

    def sign_folder(self, folder: Path) -> bytes:
        """A signature over the names and the bytes of every file but the measured ones, all read here."""
        from model_signing import hashing

        beside = [Path(name) for name in sorted(MEASURED | {SIGNATURE, IMAGE_BUNDLES})]
        hashed = hashing.Config()  # type: ignore[no-untyped-call]  # the library annotates no __init__
        hashed = hashed.use_file_serialization().set_ignored_paths(paths=beside, ignore_git_paths=False)
        return self._signed(lambda config, path: config.set_hashing_config(hashed).sign(folder, path))

    def sign_statement(self, statement: dict[str, Any]) -> bytes:
        """A Sigstore bundle with the statement in it, for what hangs on an image."""
        from google.protobuf import json_format
        from in_toto_attestation.v1.statement import Statement

        made = Statement(subjects=[], predicate_type=statement["predicateType"], predicate={})
        json_format.Parse(json.dumps(statement), made.pb)
        payload: Any = SimpleNamespace(statement=made)

        def sign(config: Config, path: Path) -> None:
            assert config._signer is not None
            config._signer.sign(payload).write(path)

        return self._signed(sign)

    def _signed(self, sign: Callable[[Config, Path], None]) -> bytes:
        with TemporaryDirectory(prefix="packhouse-sign-") as name:
            path = Path(name) / SIGNATURE
            try:
                sign(self._config(), path)
            except Exception as error:  # the library raises what it likes, and what it says may not hold a key
                raise SignerUnavailable(
                    "PH-0530 could not sign", got=squeezed(f"{type(error).__name__}: {error}")
                ) from error
            return path.read_bytes()


def signer(settings: Settings) -> Signer | None:
    """Of this process; None where nothing is to be signed here. Raises KeyAbsent: the key can not be read."""
    if settings.signing_keyless:
        return Signer(_keyless)
    if not (key := settings.key_file):
        return None
    if chain := settings.chain:
        return Signer(lambda: _with_certificate(key, chain))
    settings.own()  # or a key that is none is found only when something is signed
    password = settings.signing_password.get_secret_value()
    return Signer(lambda: _with_key(key, password))


def own_signer(settings: Settings) -> Signer:
    """Of this process. Raises KeyAbsent: it has none."""
    if by := signer(settings):
        return by
    raise KeyAbsent("PH-0531 has no key to sign with", where="PACKHOUSE_SIGNING_KEY", next="docs/signing.md")


def _new() -> Config:
    from model_signing.signing import Config

    return Config()  # type: ignore[no-untyped-call]  # the library annotates no __init__


def _with_key(key: Path, password: str) -> Config:
    secret: Any = password.encode() or None  # the library hands it to cryptography, which wants bytes
    return _new().use_elliptic_key_signer(private_key=key, password=secret)


def _with_certificate(key: Path, chain: tuple[Path, ...]) -> Config:
    """chain: the certificate of the key first, then those above it."""
    return _new().use_certificate_signer(
        private_key=key, signing_certificate=chain[0], certificate_chain=list(chain[1:] or chain)
    )


def _keyless() -> Config:
    """By the identity that the environment gives, such as a CI job's or a workload's token."""
    return _new().use_sigstore_signer(use_ambient_credentials=True)
