"""Measure: how fast each format is here, and which INT8 formats are therefore left out.

Runs when nothing else of this model computes. What the clock decides is decided once: the first run writes it down
under the release's id, and every later run of the same inputs reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from infra.worker.context import worker_context
from packhouse.artifact import Artifact, Beside, Outcome
from packhouse.formats.table import base_of, groups, is_int8
from packhouse.parity.latency import Timing, in_order, slowest, smallest, typical
from packhouse.release.manifest import Decisions
from packhouse.spec.model import DEFAULT_SPEED, Spec
from tasks._support.pipeline_task import one_line, pipeline_task
from tasks._support.states import Judged, LeftOut, Measured, Validated
from tasks.decisions import decide
from tasks.export import left_out
from tasks.pack import insist


@pipeline_task("measure latency")
def measure_latency(gated: Validated, judged: list[Judged]) -> tuple[Measured, list[Judged], list[LeftOut]]:
    """What was timed, the formats that stay, and the INT8 formats that are not worth shipping.

    Raises:
        ParityRefused: The spec requires one that is left out.
    """
    measured = measure(gated, judged)
    kept, dropped = pays(gated, judged, measured)
    insist(gated.planned, dropped)
    return measured, kept, dropped


def measure(gated: Validated, judged: list[Judged]) -> Measured:
    """Each format at several batch sizes and thread counts, as far as the time for it goes."""
    files: dict[str, Artifact | Beside] = {entry.candidate.format: entry.candidate.whole for entry in judged}
    given = {"spec": gated.spec_file, "samples": gated.samples, "seconds": worker_context().settings.latency_s}
    timings: list[Timing] = []
    untimed: list[str] = []
    processor = ""
    with one_line(gated.planned.model, "measure latency") as line:
        for group in groups(files):  # side by side in one child: a base and its INT8 see the same minute
            models = {format: files[format] for format in group}
            answer, _ = worker_context().run("tasks.jobs.measure:run", given | {"models": models})
            timings += [Timing.model_validate(timing) for timing in answer.document["timings"]]
            if left := answer.document["untimed"]:
                untimed.append(f"{', '.join(models)}: {', '.join(left)}")
            processor = str(answer.document["processor"])
        line.note(", ".join(f"{timing.format} {timing.p50_ms:.3g} ms" for timing in smallest(timings).values()))
    return Measured(timings=in_order(timings), untimed=tuple(untimed), processor=processor)


def pays(gated: Validated, judged: list[Judged], measured: Measured) -> tuple[list[Judged], list[LeftOut]]:
    """INT8 stays where it is smaller or faster than its base by the part that the spec names, and slower at no batch
    size that was timed on one thread. By a spec of schema 1: smaller at all, and not slower, with the spec's margin."""
    size: dict[str, int] = {entry.candidate.format: entry.candidate.size for entry in judged}
    spec = gated.planned.spec
    clock = _clock(gated, measured) if asks_a_clock(spec) else Clock({}, {})
    kept: list[Judged] = []
    dropped: list[LeftOut] = []
    for entry in judged:
        format = entry.candidate.format
        base = base_of(format)
        if not is_int8(format):
            kept.append(entry)
        elif base not in size:
            dropped.append(left_out(format, "pays", Outcome.NOT_RUN, f"there is no {base} to compare with (PH-0614)"))
        elif reason := shortfall(spec, format, size[format] / size[base], clock):
            dropped.append(left_out(format, "pays", Outcome.REFUSED, reason, made=entry.candidate))
        else:
            kept.append(entry)
    return kept, dropped


@dataclass(frozen=True)
class Clock:
    """What the clock said of each INT8 format, for good: whether it is slower than its base at some batch size, and
    whether it is faster, over them all, by the part that the spec names."""

    slower: Mapping[str, bool]
    faster: Mapping[str, bool]


def asks_a_clock(spec: Spec) -> bool:
    return spec.schema_version == 1 or spec.gates.int8_worth > 0


def shortfall(spec: Spec, format: str, part: float, clock: Clock) -> str:
    """Why an INT8 format does not pay; empty if it does. part: its size / its base's. Names no figure that a clock or a
    processor changes, since it is digested."""
    if not asks_a_clock(spec):
        return ""
    if spec.schema_version == 1 and part >= 1:
        return f"is not smaller than {base_of(format)} (PH-0615)"
    if clock.slower[format]:
        return f"is slower than {base_of(format)} on this processor (PH-0616)"
    worth = spec.gates.int8_worth
    if spec.schema_version == 1 or part <= 1 - worth or clock.faster.get(format, False):
        return ""
    words = f"{100 * worth:g} %"
    return f"is neither {words} smaller than {base_of(format)} nor {words} faster on this processor (PH-0617)"


def _clock(gated: Validated, measured: Measured) -> Clock:
    """What was decided before under this release's id counts; what was not is decided now, for good."""
    gates = gated.planned.spec.gates
    least = gates.int8_speed or DEFAULT_SPEED
    slower = {format: speed < least for format, speed in slowest(measured.timings).items() if is_int8(format)}
    speeds = typical(measured.timings) if gated.planned.spec.schema_version != 1 else {}
    faster = {format: speed >= 1 + gates.int8_worth for format, speed in speeds.items() if is_int8(format)}

    def add(before: Decisions) -> Decisions:
        return before.model_copy(update={"slower": slower | before.slower, "faster": faster | before.faster})

    if not slower:
        return Clock({}, {})
    decided = decide(gated.planned, add)
    return Clock(decided.slower, decided.faster)
