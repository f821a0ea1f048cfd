"""Signatures: whatever of a signed release is changed, swapped, added, left out or mixed, a reader who asks is refused.

Keys by packhouse's own check; certificates by OpenSSF's library; and that library's own command agrees with both.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra.settings import Settings
from infra.worker.signer import Signer, signer
from packhouse.digest import canonical_json
from packhouse.errors import KeyAbsent, PackhouseError, SignatureInvalid, SpecInvalid
from packhouse.release.lookup import at_prefix, find, read_manifest
from packhouse.release.manifest import MANIFEST, PROVENANCE, RECORD, REPORT_JSON, SIGNATURE, Made, dump
from packhouse.store import FileStore
from packhouse.trust.dsse import make_keys
from packhouse.trust.provenance import provenance, statement
from packhouse.trust.signatures import Trusted, check_release
from packhouse.trust.verify import verify
from tests.support.small_release import MODEL, Small, flip

MADE = Made(source="s3://models/sources/linear/run-1", builder="urn:acme:workers", version="0.1.0")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def other_keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_keys(tmp_path_factory.mktemp("other-keys"))


def by_key(path: Path) -> Signer:
    made = signer(Settings(signing_key=str(path)))
    assert made
    return made


def signed(release: Small, by: Signer, to: Path) -> Small:
    """A copy of the release with provenance and signature, as the stage `sign` leaves it."""
    small = release.copied(to)
    found = find(FileStore(small.store), f"{MODEL}/{small.release}")
    record = found.record.model_copy(update={"provenance": MADE})
    (small.folder / RECORD).write_bytes(dump(record))
    (small.folder / PROVENANCE).write_bytes(provenance(record, small.manifest))
    (small.folder / SIGNATURE).write_bytes(by.sign_folder(small.folder))
    return small


@pytest.fixture(scope="module")
def whole(release: Small, keys: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Small:
    return signed(release, by_key(keys[0]), tmp_path_factory.mktemp("signed") / "store")


@pytest.fixture
def small(whole: Small, tmp_path: Path) -> Small:
    """A signed copy that may be spoiled."""
    return whole.copied(tmp_path / "store")


def by_whom(small: Small, *trust: Path) -> str:
    """Without running the formats."""
    found = at_prefix(FileStore(small.folder), "")
    return check_release(found, read_manifest(found, found.record), Trusted.read(trust))


def refused(small: Small, *trust: Path) -> str:
    with pytest.raises(SignatureInvalid) as caught:
        by_whom(small, *trust)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def openssf(small: Small, *arguments: str) -> bool:
    """What `model_signing verify` says of the folder. In this process: the library takes a second to import."""
    from model_signing._cli import main

    signature = ["--signature", str(small.folder / SIGNATURE)]
    command = ["verify", *arguments[:1], str(small.folder), *signature, *arguments[1:]]
    return CliRunner().invoke(main, command).exit_code == 0


def test_a_signed_release_verifies_here_and_with_openssf_model_signing(whole, keys):
    proven = verify(find(FileStore(whole.store), f"{MODEL}@latest"), Trusted.read([keys[1]]))
    assert proven.signed_by.startswith("key ")
    given = ["--signature", str(whole.folder / SIGNATURE), "--public_key", str(keys[1])]
    command = [sys.executable, "-m", "model_signing", "verify", "key", str(whole.folder), *given]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    assert openssf(whole, "key", "--public_key", str(keys[1]))


def test_another_key_is_refused_by_both(whole, other_keys):
    assert "is not signed by anybody who is trusted here" in refused(whole, other_keys[1])
    assert not openssf(whole, "key", "--public_key", str(other_keys[1]))


def test_one_of_several_keys_is_enough(whole, keys, other_keys):
    assert by_whom(whole, other_keys[1], keys[1]).startswith("key ")


def test_a_release_without_a_signature_is_refused_where_one_is_asked_for(small, keys):
    (small.folder / SIGNATURE).unlink()
    assert "is not signed" in refused(small, keys[1])


def names() -> list[str]:
    listed = ["golden.safetensors", "model.int8.ts", "model.onnx", "model.pt2", "model.ts", "package.toml"]
    return [*listed, "weights.safetensors", MANIFEST, RECORD, PROVENANCE, SIGNATURE]


@pytest.mark.parametrize("name", names())
def test_one_changed_byte_of_any_file_is_refused_by_both(small, keys, name):
    flip(small.folder / name)
    with pytest.raises(PackhouseError):
        verify(at_prefix(FileStore(small.folder), ""), Trusted.read([keys[1]]))
    assert not openssf(small, "key", "--public_key", str(keys[1]))


@pytest.mark.parametrize("name", names())
def test_one_missing_file_is_refused(small, keys, name):
    (small.folder / name).unlink()
    with pytest.raises(PackhouseError):
        verify(at_prefix(FileStore(small.folder), ""), Trusted.read([keys[1]]))


def test_one_added_file_is_refused_by_both(small, keys):
    (small.folder / "extra.bin").write_bytes(b"")
    with pytest.raises(PackhouseError, match=r"extra\.bin"):
        verify(at_prefix(FileStore(small.folder), ""), Trusted.read([keys[1]]))
    assert not openssf(small, "key", "--public_key", str(keys[1]))


def test_what_was_measured_may_change(small, keys):
    (small.folder / REPORT_JSON).write_text("measured again\n")
    assert by_whom(small, keys[1])
    assert openssf(small, "key", "--public_key", str(keys[1]))


def test_the_signature_of_another_release_by_the_same_key_is_refused(small, other_release, keys, tmp_path):
    other = signed(other_release, by_key(keys[0]), tmp_path / "other")
    shutil.copy(other.folder / SIGNATURE, small.folder / SIGNATURE)
    assert "is not what was signed" in refused(small, keys[1])


def test_a_record_and_a_manifest_that_agree_and_were_not_signed_are_refused(small, keys):
    """Who can write the store can make both agree; the signature is what he can not make."""
    found = at_prefix(FileStore(small.folder), "")
    changed = found.record.model_copy(update={"provenance": MADE.model_copy(update={"source": "s3://elsewhere"})})
    (small.folder / RECORD).write_bytes(dump(changed))
    (small.folder / PROVENANCE).write_bytes(provenance(changed, small.manifest))
    assert "is not what was signed" in refused(small, keys[1])


def reworded(small: Small, by: Signer, change: Any) -> None:
    """The signer signs the same statement with one change: a signer that is trusted and wrong."""
    bundle = json.loads((small.folder / SIGNATURE).read_bytes())
    made = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    change(made)
    (small.folder / SIGNATURE).write_bytes(by.sign_statement(made))


def swap_two_names(made: dict[str, Any]) -> None:
    first, second = made["predicate"]["resources"][:2]
    first["name"], second["name"] = second["name"], first["name"]


def leave_one_out(made: dict[str, Any]) -> None:
    made["predicate"]["resources"].pop()


def leave_one_out_and_keep_to_the_rest(made: dict[str, Any]) -> None:
    """Its root digest is right: only the names tell that a file of the release is not covered."""
    leave_one_out(made)
    named = b"".join(bytes.fromhex(each["digest"]) for each in made["predicate"]["resources"])
    made["subject"][0]["digest"]["sha256"] = hashlib.sha256(named).hexdigest()


def name_one_twice(made: dict[str, Any]) -> None:
    made["predicate"]["resources"].append(dict(made["predicate"]["resources"][0]))


def another_root(made: dict[str, Any]) -> None:
    made["subject"][0]["digest"]["sha256"] = "0" * 64


def another_predicate(made: dict[str, Any]) -> None:
    made["predicateType"] = "https://example.com/other"


def another_algorithm(made: dict[str, Any]) -> None:
    made["predicate"]["resources"][0]["algorithm"] = "md5"


def no_subject(made: dict[str, Any]) -> None:
    made["subject"] = []


@pytest.mark.parametrize(
    "change",
    [
        swap_two_names,
        leave_one_out,
        leave_one_out_and_keep_to_the_rest,
        name_one_twice,
        another_root,
        another_predicate,
        another_algorithm,
        no_subject,
    ],
)
def test_a_statement_that_is_signed_and_says_something_else_is_refused(small, keys, change):
    """The root digest of the specification is over digests alone: swapped names keep it, and are refused all the
    same."""
    reworded(small, by_key(keys[0]), change)
    refused(small, keys[1])


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_change_of_the_bundle_makes_it_say_anything_else(whole, keys, data):
    """Bytes are set, cut and put in anywhere. What is still accepted says what was signed."""
    bundle = (whole.folder / SIGNATURE).read_bytes()
    place = data.draw(st.integers(0, len(bundle) - 1))
    piece, cut = data.draw(st.binary(max_size=4)), data.draw(st.integers(0, 4))
    changed = bundle[:place] + piece + bundle[place + cut :]
    trusted = Trusted.read([keys[1]])
    said = trusted.open(bundle, where="it")
    with suppress(SignatureInvalid):
        assert trusted.open(changed, where="it") == said


@pytest.mark.parametrize(
    "bundle",
    [b"", b"{}", b"[]", b"\xff", b'{"dsseEnvelope": 1}', b"[" * 100_000, b'{"a": 1, "a": 2}'],
    ids=["empty", "no keys", "a list", "no text", "wrong types", "deep", "twice"],
)
def test_what_is_no_bundle_is_refused_in_one_line(small, keys, bundle):
    (small.folder / SIGNATURE).write_bytes(bundle)
    refused(small, keys[1])


def test_a_bundle_with_a_second_signature_is_refused(small, keys):
    bundle = json.loads((small.folder / SIGNATURE).read_bytes())
    bundle["dsseEnvelope"]["signatures"] *= 2
    (small.folder / SIGNATURE).write_bytes(json.dumps(bundle).encode())
    assert "is no bundle with one signed statement" in refused(small, keys[1])


class Authority:
    """A certificate authority, and one who signs by its word."""

    def __init__(self, folder: Path, *, may_sign: bool = True) -> None:
        root, leaf = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        folder.mkdir()
        self.root, self.leaf, self.key = folder / "root.pem", folder / "leaf.pem", folder / "leaf.key"
        self.root.write_bytes(_certificate("root", root, "root", root, authority=True, may_sign=False))
        self.leaf.write_bytes(_certificate("release team", leaf, "root", root, authority=False, may_sign=may_sign))
        form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        self.key.write_bytes(leaf.private_bytes(serialization.Encoding.PEM, *form))

    @property
    def settings(self) -> Settings:
        return Settings(signing_key=str(self.key), signing_certificates=(str(self.leaf), str(self.root)))

    @property
    def signer(self) -> Signer:
        made = signer(self.settings)
        assert made
        return made


def _certificate(name: str, key: Any, issuer: str, by: Any, *, authority: bool, may_sign: bool) -> bytes:
    def named(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])

    usage = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only"), False
    ) | {"decipher_only": False, "crl_sign": authority, "key_cert_sign": authority, "digital_signature": may_sign}
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(named(name))
        .issuer_name(named(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**usage), critical=True)
        .sign(by, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM)


def test_a_certificate_counts_where_its_authority_is_trusted(release, tmp_path, keys):
    authority, other = Authority(tmp_path / "a"), Authority(tmp_path / "b")
    small = signed(release, authority.signer, tmp_path / "store")
    assert by_whom(small, authority.root) == "a certificate of root.pem"
    assert openssf(small, "certificate", "--certificate_chain", str(authority.root))
    refused(small, other.root)
    assert "is not signed by anybody who is trusted here" in refused(small, keys[1])


def test_a_certificate_that_may_not_sign_does_not_count(release, tmp_path):
    authority = Authority(tmp_path / "a", may_sign=False)
    refused(signed(release, authority.signer, tmp_path / "store"), authority.root)


def test_a_key_with_a_password_signs_with_it_and_not_without(release, tmp_path):
    key, path = ec.generate_private_key(ec.SECP384R1()), tmp_path / "key.pem"
    form = serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"horse battery")
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, *form))
    public = tmp_path / "key.pub.pem"
    form_public = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    public.write_bytes(key.public_key().public_bytes(*form_public))
    with_it = signer(Settings(signing_key=str(path), signing_password="horse battery"))
    assert with_it
    assert by_whom(signed(release, with_it, tmp_path / "store"), public)
    with pytest.raises(KeyAbsent) as caught:
        signer(Settings(signing_key=str(path), signing_password="wrong horse"))
    assert "horse" not in str(caught.value)


def policy(folder: Path, key: Path, words: str) -> Path:
    shutil.copy(key, folder / "release.pub.pem")
    path = folder / "policy.toml"
    path.write_text(f'{words}\n[[signer]]\nkey = "release.pub.pem"\n')
    return path


@pytest.mark.parametrize(
    "words",
    [
        'sources = ["s3://models/sources"]',
        'sources = ["s3://other", "s3://models/sources/"]',
        'builders = ["urn:acme:workers"]',
        'checks = ["parity-cpu"]',
        "",
    ],
)
def test_a_policy_that_the_release_keeps_lets_it_pass(whole, keys, tmp_path, words):
    assert by_whom(whole, policy(tmp_path, keys[1], words))


@pytest.mark.parametrize(
    "words, reason",
    [
        ('sources = ["s3://models/source"]', "was made from elsewhere"),
        ('builders = ["urn:acme"]', "was made by somebody else"),
        ('checks = ["cuda-runs"]', "has not passed cuda-runs"),
    ],
)
def test_a_policy_that_the_release_does_not_keep_refuses_it(whole, keys, tmp_path, words, reason):
    assert reason in refused(whole, policy(tmp_path, keys[1], words))


@pytest.mark.parametrize(
    "signer", ['identity = "a@b"', 'issuer = "https://x"', 'key = "k.pem"\ncertificates = "c.pem"', ""]
)
def test_an_identity_without_its_issuer_trusts_nobody(tmp_path, signer):
    path = tmp_path / "policy.toml"
    path.write_text(f"[[signer]]\n{signer}\n")
    with pytest.raises(SpecInvalid, match="is no policy"):
        Trusted.read([path])


def test_a_broken_certificate_is_named(tmp_path):
    path = tmp_path / "root.pem"
    path.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    with pytest.raises(SpecInvalid, match=r"root\.pem"):
        Trusted.read([path])


@pytest.mark.parametrize("words", ["source = []", "= 1", "signer = 3"])
def test_a_policy_that_is_none_is_named(keys, tmp_path, words):
    with pytest.raises(SpecInvalid, match="is no policy"):
        Trusted.read([policy(tmp_path, keys[1], words)])


def test_what_is_no_public_key_is_named(keys, tmp_path):
    young = tmp_path / "ed25519.pem"
    public = ed25519.Ed25519PrivateKey.generate().public_key()
    young.write_bytes(public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
    junk = tmp_path / "junk.pem"
    junk.write_bytes(b"junk")
    for path in (young, junk, keys[0], tmp_path / "absent.pem"):
        with pytest.raises(SpecInvalid, match=path.name):
            Trusted.read([path])


def test_a_pair_of_keys_is_never_overwritten(keys):
    before = keys[0].read_bytes()
    with pytest.raises(SpecInvalid, match="there is a key already"):
        make_keys(keys[0].parent)
    assert keys[0].read_bytes() == before
    assert keys[0].stat().st_mode & 0o077 == 0


def test_the_provenance_names_every_file_every_input_and_every_verdict(whole):
    found = at_prefix(FileStore(whole.folder), "")
    made = statement(found.record, whole.manifest)
    assert (whole.folder / PROVENANCE).read_bytes() == canonical_json(made)
    subjects = {each["name"]: each["digest"]["sha256"] for each in made["subject"]}
    assert subjects.pop(MANIFEST) == found.record.manifest.removeprefix("sha256:")
    assert subjects == {each.name: each.digest.removeprefix("sha256:") for each in whole.manifest.artifacts}
    text, inputs = json.dumps(made), whole.manifest.inputs
    wanted = [inputs.spec, inputs.weights, inputs.samples, inputs.code, inputs.architecture.code]
    assert all(digest.removeprefix("sha256:") in text for digest in wanted)
    assert all(f"pkg:pypi/{name}@{version}" in text for name, version in inputs.libraries.items())
    details = made["predicate"]["runDetails"]
    assert len(details["packhouse_verdicts"]) == len(whole.manifest.verdicts)
    assert details["builder"]["id"] == "urn:acme:workers"
