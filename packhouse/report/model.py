"""The report of a release: what was measured, when and where. Beside the record, and never in what is digested."""

from __future__ import annotations

import statistics
from collections.abc import Iterable

from packhouse.artifact import Frozen, Outcome, Verdict
from packhouse.parity.latency import TIMING_HEADINGS, Timing, number, timing_cells
from packhouse.parity.preflight import Finding
from packhouse.release.manifest import OpenFormat, ReleaseId
from packhouse.spec.model import ModelName
from packhouse.spec.onnxruntimes import Onnx


class Row(Frozen):
    """One format. size: bytes. smaller: the weights' size / this size. p50_ms, p95_ms: wall milliseconds a call
    of the smallest batch on one thread. speed: CPU time of the fp32 format of the same runtime / of this one, the least
    over the batch sizes. max_ratio, rms_ratio: error against
    float64 in units of the model's own fp32 rounding, the worst case. accuracy: on the labelled evaluation samples;
    agreement: part of equal answers with the trained model; sqnr_db: signal-to-noise ratio. onnx: of an ONNX file, what
    reads it. None: does not apply."""

    format: OpenFormat
    outcome: Outcome
    reason: str = ""
    how: str = ""
    size: int | None = None
    smaller: float | None = None
    p50_ms: float | None = None
    p95_ms: float | None = None
    calls: int | None = None
    speed: float | None = None
    max_ratio: float | None = None
    rms_ratio: float | None = None
    accuracy: float | None = None
    agreement: float | None = None
    sqnr_db: float | None = None
    seconds: float | None = None
    peak_bytes: int | None = None
    onnx: Onnx | None = None


class Report(Frozen):
    """accuracy: of the trained model itself. case: the inputs that the rows' latency is of. latency: all that was
    timed. untimed: what there was no time for. seconds: of the run until it was published. lockdown: what the sandbox
    was held to. cuda: what the GPU said, or why it was not asked. preflight: the traps in the model's code."""

    model: ModelName
    release: ReleaseId
    source: str
    made_at: str
    seconds: float
    processor: str
    case: str
    weights_bytes: int
    parameters: int
    accuracy: float | None
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    lockdown: tuple[str, ...]
    cuda: tuple[Verdict, ...] = ()
    preflight: tuple[Finding, ...] = ()
    latency: tuple[Timing, ...] = ()
    untimed: tuple[str, ...] = ()


HEADINGS = ("format", "size", "smaller", "p50 ms", "p95 ms", "speed", "parity", "accuracy", "verdict")


def cells(row: Row) -> tuple[str, ...]:
    """One row of the table for people, in the order of HEADINGS."""
    parity = number(row.max_ratio, "x rounding") or number(row.sqnr_db, " dB")
    quality = (
        f"{row.accuracy:.2%}"
        if row.accuracy is not None
        else f"{row.agreement:.2%} agree"
        if row.agreement is not None
        else ""
    )
    return (
        str(row.format),
        size(row.size),
        number(row.smaller, "x"),
        number(row.p50_ms),
        number(row.p95_ms),
        number(row.speed, "x"),
        parity,
        quality,
        row.outcome.value if not row.reason else f"{row.outcome.value}: {row.reason}",
    )


def reads(onnx: Onnx) -> str:
    """What an ONNX file needs, in one line."""
    oldest = f"onnxruntime {onnx.onnxruntime} or later" if onnx.onnxruntime else "no onnxruntime that is known"
    return f"opset {onnx.opset}, IR version {onnx.ir}, read by {oldest}"


def size(count: int | None) -> str:
    """Bytes for people, in powers of 1024."""
    if count is None:
        return ""
    amount, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024 or unit == "GiB":
            break
        amount /= 1024
    return f"{amount:.0f} {unit}" if unit == "B" or amount >= 100 else f"{amount:.1f} {unit}"


def markdown(report: Report) -> str:
    """The report as a page."""
    lines = [
        f"# {report.model} {report.release}",
        "",
        f"From `{report.source}`, {made(report)}",
        "",
        accuracy(report),
        "",
        *_table(HEADINGS, map(cells, report.rows)),
        "",
        legend(report),
        "",
        *_latency(report),
        lockdown(report),
        "",
        *(f"- {row.format}: {reads(row.onnx)}." for row in report.rows if row.onnx),
        *(f"- {line}" for line in remarks(report)),
        *_section("Preflight", [f"- {trap(finding)}" for finding in report.preflight]),
    ]
    return "\n".join(lines).rstrip() + "\n"


def made(report: Report) -> str:
    return (
        f"{report.parameters:,} parameters, {size(report.weights_bytes)} of weights, "
        f"made {report.made_at} in {report.seconds:.1f} s."
    )


def accuracy(report: Report) -> str:
    """Nothing where there are no labels."""
    if report.accuracy is None:
        return ""
    return f"The trained model's accuracy on its held-out samples: {report.accuracy:.2%}."


def legend(report: Report) -> str:
    """What the columns of the formats mean."""
    return (
        f"p50, p95: wall time of one call of {report.case or 'nothing'} on one thread of {report.processor}, "
        f"{_calls(report)} calls after warm-up. Speed: CPU time of the fp32 format of the same runtime / of this one, "
        "the median of the rounds' ratios, the least over the batch sizes. Parity: largest error against a float64 "
        "run of the model, in units of the rounding that the model itself shows in fp32; for INT8 the signal-to-noise "
        "ratio."
    )


TIMED = (
    "Wall time of one call after warm-up. Formats of one runtime run side by side, in turn round by round. An empty "
    "p95 or p99: fewer than two calls lie beyond it. Items/s: samples a second at p50. Speed: see above, at this batch "
    "size. Busy: processors that were at work for it; on one thread, what is missing to 1 went to others."
)
"""What the columns of the latencies mean."""


SHARED = 0.8
"""Busy with one thread, at the median of all timings: below, others had the processor too."""


def cautions(report: Report) -> list[str]:
    """What to know before the latencies are believed: that others were at work, and what was not timed."""
    busy = [timing.busy for timing in report.latency if timing.threads == 1]
    share = statistics.median(busy) if busy else 1.0
    others = f"Others had the processor too: busy {share:.2f} at the median. p95 and p99 tell of them too."
    left = [f"Not timed, since it would have taken too long: {places}." for places in report.untimed]
    return [others, *left] if share < SHARED else left


def lockdown(report: Report) -> str:
    return f"Each step ran in a child process held to: {', '.join(report.lockdown) or 'nothing beyond its limits'}."


def remarks(report: Report) -> list[str]:
    """What the GPU said, and what happened on the way."""
    return [*(f"{verdict.check} of {verdict.subject}: {_said(verdict)}" for verdict in report.cuda), *report.notes]


def trap(finding: Finding) -> str:
    proof = f" ({finding.proof})" if finding.proof else ""
    return f"{finding.severity}: {finding.line()}{proof}. {finding.next[0].upper()}{finding.next[1:]}."


def _latency(report: Report) -> list[str]:
    if not report.latency:
        return []
    table = _table(TIMING_HEADINGS, map(timing_cells, report.latency))
    beware = [f"- {line}" for line in cautions(report)]
    return ["## Latency", "", f"On {report.processor}.", "", *table, "", TIMED, "", *beware, *([""] if beware else [])]


def _section(title: str, lines: list[str]) -> list[str]:
    """Where there is something to say."""
    return ["", f"## {title}", "", *lines] if lines else []


def _table(headings: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    table = [headings, tuple("---" for _ in headings), *rows]
    return [f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in table]


def _calls(report: Report) -> str:
    counts = sorted({row.calls for row in report.rows if row.calls})
    return " to ".join(str(count) for count in dict.fromkeys((counts[0], counts[-1]))) if counts else "no"


def _said(verdict: Verdict) -> str:
    return f"{verdict.outcome}: {verdict.reason}" if verdict.reason else str(verdict.outcome)
