"""Image: the release's ONNX formats on the runtime image, pushed under a digest that nobody looks at yet."""

from __future__ import annotations

from pathlib import Path

from infra import images
from infra.workshop import workshop
from packhouse.artifact import Artifact
from packhouse.digest import short
from packhouse.manifest import GOLDEN, MANIFEST, ReleasedImage
from packhouse.spec import SPEC_FILE, Format
from tasks.stage import one_line, stage
from tasks.states import Imaged, Published

SERVED = (Format.ONNX, Format.ONNX_INT8)


@stage("image")
def image(published: Published) -> Imaged:
    """Raises ImageInvalid: the worker has no image to build on, or ONNX was left out. SourceNotAllowed: images may not
    go there. RegistryUnavailable, RegistryRefusal, EngineUnavailable."""
    planned = published.packed.planned
    assert planned.spec.image is not None
    settings = workshop().settings
    base = images.runtime(settings.runtime_image)
    target = images.allowed(planned.spec.image.repository, planned.model, settings)
    if not settings.engine:
        images.check_server(base, settings)
    with one_line(planned.model, "image") as line:
        pushed = images.builder(settings).push(
            images.ModelImage(
                files=files(published),
                base=base,
                target=target,
                labels=labels(published),
                environment={"MODEL_DIR": f"/{images.MODELS}", "PACKHOUSE_MANIFEST_DIGEST": published.manifest.digest},
            )
        )
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


def files(published: Published) -> dict[str, Path]:
    """What the server needs of the release, by name: what proves it, and the formats that it runs."""
    manifest = published.packed.manifest
    served = {made.file for made in manifest.formats if made.format in SERVED}
    data = {artifact.name for artifact in manifest.artifacts if artifact.name.removesuffix(".data") in served}
    names = sorted({SPEC_FILE, GOLDEN} | served | data)
    taken: list[Artifact] = [manifest.artifact(name) for name in names]
    cache = workshop().cache
    return {artifact.name: cache.path(artifact) for artifact in taken} | {MANIFEST: cache.path(published.manifest)}


def labels(published: Published) -> dict[str, str]:
    """Of the image: facts that follow from the release, and no clock. Source of the first names:
    https://github.com/opencontainers/image-spec/blob/v1.1.1/annotations.md."""
    planned = published.packed.planned
    return {
        "org.opencontainers.image.title": planned.model,
        "org.opencontainers.image.version": planned.release,
        "org.opencontainers.image.description": planned.spec.model.description
        or f"packhouse release of {planned.model}",
        "dev.packhouse.manifest": published.manifest.digest,
    }
