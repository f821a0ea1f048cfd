"""Publish: all bytes of a release go up under their names. No reader can see a release yet."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from infra.worker.context import worker_context
from packhouse.artifact import Artifact, Outcome
from packhouse.digest import digest_bytes, short
from packhouse.errors import NotFound, ReleaseConflict
from packhouse.formats.table import is_int8
from packhouse.release.lookup import find
from packhouse.release.manifest import (
    MANIFEST,
    MAX_DOCUMENT_BYTES,
    REPORT_HTML,
    REPORT_JSON,
    REPORT_MD,
    Manifest,
    dump,
    load,
    release_key,
)
from packhouse.report.html import html
from packhouse.report.model import Report, markdown
from packhouse.store.base import holds_bytes
from packhouse.trust.signatures import is_signed
from tasks._support.pipeline_task import one_line, pipeline_task
from tasks._support.states import Judged, Packed, Planned, Published, Validated

UPLOADS = 4


def upload(gated: Validated, judged: Judged) -> None:
    """An fp32 format goes up as soon as it is judged, while others are still being made; nobody can see it there.

    INT8 waits until it is known to be worth shipping."""
    for artifact in _early(judged):
        with one_line(gated.planned.model, f"upload {artifact.name}"):
            _put(gated.planned, artifact)


def _early(judged: Judged) -> tuple[Artifact, ...]:
    return () if is_int8(judged.candidate.format) else judged.candidate.files


@pipeline_task("publish")
def publish(packed: Packed, report: Report) -> Published:
    """The artifacts that are not up yet, then the report, then the manifest.

    A manifest that a run of the same inputs left behind when it was killed counts where it says nothing that this run
    did not find too: it may hold less, since a format then met a time limit. So the next run completes it.
    Raises ReleaseConflict: another file stands under one of the names; nothing is overwritten.
    """
    planned, store = packed.planned, worker_context().store
    key = release_key(planned.model, planned.release, MANIFEST)
    with one_line(planned.model, "publish") as line, ThreadPoolExecutor(UPLOADS) as pool:
        up = {artifact for entry in packed.judged for artifact in _early(entry)}
        left = [artifact for artifact in packed.manifest.artifacts if artifact not in up]
        list(pool.map(lambda artifact: _put(planned, artifact), left))
        if store.stat(key) is None:
            for name, text in _told(report).items():
                store.put(release_key(planned.model, planned.release, name), text, digest=digest_bytes(text))
        manifest = _first_manifest(packed, key)
        size = sum(artifact.size for artifact in packed.manifest.artifacts)
        line.note(f"{size:,} bytes, manifest {short(digest_bytes(manifest))}")
    kept = worker_context().cache.write(manifest, name=MANIFEST, media_type="application/json")
    said = packed.model_copy(update={"manifest": load(Manifest, manifest, where=MANIFEST)})
    return Published(packed=said, manifest=kept)


def _told(report: Report) -> dict[str, bytes]:
    """The report for programs, for a terminal and for a browser."""
    return {
        REPORT_JSON: dump(report),
        REPORT_MD: markdown(report).encode(),
        REPORT_HTML: html(report).encode(),
    }


def _first_manifest(packed: Packed, key: str) -> bytes:
    """The bytes of the one manifest of this release id: this run's, or an earlier one's that says nothing more.

    The store is not trusted: an earlier manifest counts only where this run made and passed all that it lists; and
    where releases are signed, only if it was.
    Raises ReleaseConflict: it says something else.
    """
    store, data = worker_context().store, dump(packed.manifest)
    if store.put_if_absent(key, data, digest=digest_bytes(data)):
        return data
    there, _ = store.get(key, limit=MAX_DOCUMENT_BYTES)
    if there == data:
        return data
    if worker_context().settings.signs and not _signed(packed.planned):
        store.put(key, data, digest=digest_bytes(data))
        return data
    earlier = load(Manifest, there, where=key)
    if more := _not_covered(packed.manifest, earlier):
        raise ReleaseConflict(
            "PH-0584 an earlier run, which was ended before its record, says something else",
            where=key,
            got=more,
            next="run it again where that can be made too, or delete the release's folder, which has no record",
        )
    return there


def _signed(planned: Planned) -> bool:
    try:
        return is_signed(find(worker_context().store, f"{planned.model}/{planned.release}"), worker_context().known)
    except NotFound:
        return False


def _not_covered(ours: Manifest, theirs: Manifest) -> str:
    """The first thing that the other manifest claims and this run did not find; nothing where there is none."""
    told = {"formats": ours.formats, "artifacts": ours.artifacts, "verdicts": ours.verdicts}
    if theirs.model_copy(update=told) != ours:
        return f"{theirs.model}/{theirs.release}"
    claims = [*theirs.artifacts, *theirs.formats, *(v for v in theirs.verdicts if v.outcome is Outcome.PASS)]
    known = [*ours.artifacts, *ours.formats, *ours.verdicts]
    return next((str(claim) for claim in claims if claim not in known), "")


def _put(planned: Planned, artifact: Artifact) -> None:
    key = release_key(planned.model, planned.release, artifact.name)
    _put_body(key, worker_context().cache.path(artifact), artifact.digest, artifact.size)


def _put_body(key: str, body: Path, digest: str, size: int) -> None:
    """What is there already with the same bytes stays: an earlier run of the same inputs wrote it."""
    store = worker_context().store
    if store.put_if_absent(key, body, digest=digest):
        return
    if holds_bytes(store, key, digest=digest, size=size):
        return
    there = store.stat(key)
    raise ReleaseConflict(
        "PH-0583 another file stands here",
        where=key,
        got=f"{there.size if there else 0:,} bytes",
        want=f"{size:,} bytes of {short(digest)}",
        next="these inputs gave other bytes before: see docs/determinism.md",
    )
