"""Approval: a release waits for a person before `production` moves to it, where its spec says so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from prefect.exceptions import FlowPauseTimeout
from prefect.flow_runs import pause_flow_run
from prefect.input import RunInput
from prefect.runtime import deployment
from pydantic import Field

from flows.run_result import End, Status, end_of
from infra.settings import settings
from packhouse.errors import NotApproved, PackhouseError
from tasks.commit_and_promote import promote_approved
from tasks.register_mlflow import register_mlflow


class Approval(RunInput):
    """The form that is asked."""

    approve: Annotated[bool, Field(description="Move the channel to these releases.")] = False
    by: Annotated[str, Field(min_length=1, max_length=100, description="Who decides.")]
    comment: Annotated[str, Field(max_length=500, description="Why; stands in the run's end.")] = ""


def approved(ends: Sequence[End]) -> list[End]:
    """The ends, where nothing waits any more. One question a run, over all that wait in it."""
    waiting = [end for end in ends if end.status is Status.WAITING]
    if not waiting:
        return list(ends)
    answer = _ask(waiting)
    return [_decided(end, answer) if end.status is Status.WAITING else end for end in ends]


def unasked(end: End) -> End:
    """In a run that another one waits for: a night can not wait for a person."""
    if end.status is not Status.WAITING:
        return end
    reason = f"{end.reason}; start the deployment `release` with its source, which asks"
    return end.model_copy(update={"reason": reason})


def _ask(waiting: Sequence[End]) -> Approval | str:
    """The answer, or why there is none."""
    if not deployment.id:
        return "run the deployment `release` in the Prefect UI, which asks"
    lines = "\n".join(f"- `{end.model}/{end.release}` from `{end.source}`" for end in waiting)
    form = Approval.with_initial_data(description=f"Move **{waiting[0].channel}** to\n\n{lines}")
    try:
        return pause_flow_run(wait_for_input=form, timeout=int(settings().approval_s))
    except FlowPauseTimeout:
        return f"nobody answered in {settings().approval_s / 3600:g} hours: start the run again to be asked again"


def _decided(end: End, answer: Approval | str) -> End:
    if isinstance(answer, str):
        return end.model_copy(update={"reason": f"{end.reason}; {answer}"})
    try:
        if not answer.approve:
            words = (
                f"PH-0603 {answer.by} said no: {answer.comment}" if answer.comment else f"PH-0604 {answer.by} said no"
            )
            raise NotApproved(words, where=f"{end.model}/{end.release} for {end.channel}")
        released = promote_approved(end.model, end.release, end.channel, end.source, answer.by)
        if settings().mlflow_uri:
            register_mlflow(released, end.source)
        moved = end_of(end.source, released)
    except PackhouseError as error:
        moved = end_of(end.source, error)
    return moved.model_copy(update={"seconds": end.seconds, "size": end.size})
