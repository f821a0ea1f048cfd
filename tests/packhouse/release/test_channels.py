"""Channels: serials go up by one, a rollback stays one, and nobody's move is lost."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packhouse.digest import digest_file
from packhouse.errors import Contention, NotFound, Refused, SpecInvalid
from packhouse.release import channels
from packhouse.release.channels import Answer, Stays, after_release, by_hand, change, history, rolled_back
from packhouse.release.lookup import read_channel
from packhouse.release.manifest import REMEMBERED, Channel, Why, channel_key, dump, load
from packhouse.spec.model import SPEC_FILE
from packhouse.store import FileStore
from tests.support.small_release import MODEL, Small, seal

A, B, C, D = (letter * 32 for letter in "abcd")


def walked(*releases: str) -> Channel:
    """A channel that came by these releases, made by runs."""
    here: Channel | None = None
    for release in releases:
        here = channels.moved(here, release, by="", why=Why.RELEASE)
    assert here
    return here


def released(here: Channel | None, release: str, **changes: object) -> Answer:
    given = {"staged_at": lambda: 0.0, "again": False, "guarded": False, "by": "run"}
    return after_release(here, release, **(given | changes))  # type: ignore[arg-type]


def back(here: Channel, to: str = "") -> Channel:
    answer = rolled_back(here, to, by="ann", where="linear@latest")
    assert isinstance(answer, Channel)
    return answer


def test_a_rollback_is_a_new_serial_on_the_release_before():
    here = back(walked(A, B))
    assert (here.release, here.serial) == (A, 3)
    assert (here.moves[-1].why, here.moves[-1].by) == (Why.ROLLBACK, "ann")


def test_a_history_with_a_gap_in_its_serials_invents_no_moves():
    """As a channel has that was moved on from what was signed, past a serial that somebody wrote."""
    gap = walked(A, B).model_copy(update={"serial": 7})
    here = channels.moved(gap, C, by="", why=Why.RELEASE)
    assert [(move.serial, move.release) for move in history(here)] == [(8, C), (2, B), (1, A)]
    assert back(here).release == B
    old = walked(A, B, C).model_copy(update={"moves": ()})
    assert [(move.serial, move.release) for move in history(old)] == [(3, C), (2, B), (1, A)]


def test_the_next_run_of_what_was_rolled_back_does_not_undo_it_and_a_new_release_moves_on():
    here = back(walked(A, B))
    assert released(here, B, again=True) is Stays.SAME
    forward = released(here, C)
    assert isinstance(forward, Channel)
    assert (forward.release, forward.serial) == (C, 4)
    assert back(forward).release == A


def test_a_second_rollback_goes_further_back_and_not_to_what_was_left():
    once = back(walked(A, B, C))
    assert once.release == B
    assert back(once).release == A
    with pytest.raises(Refused, match="has no release before this one"):
        back(back(once))


def test_a_rollback_to_a_release_by_name_and_never_to_one_that_it_never_had():
    assert back(walked(A, B, C), to=A).release == A
    with pytest.raises(Refused, match="never pointed there"):
        back(walked(A, B), to=D)
    with pytest.raises(NotFound):
        rolled_back(None, "", by="", where="linear@latest")


@given(st.lists(st.sampled_from([A, B, C, D, "back"]), max_size=150))
def test_every_move_is_one_serial_further_and_is_remembered_within_bounds(moves):
    here: Channel | None = None
    for move in moves:
        before = here.serial if here else 0
        try:
            answer = rolled_back(here, "", by="p", where="x") if move == "back" else by_hand(here, move, by="p")
        except Refused:
            continue
        if isinstance(answer, Channel):
            here = answer
            assert here.serial == before + 1
            assert len(here.moves) <= REMEMBERED
            assert len(here.earlier) <= REMEMBERED
            assert load(Channel, dump(here), where="it") == here
            assert history(here)[0].serial == here.serial


def test_a_channel_from_before_there_was_a_history_is_read_and_goes_on():
    old = Channel(release=B, serial=7, moved_at="2026-01-01T00:00:00+00:00", earlier=(A,))
    assert [(each.serial, each.release) for each in history(old)] == [(7, B), (6, A)]
    here = back(old)
    assert (here.release, here.serial) == (A, 8)
    assert [each.serial for each in history(here)] == [8, 7, 6]


def test_a_guarded_channel_waits_and_an_older_source_does_not_overtake():
    assert released(None, A, guarded=True) is Stays.WAITING
    newer = channels.moved(None, A, by="", why=Why.RELEASE, staged_at=20.0)
    assert released(newer, B, staged_at=lambda: 10.0) is Stays.OLDER
    assert isinstance(released(newer, B, staged_at=lambda: 30.0), Channel)


def test_the_time_of_the_source_is_not_asked_for_where_it_does_not_matter():
    def never() -> float:
        raise AssertionError("asked")

    assert released(walked(A), A, staged_at=never) is Stays.SAME
    assert released(walked(A), B, staged_at=never, guarded=True) is Stays.WAITING


def test_many_writers_at_once_lose_no_move(tmp_path):
    store = FileStore(tmp_path)
    letters = [letter * 32 for letter in "0123456789abcdef"]

    def move(release: str) -> None:
        for _ in range(50):
            try:
                change(store, MODEL, "latest", lambda here: by_hand(here, release, by="t"))
                return
            except Contention:
                continue

    threads = [threading.Thread(target=move, args=(release,)) for release in letters]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    here = read_channel(store, MODEL, "latest")
    assert here.serial == len(letters)
    assert sorted([*here.earlier, here.release]) == letters


def packhouse(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "packhouse", *arguments]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)


def test_the_commands_move_a_channel_and_tell_its_history(onnx_release: Small, tmp_path: Path):
    small = onnx_release.copied(tmp_path / "store")
    store = ["--store", str(small.store)]
    done = packhouse("promote", f"{MODEL}@latest", "production", "--by", "ann", *store)
    assert (done.returncode, done.stdout) == (0, f"{MODEL}/{small.release} production#1\n"), done.stderr
    again = packhouse("promote", f"{MODEL}/{small.release}", "production", *store)
    assert (again.returncode, again.stdout) == (3, f"{MODEL}/{small.release} production#1\n")
    told = packhouse("history", f"{MODEL}@production", *store)
    assert told.stdout.startswith(f"#1 {small.release} ")
    assert told.stdout.endswith(" approval ann\n")
    back = packhouse("rollback", f"{MODEL}@production", *store)
    assert back.returncode == 1
    assert "has no release before this one" in back.stderr
    absent = packhouse("history", f"{MODEL}@nothing", *store)
    assert absent.returncode == 1


def test_a_release_that_a_person_must_approve_is_promoted_by_a_name_only(
    onnx_release: Small, tmp_path: Path, monkeypatch
):
    """The spec's own bytes are digested, so the guard can not be edited away in the store."""
    small = onnx_release.copied(tmp_path / "store")
    spec = small.folder / SPEC_FILE
    text = spec.read_text()
    assert "approve = false\n" in text or "[gates]\n" in text
    text = text.replace("approve = false\n", "")
    spec.write_text(text.replace("[gates]\n", "[gates]\napprove = true\n"))
    inputs = small.manifest.inputs.model_copy(update={"spec": digest_file(spec)})
    held = {made.format: made.tolerance for made in small.manifest.formats if made.format}
    guarded = small.folder.rename(small.folder.with_name(inputs.release_id))
    seal(guarded, inputs, held)
    store, name = ["--store", str(small.store)], f"{MODEL}/{inputs.release_id}"
    refused = packhouse("promote", name, "production", *store)
    assert refused.returncode == 1
    assert "a person must approve this release" in refused.stderr
    assert packhouse("promote", name, "candidate", *store).returncode == 0
    assert packhouse("promote", name, "production", "--by", "ann", *store).returncode == 0
    (guarded / SPEC_FILE).write_text((guarded / SPEC_FILE).read_text().replace("approve = true", "approve = nope"))
    edited = packhouse("promote", name, "production", "--by", "ann", *store)
    assert edited.returncode == 1


def test_a_rollback_never_leads_to_what_was_left_for_a_reason():
    """B was rolled back from; what came after it goes back to A, and no further."""
    here = back(walked(A, B))
    forward = released(here, D)
    assert isinstance(forward, Channel)
    again = back(forward)
    assert again.release == A
    with pytest.raises(Refused, match="has no release before this one"):
        back(again)


def test_a_release_that_was_promoted_again_is_rolled_back_to_the_one_before_it():
    here = walked(A, B, C)
    once_more = by_hand(here, B, by="ann")
    assert isinstance(once_more, Channel)
    assert back(once_more).release == C


def test_two_people_who_roll_back_at_once_go_one_back():
    here = walked(A, B, C)
    first = rolled_back(here, "", by="ann", where="x", seen=3)
    assert isinstance(first, Channel)
    with pytest.raises(Contention, match="was moved meanwhile"):
        rolled_back(first, "", by="bob", where="x", seen=3)


@pytest.mark.parametrize("name", ["Production", "a/b", "prod.1", "..", "", "x" * 64])
def test_what_is_no_channels_name_is_refused_before_anything_is_written(tmp_path, name):
    with pytest.raises(SpecInvalid, match="is no channel's name"):
        change(FileStore(tmp_path), MODEL, name, lambda here: by_hand(here, A, by=""))
    assert list(tmp_path.rglob("*.json")) == []


def test_a_channels_key_is_where_readers_look(tmp_path):
    change(FileStore(tmp_path), MODEL, "latest", lambda here: by_hand(here, A, by=""))
    assert (tmp_path / channel_key(MODEL, "latest")).is_file()
