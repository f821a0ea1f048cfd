"""Signed channels: beside a channel lies a statement of where it points, who says so, and until when.

Who asks for signatures follows the statement and not the channel's own file: an older channel, a channel that somebody
else moved, and one that is frozen, are seen. It is what the timestamp role is in The Update Framework: small, of short
life, and its serial never goes back. Source: https://theupdateframework.github.io/specification/v1.0.33/#update-timestamp.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from pydantic import AwareDatetime, Field

from packhouse.artifact import Frozen
from packhouse.digest import digest_bytes, short
from packhouse.errors import LimitExceeded, NotFound, Refused, ReleaseInvalid, SignatureInvalid
from packhouse.release.lookup import Found, at_prefix, find, named_channel
from packhouse.release.manifest import (
    MAX_DOCUMENT_BYTES,
    MAX_SERIAL,
    RECORD,
    REMEMBERED,
    Channel,
    ChannelName,
    channel_key,
    dump,
    load,
    release_key,
)
from packhouse.release.store_layout import signature_key as signature_key
from packhouse.spec.model import ModelName
from packhouse.store import Store
from packhouse.trust.dsse import STATEMENT, unchecked
from packhouse.trust.signatures import Trusted

KIND = "urn:packhouse:channel:v1"
MAX_STEP = REMEMBERED
"""Serials from one signature to the next. More is no way that a channel went: somebody wrote into it."""

Moment = Annotated[AwareDatetime, Field(ge=datetime(2000, 1, 1, tzinfo=UTC), lt=datetime(9000, 1, 1, tzinfo=UTC))]
KEPT = "nobody renews it, or somebody keeps the renewals from here"


class Pointer(Frozen):
    """What a statement says: the whole channel, so that its history is signed too. renew_by: when the next statement is
    late; expires: when this one counts no more."""

    model: ModelName
    channel: ChannelName
    here: Channel
    signed_at: Moment
    renew_by: Moment
    expires: Moment

    @property
    def name(self) -> str:
        return f"{self.model}@{self.channel}"

    @property
    def release(self) -> str:
        return self.here.release

    @property
    def serial(self) -> int:
        return self.here.serial

    def late(self, now: datetime) -> str:
        """Why somebody should look; empty where it was renewed in time."""
        until = f"was to be renewed by {_text(self.renew_by)}, and expires {_text(self.expires)}"
        return f"{until}: {KEPT}" if now >= self.renew_by else ""

    def due(self, now: datetime) -> bool:
        """Whether to renew it: early enough that a job of each night always does, with nine hours to spare."""
        return not self.signed_at <= now < self.signed_at + (self.renew_by - self.signed_at) / 12


@dataclass(frozen=True)
class Pointed:
    """A release that is followed by a signed channel."""

    found: Found
    pointer: Pointer


def statement(pointer: Pointer, record_bytes: bytes) -> dict[str, Any]:
    """Its subject is the release's record. The channel is text: some libraries make floats of all numbers in JSON."""
    predicate = pointer.model_dump(mode="json") | {"here": dump(pointer.here).decode()}
    digest = {"sha256": digest_bytes(record_bytes).removeprefix("sha256:")}
    subject = [{"name": release_key(pointer.model, pointer.release, RECORD), "digest": digest}]
    return {"_type": STATEMENT, "subject": subject, "predicateType": KIND, "predicate": predicate}


def parsed(said: Mapping[str, Any], *, model: str, channel: str, where: str) -> tuple[Pointer, str]:
    """The pointer, and the digest of the record that it is about. Raises SignatureInvalid: it is no statement about
    this channel."""
    try:
        (subject,) = said["subject"]
        digest = f"sha256:{subject['digest']['sha256']}"
        predicate = dict(said["predicate"])
        here = load(Channel, str(predicate["here"]).encode(), where=where)
        pointer = Pointer.model_validate({**predicate, "here": here})
    except (KeyError, TypeError, ValueError, ReleaseInvalid) as error:
        raise SignatureInvalid("PH-0215 is no statement about a channel", where=where) from error
    kind = said.get("predicateType")
    if kind != KIND or subject.get("name") != release_key(pointer.model, pointer.release, RECORD):
        raise SignatureInvalid("PH-0215 is no statement about a channel", where=where, got=str(kind)[:80])
    if (pointer.model, pointer.channel) != (model, channel):
        raise SignatureInvalid(
            "PH-0216 is about another channel", where=where, got=pointer.name, want=f"{model}@{channel}"
        )
    return pointer, digest


def pointed(store: Store, model: str, channel: str, trusted: Trusted, *, now: datetime | None = None) -> Pointed:
    """Where the channel points, by somebody who is trusted.

    Raises SignatureInvalid: nobody says so, it has expired, or another record stands where it points. NotFound: there
    is no such channel, or the release is gone. And the store's errors."""
    where = f"{model}@{channel}"
    try:
        bundle, _ = store.get(signature_key(model, channel), limit=MAX_DOCUMENT_BYTES)
    except NotFound as error:
        if store.stat(channel_key(model, channel)) is None:
            raise NotFound("PH-0114 no such channel", where=where, next=f"`packhouse ls {model}` shows them") from error
        raise SignatureInvalid(
            "PH-0208 is not signed", where=where, next="`packhouse channels` says how it stands"
        ) from error
    said, _ = trusted.open(bundle, where=where)
    pointer, digest = parsed(said, model=model, channel=channel, where=where)
    if (now or datetime.now(UTC)) >= pointer.expires:
        next = f"where the key is, `packhouse sign {where}` does; {model}/{pointer.release} can be had by its name"
        raise SignatureInvalid(f"PH-0213 expired {_text(pointer.expires)}: {KEPT}", where=where, next=next)
    found = at_prefix(store, release_key(model, pointer.release))
    if (got := digest_bytes(found.record_bytes)) != digest:
        here = f"{model}/{pointer.release}: {RECORD}"
        raise SignatureInvalid(f"PH-0214 is not what {where} points at", where=here, got=short(got), want=short(digest))
    return Pointed(found, pointer)


def find_trusted(store: Store, reference: str, trusted: Trusted | None) -> Found:
    """As `releases.find`; where signatures are asked for, a channel is followed by its signed statement."""
    if trusted and (channel := named_channel(reference)):
        return pointed(store, *channel, trusted).found
    return find(store, reference)


def standing(
    store: Store, model: str, channel: str, trusted: Trusted | None = None
) -> tuple[Pointer | None, str | None]:
    """What lies beside the channel, and its version in the store: None where nothing does that counts. trusted: whose
    statements count; by default anybody's, which proves nothing."""
    key = signature_key(model, channel)
    try:
        bundle, version = store.get(key, limit=MAX_DOCUMENT_BYTES)
    except NotFound:
        return None, None
    except LimitExceeded:
        stat = store.stat(key)
        return None, stat.version if stat else None
    try:
        said = trusted.open(bundle, where=key)[0] if trusted else unchecked(bundle, where=key)
        return parsed(said, model=model, channel=channel, where=key)[0], version
    except SignatureInvalid:
        return None, version


def behind(here: Channel, pointer: Pointer | None, *, name: str, now: datetime) -> str:
    """Why those who ask for signatures do not see the channel as it stands; empty where they do."""
    sign = f"if `packhouse history {name}` is as you meant it, `packhouse sign {name}/{here.release}`"
    if pointer is None:
        return f"is not signed by anybody who is known here; {sign}"
    if pointer.here != here:
        return f"stands at #{here.serial} {here.release}, signed is #{pointer.serial} {pointer.release}; {sign}"
    if now >= pointer.expires:
        return f"expired {_text(pointer.expires)}; {sign}"
    return pointer.late(now)


def following(
    here: Channel,
    before: Pointer | None,
    *,
    model: str,
    channel: str,
    least: int = 0,
    now: datetime,
    renew_s: float,
    expires_s: float,
    asked: bool = False,
) -> Pointer:
    """What to sign for a channel as it stands. before: what was signed last; least: the highest serial that was ever
    signed here, as far as that is known. asked: by a person, who has looked at it.

    Raises Refused: the channel went back, or further than it can have gone by moves; or what was signed is gone, or is
    an old one that somebody put back."""
    last = max(least, before.serial if before else 0)
    where, anew = f"{model}@{channel}", f"`packhouse promote RELEASE {channel} --after {last}` starts it anew"
    other = before and here.serial == before.serial and here != before.here
    if here.serial < last or other:
        got = f"#{here.serial} {here.release}"
        raise Refused(
            "PH-0210 went back behind what was signed", where=where, got=got, want=f"after #{last}", next=anew
        )
    if not asked and least > (before.serial if before else 0):
        got = f"#{before.serial}" if before else "nothing"
        raise Refused("PH-0211 what was signed last is gone", where=where, got=got, want=f"#{least}", next=anew)
    if here.serial > MAX_SERIAL or (here.serial > last + MAX_STEP and not (asked and not last)):
        raise Refused(
            "PH-0212 jumped: no moves lead there",
            where=where,
            got=f"#{here.serial}",
            want=f"#{last + MAX_STEP} or less",
            next=anew,
        )
    return Pointer(
        model=model,
        channel=channel,
        here=here,
        signed_at=now,
        renew_by=now + timedelta(seconds=renew_s),
        expires=now + timedelta(seconds=expires_s),
    )


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="minutes").replace("+00:00", "Z")
