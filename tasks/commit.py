"""Commit: the one act that makes a release visible. Promote: a channel moves to it."""

from __future__ import annotations

from datetime import UTC, datetime

from infra.workshop import workshop
from packhouse.digest import digest_bytes, short
from packhouse.errors import Contention, NotFound, ReleaseConflict
from packhouse.manifest import (
    MAX_DOCUMENT_BYTES,
    RECORD,
    REMEMBERED,
    Channel,
    Record,
    channel_key,
    dump,
    load,
    release_key,
)
from tasks.stage import one_line, stage
from tasks.states import Published, Released

ATTEMPTS = 8


@stage("commit")
def commit(published: Published) -> Record:
    """Writes the record if absent. Two runs of the same inputs write the same record.

    Raises ReleaseConflict: there is a record of other bytes.
    """
    record = published.record
    key, data = release_key(record.model, record.release, RECORD), dump(record)
    with one_line(record.model, "commit") as line:
        store = workshop().store
        if not store.put_if_absent(key, data, digest=digest_bytes(data)):
            there, _ = store.get(key, limit=MAX_DOCUMENT_BYTES)
            if there != data:
                raise ReleaseConflict("was committed with other bytes", where=key, got=short(digest_bytes(there)))
        line.note(f"record {short(digest_bytes(data))}")
    return record


@stage("promote")
def promote(record: Record, channel: str, *, again: bool = False) -> Released:
    """Moves the channel by compare-and-swap; a channel that points there already stays as it is.

    again: the release was there before this run. Then the channel moves only if it never pointed at it, which is
    what a run that was killed before its promotion left behind; so a rollback stays one.
    Raises Contention: others moved it at the same time, again and again.
    """
    key, store = channel_key(record.model, channel), workshop().store
    with one_line(record.model, f"promote to {channel}") as line:
        for _ in range(ATTEMPTS):
            here, version = _read(key)
            if here and (here.release == record.release or (again and record.release in here.earlier)):
                line.note(f"serial {here.serial}, stays")
                return _released(record, channel, here.serial, unchanged=again)
            moved = _moved(here, record)
            if store.swap(key, dump(moved), expected=version):
                line.note(f"serial {moved.serial}")
                return _released(record, channel, moved.serial, unchanged=False)
    raise Contention("others keep moving this channel", where=key, next="run it again")


def _moved(here: Channel | None, record: Record) -> Channel:
    return Channel(
        release=record.release,
        serial=here.serial + 1 if here else 1,
        moved_at=datetime.now(UTC).isoformat(timespec="seconds"),
        earlier=(*here.earlier, here.release)[-REMEMBERED:] if here else (),
    )


def _read(key: str) -> tuple[Channel | None, str | None]:
    try:
        data, version = workshop().store.get(key, limit=MAX_DOCUMENT_BYTES)
    except NotFound:
        return None, None
    return load(Channel, data, where=key), version


def _released(record: Record, channel: str, serial: int, *, unchanged: bool) -> Released:
    return Released(model=record.model, release=record.release, channel=channel, serial=serial, unchanged=unchanged)
