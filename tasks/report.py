"""Report: puts what was measured on the way into one document."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from packhouse.artifact import Outcome
from packhouse.formats.table import in_order, is_int8
from packhouse.parity.latency import slowest, smallest
from packhouse.report.model import Report, Row
from packhouse.spec.onnxruntimes import Onnx
from tasks._support.states import Judged, LeftOut, Measured, Packed, Referenced, Validated
from tasks.cuda.cuda_batch import Cuda


def report(
    gated: Validated, referenced: Referenced, measured: Measured, packed: Packed, seconds: float, *, cuda: Cuda
) -> Report:
    """seconds: since the flow began. cuda: what the GPU said."""
    rows: dict[str, Row] = {entry.candidate.format: _made(gated, measured, entry) for entry in packed.judged}
    rows |= {entry.format: _left_out(measured, entry) for entry in packed.left_out}
    qualities = [entry.measures["quality"] for entry in packed.judged]
    accuracy = next((quality.get("base_accuracy") for quality in qualities if quality), None)
    return Report(
        model=packed.planned.model,
        release=packed.planned.release,
        source=packed.planned.source,
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=seconds,
        processor=measured.processor,
        case=_case(gated, measured),
        weights_bytes=gated.weights.size,
        parameters=int(gated.facts["parameters"]),
        accuracy=accuracy,
        rows=tuple(rows[name] for name in in_order(rows)),
        preflight=referenced.findings,
        cuda=cuda.verdicts,
        notes=(*gated.facts["notes"], *referenced.notes, *_notes(packed), *cuda.notes),
        lockdown=gated.lockdown,
        latency=measured.timings,
        untimed=measured.untimed,
    )


def _made(gated: Validated, measured: Measured, judged: Judged) -> Row:
    candidate, quality = judged.candidate, judged.measures["quality"]
    deviations = judged.measures["deviations"]
    return Row(
        format=candidate.format,
        outcome=Outcome.PASS,
        how=str(
            candidate.facts.get("method") or candidate.facts.get("recipe") or candidate.facts.get("exporter") or ""
        ),
        size=candidate.size,
        smaller=gated.weights.size / candidate.size,
        **_timed(measured, candidate.format),
        max_ratio=_worst(deviations, "max_ratio"),
        rms_ratio=_worst(deviations, "rms_ratio"),
        accuracy=quality.get("accuracy"),
        agreement=quality.get("agreement"),
        sqnr_db=quality.get("sqnr_db") if is_int8(candidate.format) else None,
        seconds=candidate.seconds,
        peak_bytes=candidate.peak_bytes,
        onnx=Onnx(**candidate.facts["onnx"]) if "onnx" in candidate.facts else None,
    )


def _left_out(measured: Measured, entry: LeftOut) -> Row:
    return Row(
        format=entry.format,
        outcome=entry.verdict.outcome,
        reason=entry.verdict.reason,
        **_timed(measured, entry.format),
    )


def _timed(measured: Measured, format: str) -> dict[str, Any]:
    """Of the smallest batch on one thread; speed: the least over the batches, by which INT8 is kept or left out."""
    timing = smallest(measured.timings).get(format)
    if timing is None:
        return {}
    speed = slowest(measured.timings).get(format)
    return {"p50_ms": timing.p50_ms, "p95_ms": timing.p95_ms, "calls": timing.calls, "speed": speed}


def _case(gated: Validated, measured: Measured) -> str:
    """What the rows' latency is of, such as `batch 1`; nothing where no format was timed."""
    first = next(iter(smallest(measured.timings).values()), None)
    if first is None:
        return ""
    return "one sample" if first.batch is None else f"{gated.planned.spec.batch} {first.batch}"


def _worst(deviations: list[dict[str, Any]], key: str) -> float | None:
    return max((deviation[key] for deviation in deviations if deviation[key] is not None), default=None)


def _notes(packed: Packed) -> list[str]:
    made = {entry.candidate.format: entry.candidate.facts.get("notes", []) for entry in packed.judged}
    made |= {entry.format: entry.notes for entry in packed.left_out}
    return [f"{format}: {note}" for format, notes in made.items() for note in notes]
