"""Audit: one release is proven again from its bytes alone."""

from __future__ import annotations

import time
from collections.abc import Sequence

from prefect.artifacts import create_table_artifact

from infra.worker.context import worker_context
from packhouse.artifact import Frozen
from packhouse.errors import Refused
from packhouse.release.lookup import find, releases
from packhouse.trust.verify import verify
from tasks._support.pipeline_task import one_line, pipeline_task


class Audited(Frozen):
    """release: `model/id`. reason: why it does not verify; empty where it does. asked: false where that is not known,
    since the store was away or a runtime is not installed here."""

    release: str
    reason: str
    asked: bool = True
    formats: tuple[str, ...] = ()
    seconds: float


@pipeline_task("pointed at")
def pointed_at(models: Sequence[str]) -> list[str]:
    """`model/id` of each release that a channel points at. A model without a release has none."""
    store = worker_context().store
    listed = (entry for model in (models or [""]) for entry in releases(store, model))
    return [f"{entry.model}/{entry.release}" for entry in listed if entry.channels]


@pipeline_task("audit", of="{release}")
def audited(release: str) -> Audited:
    """Raises Unavailable: the store does not answer, or a runtime is not installed here."""
    model, _, _ = release.partition("/")
    started = time.monotonic()
    with one_line(model, f"audit {release}") as line:
        try:
            shop = worker_context()
            proven = verify(find(shop.store, release), shop.known if shop.settings.signs else None)
        except Refused as error:
            line.note(str(error))
            return Audited(release=release, reason=str(error), seconds=time.monotonic() - started)
        line.note(f"verified {proven.files} files")
    formats = proven.formats
    return Audited(release=release, reason="", formats=formats, seconds=time.monotonic() - started)


@pipeline_task("show audit")
def show_audit(audits: Sequence[Audited]) -> None:
    """Those that do not verify first."""
    rows = [
        {
            "release": each.release,
            "verified": not each.reason,
            "why": each.reason,
            "formats": " ".join(each.formats),
            "seconds": round(each.seconds, 1),
        }
        for each in sorted(audits, key=lambda each: (not each.reason, each.release))
    ]
    create_table_artifact(rows, key="audit", description=f"{len(rows)} releases that channels point at")
