"""Pack: the manifest over everything that passed, with the cases that prove it again later."""

from __future__ import annotations

from infra.workshop import File, workshop
from packhouse.artifact import SAFETENSORS, Artifact, Verdict
from packhouse.errors import ParityRefused
from packhouse.manifest import GOLDEN, Manifest, Processors, Release
from packhouse.onnxruntimes import Onnx
from packhouse.replay import kept_tolerance
from packhouse.sbom import MEDIA_TYPE, SBOM, release_bill
from packhouse.spec import Want
from tasks.stage import one_line
from tasks.states import Gated, Judged, LeftOut, Packed, Planned, Referenced


def insist(planned: Planned, left_out: list[LeftOut]) -> None:
    """Raises ParityRefused: a format that the spec requires is left out; its verdict is the reason."""
    for entry in left_out:
        if planned.spec.formats.want(entry.format) is Want.REQUIRED:
            raise ParityRefused(entry.verdict.reason, where=f"{planned.model}: {entry.format}")


def pack(
    gated: Gated,
    referenced: Referenced,
    judged: list[Judged],
    left_out: list[LeftOut],
    *,
    cuda: tuple[Verdict, ...] = (),
) -> Packed:
    """cuda: what the GPU said. Raises ParityRefused: a format that the spec requires is left out, or none is left."""
    planned = gated.planned
    insist(planned, left_out)
    if not judged:
        raise ParityRefused(
            f"no format is left: {left_out[0].format}: {left_out[0].verdict.reason}", where=planned.model
        )
    with one_line(planned.model, "package") as line:
        _, (golden,) = workshop().run(
            "tasks.jobs.golden:run",
            {"cases": referenced.cases, "out": GOLDEN},
            File(GOLDEN, SAFETENSORS),
        )
        files = [gated.spec_file, gated.weights, golden, *(file for entry in judged for file in entry.candidate.files)]
        files.append(_bill(planned, sorted(files, key=_name)))
        manifest = Manifest(
            model=planned.model,
            release=planned.release,
            inputs=planned.inputs,
            outputs=tuple(output.name for output in planned.spec.outputs),
            text=planned.spec.text,
            formats=tuple(_release(gated, entry) for entry in judged),
            artifacts=tuple(sorted(files, key=_name)),
            verdicts=(*(entry.verdict for entry in judged), *(entry.verdict for entry in left_out), *cuda),
        )
        line.note(f"{len(manifest.artifacts)} files")
    return Packed(planned=planned, manifest=manifest, judged=tuple(judged), left_out=tuple(left_out))


def _bill(planned: Planned, files: list[Artifact]) -> Artifact:
    """What is in the release, for scanners."""
    bill = release_bill(planned.model, planned.release, planned.inputs, files, planned.spec.model.description)
    return workshop().cache.write(bill, name=SBOM, media_type=MEDIA_TYPE)


def _release(gated: Gated, judged: Judged) -> Release:
    format = judged.candidate.format
    tolerance = kept_tolerance(format, gated.planned.spec.gates, judged.measures["golden_sqnr_db"])
    facts = judged.candidate.facts
    return Release(
        format=format,
        file=format.file,
        tolerance=tolerance,
        recipe=str(facts.get("recipe", "")),
        processors=Processors.ANY if facts.get("portable", True) else Processors.VNNI,
        data=judged.candidate.data.name if judged.candidate.data else None,
        onnx=Onnx(**facts["onnx"]) if "onnx" in facts else None,
    )


def _name(artifact: Artifact) -> str:
    return artifact.name
