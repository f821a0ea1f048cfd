"""Mend: what follows a channel, its image's tag and its alias in MLflow, points where the channel points; its image is
whole, and what is known of it hangs on it."""

from __future__ import annotations

from collections.abc import Sequence

from prefect.artifacts import create_table_artifact

from infra.settings import settings
from infra.worker.context import worker_context
from packhouse.artifact import Frozen
from packhouse.errors import ImageLost, PackhouseError
from packhouse.release.lookup import find, releases
from tasks._support.pipeline_task import pipeline_task
from tasks.images.attach_referrers import attached
from tasks.images.restore_image import restored
from tasks.images.tag_image import tagged
from tasks.register_mlflow import registered


class Mended(Frozen):
    """channel: `model@channel`. done: what did not follow, and does now. reason: what could not be mended, and why.
    lost: what its registry lost of the release's image for good, so that it can not be deployed."""

    channel: str
    done: tuple[str, ...] = ()
    reason: str = ""
    lost: str = ""


@pipeline_task("mend")
def reconcile(models: Sequence[str], *, tags: bool = True) -> list[Mended]:
    """Every channel of these models, or of all. One that can not be mended stops no other. tags: images and their tags,
    too.

    Raises the store's errors, where channels can not be listed."""
    listed = [entry for model in (models or [""]) for entry in releases(worker_context().store, model)]
    pointed = [(each.model, each.release, name.partition("#")[0]) for each in listed for name in each.channels]
    return [_mended(*each, tags=tags) for each in sorted(pointed)]


def _mended(model: str, release: str, channel: str, *, tags: bool) -> Mended:
    done: list[str] = []
    reasons: list[str] = []
    lost = ""
    try:
        if tags:
            record = find(worker_context().store, f"{model}/{release}").record
            done += restored(record)
            done += tagged(model, channel)
            done += attached(record)
    except ImageLost as error:
        lost = str(error)
    except PackhouseError as error:
        reasons.append(str(error))
    try:
        done += registered(model, release, channel) if settings().mlflow_uri else ()
    except PackhouseError as error:
        reasons.append(str(error))
    return Mended(channel=f"{model}@{channel}", done=tuple(done), reason="; ".join(reasons), lost=lost)


@pipeline_task("show mended")
def show_mended(found: Sequence[Mended]) -> None:
    """What did not follow, and nothing where all did."""
    rows = [
        {"channel": each.channel, "mended": ", ".join(each.done), "not mended": each.lost or each.reason}
        for each in found
        if each.done or each.reason or each.lost
    ]
    if rows:
        create_table_artifact(rows, key="mended", description=f"{len(rows)} channels that something did not follow")
