"""Refer: runs the trained model itself, for its traps and on every probe in fp32 and float64, for the judge to compare
with."""

from __future__ import annotations

from infra.worker.context import File, worker_context
from packhouse.artifact import SAFETENSORS
from packhouse.parity.preflight import Finding
from packhouse.release.manifest import Counts, Sizes
from tasks._support.pipeline_task import one_line, pipeline_task
from tasks._support.states import Referenced, Validated


@pipeline_task("reference outputs")
def reference_outputs(gated: Validated) -> Referenced:
    """Raises SamplesInvalid, SpecInvalid, ParityRefused: see tasks.jobs.reference."""
    with one_line(gated.planned.model, "reference outputs") as line:
        answer, (cases, evaluation) = worker_context().run(
            "tasks.jobs.reference:run",
            {
                **gated.trained,
                "cases": "cases.safetensors",
                "evaluation": "evaluation.safetensors",
            },
            File("cases.safetensors", SAFETENSORS),
            File("evaluation.safetensors", SAFETENSORS),
        )
        line.note(f"{len(answer.document['cases'])} cases")
        findings = tuple(Finding.model_validate(document) for document in answer.document["findings"])
        if findings:
            line.note(f"preflight: {'; '.join(finding.line() for finding in findings)}")
    return Referenced(
        cases=cases,
        evaluation=evaluation,
        notes=tuple(answer.document["notes"]),
        findings=findings,
        sizes=Sizes.model_validate(answer.document["sizes"]),
        samples=Counts.model_validate(answer.document["samples"]),
    )
