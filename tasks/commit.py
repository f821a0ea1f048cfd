"""Commit: the one act that makes a release visible. Promote: a channel moves to it."""

from __future__ import annotations

from datetime import UTC, datetime

from infra.workshop import workshop
from packhouse.digest import digest_bytes, short
from packhouse.errors import Contention, NotFound, ReleaseConflict
from packhouse.manifest import (
    MAX_DOCUMENT_BYTES,
    PRODUCTION,
    RECORD,
    REMEMBERED,
    Channel,
    Record,
    channel_key,
    dump,
    load,
    release_key,
)
from packhouse.releases import find
from packhouse.spec import SPEC_FILE
from packhouse.store import Retrying, open_store
from tasks.stage import one_line, stage
from tasks.states import Proven, Released

ATTEMPTS = 8


@stage("commit")
def commit(proven: Proven) -> Record:
    """Writes the record if absent; gives the one that stands there. Two runs of the same inputs write the same record,
    but for an image that an engine built, and for the place and the worker that it was made from.

    Raises ReleaseConflict: there is a record of other bytes.
    """
    record = proven.record
    key, data = release_key(record.model, record.release, RECORD), dump(record)
    with one_line(record.model, "commit") as line:
        store = workshop().store
        if not store.put_if_absent(key, data, digest=digest_bytes(data)):
            there, _ = store.get(key, limit=MAX_DOCUMENT_BYTES)
            first = load(Record, there, where=key)
            if _agreed(first) != _agreed(record):
                raise ReleaseConflict("was committed with other bytes", where=key, got=short(digest_bytes(there)))
            record = first
        line.note(f"record {short(digest_bytes(dump(record)))}")
    return record


def _agreed(record: Record) -> tuple[Record, bool]:
    """What two runs of the same inputs agree about; and whether there is an image."""
    return record.model_copy(update={"image": None, "verdicts": (), "provenance": None}), record.image is None


@stage("promote")
def promote(record: Record, channel: str, *, source: str = "", again: bool = False, approve: bool = False) -> Released:
    """Moves the channel by compare-and-swap; a channel that points there already stays as it is.

    again: the release was there before this run. Then the channel moves only if it never pointed at it, which is
    what a run that was killed before its promotion left behind; so a rollback stays one.
    source: where the release was made from. A channel that points at a release of a source that was staged later
    stays: two training runs of one model may be released at the same time, and the older one may end last.
    approve: the spec guards PRODUCTION; it does not move here, and the answer says that it waits for a person.
    Raises Contention: others moved it at the same time, again and again.
    """
    key, store = channel_key(record.model, channel), workshop().store
    with one_line(record.model, f"promote to {channel}") as line:
        for _ in range(ATTEMPTS):
            here, version = _read(key)
            if here and (here.release == record.release or (again and record.release in here.earlier)):
                line.note(f"serial {here.serial}, stays")
                return _stays(record, channel, here, unchanged=again)
            if approve and channel == PRODUCTION:
                line.note("waits for approval")
                return Released(**_names(record, channel), serial=here.serial if here else 0, waiting=True)
            staged_at = _staged_at(source)
            if here and staged_at and here.staged_at > staged_at:
                line.note(f"serial {here.serial}, stays: a newer source was released already")
                return _stays(record, channel, here, unchanged=again)
            moved = _moved(here, record, staged_at)
            if store.swap(key, dump(moved), expected=version):
                line.note(f"serial {moved.serial}")
                return Released(**_names(record, channel), serial=moved.serial)
    raise Contention("others keep moving this channel", where=key, next="run it again")


@stage("approve")
def approve(model: str, release: str, channel: str, source: str) -> Released:
    """Moves the channel to a committed release that a person has approved, unless one of a newer source was meanwhile.
    Raises what `promote` raises, and NotFound: there is no such release."""
    record = find(workshop().store, f"{model}/{release}").record
    return promote.fn(record, channel, source=source)


def _staged_at(source: str) -> float:
    found = Retrying(open_store(source)).stat(SPEC_FILE) if source else None
    return found.modified if found else 0.0


def _moved(here: Channel | None, record: Record, staged_at: float) -> Channel:
    return Channel(
        release=record.release,
        serial=here.serial + 1 if here else 1,
        moved_at=datetime.now(UTC).isoformat(timespec="seconds"),
        staged_at=staged_at,
        earlier=(*here.earlier, here.release)[-REMEMBERED:] if here else (),
    )


def _read(key: str) -> tuple[Channel | None, str | None]:
    try:
        data, version = workshop().store.get(key, limit=MAX_DOCUMENT_BYTES)
    except NotFound:
        return None, None
    return load(Channel, data, where=key), version


def _stays(record: Record, channel: str, here: Channel, *, unchanged: bool) -> Released:
    elsewhere = here.release if here.release != record.release else ""
    return Released(**_names(record, channel), serial=here.serial, points_at=elsewhere, unchanged=unchanged)


def _names(record: Record, channel: str) -> dict[str, str]:
    image = record.image.reference if record.image else ""
    return {"model": record.model, "release": record.release, "channel": channel, "image": image}
