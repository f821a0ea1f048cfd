"""Channels: names that move over releases, one serial at a time, by compare-and-swap.

Rules, pure: what to write, or why a channel stays. And the loop that writes it, for runs and for people alike.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum

from packhouse.errors import Contention, NotFound, Refused, SpecInvalid, printable
from packhouse.release.manifest import (
    CHANNEL,
    MAX_DOCUMENT_BYTES,
    MAX_SERIAL,
    PRODUCTION,
    REMEMBERED,
    Channel,
    Move,
    Why,
    channel_key,
    dump,
    load,
)
from packhouse.store import Store

ATTEMPTS = 8
MAX_NAME = 200


class Stays(StrEnum):
    """Why a channel does not move."""

    SAME = "points there already, or did before"
    WAITING = "waits for approval"
    OLDER = "a newer source was released already"


Answer = Channel | Stays


def after_release(
    here: Channel | None,
    release: str,
    *,
    staged_at: Callable[[], float],
    again: bool,
    guarded: bool,
    by: str,
    why: Why = Why.RELEASE,
) -> Answer:
    """What a run that made `release` does to a channel.

    again: the release was there before this run. Then the channel moves only if it never pointed at it, which is what a
    run that was killed before its promotion left behind; so a rollback stays one. guarded: a person must approve.
    staged_at: asked for where it matters only: a channel that points at a release of a source that was staged later
    stays. Of two training runs of one model that are released at the same time, the older one may end last.
    """
    if here and (here.release == release or (again and release in here.earlier)):
        return Stays.SAME
    if guarded:
        return Stays.WAITING
    staged = staged_at()
    if here and staged and here.staged_at > staged:
        return Stays.OLDER
    return moved(here, release, by=by, why=why, staged_at=staged)


def as_signed(signed: Channel, there: Channel | None, *, most: int = REMEMBERED - 1) -> Channel:
    """The channel as it was signed, to be moved on from: with the serial of the file that stands there, where moves can
    have led to that, since no reader may see one go back."""
    reached = there.serial if there and signed.serial < there.serial <= signed.serial + most else signed.serial
    return signed.model_copy(update={"serial": reached})


def by_hand(here: Channel | None, release: str, *, by: str, why: Why = Why.PROMOTE) -> Answer:
    """What a person does to a channel: it moves, unless it points there. A run of a source that was staged before what
    it has seen does not overtake it."""
    staged_at = here.staged_at if here else 0.0
    return Stays.SAME if here and here.release == release else moved(here, release, by=by, why=why, staged_at=staged_at)


def anew(release: str, *, after: int, by: str) -> Channel:
    """A channel whose file was lost, or that somebody wrote into: it starts without a history, behind `after`. Only a
    source that is staged from now on moves it."""
    first = moved(None, release, by=by, why=Why.PROMOTE, staged_at=time.time())
    (move,) = first.moves
    serial = after + 1
    return first.model_copy(update={"serial": serial, "moves": (move.model_copy(update={"serial": serial}),)})


def rolled_back(here: Channel | None, to: str, *, by: str, where: str, seen: int = 0) -> Answer:
    """Back to `to`, or to the release before this one: a new serial, and the release that was left counts as seen, so
    no run moves the channel there again. seen: the serial that whoever decides has looked at; 0: any.

    Raises NotFound, Contention: it has moved since; Refused: there was none before, or it never pointed at `to`."""
    if here is None:
        raise NotFound("PH-0114 no such channel", where=where)
    if seen and here.serial != seen:
        raise Contention(
            "PH-0115 was moved meanwhile", where=where, got=f"#{here.serial}", want=f"#{seen}", next="look again"
        )
    if to and to not in here.earlier:
        raise Refused(
            "PH-0116 never pointed there", where=where, got=to, want=", ".join(dict.fromkeys(here.earlier)) or "none"
        )
    way = _way(here)
    if not to and len(way) < 2:
        raise Refused("PH-0117 has no release before this one", where=where, got=here.release)
    return moved(here, to or way[-2], by=by, why=Why.ROLLBACK, staged_at=here.staged_at)


def _way(here: Channel) -> list[str]:
    """The releases on the way to this one, the present one last. A rollback takes off what it left: that was left for a
    reason, and nobody is taken back to it."""
    way: list[str] = []
    for move in reversed(history(here)):
        if move.why is Why.ROLLBACK and move.release in way:
            while way[-1] != move.release:
                way.pop()
        else:
            way.append(move.release)
    return way


def moved(here: Channel | None, release: str, *, by: str, why: Why, staged_at: float = 0.0) -> Channel:
    """The channel with one more move. Only the last REMEMBERED of them are kept. Raises Refused: its serial is the last
    there is."""
    serial, at = here.serial + 1 if here else 1, datetime.now(UTC).isoformat(timespec="seconds")
    if serial > MAX_SERIAL:
        next = "`packhouse promote RELEASE CHANNEL --after SERIAL` starts it anew"
        raise Refused("PH-0113 has no serial left: somebody wrote into the channel", got=f"#{serial - 1}", next=next)
    move = Move(release=release, serial=serial, moved_at=at, by=by[:MAX_NAME], why=why)
    return Channel(
        release=release,
        serial=serial,
        moved_at=at,
        staged_at=staged_at,
        earlier=(*here.earlier, here.release)[-REMEMBERED:] if here else (),
        moves=(*(here.moves if here else ()), move)[-REMEMBERED:],
    )


def change(
    store: Store, model: str, channel: str, decide: Callable[[Channel | None], Answer], *, whatever: bool = False
) -> tuple[Channel | None, Answer]:
    """Where the channel stands now, and what was decided; asked again whenever another writer was first. whatever: what
    stands there is replaced unread.

    Raises SpecInvalid: it is no channel's name. Contention: others moved it at the same time, again and again. And what
    `decide` raises."""
    if not re.fullmatch(CHANNEL, channel):
        raise SpecInvalid("PH-0112 is no channel's name", where=channel[:80], want="a-z, 0-9 and -, 63 at most")
    key = channel_key(model, channel)
    for _ in range(ATTEMPTS):
        here, version = _read(store, key, parse=not whatever)
        answer = decide(here)
        if isinstance(answer, Stays):
            return here, answer
        if store.swap(key, dump(answer), expected=version):
            return answer, answer
    raise Contention("PH-0111 others keep moving this channel", where=key, next="run it again")


def guarded(approve: bool, channel: str) -> bool:
    """Whether only a person moves this channel, by the spec's `approve`."""
    return approve and channel == PRODUCTION


def history(channel: Channel) -> list[Move]:
    """The moves that are remembered, the latest first. Those from before there was a history have no name and time."""
    pointed = [*channel.earlier, channel.release]
    told = channel.moves[0].serial if channel.moves else channel.serial + 1
    before = pointed[: max(0, len(pointed) - len(channel.moves))]
    untold = [
        Move(release=release, serial=serial, moved_at="", by="", why=Why.RELEASE)
        for serial, release in enumerate(before, told - len(before))
    ]
    return sorted([*channel.moves, *untold], key=lambda move: -move.serial)


def line(move: Move) -> str:
    return printable(f"#{move.serial} {move.release} {move.moved_at or '-'} {move.why} {move.by or '-'}")


def _read(store: Store, key: str, *, parse: bool) -> tuple[Channel | None, str | None]:
    if not parse:
        stat = store.stat(key)
        return None, stat.version if stat else None
    try:
        data, version = store.get(key, limit=MAX_DOCUMENT_BYTES)
    except NotFound:
        return None, None
    return load(Channel, data, where=key), version
