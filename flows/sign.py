"""Sign: the flow of the workers that hold the key, and that run no model; and the same as a command."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import Annotated, Any

from prefect import State, flow, task
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed, Failed
from pydantic import Field

from flows.cancellation import cancellable
from flows.run_logging import talk_to_prefect
from infra.worker.context import worker_context
from infra.worker.signer import signer
from packhouse import exit_status
from packhouse.cli.worker_arguments import SignArguments, parsed
from packhouse.errors import NotFound, PackhouseError, Refused
from packhouse.release.lookup import find, read_channel
from tasks._support.pipeline_task import one_line
from tasks.signing.sign import insist, sign_release
from tasks.signing.sign_channel import Standing, channel_signed, renewed, to_look_after
from tasks.signing.sign_pool import sent

NAME = "[a-z0-9][a-z0-9-]{0,62}"
REFERENCE = rf"^{NAME}(@{NAME})?(/[0-9a-f]{{32}})?(#[0-9a-f]{{64}})?$"
Reference = Annotated[str, Field(pattern=REFERENCE)]


def signed(reference: str) -> str:
    """Signs what is named, here; words for a log. `model/release`: the release, and with `#sha256` only if that is its
    record's. `model@channel`: the channel as it stands, whoever moved it; with `/release`, if it points there, and with
    `#sha256`, as a run says it, if that is its file's. A channel only where its release is signed.

    Raises NotFound, KeyAbsent, SignerUnavailable, DigestMismatch, ReleaseInvalid, Refused."""
    if not re.fullmatch(REFERENCE, reference) or not set("@/") & set(reference):
        raise NotFound(
            "PH-0605 names no release and no channel", where=reference[:80], want="model@channel or model/release"
        )
    named, _, digest = reference.partition("#")
    place, _, release = named.partition("/")
    model, _, channel = place.partition("@")
    if channel:
        pointed = release or read_channel(worker_context().store, model, channel).release
        return channel_signed(model, channel, pointed, written=digest and f"sha256:{digest}")
    found = find(worker_context().store, named)
    if digest:
        insist(found, f"sha256:{digest}")
    return sign_release(found)


@task(name="sign release", task_run_name="sign {reference}", persist_result=False, cache_policy=NO_CACHE)
def attempted(reference: str) -> str:
    """Why it is not signed; empty where it is now. Raises Unavailable."""
    with one_line(re.split("[/@]", reference)[0], f"sign {reference}") as line:
        try:
            line.note(signed(reference))
        except Refused as error:
            line.note(str(error))
            return str(error)
    return ""


@task(name="renew channels", persist_result=False, cache_policy=NO_CACHE)
def looked_after() -> list[Standing]:
    """Raises Unavailable."""
    with one_line("channels", "renew") as line:
        found = renewed()
        line.note(f"{len(found)} channels, {sum(each.renewed for each in found)} renewed")
    return found


@flow(name="sign", flow_run_name="sign", persist_result=False, result_serializer="json")
def sign(
    releases: Annotated[list[Reference], Field(max_length=1000)] = [],  # noqa: B006 - Prefect's form wants a list
    renew: bool = False,
) -> State[Any]:
    """Sign releases that are committed, each byte of them hashed against the manifest first, and channels.

    Args:
        releases: `model/release`; or `model@channel`: the channel as it stands, of a release that is signed. What is
            signed already is signed again, by this worker's key.
        renew: Also sign again every channel whose signature is due, where it stands as it was signed.
    """
    talk_to_prefect()
    with cancellable():
        reasons = {reference: attempted(reference) for reference in releases}
        standing = looked_after() if renew else []
    bad = [f"{reference}: {reason}" for reference, reason in reasons.items() if reason]
    late = to_look_after(standing)
    if bad:
        return Failed(name="Refused", message=f"{len(bad)} of {len(reasons)} are not signed: {'; '.join(bad[:5])}")
    done = f"{len(reasons)} signed, {sum(each.renewed for each in standing)} channels renewed"
    if late:
        return Completed(name="Signed", message=f"{done}; not signed as they stand: {'; '.join(late[:5])}")
    return Completed(name="Signed", message=done)


def main(arguments: Sequence[str]) -> int:
    """`packhouse sign`: a line for each that is signed now; where this process has no key, by the pool of signers. A
    channel that can not be renewed is named, and makes it 1. --moved: whoever asks has just moved the channel."""
    options = parsed(SignArguments, arguments, prog="packhouse sign")
    try:
        settings = worker_context().settings
        elsewhere = bool(settings.sign_pool) and signer(settings) is None
        for reference in options.references:
            say(f"signed {reference}: {sent([reference]) if elsewhere else signed(reference)}")
        if options.renew and elsewhere:
            say(f"renewed {sent([], renew=True)}")
        return _told(renewed()) if options.renew and not elsewhere else 0
    except PackhouseError as error:
        if options.moved:
            names = " ".join(each.partition("#")[0] for each in options.references)
            sys.stderr.write(
                f"the channel has moved, and is not signed: do not move it again, `packhouse sign {names}`\n"
            )
        return exit_status.said(error, verbose=False)


def _told(found: Sequence[Standing]) -> int:
    for each in found:
        if each.renewed:
            say(f"renewed {each.channel}")
    late = to_look_after(found)
    sys.stderr.write("".join(f"{line}\n" for line in late))
    return 1 if late else 0


def say(words: str) -> None:
    sys.stdout.write(f"{words}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
