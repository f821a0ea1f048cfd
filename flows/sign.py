"""Sign: the flow of the workers that hold the key, and that run no model."""

from __future__ import annotations

from typing import Annotated, Any

from prefect import State, flow, task
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed, Failed
from pydantic import Field

from flows.cancel import cancellable
from flows.talk import talk_to_prefect
from infra.workshop import workshop
from packhouse.errors import Refused
from packhouse.releases import find
from tasks.sign import sign_release
from tasks.stage import one_line

ReleaseName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}[/@][A-Za-z0-9._-]{1,120}$")]


@task(name="sign release", task_run_name="sign {release}", persist_result=False, cache_policy=NO_CACHE)
def signed(release: str) -> str:
    """Why it is not signed; empty where it is now. Raises Unavailable."""
    with one_line(release.partition("/")[0], "sign") as line:
        try:
            line.note(sign_release(find(workshop().store, release)))
        except Refused as error:
            line.note(str(error))
            return str(error)
    return ""


@flow(name="sign", flow_run_name="sign", persist_result=False, result_serializer="json")
def sign(releases: Annotated[list[ReleaseName], Field(min_length=1, max_length=1000)]) -> State[Any]:
    """Sign releases that are committed: each byte is hashed against the manifest, then all are signed together.

    Args:
        releases: `model/release`, or `model@channel`. What is signed already is signed again, by this worker's key.
    """
    talk_to_prefect()
    with cancellable():
        reasons = {release: signed(release) for release in releases}
    bad = [f"{release}: {reason}" for release, reason in reasons.items() if reason]
    if bad:
        return Failed(name="Refused", message=f"{len(bad)} of {len(reasons)} are not signed: {'; '.join(bad[:5])}")
    return Completed(name="Signed", message=f"{len(reasons)} releases are signed")
