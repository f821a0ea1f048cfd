"""Sign channel: where a channel points is signed, with the time until which that counts.

A run signs a channel only where it has moved it itself, from where it was signed before: what somebody else wrote into
a channel is signed by no run, and those who look after it are told.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from prefect.artifacts import create_table_artifact

from infra.signer import known, own_signer
from infra.workshop import workshop
from packhouse.artifact import Frozen
from packhouse.channels import as_signed
from packhouse.errors import Contention, NotFound, PackhouseError, Refused
from packhouse.floors import Floors
from packhouse.manifest import Channel
from packhouse.releases import channels, find, read_channel
from packhouse.signed_channels import Opened, Pointer, behind, following, signature_key, standing, statement
from tasks.sign import is_signed
from tasks.sign_pool import sent
from tasks.stage import one_line, stage
from tasks.states import Released

ATTEMPTS = 8
AT_A_TIME = 8


class Standing(Frozen):
    """channel: `model@channel`. renewed: its signature was due, and is new. reason: why those who ask for signatures do
    not see it as it stands, or soon will not; empty where they do."""

    channel: str
    renewed: bool = False
    reason: str = ""


@stage("sign channel")
def sign_channel(released: Released) -> None:
    """Leaves a signature on a channel that this run has moved; any other is not this run's to sign.

    Raises SignerUnavailable, RunLost; Refused: the channel went back behind what was signed."""
    if not released.to_sign:
        return
    model, channel, release = released.model, released.channel, released.release
    with one_line(model, f"sign {channel}") as line:
        if is_current(model, channel, read_channel(workshop().store, model, channel)):
            line.note("signed already")
        elif workshop().settings.sign_pool:
            line.note(sent([f"{model}@{channel}/{release}"]))
        else:
            line.note(channel_signed(model, channel, release))


def judged(model: str, channel: str, there: Channel | None) -> Channel | None:
    """The channel as a run may believe it: as it was signed, where channels are; a file that nobody has signed counts
    only where nobody ever has. there: the file. Raises KeyAbsent, and the store's errors."""
    if not workshop().settings.signs:
        return there
    return _believed(_pointer(model, channel), there)


def settled(model: str, channel: str, release: str) -> bool:
    """Whether a run that finds this release unchanged has no channel to move, and none to sign."""
    try:
        there = read_channel(workshop().store, model, channel)
    except NotFound:
        there = None
    pointer = _pointer(model, channel) if workshop().settings.signs else None
    here = _believed(pointer, there)
    return here is not None and release in (here.release, *here.earlier) and not _is_first(pointer, there)


def is_first(model: str, channel: str, there: Channel | None) -> bool:
    """Whether a run was killed between the channel's first move and its signature. A later move is made again instead,
    from what was signed; here there is nothing to make it again from, and nothing that could be undone."""
    return workshop().settings.signs and _is_first(_pointer(model, channel), there)


def _is_first(pointer: Pointer | None, there: Channel | None) -> bool:
    return workshop().settings.signs and pointer is None and there is not None and there.serial == 1


def _believed(pointer: Pointer | None, there: Channel | None) -> Channel | None:
    return as_signed(pointer.here, there) if pointer else there


def is_current(model: str, channel: str, here: Channel) -> bool:
    pointer = _pointer(model, channel)
    return pointer is not None and pointer.here == here


def channel_signed(model: str, channel: str, release: str, *, asked: bool = False) -> str:
    """Signs the channel, here; words for a log. asked: by a person, who has looked at it.

    Raises KeyAbsent: this process has no key. NotFound: no such channel. Refused: its release is not signed, or it went
    back behind what was signed. Contention: it points elsewhere by now, or others sign it at the same time."""
    settings, store = workshop().settings, workshop().store
    by, floors = own_signer(settings), _floors()
    for _ in range(ATTEMPTS):
        before, version = standing(store, model, channel, _opened())
        least = floors.least(store.url, f"{model}@{channel}")
        here = read_channel(store, model, channel)  # after what was signed of it, which no later move can be behind
        if here.release != release:
            got, next = f"#{here.serial} {here.release}", "whoever moved it signs it"
            raise Contention("points elsewhere by now", where=f"{model}@{channel}", got=got, want=release, next=next)
        found = find(store, f"{model}/{release}")
        if not is_signed(found):
            next = f"`packhouse sign {found.name}` if you know whose it is, then its channel"
            raise Refused("is not signed by anybody who is known here", where=found.name, next=next)
        pointer = following(
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
        bundle = by.sign_statement(statement(pointer, found.record_bytes))
        if store.swap(signature_key(model, channel), bundle, expected=version):
            floors.remember(store.url, pointer.name, pointer.serial)
            return f"#{pointer.serial} until {pointer.expires:%Y-%m-%d %H:%M} UTC"
    raise Contention("others keep signing this channel", where=f"{model}@{channel}", next="run it again")


@stage("renew")
def renew() -> None:
    """What was signed of channels is renewed where it is due. What hinders that is no end of a night, and is said by
    `look_at_signatures` before it hurts."""
    with one_line("channels", "renew") as line:
        try:
            if workshop().settings.sign_pool:
                line.note(sent([], renew=True))
            else:
                found = renewed()
                line.note(f"{sum(each.renewed for each in found)} of {len(found)} channels")
        except PackhouseError as error:
            line.note(str(error))


def renewed(models: Sequence[str] = ()) -> list[Standing]:
    """By the key of this process, and only what stands as it was signed."""
    own_signer(workshop().settings)
    return _each(models, renew=True)


@stage("look at signatures")
def look_at_signatures(models: Sequence[str] = ()) -> list[Standing]:
    """Every channel of these models, or of all. Raises KeyAbsent, and the store's errors where it can not be listed."""
    return standings(models)


def standings(models: Sequence[str] = ()) -> list[Standing]:
    return _each(models, renew=False)


@stage("show channels")
def show_channels(found: Sequence[Standing]) -> None:
    """Those that somebody should look after, and nothing where there is none."""
    rows = [{"channel": each.channel, "why": each.reason} for each in found if each.reason]
    if rows:
        create_table_artifact(rows, key="channels", description=f"{len(rows)} channels are not signed as they stand")


def _each(models: Sequence[str], *, renew: bool) -> list[Standing]:
    names = [each for model in (models or [""]) for each in channels(workshop().store, model)]
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        return list(pool.map(lambda name: _one(name[0], name[1], renew=renew), names))


def _one(model: str, channel: str, *, renew: bool) -> Standing:
    name, store, done, now = f"{model}@{channel}", workshop().store, False, datetime.now(UTC)
    try:
        pointer = _pointer(model, channel)
        here = read_channel(store, model, channel)
        if renew and pointer:
            if pointer.serial < (least := _floors().least(store.url, name)):
                got, want = f"#{pointer.serial}", f"#{least} or later"
                raise Refused("somebody shows an old channel and its old signature", where=name, got=got, want=want)
            _floors().remember(store.url, name, pointer.serial)
            if pointer.here == here and pointer.due(now):
                channel_signed(model, channel, here.release)
                pointer, done = _pointer(model, channel), True
        reason = behind(here, pointer, name=name, now=now)
    except PackhouseError as error:  # one channel's misfortune: the others are looked after
        reason = str(error)
    return Standing(channel=name, renewed=done, reason=reason)


def _opened() -> Opened:
    """What counts here. Raises KeyAbsent: this worker knows nobody's signature."""
    trusted = known(workshop().settings)
    return lambda bundle: trusted.open(bundle, where="its signature")[0]


def _pointer(model: str, channel: str) -> Pointer | None:
    return standing(workshop().store, model, channel, _opened())[0]


def _floors() -> Floors:
    """What this machine has signed, or has seen signed."""
    return Floors(workshop().settings.home / "signed")
