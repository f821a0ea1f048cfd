"""Signatures of releases, and whom a reader trusts.

`model.sig` is what OpenSSF model signing makes of the release's folder: it names every file but what was measured, with
its digest, so `model_signing verify` agrees with what is checked here. Source:
https://github.com/ossf/model-signing-spec/blob/main/spec/v1.0.md. Names are compared, not only the root digest, which
is over the digests alone (6.5.1).
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError, model_validator

from packhouse.artifact import Frozen, Outcome
from packhouse.digest import digest_bytes, short
from packhouse.errors import KeyAbsent, NotFound, SignatureInvalid, SpecInvalid
from packhouse.release.lookup import Found
from packhouse.release.manifest import MANIFEST, PROVENANCE, RECORD, SIGNATURE, Manifest, Record, load
from packhouse.trust.dsse import PublicKey, check_certificates, opened, unchecked
from packhouse.trust.sigstore import Identity, opened_by_authority

OMS = "https://model_signing/signature/v1.0"


class SignerEntry(Frozen):
    """One of a policy's `[[signer]]`: a key, an authority's certificates, or an identity at an issuer (keyless)."""

    key: str = ""
    certificates: str = ""
    identity: str = ""
    issuer: str = ""

    @model_validator(mode="after")
    def _one_of_them(self) -> SignerEntry:
        """An identity means nothing without the one who vouches for it."""
        given = [bool(self.key), bool(self.certificates), bool(self.identity and self.issuer)]
        if sum(given) != 1 or bool(self.identity) != bool(self.issuer):
            raise ValueError("a signer is a key, or certificates, or an identity with its issuer")
        return self


class Policy(Frozen):
    """A policy file. sources: prefixes that a release must be made from. builders: who may have made it. checks: that
    must have passed, besides parity on a CPU, which every release has."""

    signer: tuple[SignerEntry, ...]
    sources: tuple[str, ...] = ()
    builders: tuple[str, ...] = ()
    checks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Trusted:
    """Whom a reader trusts, and what to insist on."""

    keys: tuple[PublicKey, ...] = ()
    authorities: tuple[Path, ...] = ()
    identities: tuple[Identity, ...] = ()
    policies: tuple[Policy, ...] = ()

    @classmethod
    def read(cls, paths: Iterable[str | Path]) -> Trusted:
        """Files: public keys and certificates in PEM, and policies in TOML; or a public key itself, as text. Raises
        SpecInvalid: it is none of them."""
        trusted = cls()
        for path in paths:
            if str(path).startswith("-----BEGIN PUBLIC KEY-----"):
                trusted = replace(trusted, keys=(*trusted.keys, PublicKey(str(path).encode())))
            else:
                trusted = trusted._with(Path(path))
        return trusted

    @classmethod
    def asked(cls, paths: Iterable[str | Path]) -> Trusted | None:
        """None where no file is given: then no signature is asked for. Raises as `read`."""
        given = list(paths)
        return cls.read(given) if given else None

    def _with(self, path: Path) -> Trusted:
        if path.suffix == ".toml":
            return self._with_policy(path)
        if b"-----BEGIN CERTIFICATE-----" in _bytes(path):
            check_certificates(path)
            return replace(self, authorities=(*self.authorities, path))
        return replace(self, keys=(*self.keys, PublicKey(path)))

    def _with_policy(self, path: Path) -> Trusted:
        try:
            policy = Policy.model_validate(tomllib.loads(_bytes(path).decode()))
        except (ValueError, ValidationError) as error:
            raise SpecInvalid("PH-0199 is no policy", where=str(path), got=str(error).splitlines()[0]) from error
        trusted = self
        for entry in policy.signer:
            for name in filter(None, (entry.key, entry.certificates)):
                trusted = trusted._with(path.parent / name)
            if entry.identity or entry.issuer:
                identity = Identity(entry.identity, entry.issuer)
                trusted = replace(trusted, identities=(*trusted.identities, identity))
        return replace(trusted, policies=(*trusted.policies, policy))

    @property
    def nobody(self) -> bool:
        return not (self.keys or self.authorities or self.identities)

    def and_also(self, other: Trusted) -> Trusted:
        """Whom either trusts; all policies count."""
        return Trusted(
            (*self.keys, *other.keys),
            (*self.authorities, *other.authorities),
            (*self.identities, *other.identities),
            (*self.policies, *other.policies),
        )

    def open(self, bundle: bytes, *, where: str) -> tuple[dict[str, Any], str]:
        """The statement, and who signed it. Raises SignatureInvalid: nobody whom we trust."""
        for key in self.keys:
            if statement := opened(bundle, key, where=where):
                return statement, str(key)
        if self.authorities or self.identities:
            return opened_by_authority(bundle, self.authorities, self.identities, where=where)
        known = ", ".join(str(key) for key in self.keys) or "nobody is trusted"
        raise SignatureInvalid("PH-0148 is not signed by anybody who is trusted here", where=where, want=known)


def known(signers: Iterable[str | Path], own: Trusted) -> Trusted:
    """Whose signatures a machine knows: those of its PACKHOUSE_SIGNERS, as `Trusted.read` takes them, and its own.

    Raises SpecInvalid as `read`. KeyAbsent: nobody's, since others sign for it, or an identity does."""
    trusted = Trusted.read(signers).and_also(own)
    if trusted.nobody:
        next = "name the signers' public key, certificate or policy: docs/signing.md"
        raise KeyAbsent("PH-0209 tells nobody's signature", where="PACKHOUSE_SIGNERS", next=next)
    return trusted


def said_of(found: Found) -> dict[str, bytes]:
    """Name -> bytes of what is said about the record; only what is signed has them. Raises the store's errors."""
    said = {}
    for name in (PROVENANCE, SIGNATURE):
        with suppress(NotFound):
            said[name] = found.document(name)
    return said


def is_signed(found: Found, trusted: Trusted) -> bool:
    """Whether there is a signature over this very record by somebody who is trusted."""
    try:
        said, _ = trusted.open(found.document(SIGNATURE), where=SIGNATURE)
        return signed_files(said, SIGNATURE).get(RECORD) == digest_bytes(found.record_bytes)
    except (NotFound, SignatureInvalid):
        return False


def check_release(found: Found, manifest: Manifest, trusted: Trusted, said: Mapping[str, bytes] | None = None) -> str:
    """Who signed the release, for people. said: where the caller has read it, so that what is checked is what it has.

    Raises SignatureInvalid: why it does not count; and the store's errors."""
    said = said_of(found) if said is None else said
    if missing := sorted({PROVENANCE, SIGNATURE} - said.keys()):
        where, next = f"{manifest.model}/{manifest.release}: no {missing[0]}", "`packhouse sign` signs what is there"
        raise SignatureInvalid("PH-0208 is not signed", where=where, next=next)
    return check_bytes(said[SIGNATURE], found.record_bytes, manifest, trusted, provenance=said[PROVENANCE])


def check_bytes(
    bundle: bytes, record_bytes: bytes, manifest: Manifest, trusted: Trusted, *, provenance: bytes | None = None
) -> str:
    """The same on documents at hand. provenance: None where the reader has only a part of the release."""
    where = f"{manifest.model}/{manifest.release}: {SIGNATURE}"
    statement, by = trusted.open(bundle, where=where)
    signed = signed_files(statement, where)
    ours = files(record_bytes, manifest) | {PROVENANCE: signed.get(PROVENANCE, "")}
    if provenance is not None:
        ours[PROVENANCE] = digest_bytes(provenance)
    if differing := sorted(name for name in signed.keys() | ours.keys() if signed.get(name) != ours.get(name)):
        name = differing[0]
        got, want = short(ours.get(name, "nothing")), short(signed.get(name, "nothing"))
        raise SignatureInvalid(f"PH-0207 {name} is not what was signed", where=where, got=got, want=want)
    for policy in trusted.policies:
        _insist(policy, record_bytes, manifest)
    return by


def files(record_bytes: bytes, manifest: Manifest) -> dict[str, str]:
    """Name -> digest of what a signature covers, without the provenance, which follows from these."""
    listed = {artifact.name: artifact.digest for artifact in manifest.artifacts}
    record = load(Record, record_bytes, where=RECORD)  # whose digest of the manifest is of its bytes as they are
    return listed | {RECORD: digest_bytes(record_bytes), MANIFEST: record.manifest}


def unchecked_files(bundle: bytes) -> dict[str, str]:
    """What a bundle says that it is about, whoever signed it: for those who sign."""
    return signed_files(unchecked(bundle, where=SIGNATURE), SIGNATURE)


def signed_files(statement: Mapping[str, Any], where: str) -> dict[str, str]:
    """Name -> digest of what was signed. Raises SignatureInvalid: no such statement, or not of one meaning."""
    try:
        (subject,), resources = statement["subject"], statement["predicate"]["resources"]
        kind = statement["predicateType"], statement["predicate"]["serialization"]["method"]
        root, named = hashlib.sha256(), {}
        for resource in resources:
            if resource["algorithm"] != "sha256":
                raise SignatureInvalid("PH-0206 is over other digests than sha256", where=where, got=str(resource)[:80])
            root.update(bytes.fromhex(resource["digest"]))
            named[str(resource["name"])] = f"sha256:{resource['digest']}"
        wanted = subject["digest"]["sha256"]
    except (KeyError, TypeError, ValueError) as error:
        raise SignatureInvalid("PH-0205 is no statement about a model", where=where) from error
    if kind != (OMS, "files") or len(named) != len(resources) or wanted != root.hexdigest():
        raise SignatureInvalid("PH-0204 is no statement about a model's files", where=where, got=str(kind[0])[:80])
    return named


def _insist(policy: Policy, record_bytes: bytes, manifest: Manifest) -> None:
    record, where = load(Record, record_bytes, where=RECORD), f"{manifest.model}/{manifest.release}"
    source = record.provenance.source if record.provenance else ""
    builder = record.provenance.builder if record.provenance else ""
    if policy.sources and not any(f"{source}/".startswith(f"{each.rstrip('/')}/") for each in policy.sources):
        raise SignatureInvalid(
            "PH-0201 was made from elsewhere", where=where, got=source or "unknown", want=", ".join(policy.sources)
        )
    if policy.builders and builder not in policy.builders:
        raise SignatureInvalid(
            "PH-0202 was made by somebody else", where=where, got=builder or "unknown", want=", ".join(policy.builders)
        )
    verdicts = (*manifest.verdicts, *record.verdicts)
    for check in policy.checks:
        outcomes = [verdict.outcome for verdict in verdicts if verdict.check == check]
        if not outcomes or any(outcome is not Outcome.PASS for outcome in outcomes):
            got = ", ".join(sorted(set(outcomes))) or "never asked"
            raise SignatureInvalid(f"PH-0203 has not passed {check}", where=where, got=got, want="pass")


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SpecInvalid("PH-0200 can not be read", where=str(path), got=type(error).__name__) from error
