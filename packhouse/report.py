"""The report of a release: what was measured, when and where. Beside the record, and never in what is digested."""

from __future__ import annotations

from packhouse.artifact import Frozen, Outcome, Verdict
from packhouse.manifest import ReleaseId
from packhouse.onnxruntimes import Onnx
from packhouse.preflight import Finding
from packhouse.spec import Format, ModelName


class Row(Frozen):
    """One format. size: bytes. smaller: the weights' size / this size. p50_ms, p95_ms: wall milliseconds a call.
    speed: CPU time of the fp32 format of the same runtime / of this one. max_ratio, rms_ratio: error against
    float64 in units of the model's own fp32 rounding, the worst case. accuracy: on the labelled evaluation samples;
    agreement: part of equal answers with the trained model; sqnr_db: signal-to-noise ratio. onnx: of an ONNX file, what
    reads it. None: does not apply."""

    format: Format
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
    """accuracy: of the trained model itself. case: the inputs that were timed. seconds: of the run until it was
    published. lockdown: what the sandbox was held to. cuda: what the GPU said, or why it was not asked. preflight: the
    traps in the model's code."""

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


HEADINGS = ("format", "size", "smaller", "p50 ms", "p95 ms", "speed", "parity", "accuracy", "verdict")


def cells(row: Row) -> tuple[str, ...]:
    """One row of the table for people, in the order of HEADINGS."""
    parity = _number(row.max_ratio, "x rounding") or _number(row.sqnr_db, " dB")
    quality = (
        f"{row.accuracy:.2%}"
        if row.accuracy is not None
        else f"{row.agreement:.2%} agree"
        if row.agreement is not None
        else ""
    )
    return (
        row.format.value,
        size(row.size),
        _number(row.smaller, "x"),
        _number(row.p50_ms),
        _number(row.p95_ms),
        _number(row.speed, "x"),
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
    table = [HEADINGS, tuple("---" for _ in HEADINGS), *(cells(row) for row in report.rows)]
    lines = [
        f"# {report.model} {report.release}",
        "",
        f"From `{report.source}`, {report.parameters:,} parameters, {size(report.weights_bytes)} of weights, "
        f"made {report.made_at} in {report.seconds:.1f} s.",
        ""
        if report.accuracy is None
        else f"The trained model's accuracy on its held-out samples: {report.accuracy:.2%}.",
        "",
        *(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in table),
        "",
        f"Latency: wall time of one call on `{report.case}`, one thread, on {report.processor}; formats of one runtime "
        f"side by side, interleaved, {_calls(report)} calls each after warm-up. Speed: CPU time of the fp32 format / "
        "of this one, the median of the rounds' ratios. Parity: largest error against a float64 run of the model, in "
        "units of the rounding that the model itself shows in fp32; for INT8 the signal-to-noise ratio.",
        "",
        f"Each step ran in a child process held to: {', '.join(report.lockdown) or 'nothing beyond its limits'}.",
        "",
        *(f"- {row.format}: {reads(row.onnx)}." for row in report.rows if row.onnx),
        *(f"- {verdict.check} of {verdict.subject}: {_said(verdict)}" for verdict in report.cuda),
        *(f"- {note}" for note in report.notes),
        *_preflight(report),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _preflight(report: Report) -> list[str]:
    """A section, where there is something to say."""
    if not report.preflight:
        return []
    return ["", "## Preflight", "", *(f"- {_trap(finding)}" for finding in report.preflight)]


def _trap(finding: Finding) -> str:
    proof = f" ({finding.proof})" if finding.proof else ""
    return f"{finding.severity}: {finding.line()}{proof}. {finding.next[0].upper()}{finding.next[1:]}."


def _calls(report: Report) -> str:
    counts = sorted({row.calls for row in report.rows if row.calls})
    return " to ".join(str(count) for count in dict.fromkeys((counts[0], counts[-1]))) if counts else "no"


def _said(verdict: Verdict) -> str:
    return f"{verdict.outcome}: {verdict.reason}" if verdict.reason else str(verdict.outcome)


def _number(value: float | None, unit: str = "") -> str:
    return "" if value is None else f"{value:.3g}{unit}"
