"""Pack: the manifest over everything that passed, with the cases that prove it again later."""

from __future__ import annotations

import math
from collections import Counter

from infra.worker.context import File, worker_context
from packhouse.artifact import SAFETENSORS, Artifact, Verdict
from packhouse.errors import ParityRefused
from packhouse.formats.table import row
from packhouse.parity.replay import kept_tolerance
from packhouse.release.manifest import GOLDEN, Manifest, Processors, Release, Runtime, Values
from packhouse.release.sbom import MEDIA_TYPE, SBOM, release_bill
from packhouse.spec.model import Input, Want
from packhouse.weights.safetensors_codec import read_header
from tasks._support.pipeline_task import one_line
from tasks._support.states import Candidate, Judged, LeftOut, Packed, Planned, Referenced, Validated


def insist(planned: Planned, left_out: list[LeftOut]) -> None:
    """Raises ParityRefused: a format that the spec requires is left out; its verdict is the reason."""
    for entry in left_out:
        if planned.spec.formats.want(entry.format) is Want.REQUIRED:
            raise ParityRefused(entry.verdict.reason, where=f"{planned.model}: {entry.format}")


def pack(
    gated: Validated,
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
            f"PH-0580 no format is left: {left_out[0].format}: {left_out[0].verdict.reason}", where=planned.model
        )
    with one_line(planned.model, "package") as line:
        _, (golden,) = worker_context().run(
            "tasks.jobs.golden:run",
            {"cases": referenced.cases, "out": GOLDEN},
            File(GOLDEN, SAFETENSORS),
        )
        files = [gated.spec_file, gated.weights, golden, *(file for entry in judged for file in entry.candidate.files)]
        files.append(_bill(planned, sorted(files, key=_name)))
        computed = _computed_in(gated)
        manifest = Manifest(
            model=planned.model,
            release=planned.release,
            inputs=planned.inputs,
            outputs=tuple(output.name for output in planned.spec.outputs),
            text=planned.spec.text,
            sizes=referenced.sizes,
            values={tensor.name: _values(tensor) for tensor in planned.spec.inputs},
            samples=referenced.samples,
            formats=tuple(_release(gated, entry, computed) for entry in judged),
            artifacts=tuple(sorted(files, key=_name)),
            verdicts=(*(entry.verdict for entry in judged), *(entry.verdict for entry in left_out), *cuda),
        )
        line.note(f"{len(manifest.artifacts)} files")
    return Packed(
        planned=planned,
        manifest=manifest,
        judged=tuple(judged),
        left_out=tuple(left_out),
        sandbox=gated.lockdown,
    )


def _bill(planned: Planned, files: list[Artifact]) -> Artifact:
    """What is in the release, for scanners."""
    bill = release_bill(planned.model, planned.release, planned.inputs, files, planned.spec.model.description)
    return worker_context().cache.write(bill, name=SBOM, media_type=MEDIA_TYPE)


def _release(gated: Validated, judged: Judged, computed: str) -> Release:
    """computed: the precision that the model computes in. INT8 computes the rest of the model in it, too."""
    candidate, facts = judged.candidate, judged.candidate.facts
    reads = dict(facts.get("onnx") or facts.get("runtime") or {})
    return Release(
        name=str(candidate.format),
        files=tuple(file.name for file in candidate.files),
        runtime=Runtime(name=row(candidate.format).package, oldest=str(reads.pop("onnxruntime", "")), facts=reads),
        tolerance=kept_tolerance(candidate.format, gated.planned.spec.gates, judged.measures["golden_sqnr_db"]),
        recipe=str(facts.get("recipe", "")),
        processors=Processors.ANY if facts.get("portable", True) else Processors.VNNI,
        way=_way(candidate),
        computed_in=computed,
    )


def _way(candidate: Candidate) -> str:
    """Which exporter made it. A program has one way only; ONNX in INT8 is made of an ONNX file."""
    known, made = candidate.facts.get("method") or candidate.facts.get("exporter"), row(candidate.format)
    return made.ways.get(str(known), str(known)) if known else made.way


FLOATS = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}
"""Of safetensors' dtypes, as numpy and torch name them."""


def _computed_in(gated: Validated) -> str:
    """The floating precision of most of the weights; of a model whose weights are none, of its inputs."""
    counts: Counter[str] = Counter()
    for info in read_header(worker_context().cache.path(gated.weights)).tensors.values():
        if info.dtype in FLOATS:
            counts[FLOATS[info.dtype]] += math.prod(info.shape)
    spec = gated.planned.spec
    floating = [each.dtype.value for each in (*spec.inputs, *spec.outputs) if each.dtype.floating]
    return max(counts, key=lambda name: (counts[name], name)) if counts else next(iter(floating), "")


def _values(tensor: Input) -> Values:
    """nan, inf: what a spec of schema 2 says; one of schema 1 allows neither."""
    return Values(range=tensor.range, nan=getattr(tensor, "nan", False), inf=getattr(tensor, "inf", False))


def _name(artifact: Artifact) -> str:
    return artifact.name
