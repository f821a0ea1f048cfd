"""Restore: an image that its registry lost, all of it or a blob, is made again from the release and pushed: the very
bytes that the record names, or nothing."""

from __future__ import annotations

from infra.images import builders
from infra.registry.reference import Reference, parse
from infra.worker.context import worker_context
from packhouse.errors import ImageInvalid, ImageLost, Refused
from packhouse.release.lookup import find, manifest_bytes, parsed_manifest
from packhouse.release.manifest import MANIFEST, Record, ReleasedImage
from packhouse.spec.model import SPEC_FILE
from packhouse.spec.model import parse as parse_spec
from tasks._support.pipeline_task import one_line
from tasks.fetch import download
from tasks.images.build_image import model_image, served


def restored(record: Record) -> tuple[str, ...]:
    """What was pushed again, in words. An image that is whole costs one small read and a HEAD for each blob.

    Raises ImageLost: it can not be made again, and why. SourceNotAllowed: the image is not where images of the model
    may be. RegistryUnavailable, RegistryRefusal, and the store's errors."""
    if record.image is None:
        return ()
    settings, image = worker_context().settings, parse(record.image.reference)
    builders.allowed(image.name, record.model, settings)
    appender = builders.Appender(settings)
    with one_line(record.model, "restore") as line:
        if not (lost := ", ".join(appender.missing(image))):
            line.note("whole")
            return ()
        try:
            appender.push(_again(record, record.image, image), known=image.digest)
            if left := appender.missing(image):
                raise ImageInvalid(
                    "PH-0589 the registry took it, and still lacks a part", where=image.name, got=", ".join(left)
                )
        except Refused as error:
            raise _lost(record, lost, error) from error
        words = f"image pushed again, its registry had lost {lost}"
        line.note(words)
    return (words,)


def _again(record: Record, released: ReleasedImage, image: Reference) -> builders.ModelImage:
    """From the release in the store, on the runtime image that the record names, which lies where today's does."""
    base = builders.runtime(worker_context().settings.runtime_image).at(released.runtime)
    found, cache = find(worker_context().store, f"{record.model}/{record.release}"), worker_context().cache
    data = manifest_bytes(found, record)
    manifest = parsed_manifest(data, found, record)
    kept = cache.write(data, name=MANIFEST, media_type="application/json")
    for artifact in served(manifest):
        download(found.store, f"{found.prefix}{artifact.name}", artifact)
    spec = parse_spec(cache.path(manifest.artifact(SPEC_FILE)).read_bytes(), where=SPEC_FILE)
    target = Reference(image.host, image.repository)
    return model_image(manifest, kept, spec.model.description, base=base, target=target)


def _lost(record: Record, lost: str, error: Refused) -> ImageLost:
    where = f"{error.where}: " if error.where else ""
    return ImageLost(
        f"PH-0588 the registry lost {lost} of its image, which can not be pushed again: {where}{error.what}",
        where=f"{record.model}/{record.release}",
        got=error.got,
        want=error.want,
        next=error.next or "bring that back from a backup, or make another release: docs/images.md",
    )
