"""Commit: the one act that makes a release visible. Promote: a channel moves to it."""

from __future__ import annotations

from functools import cache

from prefect.runtime import flow_run

from infra.worker.context import worker_context
from packhouse.digest import digest_bytes, short
from packhouse.errors import Contention, Refused, ReleaseConflict
from packhouse.release import channels
from packhouse.release.channels import Answer, Stays
from packhouse.release.lookup import Found, find
from packhouse.release.manifest import MAX_DOCUMENT_BYTES, RECORD, Channel, Record, Why, dump, load, release_key
from packhouse.release.promotion import insist
from packhouse.spec.model import SPEC_FILE
from packhouse.store import Retrying, open_store
from packhouse.trust.signatures import is_signed
from tasks._support.pipeline_task import one_line
from tasks._support.states import Proven, Released
from tasks.signing.sign_channel import judged


def commit(proven: Proven) -> Record:
    """Writes the record if absent; gives the one that stands there. Two runs of the same inputs write the same record,
    but for an image that an engine built, and for the place and the worker that it was made from.

    Raises ReleaseConflict: there is a record of other bytes.
    """
    record = proven.record
    key, data = release_key(record.model, record.release, RECORD), dump(record)
    with one_line(record.model, "commit") as line:
        store = worker_context().store
        if not store.put_if_absent(key, data, digest=digest_bytes(data)):
            there, version = store.get(key, limit=MAX_DOCUMENT_BYTES)
            first = load(Record, there, where=key)
            if _agreed(first) != _agreed(record):
                raise ReleaseConflict(
                    "PH-0537 was committed with other bytes", where=key, got=short(digest_bytes(there))
                )
            if not _may_be_anybodys(Found(store, key.removesuffix(RECORD), there), record):
                record = first
            elif not store.swap(key, data, expected=version):
                raise Contention("PH-0538 another run commits this release", where=key, next="run it again")
        line.note(f"record {short(digest_bytes(dump(record)))}")
    return record


def _may_be_anybodys(found: Found, record: Record) -> bool:
    """Whether what stands there says other than this run of where it was made or of its image, and nobody has signed
    that: what this run has proven takes its place."""
    return found.record != record and worker_context().settings.signs and not is_signed(found, worker_context().known)


def _agreed(record: Record) -> tuple[Record, bool]:
    """What two runs of the same inputs agree about; and whether there is an image."""
    return record.model_copy(update={"image": None, "verdicts": (), "provenance": None}), record.image is None


def promote(
    record: Record, channel: str, *, source: str = "", again: bool = False, approve: bool = False, by: str = ""
) -> Released:
    """Moves the channel to the release, by the rule of channels.after_release; a channel that stays stays as it is.

    Where channels are signed, it is judged by what was signed, and not by a file that anybody may have written.

    source: where the release was made from. approve: the spec guards PRODUCTION; it does not move here, and the answer
    says that it waits for a person. by: who has approved it.
    Raises Contention: others moved it at the same time, again and again. Refused: a policy guards the channel by
    margins, which nobody can compare yet.
    """
    store, staged_at = worker_context().store, cache(lambda: _staged_at(source))
    who = by or (f"flow run {flow_run.id}" if flow_run.id else "")
    wait, why = channels.guarded(approve, channel), Why.APPROVAL if by else Why.RELEASE
    with one_line(record.model, f"promote to {channel}") as line:

        def decide(there: Channel | None) -> Answer:
            believed = judged(record.model, channel, there)
            if believed and there and there != believed and record.release in there.earlier:
                return Stays.SAME  # somebody left it, and did not sign that: it is named, and not undone
            answer = channels.after_release(
                believed, record.release, staged_at=staged_at, again=again, guarded=wait, by=who, why=why
            )
            if isinstance(answer, Channel):
                insist(store, record.model, channel, None)  # a spec with a [promotion] of its own is never planned
            return answer

        here, answer = channels.change(store, record.model, channel, decide)
        serial = here.serial if here else 0
        line.note(f"serial {serial}" + (f", stays: {answer}" if isinstance(answer, Stays) else ""))
    elsewhere = here.release if here and here.release != record.release else ""
    match answer:
        case Stays.WAITING:
            return Released(**_names(record, channel), serial=serial, waiting=True)
        case Stays.SAME | Stays.OLDER:
            return Released(**_names(record, channel), serial=serial, points_at=elsewhere, unchanged=again)
    return Released(**_names(record, channel), serial=serial, moved=digest_bytes(dump(answer)))


def approve(model: str, release: str, channel: str, source: str, by: str = "") -> Released:
    """Moves the channel to a committed release that a person has approved, unless one of a newer source was meanwhile.
    Raises what `promote` raises, and NotFound: there is no such release."""
    found = find(worker_context().store, f"{model}/{release}")
    if worker_context().settings.signs and not is_signed(found, worker_context().known):
        raise Refused("PH-0536 is not signed by anybody who is known here", where=found.name)
    record = found.record
    return promote(record, channel, source=source, by=by)


def _staged_at(source: str) -> float:
    found = Retrying(open_store(source)).stat(SPEC_FILE) if source else None
    return found.modified if found else 0.0


def _names(record: Record, channel: str) -> dict[str, str]:
    image = record.image.reference if record.image else ""
    return {"model": record.model, "release": record.release, "channel": channel, "image": image}
