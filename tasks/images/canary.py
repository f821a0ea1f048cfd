"""Canary: the server of what was made answers the golden cases as the trained model did, or nothing is committed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import packhouse
from infra.images import canary as places
from infra.registry.reference import parse
from infra.worker.context import worker_context
from packhouse.artifact import Outcome, Verdict
from packhouse.errors import ImageInvalid
from packhouse.formats.processors import has_vnni
from packhouse.formats.table import SERVED
from packhouse.parity.judge import Case
from packhouse.parity.replay import compare, golden_cases
from packhouse.release.choice import computes_as_judged
from packhouse.release.manifest import CANARY, GOLDEN, Made, Record, Release
from tasks._support.pipeline_task import one_line, pipeline_task
from tasks._support.states import Imaged, Proven, Published
from tasks.images.build_image import files


@pipeline_task("canary")
def canary(imaged: Imaged) -> Proven:
    """Each format that the image can serve on this processor. Raises ImageInvalid: it answers something else, or does
    not answer. EngineUnavailable."""
    published, manifest = imaged.published, imaged.published.packed.manifest
    vnni = has_vnni()
    served = [made for made in manifest.formats if made.name in SERVED and computes_as_judged(made, vnni=vnni)]
    cases = golden_cases(worker_context().cache.path(manifest.artifact(GOLDEN)))
    measures: tuple[str, ...] = ()
    with one_line(manifest.model, "canary") as line:
        for made in served:
            measures = _held(imaged, made, cases)
        line.note(f"{', '.join(made.name for made in served)}: {', '.join(measures)}")
    proven = [manifest.artifact(name).digest for name in (GOLDEN, *(made.file for made in served))]
    verdict = Verdict(check=CANARY, subject="image", outcome=Outcome.PASS, compared=(imaged.image.digest, *proven))
    where = "container" if worker_context().settings.engine else "child"
    return Proven(
        published=published,
        record=_record(published, image=imaged.image, verdicts=(verdict,)),
        facts={**imaged.facts, "canary": where, "held to": list(measures)},
    )


def unserved(published: Published) -> Proven:
    """Of a release that has no image, and so needs no canary."""
    return Proven(published=published, record=_record(published))


def _record(published: Published, **served: Any) -> Record:
    planned, manifest = published.packed.planned, published.manifest
    named = {"model": planned.model, "release": planned.release}
    settings = worker_context().settings
    made = Made(
        source=planned.source,
        builder=settings.builder,
        version=packhouse.__version__,
        worker=settings.worker_image,
        sandbox=published.packed.sandbox,
    )
    return Record(**named, manifest=manifest.digest, manifest_size=manifest.size, provenance=made, **served)


def _held(imaged: Imaged, made: Release, cases: Sequence[Case]) -> tuple[str, ...]:
    """What the server was held to while it answered well."""
    published, settings = imaged.published, worker_context().settings
    environment = {"PACKHOUSE_FORMAT": made.name}
    if settings.engine:
        image = parse(imaged.image.reference)
        answered = places.in_engine(settings.engine, image, environment, cases, memory=settings.child_memory)
    else:
        environment |= {"PACKHOUSE_MANIFEST_DIGEST": published.manifest.digest}
        with worker_context().turn("canary") as folder:
            answered = places.in_child(
                folder,
                files(published.packed.manifest, published.manifest),
                environment,
                published.packed.manifest,
                cases,
                memory=settings.child_memory,
                require=settings.require,
            )
    if refusal := compare(cases, answered.answers, made.tolerance).refusal:
        raise ImageInvalid(
            f"PH-0535 the image answers something else: {refusal}", where=f"{made.name} over the protocol"
        )
    return answered.measures
