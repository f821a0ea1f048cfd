"""Canary: the server of what was made answers the golden cases as the trained model did, or nothing is committed."""

from __future__ import annotations

from collections.abc import Sequence

from infra import canary as places
from infra.registry.reference import parse
from infra.serving.processors import has_vnni
from infra.workshop import workshop
from packhouse.artifact import Outcome, Verdict
from packhouse.errors import ImageInvalid
from packhouse.judge import Case
from packhouse.manifest import CANARY, GOLDEN, Processors, Record, Release
from packhouse.replay import compare, golden_cases
from tasks.image import SERVED, files
from tasks.stage import one_line, stage
from tasks.states import Imaged, Proven


@stage("canary")
def canary(imaged: Imaged) -> Proven:
    """Each format that the image can serve on this processor. Raises ImageInvalid: it answers something else, or does
    not answer. EngineUnavailable."""
    published = imaged.published
    manifest, planned = published.packed.manifest, published.packed.planned
    verdicts: tuple[Verdict, ...] = ()
    facts = dict(imaged.facts)
    if imaged.image:
        served = [made for made in manifest.formats if made.format in SERVED and _fits(made)]
        with one_line(planned.model, "canary") as line:
            measures: tuple[str, ...] = ()
            cases = golden_cases(workshop().cache.path(manifest.artifact(GOLDEN)))
            for made in served:
                measures = _held(imaged, made, cases)
            line.note(f"{', '.join(made.format for made in served)}: {', '.join(measures)}")
        proven = [manifest.artifact(name).digest for name in (GOLDEN, *(made.file for made in served))]
        compared = (imaged.image.digest, *proven)
        verdicts = (Verdict(check=CANARY, subject="image", outcome=Outcome.PASS, compared=compared),)
        facts |= {"canary": "container" if workshop().settings.engine else "child", "held to": list(measures)}
    record = Record(
        model=planned.model,
        release=planned.release,
        manifest=published.manifest.digest,
        manifest_size=published.manifest.size,
        image=imaged.image,
        verdicts=verdicts,
    )
    return Proven(published=published, record=record, facts=facts)


def _fits(made: Release) -> bool:
    return made.processors is Processors.ANY or has_vnni()


def _held(imaged: Imaged, made: Release, cases: Sequence[Case]) -> tuple[str, ...]:
    """What the server was held to while it answered well."""
    assert imaged.image is not None
    published, settings = imaged.published, workshop().settings
    environment = {"PACKHOUSE_FORMAT": made.format.value}
    if settings.engine:
        image = parse(imaged.image.reference)
        answered = places.in_engine(settings.engine, image, environment, cases, memory=settings.child_memory)
    else:
        environment |= {"PACKHOUSE_MANIFEST_DIGEST": published.manifest.digest}
        with workshop().turn("canary") as folder:
            answered = places.in_child(
                folder,
                files(published),
                environment,
                published.packed.manifest,
                cases,
                memory=settings.child_memory,
                require=settings.require,
            )
    if refusal := compare(cases, answered.answers, made.tolerance).refusal:
        raise ImageInvalid(f"the image answers something else: {refusal}", where=f"{made.format} over the protocol")
    return answered.measures
