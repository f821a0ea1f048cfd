"""Gate: foreign weights in, canonical safetensors out, or a refusal by name."""

from __future__ import annotations

from infra.worker.context import File, worker_context
from packhouse.artifact import SAFETENSORS
from packhouse.formats.table import Format, row
from packhouse.release.manifest import WEIGHTS
from tasks._support.pipeline_task import one_line, pipeline_task
from tasks._support.states import Fetched, Validated

PROGRAM_FILE = "program.pt2"
"""What the gate makes of a source that is a program, written anew; not a part of the release."""


@pipeline_task("validate weights")
def validate_weights(fetched: Fetched) -> Validated:
    """Raises UnsafeWeights, WeightsInvalid, ArchitectureUnknown; LimitExceeded, StageCrashed from the sandbox."""
    with one_line(fetched.planned.model, "validate weights") as line:
        answer, written = worker_context().run(
            "tasks.jobs.validate_weights:run",
            {"spec": fetched.spec_file, "weights": fetched.weights, "out": WEIGHTS, "program": PROGRAM_FILE},
            File(WEIGHTS, SAFETENSORS, optional=True),
            File(PROGRAM_FILE, row(Format.PROGRAM).media_type, optional=True),
        )
        made = {artifact.name: artifact for artifact in written}
        weights = made.get(WEIGHTS) or worker_context().cache.also(
            fetched.weights, name=WEIGHTS, media_type=SAFETENSORS
        )
        line.made(weights)
    return Validated(
        planned=fetched.planned,
        spec_file=fetched.spec_file,
        weights=weights,
        samples=fetched.samples,
        facts=answer.document,
        lockdown=answer.lockdown,
        program=made.get(PROGRAM_FILE),
    )
