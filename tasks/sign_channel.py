"""Sign channel: where a channel points is signed, with the time until which that counts.

A run signs a channel only where it points at the release that the run itself made or found: what somebody else wrote
into a channel is signed by no run, and those who look after it are told.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from prefect.artifacts import create_table_artifact

from infra.signer import own_signer, signer
from infra.workshop import workshop
from packhouse.artifact import Frozen
from packhouse.errors import Contention, NotFound, PackhouseError, Refused, Unavailable
from packhouse.floors import Floors
from packhouse.manifest import Channel, Record
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
    """Leaves a signature on the channel where it points at this release; else it is not this run's to sign.

    Raises SignerUnavailable, RunLost; Refused: the channel went back behind what was signed."""
    if released.waiting or released.points_at:
        return
    model, channel, release = released.model, released.channel, released.release
    with one_line(model, f"sign {channel}") as line:
        if _is_signed(model, channel, read_channel(workshop().store, model, channel), recognition()):
            line.note("signed already")
        elif workshop().settings.sign_pool:
            line.note(sent([f"{model}@{channel}/{release}"]))
        else:
            line.note(channel_signed(model, channel, release))


def to_be_signed(record: Record, channel: str) -> bool:
    """Whether a run that finds this release unchanged will have a channel to sign."""
    if not workshop().settings.signs:
        return False
    try:
        here = read_channel(workshop().store, record.model, channel)
    except NotFound:
        return True
    return unsigned(record.model, channel, here, record.release, recognition())


def unsigned(model: str, channel: str, here: Channel, release: str, opened: Opened | None) -> bool:
    """The same, where the channel was read already: also what a run that was killed after its promotion left behind."""
    if here.release != release:
        return release not in here.earlier
    return not _is_signed(model, channel, here, opened)


def recognition() -> Opened | None:
    """What this worker takes for a signature: its own. None where it has no key: then whatever says that it is one.

    Raises KeyAbsent: the key can not be read."""
    by = None if workshop().settings.sign_pool else signer(workshop().settings)
    return by.recognised if by else None


def channel_signed(model: str, channel: str, release: str) -> str:
    """Signs the channel, here; words for a log. Where it points elsewhere meanwhile, whoever moved it signs it.

    Raises KeyAbsent: this process has no key. NotFound: no such channel. Refused: its release is not signed, or it went
    back behind what was signed. Contention: others sign it at the same time, again and again."""
    settings, store = workshop().settings, workshop().store
    by, floors = own_signer(settings), Floors(settings.home / "signed")
    for _ in range(ATTEMPTS):
        here = read_channel(store, model, channel)
        if here.release != release:
            return f"has moved on, to #{here.serial} {here.release}"
        found = find(store, f"{model}/{release}")
        if not is_signed(found):
            raise Refused("is not signed", where=found.name, next=f"`packhouse sign {found.name}`, then its channel")
        before, version = standing(store, model, channel, by.recognised)
        pointer = following(
            here,
            before,
            model=model,
            channel=channel,
            least=floors.least(store.url, f"{model}@{channel}"),
            now=datetime.now(UTC),
            renew_s=settings.channel_renew_s,
            expires_s=settings.channel_expires_s,
        )
        bundle = by.sign_statement(statement(pointer, found.record_bytes))
        if store.swap(signature_key(model, channel), bundle, expected=version):
            floors.remember(store.url, pointer.name, pointer.serial)
            return f"#{pointer.serial} until {pointer.expires:%Y-%m-%d %H:%M} UTC"
    raise Contention("others keep signing this channel", where=f"{model}@{channel}", next="run it again")


@stage("renew")
def renew() -> list[Standing]:
    """Every channel, and what is signed of it renewed where it is due. Raises the store's errors; KeyAbsent."""
    with one_line("channels", "renew") as line:
        if workshop().settings.sign_pool:
            try:
                line.note(sent([], renew=True))
            except Unavailable as error:  # it is no harm before a signature is late, and then it is named
                line.note(str(error))
            found = standings()
        else:
            found = renewed()
        line.note(f"{len(found)} channels, {sum(each.renewed for each in found)} renewed")
    return found


def renewed(models: Sequence[str] = ()) -> list[Standing]:
    """By the key of this process, and only what it has signed itself: a channel that stands elsewhere is not signed."""
    return _each(models, own_signer(workshop().settings).recognised, renew=True)


def standings(models: Sequence[str] = ()) -> list[Standing]:
    return _each(models, recognition(), renew=False)


@stage("look at signatures")
def look_at_signatures(models: Sequence[str]) -> list[Standing]:
    return standings(models)


@stage("show channels")
def show_channels(found: Sequence[Standing]) -> None:
    """Those that somebody should look after, and nothing where there is none."""
    rows = [{"channel": each.channel, "why": each.reason} for each in found if each.reason]
    if rows:
        create_table_artifact(rows, key="channels", description=f"{len(rows)} channels are not signed as they stand")


def _each(models: Sequence[str], opened: Opened | None, *, renew: bool) -> list[Standing]:
    names = [each for model in (models or [""]) for each in channels(workshop().store, model)]
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        return list(pool.map(lambda name: _one(name[0], name[1], opened, renew=renew), names))


def _one(model: str, channel: str, opened: Opened | None, *, renew: bool) -> Standing:
    name, done = f"{model}@{channel}", False
    try:
        here = read_channel(workshop().store, model, channel)
        pointer = _pointer(model, channel, opened)
        if renew and pointer and pointer.is_of(here) and pointer.due(datetime.now(UTC)):
            channel_signed(model, channel, here.release)
            pointer, done = _pointer(model, channel, opened), True
        reason = behind(here, pointer, name=name, now=datetime.now(UTC))
    except PackhouseError as error:  # one channel's misfortune: the others are looked after
        reason = str(error)
    return Standing(channel=name, renewed=done, reason=reason)


def _pointer(model: str, channel: str, opened: Opened | None) -> Pointer | None:
    return standing(workshop().store, model, channel, opened)[0]


def _is_signed(model: str, channel: str, here: Channel, opened: Opened | None) -> bool:
    pointer = _pointer(model, channel, opened)
    return pointer is not None and pointer.is_of(here)
