"""Export: makes one format of the trained model, in a child of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from infra.sandbox.client import Answer
from infra.worker.context import File, workshop
from packhouse.artifact import BYTES, Artifact, Outcome, Verdict
from packhouse.errors import Refused, from_document, without_paths
from packhouse.spec.model import Format
from packhouse.spec.onnxruntimes import INLINE_BYTES
from tasks._support.pipeline_task import one_line
from tasks._support.states import Candidate, Gated, LeftOut

JOBS = {
    Format.ONNX: "tasks.jobs.export_onnx:run",
    Format.TORCHSCRIPT: "tasks.jobs.export_torchscript:run",
    Format.PROGRAM: "tasks.jobs.export_program:run",
    Format.ONNX_INT8: "tasks.jobs.quantise_onnx:run",
    Format.TORCHSCRIPT_INT8: "tasks.jobs.quantise_torchscript:run",
}

MEDIA_TYPES = {
    Format.ONNX: "application/vnd.onnx",
    Format.TORCHSCRIPT: "application/vnd.pytorch.torchscript",
    Format.PROGRAM: "application/vnd.pytorch.export",
    Format.ONNX_INT8: "application/vnd.onnx",
    Format.TORCHSCRIPT_INT8: "application/vnd.pytorch.torchscript",
}


def export(gated: Gated, format: Format) -> Candidate | LeftOut:
    """A crash, a hang, a memory blow-up or an exporter's no is a verdict with its reason, and the line goes on."""
    limit = {"most": INLINE_BYTES} if format is Format.ONNX else {}
    return make(gated, format, {**gated.trained, **limit})


def make(gated: Gated, format: Format, arguments: Mapping[str, Any]) -> Candidate | LeftOut:
    with one_line(gated.planned.model, f"make {format}") as line:
        try:
            answer, (artifact, *data) = workshop().run(
                JOBS[format],
                {**arguments, "out": format.file},
                File(format.file, MEDIA_TYPES[format]),
                *([File(format.data, BYTES, optional=True)] if format is Format.ONNX else []),
            )
        except Refused as error:
            line.note(str(error))
            return left_out(format, "made", Outcome.REFUSED, digested(error))
        line.made(artifact, *data)
    return _candidate(format, artifact, next(iter(data), None), answer)


def digested(error: Refused) -> str:
    """The error's words for the manifest, which is digested: without the paths of this machine."""
    lasting = from_document({**error.document(), "next": ""})  # what to do next names the log on this machine
    return without_paths(str(lasting))


def left_out(format: Format, check: str, outcome: Outcome, reason: str, *, made: Candidate | None = None) -> LeftOut:
    """made: what it would have been."""
    verdict = Verdict(check=check, subject=format.value, outcome=outcome, reason=reason)
    return LeftOut(format=format, verdict=verdict, notes=tuple(made.facts.get("notes", ())) if made else ())


def _candidate(format: Format, artifact: Artifact, data: Artifact | None, answer: Answer) -> Candidate:
    return Candidate(
        format=format,
        artifact=artifact,
        data=data,
        facts=answer.document,
        seconds=answer.seconds,
        peak_bytes=answer.peak_bytes,
    )
