"""Refer: runs the trained model itself on every probe, in fp32 and float64, for the judge to compare with."""

from __future__ import annotations

from infra.workshop import File, workshop
from packhouse.artifact import SAFETENSORS
from tasks.stage import one_line, stage
from tasks.states import Gated, Referenced


@stage("refer")
def refer(gated: Gated) -> Referenced:
    """Raises SamplesInvalid, SpecInvalid, ParityRefused: see tasks.jobs.reference."""
    with one_line(gated.planned.model, "refer") as line:
        answer, (cases, evaluation) = workshop().run(
            "tasks.jobs.reference:run",
            {
                "spec": gated.spec_file,
                "weights": gated.weights,
                "samples": gated.samples,
                "cases": "cases.safetensors",
                "evaluation": "evaluation.safetensors",
            },
            File("cases.safetensors", SAFETENSORS),
            File("evaluation.safetensors", SAFETENSORS),
        )
        line.note(f"{len(answer.document['cases'])} cases")
    return Referenced(cases=cases, evaluation=evaluation, notes=tuple(answer.document["notes"]))
