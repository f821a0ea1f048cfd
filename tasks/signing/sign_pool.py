"""Sign pool: workers that hold the key and run no model are asked to sign, by names alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from infra.worker.context import worker_context
from packhouse.errors import SignerUnavailable
from tasks._support.subflows import ended, nobody_in, start

DEPLOYMENT = "sign/sign"


def sent(references: Sequence[str], *, renew: bool = False, done: Callable[[], bool] = lambda: True) -> str:
    """Words for a log. references: as flows.sign takes them. done: looks whether it is signed now.

    Raises SpecInvalid: there is no such deployment. RunLost. SignerUnavailable: the run ended, and it is still not
    signed."""
    settings = worker_context().settings
    name = " ".join(["sign", *references[:3], *(["channels that are due"] if renew else [])])
    run = start(DEPLOYMENT, {"releases": list(references), "renew": renew}, once=None, name=name)
    state = ended(run, within_s=settings.sign_wait_s, hopeless=lambda: nobody_in(settings.sign_pool))
    if not done() or not state.is_completed():
        got = f"flow run {run.id}: {state.name}: {state.message}"
        raise SignerUnavailable("PH-0600 was not signed", where=", ".join(references[:3]) or "channels", got=got)
    return f"by flow run {run.id}"
