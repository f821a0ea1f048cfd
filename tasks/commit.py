"""Commit: the one act that makes a release visible. Promote: a channel moves to it."""

from __future__ import annotations

from functools import cache

from prefect.runtime import flow_run

from infra.workshop import workshop
from packhouse import channels
from packhouse.channels import Stays
from packhouse.digest import digest_bytes, short
from packhouse.errors import ReleaseConflict
from packhouse.manifest import MAX_DOCUMENT_BYTES, RECORD, Record, Why, dump, load, release_key
from packhouse.releases import find
from packhouse.spec import SPEC_FILE
from packhouse.store import Retrying, open_store
from tasks.sign import is_signed
from tasks.sign_channel import is_first, judged
from tasks.stage import one_line, stage
from tasks.states import Proven, Released


@stage("commit")
def commit(proven: Proven) -> Record:
    """Writes the record if absent; gives the one that stands there. Two runs of the same inputs write the same record,
    but for an image that an engine built, and for the place and the worker that it was made from.

    Raises ReleaseConflict: there is a record of other bytes.
    """
    record = proven.record
    name = f"{record.model}/{record.release}"
    key, data = release_key(record.model, record.release, RECORD), dump(record)
    with one_line(record.model, "commit") as line:
        store = workshop().store
        if not store.put_if_absent(key, data, digest=digest_bytes(data)):
            there, _ = store.get(key, limit=MAX_DOCUMENT_BYTES)
            first = load(Record, there, where=key)
            if _agreed(first) != _agreed(record):
                raise ReleaseConflict("was committed with other bytes", where=key, got=short(digest_bytes(there)))
            if (
                first != record
                and workshop().settings.signs
                and not is_signed(find(store, f"{record.model}/{record.release}"))
            ):
                raise ReleaseConflict(
                    "was committed by somebody else, from another place or with another image, and is not signed",
                    where=key,
                    next=f"`packhouse sign {name}` once you know whose it is, or delete its folder",
                )
            record = first
        line.note(f"record {short(digest_bytes(dump(record)))}")
    return record


def _agreed(record: Record) -> tuple[Record, bool]:
    """What two runs of the same inputs agree about; and whether there is an image."""
    return record.model_copy(update={"image": None, "verdicts": (), "provenance": None}), record.image is None


@stage("promote")
def promote(
    record: Record, channel: str, *, source: str = "", again: bool = False, approve: bool = False, by: str = ""
) -> Released:
    """Moves the channel to the release, by the rule of channels.after_release; a channel that stays stays as it is.

    Where channels are signed, it is judged by what was signed, and not by a file that anybody may have written.

    source: where the release was made from. approve: the spec guards PRODUCTION; it does not move here, and the answer
    says that it waits for a person. by: who has approved it.
    Raises Contention: others moved it at the same time, again and again.
    """
    store, staged_at = workshop().store, cache(lambda: _staged_at(source))
    who = by or (f"flow run {flow_run.id}" if flow_run.id else "")
    wait, why = channels.guarded(approve, channel), Why.APPROVAL if by else Why.RELEASE
    with one_line(record.model, f"promote to {channel}") as line:
        here, answer = channels.change(
            store,
            record.model,
            channel,
            lambda there: channels.after_release(
                judged(record.model, channel, there),
                record.release,
                staged_at=staged_at,
                again=again,
                guarded=wait,
                by=who,
                why=why,
            ),
        )
        serial = here.serial if here else 0
        line.note(f"serial {serial}" + (f", stays: {answer}" if isinstance(answer, Stays) else ""))
    elsewhere = here.release if here and here.release != record.release else ""
    match answer:
        case Stays.WAITING:
            return Released(**_names(record, channel), serial=serial, waiting=True)
        case Stays.SAME | Stays.OLDER:
            first = not wait and not elsewhere and is_first(record.model, channel, here)
            return Released(
                **_names(record, channel), serial=serial, points_at=elsewhere, unchanged=again, to_sign=first
            )
    return Released(**_names(record, channel), serial=serial, to_sign=True)


@stage("approve")
def approve(model: str, release: str, channel: str, source: str, by: str = "") -> Released:
    """Moves the channel to a committed release that a person has approved, unless one of a newer source was meanwhile.
    Raises what `promote` raises, and NotFound: there is no such release."""
    record = find(workshop().store, f"{model}/{release}").record
    return promote.fn(record, channel, source=source, by=by)


def _staged_at(source: str) -> float:
    found = Retrying(open_store(source)).stat(SPEC_FILE) if source else None
    return found.modified if found else 0.0


def _names(record: Record, channel: str) -> dict[str, str]:
    image = record.image.reference if record.image else ""
    return {"model": record.model, "release": record.release, "channel": channel, "image": image}
