"""Sign channel: where a channel points is signed, with the time until which that counts.

A run signs a channel only where it has moved it itself, from where it was signed before: what somebody else wrote into
a channel is signed by no run, and those who look after it are told.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from prefect.artifacts import create_table_artifact

from infra.worker.context import worker_context
from infra.worker.signer import Signer, own_signer
from packhouse.artifact import Frozen
from packhouse.digest import digest_bytes
from packhouse.errors import Contention, NotFound, PackhouseError, Refused, ReleaseInvalid
from packhouse.release.channels import as_signed
from packhouse.release.lookup import channels, find, read_channel
from packhouse.release.manifest import Channel, channel_key, dump
from packhouse.trust.rollback_floors import Floors
from packhouse.trust.signatures import is_signed
from packhouse.trust.signed_channels import Pointer, behind, following, signature_key, standing, statement
from tasks._support.pipeline_task import one_line, pipeline_task
from tasks._support.states import Released
from tasks.signing.sign_pool import sent

ATTEMPTS = 8
AT_A_TIME = 8


class Standing(Frozen):
    """channel: `model@channel`. renewed: its signature was due, and is new. reason: why those who ask for signatures do
    not see it as it stands, or soon will not; empty where they do."""

    channel: str
    renewed: bool = False
    reason: str = ""


def to_look_after(found: Sequence[Standing]) -> list[str]:
    """A line for each that somebody should look after."""
    return [f"{each.channel}: {each.reason}" for each in found if each.reason]


def sign_channel(released: Released) -> None:
    """Leaves a signature on a channel that this run has moved; no other is its to sign.

    Raises SignerUnavailable, RunLost; Contention: it was moved on meanwhile; Refused: it went back behind what was
    signed."""
    model, channel, release = released.model, released.channel, released.release
    with one_line(model, f"sign {channel}") as line:
        if worker_context().settings.sign_pool:
            line.note(sent([f"{model}@{channel}/{release}#{released.moved.removeprefix('sha256:')}"]))
        else:
            line.note(channel_signed(model, channel, release, written=released.moved))


def judged(model: str, channel: str, there: Channel | None) -> Channel | None:
    """The channel as a run may believe it: as it was signed, where channels are. there: the file. None: a run begins
    it, also where another one was killed between its very first move and the signature.

    Raises Refused: nobody has signed it, or what was signed of it is gone, old or expired: a person must look.
    KeyAbsent, and the store's errors."""
    if not worker_context().settings.signs:
        return there
    name = f"{model}@{channel}"
    pointer, least = _pointer(model, channel), _floors().least(worker_context().store.url, name)
    if pointer and _believable(pointer, least):
        return as_signed(pointer.here, there)
    if pointer is None and not least and (there is None or there.serial == 1):
        return None
    got = f"#{pointer.serial}, until {pointer.expires:%Y-%m-%d}" if pointer else "no signature that counts here"
    next = f"if `packhouse history {name}` is as you meant it, `packhouse sign {name}`"
    if least:
        next += f"; else `packhouse promote RELEASE {channel} --after {least}` starts it anew"
    raise Refused("PH-0599 can not be moved on from", where=name, got=got, want=f"#{least}" if least else "", next=next)


def settled(model: str, channel: str, release: str) -> bool:
    """Whether a run that finds this release unchanged has no channel to move, and none to sign. What a person must look
    at is none of a night's work."""
    try:
        there = read_channel(worker_context().store, model, channel)
    except NotFound:
        there = None
    try:
        here = judged(model, channel, there)
    except Refused:
        here = there
    return here is not None and release in (here.release, *here.earlier)


def channel_signed(model: str, channel: str, release: str, *, written: str = "") -> str:
    """Signs the channel, here; words for a log. written: the digest that its file must have, for a run, which signs
    what it wrote; without it a person asks, who has looked at it.

    Raises KeyAbsent: this process has no key. NotFound: no such channel. Refused: its release is not signed, or it went
    back behind what was signed. Contention: it points elsewhere by now, or others sign it at the same time."""
    settings, store = worker_context().settings, worker_context().store
    by, floors = own_signer(settings), _floors()
    for _ in range(ATTEMPTS):
        before, version = standing(store, model, channel, worker_context().known)
        least = floors.least(store.url, f"{model}@{channel}")
        here = read_channel(store, model, channel)  # after what was signed of it, which no later move can be behind
        if here.release != release or (written and digest_bytes(dump(here)) != written):
            got, next = f"#{here.serial} {here.release}", "whoever moved it signs it"
            raise Contention("PH-0598 was moved on", where=f"{model}@{channel}", got=got, want=release, next=next)
        pointer = _next(model, channel, here, before, least, asked=not written)
        if _swapped(by, pointer, version):
            return f"#{pointer.serial} until {pointer.expires:%Y-%m-%d %H:%M} UTC"
    raise Contention("PH-0597 others keep signing this channel", where=f"{model}@{channel}", next="run it again")


def _next(
    model: str, channel: str, here: Channel, before: Pointer | None, least: int, *, asked: bool = False
) -> Pointer:
    settings = worker_context().settings
    return following(
        here,
        before,
        model=model,
        channel=channel,
        least=least,
        now=datetime.now(UTC),
        renew_s=settings.channel_renew_s,
        expires_s=settings.channel_expires_s,
        asked=asked,
    )


def _swapped(by: Signer, pointer: Pointer, version: str | None) -> bool:
    """Whether it was this signature that took the place of the version. Raises Refused: the release is not signed."""
    store = worker_context().store
    found = find(store, f"{pointer.model}/{pointer.release}")
    if not is_signed(found, worker_context().known):
        next = f"`packhouse sign {found.name}` if you know whose it is, then its channel"
        raise Refused("PH-0536 is not signed by anybody who is known here", where=found.name, next=next)
    bundle = by.sign_statement(statement(pointer, found.record_bytes))
    done = store.swap(signature_key(pointer.model, pointer.channel), bundle, expected=version)
    if done:
        _floors().remember(store.url, pointer.name, pointer.serial)
    return done


@pipeline_task("renew")
def renew() -> None:
    """What was signed of channels is renewed where it is due. What hinders that is no end of a night, and is said by
    `look_at_signatures` before it hurts."""
    with one_line("channels", "renew") as line:
        try:
            if worker_context().settings.sign_pool:
                line.note(sent([], renew=True))
            else:
                found = renewed()
                line.note(f"{sum(each.renewed for each in found)} of {len(found)} channels")
        except PackhouseError as error:
            line.note(str(error))


def renewed(models: Sequence[str] = ()) -> list[Standing]:
    """By the key of this process, and only what stands as it was signed."""
    own_signer(worker_context().settings)
    return _each(models, renew=True)


@pipeline_task("look at signatures")
def look_at_signatures(models: Sequence[str] = ()) -> list[Standing]:
    """Every channel of these models, or of all. Raises KeyAbsent, and the store's errors where it can not be listed."""
    return standings(models)


def standings(models: Sequence[str] = ()) -> list[Standing]:
    return _each(models, renew=False)


@pipeline_task("show channels")
def show_channels(found: Sequence[Standing]) -> None:
    """Those that somebody should look after, and nothing where there is none."""
    rows = [{"channel": each.channel, "why": each.reason} for each in found if each.reason]
    if rows:
        create_table_artifact(rows, key="channels", description=f"{len(rows)} channels are not signed as they stand")


def _each(models: Sequence[str], *, renew: bool) -> list[Standing]:
    names = [each for model in (models or [""]) for each in channels(worker_context().store, model)]
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        return list(pool.map(lambda name: _one(name[0], name[1], renew=renew), names))


def _one(model: str, channel: str, *, renew: bool) -> Standing:
    name, done, now = f"{model}@{channel}", False, datetime.now(UTC)
    try:
        if renew:
            here, pointer, done = _renewed(model, channel)
        else:
            pointer = _pointer(model, channel)
            here = read_channel(worker_context().store, model, channel)
        reason = behind(here, pointer, name=name, now=now)
    except PackhouseError as error:  # one channel's misfortune: the others are looked after
        reason = str(error)
    return Standing(channel=name, renewed=done, reason=reason)


def _renewed(model: str, channel: str) -> tuple[Channel, Pointer | None, bool]:
    """The channel, what is signed of it now, and whether that is new. Signed anew is what was signed, and not what
    stands in the file. A file that is gone, or is none, is written back as it was signed.

    Raises Refused: what was signed last is gone, or is an old one."""
    store, name = worker_context().store, f"{model}@{channel}"
    pointer, version = standing(store, model, channel, worker_context().known)
    least = _floors().least(store.url, name)
    if pointer is None and not least:
        return read_channel(store, model, channel), None, False
    if pointer is None or pointer.serial < least:
        got = f"#{pointer.serial}" if pointer else "nothing"
        what = "PH-0596 what was signed last is gone: somebody shows an old channel and its old signature"
        raise Refused(what, where=name, got=got, want=f"#{least}", next=f"`packhouse history {name}` first")
    _remember(pointer)
    try:
        here = read_channel(store, model, channel)
    except (NotFound, ReleaseInvalid):
        key = channel_key(model, channel)
        stat = store.stat(key)
        store.swap(key, dump(pointer.here), expected=stat.version if stat else None)
        here = read_channel(store, model, channel)
    if here != pointer.here or not pointer.due(datetime.now(UTC)) or not _believable(pointer, least):
        return here, pointer, False
    new = _next(model, channel, here, pointer, least)
    if _swapped(own_signer(worker_context().settings), new, version):
        return here, new, True
    return here, _pointer(model, channel), False


def _believable(pointer: Pointer, least: int) -> bool:
    """An old signature, from before it expired, only where this machine remembers that there was no later one."""
    return pointer.serial >= least and (datetime.now(UTC) < pointer.expires or pointer.serial == least)


def _pointer(model: str, channel: str) -> Pointer | None:
    """What was signed of the channel, by somebody whom this worker knows. Raises KeyAbsent: it knows nobody."""
    pointer, _ = standing(worker_context().store, model, channel, worker_context().known)
    if pointer:
        _remember(pointer)
    return pointer


def _remember(pointer: Pointer) -> None:
    """An expired one is not news."""
    if datetime.now(UTC) < pointer.expires:
        _floors().remember(worker_context().store.url, pointer.name, pointer.serial)


def _floors() -> Floors:
    """What this machine has signed, or has seen signed."""
    return Floors(worker_context().settings.home / "signed")
