"""Signed channels: an older, another or a frozen channel is seen by whoever asks for signatures; and only what moves
lead to is signed."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import packhouse
from infra.worker.signer import Signer
from packhouse.errors import NotFound, Refused, SignatureInvalid
from packhouse.release import channels
from packhouse.release.channels import anew, as_signed, by_hand, change
from packhouse.release.lookup import read_channel
from packhouse.release.manifest import MAX_SERIAL, RECORD, SIGNATURE, Channel, Why, channel_key
from packhouse.store import FileStore
from packhouse.trust.dsse import make_keys
from packhouse.trust.signatures import Trusted
from packhouse.trust.signed_channels import (
    MAX_STEP,
    Pointer,
    behind,
    find_trusted,
    following,
    parsed,
    pointed,
    signature_key,
    standing,
    statement,
)
from tests.packhouse.trust.test_signatures import Authority, by_key, signed
from tests.support.small_release import MODEL, Small

NOW = datetime(2030, 1, 1, 12, 0, tzinfo=UTC)
A, B = "a" * 32, "b" * 32
DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def whole(release: Small, keys: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Small:
    """A signed release, in a signed channel."""
    small = signed(release, by_key(keys[0]), tmp_path_factory.mktemp("signed") / "store")
    point(small, by_key(keys[0]))
    return small


@pytest.fixture
def small(whole: Small, tmp_path: Path) -> Small:
    return whole.copied(tmp_path / "store")


def stands(release: str, serial: int) -> Channel:
    return Channel(release=release, serial=serial, moved_at="2030-01-01T00:00:00+00:00")


def pointer(
    *, release: str = A, serial: int = 1, at: datetime = NOW, channel: str = "latest", here: Channel | None = None
) -> Pointer:
    until = {"signed_at": at, "renew_by": at + 1.5 * DAY, "expires": at + 14 * DAY}
    return Pointer(model=MODEL, channel=channel, here=here or stands(release, serial), **until)


def point(small: Small, by: Signer, *, at: datetime = NOW, channel: str = "latest", named: str = "") -> None:
    """Signs where the channel points. named: the channel that the statement is about, where that is another one."""
    here = read_channel(FileStore(small.store), MODEL, channel)
    said = pointer(here=here, at=at, channel=named or channel)
    path = small.store / signature_key(MODEL, channel)
    path.write_bytes(by.sign_statement(statement(said, (small.folder / RECORD).read_bytes())))


def followed(small: Small, *trust: Path, channel: str = "latest", now: datetime = NOW) -> Pointer:
    return pointed(FileStore(small.store), MODEL, channel, Trusted.read(trust), now=now).pointer


def refused(small: Small, *trust: Path, channel: str = "latest", now: datetime = NOW) -> str:
    with pytest.raises(SignatureInvalid) as caught:
        followed(small, *trust, channel=channel, now=now)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_who_trusts_the_key_is_led_to_the_release(whole, keys):
    found = pointed(FileStore(whole.store), MODEL, "latest", Trusted.read([keys[1]]), now=NOW)
    assert (found.pointer.release, found.pointer.serial) == (whole.release, 1)
    assert found.found.record.release == whole.release


def test_an_authority_is_trusted_as_a_key_is(small, tmp_path):
    authority, other = Authority(tmp_path / "a"), Authority(tmp_path / "b")
    point(small, authority.signer)
    assert followed(small, authority.root).release == small.release
    assert "is not signed by anybody who is trusted here" in refused(small, other.root)
    assert authority.settings.own().open((small.store / signature_key(MODEL, "latest")).read_bytes(), where="")


def test_another_key_and_no_signature_are_refused(small, keys, tmp_path):
    assert "is not signed by anybody who is trusted here" in refused(small, make_keys(tmp_path / "other")[1])
    (small.store / signature_key(MODEL, "latest")).unlink()
    assert refused(small, keys[1]).startswith(f"{MODEL}@latest: is not signed; `packhouse channels` says how it stands")
    with pytest.raises(NotFound, match="no such channel"):
        followed(small, keys[1], channel="production")


def test_a_channel_that_a_stranger_moves_leads_nobody_who_asks_for_signatures(small, keys):
    """Who can write the store can write the channel's file, and not its signature."""
    store = FileStore(small.store)
    change(store, MODEL, "latest", lambda here: by_hand(here, "f" * 32, by="a stranger"))
    assert find_trusted(store, f"{MODEL}@latest", Trusted.read([keys[1]])).record.release == small.release
    here, (there, _) = read_channel(store, MODEL, "latest"), standing(store, MODEL, "latest")
    assert "stands at #2 ffff" in behind(here, there, name=f"{MODEL}@latest", now=NOW)


def test_the_statement_of_another_channel_or_of_a_release_is_none_of_this_one(small, keys):
    store, by = FileStore(small.store), by_key(keys[0])
    change(store, MODEL, "production", lambda here: by_hand(here, small.release, by="ann"))
    latest, production = (small.store / signature_key(MODEL, name) for name in ("latest", "production"))
    shutil.copy(latest, production)
    assert "is about another channel" in refused(small, keys[1], channel="production")
    shutil.copy(small.folder / SIGNATURE, production)
    assert "is no statement about a channel" in refused(small, keys[1], channel="production")
    point(small, by, channel="production", named="latest")
    assert "is about another channel" in refused(small, keys[1], channel="production")
    point(small, by, channel="production")
    assert followed(small, keys[1], channel="production").serial == 1


def test_a_channels_statement_signs_no_release(small, keys):
    shutil.copy(small.store / signature_key(MODEL, "latest"), small.folder / SIGNATURE)
    with pytest.raises(SignatureInvalid, match="is no statement about a model"):
        packhouse.fetch(f"{MODEL}/{small.release}", small.store / "here", store=str(small.store), trust=[keys[1]])


def test_another_record_where_it_points_is_refused(small, keys):
    record = (small.folder / RECORD).read_bytes()
    (small.folder / RECORD).write_bytes(record.replace(b'"version":"0.1.0"', b'"version":"0.1.1"'))
    assert (small.folder / RECORD).read_bytes() != record
    assert f"{RECORD}: is not what {MODEL}@latest points at" in refused(small, keys[1])


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_whatever_byte_of_the_statement_changes_nobody_is_led_elsewhere(whole, keys, data):
    """What a bundle says beside the signed statement may change; what it leads to may not."""
    bundle, trusted = (whole.store / signature_key(MODEL, "latest")).read_bytes(), Trusted.read([keys[1]])
    place, value = data.draw(st.integers(0, len(bundle) - 1)), data.draw(st.integers(0, 255))
    changed = bundle[:place] + bytes([value]) + bundle[place + 1 :]
    with suppress(SignatureInvalid):
        assert led(changed, trusted) == led(bundle, trusted)


def led(bundle: bytes, trusted: Trusted) -> tuple[Pointer, str]:
    return parsed(trusted.open(bundle, where="it")[0], model=MODEL, channel="latest", where="it")


@pytest.mark.parametrize(
    ("after", "words"),
    [
        (timedelta(0), ""),
        (1.5 * DAY - timedelta(seconds=1), ""),
        (1.5 * DAY, "was to be renewed by 2030-01-03T00:00Z, and expires 2030-01-15T12:00Z"),
        (14 * DAY - timedelta(seconds=1), "was to be renewed by"),
    ],
)
def test_a_signature_that_nobody_renews_is_late_before_it_expires(small, keys, after, words):
    late = followed(small, keys[1], now=NOW + after).late(NOW + after)
    assert late.startswith(words)
    assert bool(late) == bool(words)


def test_an_expired_channel_is_refused_and_its_release_can_be_had_by_name(small, keys, tmp_path):
    said = refused(small, keys[1], now=NOW + 14 * DAY)
    assert f"{MODEL}@latest: expired 2030-01-15T12:00Z" in said
    assert f"{MODEL}/{small.release} can be had by its name" in said
    point(small, by_key(keys[0]), at=datetime.now(UTC) - 15 * DAY)
    options = {"store": str(small.store), "trust": [keys[1]], "floors": tmp_path / "floors"}
    with pytest.raises(SignatureInvalid, match="expired"):
        packhouse.fetch(f"{MODEL}@latest", tmp_path / "here", **options)
    assert packhouse.fetch(f"{MODEL}/{small.release}", tmp_path / "here", **options).signed_by


def test_fetch_follows_the_signed_channel_says_when_it_is_late_and_refuses_an_older_one(small, keys, tmp_path):
    store, by = FileStore(small.store), by_key(keys[0])
    options = {"store": str(small.store), "trust": [keys[1]], "floors": tmp_path / "floors"}
    point(small, by, at=datetime.now(UTC) - 2 * DAY)
    old = (small.store / signature_key(MODEL, "latest")).read_bytes()
    fetched = packhouse.fetch(f"{MODEL}@latest", tmp_path / "here", **options)
    assert (fetched.serial, fetched.late[:24]) == (1, "was to be renewed by 20" + fetched.late[23])
    change(store, MODEL, "latest", lambda here: by_hand(here, B, by="x"))
    change(store, MODEL, "latest", lambda here: by_hand(here, small.release, by="x"))
    assert packhouse.fetch(f"{MODEL}@latest", tmp_path / "here", **options).serial == 1
    point(small, by, at=datetime.now(UTC))
    again = packhouse.fetch(f"{MODEL}@latest", tmp_path / "here", **options)
    assert (again.serial, again.late) == (3, "")
    (small.store / signature_key(MODEL, "latest")).write_bytes(old)
    with pytest.raises(Refused, match="an older serial than was seen before"):
        packhouse.fetch(f"{MODEL}@latest", tmp_path / "here", **options)


def signable(here: Channel, before: Pointer | None, least: int = 0, *, asked: bool = False) -> Pointer:
    return following(
        here, before, model=MODEL, channel="latest", least=least, now=NOW, renew_s=60, expires_s=3600, asked=asked
    )


@given(st.integers(0, 500), st.integers(1, 1000), st.sampled_from([A, B]))
def test_only_what_moves_lead_to_is_signed(last, serial, release):
    """Law: serials never go back, one serial is one release, and no signature jumps further than a history goes."""
    before = pointer(release=A, serial=last) if last else None
    here = stands(release, serial)
    fine = (last < serial <= last + MAX_STEP) or (serial == last and release == A)
    if fine:
        assert signable(here, before).here == here
    else:
        with pytest.raises(Refused, match=r"went back|jumped") as caught:
            signable(here, before)
        assert f"--after {last}" in str(caught.value)


def test_a_signer_remembers_what_a_lost_signature_said():
    with pytest.raises(Refused, match="went back behind what was signed"):
        signable(stands(A, 6), None, least=7)
    with pytest.raises(Refused, match="what was signed last is gone"):
        signable(stands(A, 8), None, least=7)
    with pytest.raises(Refused, match="what was signed last is gone"):
        signable(stands(A, 8), pointer(serial=6), least=7)
    assert signable(stands(A, 8), None, least=7, asked=True).serial == 8


def test_the_first_signature_of_a_long_history_is_a_persons():
    """Whoever deletes a signature and writes a serial that nobody can follow is not helped by a run."""
    with pytest.raises(Refused, match="jumped"):
        signable(stands(A, MAX_STEP + 1), None)
    assert signable(stands(A, MAX_STEP + 1), None, asked=True).serial == MAX_STEP + 1
    with pytest.raises(Refused, match="jumped"):
        signable(stands(A, MAX_STEP + 8), pointer(serial=7), asked=True)
    with pytest.raises(Refused, match="jumped"):
        signable(stands(A, MAX_SERIAL + 1), None, asked=True)
    with pytest.raises(Refused, match="has no serial left"):
        by_hand(stands(A, MAX_SERIAL), B, by="ann")


def test_a_channel_is_started_anew_behind_what_was_signed_whatever_stands_there(tmp_path):
    store, key = FileStore(tmp_path), channel_key(MODEL, "latest")
    (tmp_path / key).parent.mkdir(parents=True)
    (tmp_path / key).write_bytes(b"junk")
    with pytest.raises(Refused):
        change(store, MODEL, "latest", lambda here: by_hand(here, A, by="ann"))
    change(store, MODEL, "latest", lambda _: anew(A, after=7, by="ann"), whatever=True)
    here = read_channel(store, MODEL, "latest")
    assert (here.release, here.serial, here.earlier) == (A, 8, ())
    assert [move.serial for move in channels.history(here)] == [8]
    assert signable(here, pointer(serial=7)).serial == 8
    moved = by_hand(here, B, by="bob")
    assert isinstance(moved, Channel)
    assert [(move.serial, move.why) for move in channels.history(moved)] == [(9, Why.PROMOTE), (8, Why.PROMOTE)]


@given(st.lists(st.floats(0, 8 * 3600), min_size=1, max_size=20), st.floats(0, 24 * 3600 - 1))
@example([0, 60], 43201)
@example([0, 8 * 3600], 24 * 3600 - 3 * 3600 + 1)
def test_with_a_job_each_night_no_signature_is_ever_late(began, moved):
    """began: how many seconds after its hour each night's job begins. moved: when on the first day the channel did."""
    here = pointer(at=NOW + timedelta(seconds=moved))
    for day, seconds in enumerate(began, 1):
        now = NOW + day * DAY + timedelta(seconds=seconds)
        assert not here.late(now)
        if here.due(now):
            here = pointer(at=now)


@pytest.mark.parametrize("name", ["model", "channel", "here", "signed_at", "renew_by", "expires"])
def test_a_statement_without_one_of_its_fields_or_with_another_is_none(small, keys, name):
    by, said = by_key(keys[0]), statement(pointer(release=small.release), (small.folder / RECORD).read_bytes())
    path = small.store / signature_key(MODEL, "latest")
    left = {key: value for key, value in said["predicate"].items() if key != name}
    for predicate in (left, said["predicate"] | {f"{name}_too": "x"}, said["predicate"] | {name: "nonsense"}):
        path.write_bytes(by.sign_statement(said | {"predicate": predicate}))
        assert refused(small, keys[1])
    path.write_bytes(by.sign_statement(said))
    assert followed(small, keys[1])


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "1970-01-01T00:00:00Z"])
def test_a_moment_that_no_clock_shows_is_none(small, keys, moment):
    """Also where nobody asks who signed it: such a file must not end a job that looks at all channels."""
    said = statement(pointer(release=small.release), (small.folder / RECORD).read_bytes())
    path = small.store / signature_key(MODEL, "latest")
    path.write_bytes(by_key(keys[0]).sign_statement(said | {"predicate": said["predicate"] | {"expires": moment}}))
    assert "is no statement about a channel" in refused(small, keys[1])
    assert standing(FileStore(small.store), MODEL, "latest")[0] is None


def test_a_signature_that_is_too_large_to_be_one_is_replaced(small):
    (small.store / signature_key(MODEL, "latest")).write_bytes(b"x" * (16 * 1024 * 1024 + 1))
    there, version = standing(FileStore(small.store), MODEL, "latest")
    assert there is None
    assert FileStore(small.store).swap(signature_key(MODEL, "latest"), b"new", expected=version)


def test_a_channel_is_moved_on_from_what_was_signed(tmp_path):
    """Whatever somebody wrote into its file; its serial goes on where moves can have led to it."""
    signed_one = stands(A, 7)
    assert as_signed(signed_one, None) == signed_one
    assert as_signed(signed_one, stands(B, 9)).serial == 9
    assert as_signed(signed_one, stands(B, 9)).release == A
    assert as_signed(signed_one, stands(B, 7 + MAX_STEP)).serial == 7
    reached = as_signed(signed_one, stands(B, 7 + MAX_STEP - 1))
    assert signable(channels.moved(reached, B, by="", why=Why.RELEASE), pointer(here=signed_one)).release == B
    assert as_signed(signed_one, stands(B, 3)).serial == 7


def test_the_statement_is_plain_and_names_the_record(whole, keys):
    """Pinned: readers of later versions must read what this one signs."""
    said = statement(pointer(release=whole.release, serial=2**40 - 1), (whole.folder / RECORD).read_bytes())
    assert json.loads(json.dumps(said["predicate"])) == {
        "model": MODEL,
        "channel": "latest",
        "here": f'{{"earlier":[],"moved_at":"2030-01-01T00:00:00+00:00","moves":[],"release":"{whole.release}",'
        '"schema":1,"serial":1099511627775,"staged_at":0.0}\n',
        "signed_at": "2030-01-01T12:00:00Z",
        "renew_by": "2030-01-03T00:00:00Z",
        "expires": "2030-01-15T12:00:00Z",
    }
    assert said["subject"][0]["name"] == f"{MODEL}/releases/{whole.release}/record.json"
    opened, _ = Trusted.read([keys[1]]).open(by_key(keys[0]).sign_statement(said), where="")
    assert parsed(opened, model=MODEL, channel="latest", where="")[0].serial == 2**40 - 1
