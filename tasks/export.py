"""Export: makes one format of the trained model, in a child of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from infra.sandbox.client import Answer
from infra.worker.context import File, worker_context
from packhouse.artifact import BYTES, Artifact, Outcome, Verdict
from packhouse.errors import Refused, from_document, without_paths
from packhouse.formats.table import row
from packhouse.spec.onnxruntimes import INLINE_BYTES
from tasks._support.pipeline_task import one_line
from tasks._support.states import Candidate, Judged, LeftOut, Validated


def export(gated: Validated, format: str) -> Candidate | LeftOut:
    """A crash, a hang, a memory blow-up or an exporter's no is a verdict with its reason, and the line goes on."""
    limit = {"most": INLINE_BYTES} if row(format).data else {}
    return make(gated, format, {**gated.trained, **limit})


def convert(gated: Validated, format: str, before: Judged | LeftOut) -> Candidate | LeftOut:
    """Makes a format from the file of another one.

    Args:
        gated: The trained model.
        format: The format to make.
        before: What it is made from.

    Returns:
        The format, or why it is left out.
    """
    if isinstance(before, LeftOut):
        return left_out(format, "made", Outcome.NOT_RUN, f"there is no {before.format} to make it from (PH-0679)")
    model = before.candidate.whole
    return make(gated, format, {"spec": gated.spec_file, "samples": gated.samples, "model": model})


def make(gated: Validated, format: str, arguments: Mapping[str, Any]) -> Candidate | LeftOut:
    made = row(format)
    options = gated.planned.spec.formats.others
    added = {"format": made.name, "options": options[made.name].options} if made.name in options else {}
    with one_line(gated.planned.model, f"make {format}") as line:
        try:
            answer, (artifact, *data) = worker_context().run(
                ADDED if added else made.job,
                {**arguments, **added, "out": made.file},
                File(made.file, made.media_type),
                *(File(name, BYTES) for name in made.files[1:]),
                *([File(made.data, BYTES, optional=True)] if made.data else []),
            )
        except Refused as error:
            line.note(str(error))
            return left_out(format, "made", Outcome.REFUSED, digested(error))
        line.made(artifact, *data)
    return _candidate(format, artifact, next(iter(data), None), answer)


ADDED = "tasks.jobs.added:run"
"""Makes a format that a package adds: the package's code runs in the sandbox, and is imported nowhere else here."""


def digested(error: Refused) -> str:
    """The error's words for the manifest, which is digested: without the paths of this machine."""
    lasting = from_document({**error.document(), "next": ""})  # what to do next names the log on this machine
    return without_paths(str(lasting))


def left_out(format: str, check: str, outcome: Outcome, reason: str, *, made: Candidate | None = None) -> LeftOut:
    """made: what it would have been."""
    verdict = Verdict(check=check, subject=str(format), outcome=outcome, reason=reason)
    return LeftOut(format=format, verdict=verdict, notes=tuple(made.facts.get("notes", ())) if made else ())


def _candidate(format: str, artifact: Artifact, data: Artifact | None, answer: Answer) -> Candidate:
    return Candidate(
        format=format,
        artifact=artifact,
        data=data,
        facts=answer.document,
        seconds=answer.seconds,
        peak_bytes=answer.peak_bytes,
    )
