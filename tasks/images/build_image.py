"""Image: the release's ONNX formats on the runtime image, pushed under a digest that nobody looks at yet."""

from __future__ import annotations

from pathlib import Path

from infra.images import builders
from infra.registry.reference import Reference
from infra.worker.context import worker_context
from packhouse.artifact import Artifact
from packhouse.digest import short
from packhouse.formats.table import SERVED
from packhouse.release.contents import needed
from packhouse.release.manifest import Manifest, ReleasedImage
from tasks._support.pipeline_task import one_line, pipeline_task
from tasks._support.states import Imaged, Published


@pipeline_task("build image")
def build_image(published: Published) -> Imaged:
    """Raises ImageInvalid: the worker has no image to build on, or ONNX was left out. SourceNotAllowed: images may not
    go there. RegistryUnavailable, RegistryRefusal, EngineUnavailable."""
    planned = published.packed.planned
    assert planned.spec.image is not None
    settings = worker_context().settings
    base = builders.runtime(settings.runtime_image)
    target = builders.allowed(planned.spec.image.repository, planned.model, settings)
    if not settings.engine:
        builders.check_server(base, settings)
    with one_line(planned.model, "build image") as line:
        description = planned.spec.model.description
        made = model_image(published.packed.manifest, published.manifest, description, base=base, target=target)
        pushed = builders.builder(settings).push(made)
        line.note(f"{short(pushed.image.digest)}, {pushed.mounted} layers mounted, {pushed.sent:,} bytes sent")
    return Imaged(
        published=published,
        image=ReleasedImage(repository=target.name, digest=pushed.image.digest, runtime=base.digest),
        facts={
            "layer": pushed.layer,
            "size": pushed.size,
            "sent": pushed.sent,
            "mounted": pushed.mounted,
            "uploaded": pushed.uploaded,
            "seconds": pushed.seconds,
            "builder": settings.image_builder.value,
        },
    )


def model_image(
    manifest: Manifest, kept: Artifact, description: str, *, base: Reference, target: Reference
) -> builders.ModelImage:
    """All that decides the image's bytes, from the release and the runtime image alone: so it can be made again.

    kept: the manifest as a file. Its artifacts are in the local cache."""
    return builders.ModelImage(
        files=files(manifest, kept),
        base=base,
        target=target,
        labels=_labels(manifest, kept, description),
        environment={"MODEL_DIR": f"/{builders.MODELS}", "PACKHOUSE_MANIFEST_DIGEST": kept.digest},
    )


def files(manifest: Manifest, kept: Artifact) -> dict[str, Path]:
    """What the server needs of the release, by name."""
    return {artifact.name: worker_context().cache.path(artifact) for artifact in (*served(manifest), kept)}


def served(manifest: Manifest) -> list[Artifact]:
    """What proves the release, and the formats that the server runs."""
    return needed(manifest, [made for made in manifest.formats if made.name in SERVED])


def _labels(manifest: Manifest, kept: Artifact, description: str) -> dict[str, str]:
    """Of the image: facts that follow from the release, and no clock. Source of the first names:
    https://github.com/opencontainers/image-spec/blob/v1.1.1/annotations.md."""
    return {
        "org.opencontainers.image.title": manifest.model,
        "org.opencontainers.image.version": manifest.release,
        "org.opencontainers.image.description": description or f"packhouse release of {manifest.model}",
        "dev.packhouse.manifest": kept.digest,
    }
