"""Signing on the line: no channel points at a release that was to be signed and is not, whoever was killed when; and a
signer apart, whose key no other worker has."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.audit import audit
from flows.nightly import nightly
from flows.release import released as release
from flows.run_result import Status
from flows.sign import sign as sign_flow
from infra.sandbox.client import Sandbox
from infra.settings import settings
from infra.worker.context import WorkerContext, use, worker_context
from packhouse.consume import fetch
from packhouse.digest import canonical_json, digest_bytes, digest_file
from packhouse.errors import NotFound, Refused, SignatureInvalid, Stopping
from packhouse.release.channels import by_hand, change, moved
from packhouse.release.lookup import at_prefix, find, read_channel, read_spec
from packhouse.release.manifest import MANIFEST, PROVENANCE, RECORD, SIGNATURE, Why, channel_key, dump, release_key
from packhouse.store import FileStore, open_store
from packhouse.trust.dsse import make_keys
from packhouse.trust.signatures import Trusted
from packhouse.trust.signed_channels import signature_key
from packhouse.trust.verify import verify
from tasks.commit_and_promote import promote_again
from tasks.night.plan import plan_night
from tasks.signing import sign as tasks_sign
from tasks.signing import sign_channel as tasks_sign_channel
from tasks.signing.sign_channel import channel_signed, renew, renewed, standings
from tests.flows.test_bad_input import packhouse
from tests.support.cluster import deploy, pool, worker
from tests.support.released import Copy, ReleasedModels
from tests.support.small_release import flip, sign_off

pytestmark = [pytest.mark.flow, pytest.mark.usefixtures("api")]


@pytest.fixture
def keys(released_models: ReleasedModels) -> tuple[Path, Path]:
    """What is released signed is signed by the first."""
    return released_models.keys


@pytest.fixture
def configured(home: Path, monkeypatch: pytest.MonkeyPatch, sandbox: Sandbox) -> Callable[..., None]:
    """This worker, with these settings from now on."""

    def configure(**values: object) -> None:
        for name, value in values.items():
            monkeypatch.setenv(f"PACKHOUSE_{name.upper()}", str(value))
        settings.cache_clear()
        use(WorkerContext(settings(), sandbox))

    return configure


@pytest.fixture
def proven(released, configured, keys) -> Callable[..., Copy]:
    """Gives a function that copies releases whose channels are not there: what a run leaves that was killed between
    its signature and its channel. This worker has the key that signed them."""

    def prove(*channels: str) -> Copy:
        made = released(signed=True, channels=channels or ("latest",))
        for key in (channel_key, signature_key):
            (made.store / key("linear", "latest")).unlink()
        shutil.rmtree(made.home / "signed")
        configured(signing_key=keys[0])
        return made

    return prove


def by_whom(model: str, public: Path) -> str:
    return verify(find(worker_context().store, f"{model}@latest"), Trusted.read([public])).signed_by


def test_a_release_is_signed_before_its_channel_moves_and_once(released, configured, keys):
    made = released(signed=True)
    configured(signing_key=keys[0])
    assert by_whom("linear", keys[1]).startswith("key ")
    path = made.store / release_key("linear", made.release) / SIGNATURE
    first = path.read_bytes()
    assert release([made.source])[0].status is Status.UNCHANGED
    assert path.read_bytes() == first


def test_without_its_key_nothing_is_released_and_the_next_run_completes_it(staged, configured, keys, tmp_path):
    gone = tmp_path / "gone.pem"
    configured(signing_key=gone)
    source = staged("linear")
    (end,) = release([source])
    assert end.status is Status.UNAVAILABLE
    assert "PACKHOUSE_SIGNING_KEY: is not there" in end.reason
    with pytest.raises(NotFound):
        read_channel(worker_context().store, "linear", "latest")
    gone.write_bytes(keys[0].read_bytes())
    assert release([source])[0].release
    assert by_whom("linear", keys[1])


def test_a_run_that_was_killed_before_it_signed_is_completed(released, configured, keys, monkeypatch):
    """The record stands, and the signature and the channel do not: what a kill leaves between them."""
    made = released()
    (made.store / channel_key("linear", "latest")).unlink()
    configured(signing_key=keys[0])
    found = find(worker_context().store, made.name)

    def killed(*_: object) -> str:
        raise Stopping("the worker was killed")

    with monkeypatch.context() as broken:
        broken.setattr(tasks_sign, "sign_release", killed)
        with pytest.raises(Stopping):
            promote_again.fn(found.record, read_spec(found), "latest", made.source)
    with pytest.raises(NotFound):
        read_channel(worker_context().store, "linear", "latest")
    release([made.source])
    assert by_whom("linear", keys[1])


def test_bytes_that_are_not_the_manifests_are_not_signed(home, released, command, keys):
    made = released()
    folder = made.store / release_key("linear", made.release)
    (folder / "model.onnx").write_bytes(b"other bytes")
    done = command("sign", made.name, home=home, PACKHOUSE_SIGNING_KEY=str(keys[0]))
    assert done.returncode == 1
    assert done.stderr.startswith("refused: ")
    assert "model.onnx" in done.stderr
    assert not (folder / SIGNATURE).exists()


def test_what_was_released_before_there_was_a_key_is_signed_by_a_command(home, released, command, keys):
    """By the real command, in a process of its own."""
    name = released().name
    with pytest.raises(SignatureInvalid, match="is not signed"):
        by_whom("linear", keys[1])
    key = {"PACKHOUSE_SIGNING_KEY": str(keys[0])}
    early = command("sign", "linear@latest", home=home, **key)
    assert early.returncode == 1
    assert f"{name}: is not signed by anybody who is known here; `packhouse sign {name}`" in early.stderr
    done = packhouse("sign", name, "linear@latest", home=home, **key)
    assert done.returncode == 0, done.stderr
    assert [line.partition(": ")[0] for line in done.stdout.splitlines()] == [f"signed {name}", "signed linear@latest"]
    told = command("verify", name, "--trust", str(keys[1]), home=home)
    assert told.returncode == 0, told.stderr
    assert " signed by key " in told.stdout
    other = make_keys(home / "other")[1]
    refused = command("verify", "linear@latest", home=home, PACKHOUSE_TRUST=str(other))
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "is not signed by anybody who is trusted here" in refused.stderr


def test_the_command_signs_what_is_unchanged_and_was_not_signed(home, released, command, keys):
    """Also what a run left that was killed between its record and its signature: no channel moves without one."""
    made = released()
    (made.store / channel_key("linear", "latest")).unlink()
    gone = command("release", made.source, home=home, PACKHOUSE_SIGNING_KEY=str(home / "gone.pem"))
    assert gone.returncode == 2, gone.stdout
    with pytest.raises(NotFound):
        read_channel(open_store(str(home / "store")), "linear", "latest")
    done = packhouse("release", made.source, home=home, PACKHOUSE_SIGNING_KEY=str(keys[0]))
    assert done.stdout == f"released {made.name} latest#1\n", done.stderr
    assert by_whom("linear", keys[1]).startswith("key ")


def followed(home: Path, public: Path, to: Path, channel: str = "latest") -> int:
    """The serial that a consumer sees who asks for signatures."""
    options = {"store": str(home / "store"), "trust": [public], "floors": to.parent / "floors"}
    return fetch.fetch(f"linear@{channel}", to / channel, **options).serial


def test_a_channel_is_signed_where_a_run_moved_it_and_once(home, proven, keys, tmp_path):
    source = proven().source
    assert release([source])[0].serial == 1
    assert followed(home, keys[1], tmp_path / "to") == 1
    path = home / "store" / signature_key("linear", "latest")
    first = path.read_bytes()
    assert release([source])[0].status is Status.UNCHANGED
    assert path.read_bytes() == first


@pytest.mark.parametrize("move", ["first", "later"])
@pytest.mark.parametrize("how", ["run", "command", "night"])
def test_a_run_that_was_killed_before_it_signed_its_channel_is_completed(
    home, released, proven, configured, command, keys, monkeypatch, tmp_path, how, move
):
    if move == "first":
        source = proven().source
    else:
        source = released(signed=True, channels=("latest", "other")).source
        configured(signing_key=keys[0])
    folder = source.rpartition("/")[0]

    def killed(*_: object, **__: object) -> str:
        raise Stopping("the worker was killed")

    with monkeypatch.context() as broken:
        broken.setattr(tasks_sign_channel, "channel_signed", killed)
        assert release([source])[0].status is Status.CANCELLED
    moved = read_channel(worker_context().store, "linear", "latest")
    assert moved.serial == (1 if move == "first" else 2)
    match how:
        case "run":
            release([source])
        case "command":
            done = command("release", source, home=home, PACKHOUSE_SIGNING_KEY=str(keys[0]))
            assert done.returncode in (0, 3), done.stderr
        case "night":
            (work,) = plan_night([folder], "latest").work
            release([work.source])
    assert followed(home, keys[1], tmp_path / "to") == (1 if move == "first" else 3)
    assert at_prefix(FileStore(tmp_path / "to" / "latest"), "").record.release == moved.release
    assert plan_night([folder], "latest").work == ()


def forged(home: Path, name: str) -> bytes:
    """What anybody can do who can write the store: another file in a release, with a manifest and a record that agree.
    The bytes of the file."""
    folder = home / "store" / name
    path = folder / "model.onnx"
    path.write_bytes(path.read_bytes() + b"\0" * 8)
    manifest = json.loads((folder / MANIFEST).read_bytes())
    old, new = digest_bytes(path.read_bytes()[:-8]), digest_file(path)
    text = canonical_json(manifest).replace(old.encode(), new.encode())
    document = json.loads(text)
    for artifact in document["artifacts"]:
        if artifact["name"] == path.name:
            artifact["size"] = path.stat().st_size
    sign_off(folder, canonical_json(document), "linear", document["release"])
    return path.read_bytes()


def test_a_forged_release_without_a_signature_is_made_again_and_not_signed(
    home, released, configured, command, keys, tmp_path
):
    """Nor is it where its channel was written, too: no run signs what merely stands there."""
    made = released(signed=True)
    configured(signing_key=keys[0])
    name, path = release_key("linear", made.release), home / "store" / channel_key("linear", "latest")
    forged(home, name)
    (home / "store" / name / SIGNATURE).unlink()
    (home / "store" / name / PROVENANCE).unlink()
    here = read_channel(worker_context().store, "linear", "latest")
    path.write_bytes(dump(here.model_copy(update={"serial": 2})))
    (again,) = release([made.source])
    assert again.status is Status.REFUSED
    assert "model.onnx" in again.reason
    assert not (home / "store" / name / SIGNATURE).exists()
    for reference in ("linear@latest", f"linear@latest/{made.release}"):
        done = command("sign", reference, home=home, PACKHOUSE_SIGNING_KEY=str(keys[0]))
        assert done.returncode == 1
        assert "is not signed by anybody who is known here" in done.stderr
    with pytest.raises(SignatureInvalid):
        followed(home, keys[1], tmp_path / "to")


def test_no_run_undoes_a_rollback_or_an_approval_because_somebody_wrote_into_the_channel(
    home, released, configured, command, keys, tmp_path
):
    made = released(signed=True, channels=("latest", "latest"))
    configured(signing_key=keys[0])
    source, (first, second) = made.source, made.releases
    key = {"PACKHOUSE_SIGNING_KEY": str(keys[0])}
    assert command("rollback", "linear@latest", "--trust", str(keys[1]), home=home, **key).returncode == 0
    path = home / "store" / channel_key("linear", "latest")
    signed = read_channel(worker_context().store, "linear", "latest")
    assert (signed.release, signed.serial) == (first, 3)
    for lie in ({"release": second, "serial": 4, "earlier": ()}, {"earlier": ()}):
        path.write_bytes(dump(signed.model_copy(update=lie)))
        assert plan_night([source.rpartition("/")[0]], "latest").work == ()
        assert release([source])[0].status is Status.UNCHANGED
        assert followed(home, keys[1], tmp_path / "to") == 3
        assert standings()[0].reason.startswith("stands at #")
        refused = command("rollback", "linear@latest", "--trust", str(keys[1]), home=home, **key)
        assert refused.returncode == 1
        assert "is not signed as it stands" in refused.stderr
    assert at_prefix(FileStore(tmp_path / "to" / "latest"), "").record.release == first


@pytest.mark.parametrize("lie", ["deleted", "replayed"])
@pytest.mark.parametrize("memory", [True, False])
def test_no_run_moves_on_from_a_channel_whose_signature_is_gone_or_old(
    home, released, configured, command, keys, tmp_path, lie, memory
):
    """R was rolled back from. Whoever takes the signature away, or puts an old one back, wins no new one for R; and
    where neither this machine nor a consumer remembers, an old signature still leads to what it led to."""
    made = released(signed=True, channels=("latest", "other"))
    configured(signing_key=keys[0])
    source, (first, second) = made.source, made.releases
    paths = [home / "store" / key("linear", "latest") for key in (channel_key, signature_key)]
    old = paths[1].read_bytes()
    assert release([source])[0].serial == 2
    key = {"PACKHOUSE_SIGNING_KEY": str(keys[0])}
    assert command("rollback", "linear@latest", home=home, **key).returncode == 0
    forged = moved(read_channel(worker_context().store, "linear", "latest"), first, by="", why=Why.RELEASE)
    paths[0].write_bytes(dump(forged.model_copy(update={"serial": 20, "earlier": (), "moves": ()})))
    if lie == "deleted":
        paths[1].unlink()
    else:
        paths[1].write_bytes(old)
    if not memory:
        shutil.rmtree(home / "signed")
    (again,) = release([source])
    if memory or lie == "deleted":
        assert again.status is Status.REFUSED
        assert "linear@latest: can not be moved on from" in again.reason
        assert [each.renewed for each in renewed() if each.channel == "linear@latest"] == [False]
        with pytest.raises((SignatureInvalid, Refused)):
            fetch.fetch(
                "linear@latest", tmp_path / "x", store=str(home / "store"), trust=[keys[1]], floors=tmp_path, floor=3
            )
    else:
        assert again.release == second


def test_a_channel_that_somebody_rewrites_before_it_is_signed_is_not(home, proven, monkeypatch):
    source = proven().source
    path = home / "store" / channel_key("linear", "latest")
    genuine = tasks_sign_channel.channel_signed

    def slow(*names: str, written: str) -> str:
        here = read_channel(worker_context().store, "linear", "latest")
        path.write_bytes(dump(here.model_copy(update={"staged_at": 1e300, "serial": 90})))
        return genuine(*names, written=written)

    with monkeypatch.context() as broken:
        broken.setattr(tasks_sign_channel, "channel_signed", slow)
        (end,) = release([source])
    assert end.status is Status.UNAVAILABLE
    assert "linear@latest: was moved on" in end.reason
    assert not (home / "store" / signature_key("linear", "latest")).exists()


def test_what_a_run_has_proven_takes_the_place_of_an_unsigned_record_of_somebody_else(released, configured, keys):
    """Its signer was away, and its worker is another one by now; or it was never a worker of ours."""
    made = released()
    path = made.store / release_key("linear", made.release) / RECORD
    configured(signing_key=keys[0], builder="urn:acme:another")
    (again,) = release([made.source])
    assert (again.release, again.status) == (made.release, Status.RELEASED), again
    assert b"urn:acme:another" in path.read_bytes()
    assert by_whom("linear", keys[1])


@pytest.mark.parametrize("lie", [None, b"junk"])
def test_a_channels_file_that_is_gone_or_none_is_written_back_as_it_was_signed(home, released, configured, keys, lie):
    released(signed=True)
    configured(signing_key=keys[0])
    path = home / "store" / channel_key("linear", "latest")
    kept = path.read_bytes()
    path.unlink()
    if lie:
        path.write_bytes(lie)
    assert [each.reason for each in renewed()] == [""]
    assert path.read_bytes() == kept


def test_an_approval_can_not_be_forged_in_the_channels_file(home, released, configured, keys, tmp_path):
    made = released(signed=True, gates={"approve": True})
    configured(signing_key=keys[0])
    forged = moved(None, made.release, by="a stranger", why=Why.APPROVAL)
    (home / "store" / channel_key("linear", "production")).write_bytes(dump(forged))
    (again,) = release([made.source], "production")
    assert again.status is not Status.RELEASED
    with pytest.raises(SignatureInvalid, match="linear@production: is not signed"):
        followed(home, keys[1], tmp_path / "to", "production")


def test_an_old_channel_that_is_shown_with_its_old_signature_gets_no_new_life(home, released, configured, keys):
    made = released(signed=True, channels=("latest", "other"))
    configured(signing_key=keys[0], channel_renew_s=1e-3)
    channel_signed("linear", "latest", made.releases[0])
    paths = [home / "store" / key("linear", "latest") for key in (channel_key, signature_key)]
    old = [path.read_bytes() for path in paths]
    (end,) = release([made.source])
    assert end.serial == 2
    for path, data in zip(paths, old, strict=True):
        path.write_bytes(data)
    (found,) = [each for each in renewed() if each.channel == "linear@latest"]
    assert (found.renewed, "an old channel and its old signature" in found.reason) == (False, True)
    assert [path.read_bytes() for path in paths] == old


def test_a_night_renews_what_is_due_and_a_night_and_an_audit_name_what_somebody_else_moved(
    home, released, configured, keys, tmp_path
):
    made = released(signed=True)
    configured(signing_key=keys[0], channel_renew_s=24, sources=json.dumps([str(tmp_path / "sources")]))
    channel_signed("linear", "latest", made.release)
    path = home / "store" / signature_key("linear", "latest")
    first = path.read_bytes()
    time.sleep(24 / 12 + 0.1)
    configured(channel_renew_s=36 * 3600)
    night = nightly(return_state=True)
    assert (night.name, path.read_bytes() != first) == ("Unchanged", True), night.message
    assert audit(return_state=True).name == "Verified"
    change(worker_context().store, "linear", "production", lambda here: by_hand(here, made.release, by="a stranger"))
    late = nightly(return_state=True)
    assert (late.name, late.is_failed()) == ("Late", True)
    assert "1 channels: linear@production: is not signed by anybody who is known here" in late.message
    assert "linear@production: is not signed" in audit(return_state=True).message
    (home / "store" / release_key("linear", made.release) / SIGNATURE).unlink()
    rotten = audit(return_state=True)
    assert rotten.name == "Rotten"
    assert f"{made.name}: no {SIGNATURE}: is not signed" in rotten.message


def test_a_channel_of_which_only_the_signature_is_left_is_named(home, released, configured, command, keys):
    released(signed=True)
    configured(signing_key=keys[0])
    (home / "store" / channel_key("linear", "latest")).unlink()
    assert [(each.channel, "no such channel" in each.reason) for each in standings()] == [("linear@latest", True)]
    watched = command("channels", home=home, PACKHOUSE_TRUST=str(keys[1]))
    assert watched.returncode == 1
    assert "refused: 1 of 1 channels are not signed as they stand" in watched.stderr


def test_what_somebody_else_wrote_into_a_channel_is_signed_by_no_run_and_named(
    home, released, configured, keys, tmp_path
):
    """Who can write the store, and has no key, leads nobody who asks for signatures."""
    made = released(signed=True)
    configured(signing_key=keys[0], channel_renew_s=1e-6)
    channel_signed("linear", "latest", made.release)
    change(worker_context().store, "linear", "latest", lambda here: by_hand(here, "f" * 32, by="a stranger"))
    assert release([made.source])[0].points_at == "f" * 32
    (found,) = renewed()
    assert not found.renewed
    assert found.reason.startswith("stands at #2 ffff")
    assert followed(home, keys[1], tmp_path / "to") == 1
    assert at_prefix(FileStore(tmp_path / "to" / "latest"), "").record.release == made.release


def test_a_channel_that_goes_back_is_not_signed_even_where_its_signature_is_gone(
    home, released, configured, command, keys
):
    """The signer remembers what it signed; and says how the channel is started anew."""
    made = released(signed=True)
    configured(signing_key=keys[0])
    name = made.name
    by_the_key = {"home": home, "PACKHOUSE_SIGNING_KEY": str(keys[0])}
    assert command("promote", name, "latest", "--after", "4", **by_the_key).returncode == 0
    for key in (channel_key("linear", "latest"), signature_key("linear", "latest")):
        (home / "store" / key).unlink()
    (again,) = release([made.source])
    assert again.status is Status.REFUSED
    assert "linear@latest: can not be moved on from; got no signature that counts here, want #5" in again.reason
    assert "`packhouse promote RELEASE latest --after 5` starts it anew" in again.reason
    anew = command("promote", name, "latest", "--after", "5", **by_the_key)
    assert anew.returncode == 0, anew.stderr
    assert anew.stdout.splitlines()[0] == f"{name} latest#6"
    assert followed(home, keys[1], home / "to") == 6


def test_signatures_are_renewed_when_they_are_due_and_named_when_they_are_not(
    home, released, configured, command, keys, tmp_path
):
    released(signed=True)
    configured(signing_key=keys[0])
    path = home / "store" / signature_key("linear", "latest")
    first = path.read_bytes()
    assert [(each.channel, each.renewed, each.reason) for each in renewed()] == [("linear@latest", False, "")]
    configured(channel_renew_s=1e-3, channel_expires_s=2e-3)
    command("sign", "linear@latest", home=home, PACKHOUSE_SIGNING_KEY=str(keys[0]))
    (late,) = standings()
    assert late.reason.startswith("expired ")
    with pytest.raises(SignatureInvalid, match="expired"):
        followed(home, keys[1], tmp_path / "to")
    watched = command("channels", home=home, PACKHOUSE_TRUST=str(keys[1]))
    assert (watched.returncode, watched.stderr[:23]) == (1, "linear@latest: expired "), watched.stderr
    configured(channel_renew_s=3600, channel_expires_s=7200)
    done = command("sign", "--renew", home=home, PACKHOUSE_SIGNING_KEY=str(keys[0]))
    assert (done.returncode, done.stdout) == (0, "renewed linear@latest\n"), done.stderr
    assert path.read_bytes() != first
    assert followed(home, keys[1], tmp_path / "to") == 1
    assert command("channels", home=home, PACKHOUSE_TRUST=str(keys[1])).returncode == 0
    other = command("channels", "linear", home=home, PACKHOUSE_TRUST=str(make_keys(tmp_path / "other")[1]))
    assert other.returncode == 1
    assert "linear@latest: is not signed" in other.stderr


def test_people_move_signed_channels_with_the_key_and_are_told_where_they_have_none(
    home, released, configured, command, keys, tmp_path
):
    made = released(signed=True)
    configured(signing_key=keys[0])
    name, key = made.name, {"PACKHOUSE_SIGNING_KEY": str(keys[0])}
    done = command("promote", "linear@latest", "production", "--trust", str(keys[1]), home=home, **key)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == f"{name} production#1"
    assert done.stdout.splitlines()[1].startswith(f"signed linear@production/{made.release}#")
    assert command("promote", name, "production", home=home, **key).returncode == 3
    change(worker_context().store, "linear", "production", lambda here: by_hand(here, "f" * 32, by="x"))
    without = command("rollback", "linear@production", home=home, PACKHOUSE_SIGNING_KEY="")
    assert (without.returncode, without.stdout) == (0, f"{name} production#3\n"), without.stderr
    assert "who asks for signatures stays at #1 until `packhouse sign linear@production`" in without.stderr
    assert followed(home, keys[1], tmp_path / "to", "production") == 1
    again = command("promote", name, "production", home=home, **key)
    assert again.returncode == 1
    assert "linear@production: is not signed as it stands; if `packhouse history linear@production`" in again.stderr
    assert command("sign", "linear@production", home=home, **key).returncode == 0
    assert followed(home, keys[1], tmp_path / "to", "production") == 3


def test_a_signer_apart_signs_with_a_key_that_no_other_worker_has(home, staged, configured, keys, tmp_path):
    """The pool's worker has the key in its environment; this one, which runs the model, has only the pool's name."""
    signers = pool(f"sign-{os.getpid()}-{time.monotonic_ns()}")
    deploy(sign_flow, signers)
    configured(sign_pool=signers, signers=json.dumps([keys[1].read_text()]))
    its = {"PACKHOUSE_SIGNING_KEY": str(keys[0]), "PACKHOUSE_SIGN_POOL": "", "PACKHOUSE_CHANNEL_RENEW_S": "6"}
    with worker(signers, its, tmp_path / "signer.log"):
        (end,) = release([staged("linear")])
        assert end.status is Status.RELEASED, (end, (tmp_path / "signer.log").read_text())
        assert by_whom("linear", keys[1]).startswith("key ")
        assert followed(home, keys[1], tmp_path / "to") == 1
        path = home / "store" / signature_key("linear", "latest")
        first = path.read_bytes()
        renew.fn()
        assert path.read_bytes() != first, (tmp_path / "signer.log").read_text()
        flip(path)
        (found,) = standings()
        assert found.reason.startswith("is not signed by anybody who is known here")


def test_who_lets_others_sign_must_know_them(staged, configured):
    configured(sign_pool="sign")
    (end,) = release([staged("linear")])
    assert end.status is Status.UNAVAILABLE
    assert "PACKHOUSE_SIGNERS: tells nobody's signature" in end.reason


def test_a_signer_that_is_away_leaves_the_channel_where_it_was(home, staged, configured, keys):
    signers = pool(f"sign-{os.getpid()}-{time.monotonic_ns()}")
    deploy(sign_flow, signers)
    configured(sign_pool=signers, sign_wait_s=1, signers=json.dumps([str(keys[1])]))
    (end,) = release([staged("linear")])
    assert end.status is Status.UNAVAILABLE
    with pytest.raises(NotFound):
        read_channel(open_store(str(home / "store")), "linear", "latest")


def test_the_worker_module_that_signs_says_what_it_did_on_stdout_alone(home, released):
    released()
    command = [sys.executable, "-m", "flows.sign", "linear@latest"]
    environment = os.environ | {"PACKHOUSE_HOME": str(home)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("unavailable: PACKHOUSE_SIGNING_KEY: has no key to sign with")
