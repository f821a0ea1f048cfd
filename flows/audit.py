"""Audit: the releases that channels point at still verify, with today's runtimes."""

from __future__ import annotations

from typing import Annotated, Any

from prefect import State, flow
from prefect.futures import PrefectFuture
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import Field

from flows.cancellation import cancellable
from flows.run_logging import talk_to_prefect
from flows.run_result import audit_state
from infra.settings import settings
from packhouse.errors import squeezed
from packhouse.spec.model import ModelName
from tasks.night.audit import Audited, audited, pointed_at, show_audit
from tasks.night.reconcile import reconcile, show_mended
from tasks.signing.sign_channel import look_at_signatures, show_channels, to_look_after

AT_A_TIME = 2
"""Releases that are verified at the same time."""


@flow(
    name="audit",
    flow_run_name="audit",
    persist_result=False,
    result_serializer="json",
    task_runner=ThreadPoolTaskRunner(max_workers=AT_A_TIME),  # type: ignore[arg-type]
)
def audit(
    models: Annotated[list[ModelName], Field(max_length=1000)] = [],  # noqa: B006 - Prefect's form wants a list
) -> State[Any]:
    """Prove again every release that a channel points at: each digest, each format on its golden inputs, in a clean
    process without the model's class. What does not verify any more is named. Then each channel's image is looked up
    in its registry, and pushed again where that lost it or a part of it; its tag and the channel's alias in MLflow are
    made to point where the channel points, and what was mended is named. A channel that is not signed as it stands, or
    whose signature nobody renews, is named too, where this worker signs.

    Args:
        models: Only these models; nothing means every model there is.
    """
    talk_to_prefect()
    with cancellable():
        running = [(release, audited.submit(release, return_state=False)) for release in pointed_at(models)]
        audits = [_result(release, run) for release, run in running]
        show_audit(audits)
        mended = reconcile(models)
        show_mended(mended)
        standing = look_at_signatures(models) if settings().signs else []
        show_channels(standing)
    behind = [f"{each.channel}: {each.reason}" for each in mended if each.reason]
    behind += to_look_after(standing)
    unasked = {each.release: each.reason for each in audits if not each.asked}
    return audit_state(
        {each.release: each.reason for each in audits if each.asked},
        unasked,
        mended={each.channel: ", ".join(each.done) for each in mended if each.done},
        behind=behind,
        lost={each.channel: each.lost for each in mended if each.lost},
    )


def _result(release: str, run: PrefectFuture[Audited]) -> Audited:
    try:
        return run.result()
    except Exception as error:  # one release's misfortune: the others' word is not lost
        reason = f"could not be proven: {squeezed(error)}"
        return Audited(release=release, reason=reason, asked=False, seconds=0.0)
