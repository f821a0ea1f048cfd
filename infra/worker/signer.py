"""The signer: signs what was released, by a key, by a certificate, or keyless, all by OpenSSF's model signing.

Its key is read from a file by the process that signs, and stands in no argument, log, state or artifact. With
PACKHOUSE_SIGN_POOL it is on another worker altogether, which runs no model and parses nothing foreign.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from infra.settings import Settings
from packhouse.errors import KeyAbsent, SignerUnavailable, SpecInvalid, squeezed
from packhouse.release.manifest import IMAGE_BUNDLES, MEASURED, SIGNATURE
from packhouse.trust import signatures
from packhouse.trust.dsse import PublicKey
from packhouse.trust.signatures import Trusted

if TYPE_CHECKING:
    from model_signing.signing import Config


class Signer:
    """config: makes what signs, each time anew: an identity's token does not last. Raises SignerUnavailable: there is
    no such key, it can not be read, or the service that vouches for an identity does not."""

    def __init__(self, config: Callable[[], Config], mine: Trusted) -> None:
        """mine: by what a reader knows what it signed; nothing for an identity."""
        self._config, self.mine = config, mine

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
        return Signer(_keyless, Trusted())
    if not settings.signing_key:
        return None
    key = Path(settings.signing_key).expanduser()
    if not os.access(key, os.R_OK):
        raise KeyAbsent("PH-0121 is not there, or may not be read", where="PACKHOUSE_SIGNING_KEY")
    chain = [Path(path).expanduser() for path in settings.signing_certificates]
    password = settings.signing_password.get_secret_value()
    if chain and password:
        want = "a key without a password: model-signing takes none beside certificates"
        raise KeyAbsent(
            "PH-0532 can not be read", where="PACKHOUSE_SIGNING_KEY with PACKHOUSE_SIGNING_CERTIFICATES", want=want
        )
    if chain:
        return Signer(lambda: _with_certificate(key, chain), Trusted(authorities=tuple(chain[1:] or chain)))
    try:
        own = PublicKey(key, private=True, password=password.encode() or None)
    except SpecInvalid as error:
        raise KeyAbsent(error.coded, where="PACKHOUSE_SIGNING_KEY") from error
    return Signer(lambda: _with_key(key, password), Trusted(keys=(own,)))


def own_signer(settings: Settings) -> Signer:
    """Of this process. Raises KeyAbsent: it has none."""
    if by := signer(settings):
        return by
    raise KeyAbsent("PH-0531 has no key to sign with", where="PACKHOUSE_SIGNING_KEY", next="docs/signing.md")


def known(settings: Settings) -> Trusted:
    """By what this worker knows a signature: PACKHOUSE_SIGNERS, and its own key or authority.

    Raises KeyAbsent: it knows none, or its key can not be read. SpecInvalid: PACKHOUSE_SIGNERS names a file that is no
    key, certificate or policy."""
    by = None if settings.sign_pool else signer(settings)
    return signatures.known(settings.signers, by.mine if by else Trusted())


def _new() -> Config:
    from model_signing.signing import Config

    return Config()  # type: ignore[no-untyped-call]  # the library annotates no __init__


def _with_key(key: Path, password: str) -> Config:
    secret: Any = password.encode() or None  # the library hands it to cryptography, which wants bytes
    return _new().use_elliptic_key_signer(private_key=key, password=secret)


def _with_certificate(key: Path, chain: list[Path]) -> Config:
    """chain: the certificate of the key first, then those above it."""
    return _new().use_certificate_signer(
        private_key=key, signing_certificate=chain[0], certificate_chain=chain[1:] or chain[:1]
    )


def _keyless() -> Config:
    """By the identity that the environment gives, such as a CI job's or a workload's token."""
    return _new().use_sigstore_signer(use_ambient_credentials=True)
