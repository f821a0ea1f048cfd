"""Who signs here and whose signatures count: the command and the worker read the same settings alike."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from infra.settings import Settings
from packhouse.errors import KeyAbsent, PackhouseError, SpecInvalid
from packhouse.trust.dsse import make_keys
from packhouse.trust.signing_settings import SigningSettings, from_environment


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    secret, public = make_keys(tmp_path / "keys")
    return secret, public


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"SIGNING_KEY": "~/k.pem", "SIGNING_PASSWORD": "horse"},
        {"SIGNING_KEY": "k.pem", "SIGNING_CERTIFICATES": '["leaf.pem", "root.pem"]'},
        *({"SIGNING_KEYLESS": text} for text in ("1", "true", "YES", "on", "t", "y", "0", "false", "Off", "n")),
        {"SIGN_POOL": "signers", "SIGNERS": '["a.pem", "b.toml"]'},
        {"SIGNING_KEY": "k.pem", "CHILDREN": "2", "MLFLOW_URI": "http://mlflow"},
    ],
    ids=lambda given: " ".join(given.values()) or "nothing",
)
def test_the_command_reads_what_the_worker_reads(monkeypatch, given):
    for name in [name for name in os.environ if name.startswith("PACKHOUSE_")]:
        monkeypatch.delenv(name)
    for name, text in given.items():
        monkeypatch.setenv(f"PACKHOUSE_{name}", text)
    worker, command = Settings(), from_environment(os.environ)
    assert {name: getattr(worker, name) for name in SigningSettings.model_fields} == dict(command)
    assert (
        worker.signs
        is command.signs
        is any(
            (command.signing_key, command.signing_keyless, command.sign_pool),
        )
    )


def test_an_empty_variable_counts_as_not_set():
    assert from_environment({f"PACKHOUSE_{name.upper()}": "" for name in SigningSettings.model_fields}) == (
        SigningSettings()
    )


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("SIGNERS", "a.pem", "is no list in JSON"),
        ("SIGNERS", '"a.pem"', "is no list in JSON"),
        ("SIGNERS", "[1]", "has another form"),
        ("SIGNING_KEYLESS", "perhaps", "has another form"),
    ],
)
def test_a_variable_of_another_form_is_refused_by_its_name(name, text, words):
    with pytest.raises(SpecInvalid, match=rf"^PACKHOUSE_{name}: {words}"):
        from_environment({f"PACKHOUSE_{name}": text})


def test_what_this_machine_signs_is_known_by_its_key_or_its_authority_and_an_identity_by_neither(keys):
    (own,) = SigningSettings(signing_key=str(keys[0])).known().keys
    (public,) = SigningSettings(signers=(str(keys[1]),)).known().keys
    assert str(own) == str(public)
    chain = ("leaf.pem", "middle.pem", "root.pem")
    assert SigningSettings(signing_key=str(keys[0]), signing_certificates=chain).own().authorities == (
        Path("middle.pem"),
        Path("root.pem"),
    )
    alone = SigningSettings(signing_key=str(keys[0]), signing_certificates=("self.pem",))
    assert alone.own().authorities == (Path("self.pem"),)
    assert SigningSettings(signing_key=str(keys[0]), signing_keyless=True).own().nobody
    with pytest.raises(KeyAbsent, match="tells nobody's signature"):
        SigningSettings(signing_keyless=True).known()


def test_where_a_pool_signs_only_named_signers_are_known(keys, tmp_path):
    _, other = make_keys(tmp_path / "other")
    pool = SigningSettings(signing_key=str(keys[0]), sign_pool="signers", signers=(str(other),))
    assert [str(key) for key in pool.known().keys] == [
        str(key) for key in SigningSettings(signers=(str(other),)).known().keys
    ]


@pytest.mark.parametrize("kind", ["gone", "no key", "a password beside certificates"])
def test_a_key_that_can_not_be_used_is_said_before_anything_moves(keys, tmp_path, kind):
    strange = tmp_path / "strange.pem"
    strange.write_text("no key")
    settings = {
        "gone": SigningSettings(signing_key=str(tmp_path / "gone.pem")),
        "no key": SigningSettings(signing_key=str(strange)),
        "a password beside certificates": SigningSettings(
            signing_key=str(keys[0]), signing_password="horse", signing_certificates=("leaf.pem",)
        ),
    }[kind]
    with pytest.raises(PackhouseError, match="PACKHOUSE_SIGNING_KEY") as caught:
        settings.own()
    assert isinstance(caught.value, KeyAbsent)
    assert "horse" not in str(caught.value)
