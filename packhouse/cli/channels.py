"""`packhouse promote`, `rollback`, `history` and `channels`: where names point."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated

import typer

from packhouse.cli.options import (
    ByOption,
    StoredArgument,
    StoreOption,
    TrustOption,
    talk,
    the_store,
)
from packhouse.cli.sign import signing_here
from packhouse.cli.worker import worker
from packhouse.cli.worker_arguments import SignArguments, written
from packhouse.digest import digest_bytes
from packhouse.errors import NotFound, Refused, SignatureInvalid
from packhouse.release import channels
from packhouse.release.lookup import channels as named_channels
from packhouse.release.lookup import named_channel, read_channel, read_manifest, read_spec
from packhouse.release.manifest import MAX_SERIAL, PRODUCTION, Channel, Why, dump
from packhouse.release.promotion import insist
from packhouse.store import Store
from packhouse.trust.signatures import Trusted, check_release
from packhouse.trust.signed_channels import behind as reason_behind
from packhouse.trust.signed_channels import find_trusted, standing


def promote(
    release: StoredArgument,
    channel: Annotated[str, typer.Argument(help="The channel that moves to it, such as production.")],
    by: Annotated[str, typer.Option("--by", help="Who does it; needed where the spec asks for approval.")] = "",
    after: Annotated[
        int,
        typer.Option(
            "--after",
            min=0,
            max=MAX_SERIAL - 1,
            help="Start the channel anew behind this serial: its file was lost, or written into.",
        ),
    ] = 0,
    trust: TrustOption = [],
    store: StoreOption = "",
) -> None:
    """Move a channel to a release, with --trust to a signed one only. Where its spec says `approve = true`, moving
    `production` so is the approval, and --by says whose. Where there is a key to sign with, the channel is signed. The
    image's tag and MLflow's alias follow with the next run or audit."""
    place, trusted = the_store(store), Trusted.asked(trust)
    found = find_trusted(place, release, trusted)
    record = found.record
    if trusted:
        check_release(found, read_manifest(found, record), trusted)
        if after:
            seen, _ = standing(place, record.model, channel, trusted)
            if seen and seen.serial > after:
                where, got = f"{record.model}@{channel}", f"--after {after}"
                raise Refused("PH-0125 a later serial is signed", where=where, got=got, want=f"--after {seen.serial}")
    spec = read_spec(found)
    insist(place, record.model, channel, getattr(spec, "promotion", None))
    if channels.guarded(spec.gates.approve, channel) and not by:
        where = f"{record.model}@{channel}"
        raise Refused("PH-0124 a person must approve this release", where=where, next="--by says who does")
    who = by or os.environ.get("USER", "")
    why = Why.APPROVAL if by and channel == PRODUCTION else Why.PROMOTE

    def decide(here: Channel | None) -> channels.Answer:
        if after:
            return channels.anew(record.release, after=after, by=who)
        return channels.by_hand(here, record.release, by=who, why=why)

    moved(place, record.model, channel, decide, trusted=trusted, whatever=bool(after))


def rollback(
    channel: Annotated[str, typer.Argument(help="model@channel.")],
    to: Annotated[str, typer.Option("--to", help="The id of the release; default: the one before this one.")] = "",
    by: ByOption = "",
    trust: TrustOption = [],
    store: StoreOption = "",
) -> None:
    """Move a channel back to a release that it pointed at before; with --trust only where its history is signed. No run
    moves it to the one that it left again."""
    model, name = channel_of(channel)
    place = the_store(store)
    seen = read_channel(place, model, name).serial

    def decide(here: Channel | None) -> channels.Answer:
        return channels.rolled_back(here, to, by=by, where=channel, seen=seen)

    moved(place, model, name, decide, trusted=Trusted.asked(trust))


def history(
    channel: Annotated[str, typer.Argument(help="model@channel.")],
    store: StoreOption = "",
) -> None:
    """Show a channel's moves, the latest first: serial, release, when, why and by whom."""
    model, name = channel_of(channel)
    for move in channels.history(read_channel(the_store(store), model, name)):
        print(channels.line(move))


def channels_command(
    model: Annotated[str, typer.Argument(help="Only this model's channels.")] = "",
    trust: TrustOption = [],
    store: StoreOption = "",
) -> None:
    """List channels: where each points, and until when its signature counts. With --trust, exit status 1 where any is
    not signed as it stands by somebody trusted, has expired, or was to be renewed and is not: for your monitoring."""
    place, trusted, behind = the_store(store), Trusted.asked(trust), 0
    listed = named_channels(place, model)
    for owner, name in listed:
        words, why = looked_at(place, owner, name, trusted)
        if words:
            print(words)
        if why:
            talk.print(f"{owner}@{name}: {why}", markup=False)
            behind += 1
    if not listed:
        talk.print(f"no channels{f' of {model}' if model else ''} in {place.url}")
        raise typer.Exit(3)
    if behind and trusted:
        raise SignatureInvalid(f"PH-0123 {behind} of {len(listed)} channels are not signed as they stand")


def looked_at(store: Store, model: str, channel: str, trusted: Trusted | None) -> tuple[str, str]:
    """Where it points and until when that counts; and why somebody should look after it. Without `trusted` whatever
    says that it is a signature is shown as one."""
    pointer, _ = standing(store, model, channel, trusted)
    try:
        here = read_channel(store, model, channel)
    except Refused as error:
        return "", str(error)
    until = f"signed until {pointer.expires:%Y-%m-%dT%H:%MZ}" if pointer else "not signed"
    name = f"{model}@{channel}"
    why = reason_behind(here, pointer, name=name, now=datetime.now(UTC)) if pointer or trusted else ""
    return f"{name}#{here.serial} {here.release} {until}", why


def channel_of(text: str) -> tuple[str, str]:
    """Raises NotFound: it names no channel."""
    if named := named_channel(text):
        return named
    raise NotFound("PH-0122 names no channel", where=text[:80], want="model@channel")


def moved(
    store: Store,
    model: str,
    channel: str,
    decide: Callable[[Channel | None], channels.Answer],
    *,
    trusted: Trusted | None,
    whatever: bool = False,
) -> None:
    """Moves it, says where it stands, and has it signed where there is a key; exit status 3 where it stays.

    trusted: whose signature the channel must have as it stands, since what a history says may be anybody's. whatever:
    the channel starts anew, whatever stands there. Raises SignatureInvalid."""
    signing, name = signing_here(), f"{model}@{channel}"
    if signing.signs and not trusted:
        trusted = signing.known()

    def decided(here: Channel | None) -> channels.Answer:
        if trusted and here and not whatever:
            pointer, _ = standing(store, model, channel, trusted)
            if pointer is None or pointer.here != here:
                next = f"if `packhouse history {name}` is as you meant it, `packhouse sign {name}`, and again"
                raise SignatureInvalid("PH-0118 is not signed as it stands", where=name, next=next)
        return decide(here)

    here, answer = channels.change(store, model, channel, decided, whatever=whatever)
    assert here
    print(f"{model}/{here.release} {channel}#{here.serial}")
    if isinstance(answer, channels.Stays):
        raise typer.Exit(3)
    if signing.signs:
        digest = "" if whatever else f"#{digest_bytes(dump(here)).removeprefix('sha256:')}"
        sign = SignArguments(references=(f"{name}/{here.release}{digest}",), moved=True)
        worker(["-m", "flows.sign", *written(sign)], store.url)
    pointer, _ = standing(store, model, channel)
    if pointer and pointer.here != here:
        words = f"who asks for signatures stays at #{pointer.serial} until `packhouse sign {name}`"
        talk.print(words, markup=False)
