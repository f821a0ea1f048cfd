"""Measure: how fast each format is here, and which INT8 formats are therefore left out.

Runs when nothing else of this model computes. What the clock decides is decided once: the first run writes it down
under the release's id, and every later run of the same inputs reads it.
"""

from __future__ import annotations

from infra.workshop import workshop
from packhouse.artifact import Outcome
from packhouse.latency import Timing, in_order, slowest, smallest
from packhouse.manifest import Decisions
from packhouse.spec import Format
from tasks.decide import decide
from tasks.export import left_out
from tasks.pack import insist
from tasks.stage import one_line, stage
from tasks.states import Gated, Judged, LeftOut, Measured

GROUPS = ((Format.ONNX, Format.ONNX_INT8), (Format.TORCHSCRIPT, Format.TORCHSCRIPT_INT8), (Format.PROGRAM,))
"""Side by side in one child: a base and its INT8, so that both see the same minute of this machine."""


@stage("measure latency")
def measure_latency(gated: Gated, judged: list[Judged]) -> tuple[Measured, list[Judged], list[LeftOut]]:
    """What was timed, the formats that stay, and the INT8 formats that are not worth shipping.

    Raises:
        ParityRefused: The spec requires one that is left out.
    """
    measured = measure(gated, judged)
    kept, dropped = pays(gated, judged, measured)
    insist(gated.planned, dropped)
    return measured, kept, dropped


def measure(gated: Gated, judged: list[Judged]) -> Measured:
    """Each format at several batch sizes and thread counts, as far as the time for it goes."""
    files = {entry.candidate.format: entry.candidate.whole for entry in judged}
    given = {"spec": gated.spec_file, "samples": gated.samples, "seconds": workshop().settings.latency_s}
    timings: list[Timing] = []
    untimed: list[str] = []
    processor = ""
    with one_line(gated.planned.model, "measure latency") as line:
        for group in GROUPS:
            models = {format.value: files[format] for format in group if format in files}
            if not models:
                continue
            answer, _ = workshop().run("tasks.jobs.measure:run", given | {"models": models})
            timings += [Timing.model_validate(timing) for timing in answer.document["timings"]]
            if left := answer.document["untimed"]:
                untimed.append(f"{', '.join(models)}: {', '.join(left)}")
            processor = str(answer.document["processor"])
        line.note(", ".join(f"{timing.format} {timing.p50_ms:.3g} ms" for timing in smallest(timings).values()))
    return Measured(timings=in_order(timings), untimed=tuple(untimed), processor=processor)


def pays(gated: Gated, judged: list[Judged], measured: Measured) -> tuple[list[Judged], list[LeftOut]]:
    """INT8 stays where it is smaller than its base and, at every batch size that was timed on one thread, not slower,
    with the spec's margin."""
    size = {entry.candidate.format: entry.candidate.size for entry in judged}
    needed = gated.planned.spec.gates.int8_speed
    found = {
        format: speed < needed
        for format, speed in slowest(measured.timings).items()
        if isinstance(format, Format) and format.int8
    }
    slower = _remembered(gated, found) if found else {}
    kept: list[Judged] = []
    dropped: list[LeftOut] = []
    for entry in judged:
        format = entry.candidate.format
        if not format.int8:
            kept.append(entry)
        elif format.base not in size:
            dropped.append(left_out(format, "pays", Outcome.NOT_RUN, f"there is no {format.base} to compare with"))
        elif size[format] >= size[format.base]:
            reason = f"is not smaller than {format.base}"
            dropped.append(left_out(format, "pays", Outcome.REFUSED, reason, made=entry.candidate))
        elif slower[format]:
            reason = f"is slower than {format.base} on this processor"
            dropped.append(left_out(format, "pays", Outcome.REFUSED, reason, made=entry.candidate))
        else:
            kept.append(entry)
    return kept, dropped


def _remembered(gated: Gated, found: dict[Format, bool]) -> dict[Format, bool]:
    """What was decided before under this release's id counts; what was not is decided now, for good."""

    def add(before: Decisions) -> Decisions:
        return before.model_copy(update={"slower": found | before.slower})

    return decide(gated.planned, add).slower
