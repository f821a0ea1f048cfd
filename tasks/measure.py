"""Measure: how fast each format is here, and which INT8 formats are therefore left out.

Runs when nothing else of this model computes. What the clock decides is decided once: the first run writes it down
under the release's id, and every later run of the same inputs reads it.
"""

from __future__ import annotations

from typing import Any

from infra.workshop import workshop
from packhouse.artifact import Outcome
from packhouse.manifest import Decisions
from packhouse.spec import Format
from tasks.decide import decide
from tasks.export import left_out
from tasks.stage import one_line, stage
from tasks.states import Gated, Judged, LeftOut, Measured, Referenced

GROUPS = ((Format.ONNX, Format.ONNX_INT8), (Format.TORCHSCRIPT, Format.TORCHSCRIPT_INT8), (Format.PROGRAM,))
"""Side by side in one child: a base and its INT8, so that both see the same minute of this machine."""


@stage("measure")
def measure(gated: Gated, referenced: Referenced, judged: list[Judged]) -> Measured:
    """Milliseconds a call on the first case, one thread; speed: CPU time of the base / of this format."""
    files = {entry.candidate.format: entry.candidate.whole for entry in judged}
    latency: dict[Format, dict[str, Any]] = {}
    speed: dict[Format, float] = {}
    facts = {"processor": "", "case": ""}
    with one_line(gated.planned.model, "measure") as line:
        for group in GROUPS:
            models = {format.value: files[format] for format in group if format in files}
            if not models:
                continue
            outputs = [output.name for output in gated.planned.spec.outputs]
            answer, _ = workshop().run(
                "tasks.jobs.measure:run", {"models": models, "cases": referenced.cases, "outputs": outputs}
            )
            facts = answer.document
            latency |= {Format(name): times for name, times in answer.document["latency"].items()}
            speed |= {Format(name): float(times) for name, times in answer.document["speed"].items()}
        line.note(", ".join(f"{name} {times['p50_ms']:.3g} ms" for name, times in latency.items()))
    return Measured(latency=latency, speed=speed, processor=str(facts["processor"]), case=str(facts["case"]))


@stage("pays")
def pays(gated: Gated, judged: list[Judged], measured: Measured) -> tuple[list[Judged], list[LeftOut]]:
    """INT8 stays where it is smaller than its base and not slower, with the spec's margin."""
    size = {entry.candidate.format: entry.candidate.size for entry in judged}
    needed = gated.planned.spec.gates.int8_speed
    found = {format: measured.speed[format] < needed for format in measured.speed if format.int8}
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
