"""Attach: what is known of an image hangs on it in its registry: its bill of materials, and what is signed of it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from infra.images import builders
from infra.registry import completeness, referrers
from infra.registry.append import tag
from infra.registry.modelpack import Pack, push
from infra.registry.packages import image_component
from infra.registry.reference import Reference, parse
from infra.registry.referrers import Attachment
from infra.worker.context import worker_context
from packhouse.artifact import Artifact
from packhouse.digest import digest_bytes, short
from packhouse.errors import NotFound
from packhouse.formats.table import SERVED
from packhouse.release.lookup import Found, find, read_manifest
from packhouse.release.manifest import IMAGE_BUNDLES, MANIFEST, PROVENANCE, RECORD, SIGNATURE, Manifest, Record
from packhouse.release.sbom import MEDIA_TYPE, bill, file, libraries, model_component
from packhouse.spec.model import Spec
from packhouse.trust.dsse import BUNDLE, unchecked
from tasks._support.pipeline_task import one_line
from tasks.fetch import download

OF_RECORD, DOCUMENT = "dev.packhouse.record", "dev.packhouse.document"
"""Digests: of the record that the document is about, and of the document, so that a new key's hangs there too."""
PREDICATE = "dev.sigstore.bundle.predicateType"


def attached(record: Record) -> tuple[str, ...]:
    """What was attached, in words. All in one go, since two writers of a list could lose each other's entries.

    What hangs there already for this record stays; so a run that was killed is completed, and an unchanged release
    costs a look.
    Raises SourceNotAllowed: the image is not where images of the model may be. RegistryUnavailable, RegistryRefusal."""
    if record.image is None:
        return ()
    settings, image = worker_context().settings, parse(record.image.reference)
    builders.allowed(image.name, record.model, settings)
    with one_line(record.model, "attach") as line, builders.client_of(image.host, settings) as client:
        found = find(worker_context().store, f"{record.model}/{record.release}")
        of = digest_bytes(found.record_bytes)
        listed = [each for each in referrers.referrers(client, image) if each.annotations.get(OF_RECORD) == of]
        hanging = [each for each in listed if client.has_manifest(image.repository, each.digest)]  # a list outlives it
        there = {each.annotations.get(DOCUMENT) for each in hanging}
        missing = [each for each in _signed(found, of) if each.annotations[DOCUMENT] not in there]
        if MEDIA_TYPE not in {each.kind for each in hanging}:
            missing.append(Attachment(MEDIA_TYPE, _bill(found, image), MEDIA_TYPE, {OF_RECORD: of}))
        if not missing:
            line.note("stays")
            return ()
        referrers.attach(client, image, missing)
        words = f"{len(missing)} documents on the image"
        line.note(words)
        return (words,)


def modelpack(record: Record, spec: Spec) -> None:
    """The release's folder as an artifact beside the image, under the tag `<release>-model`; where that tag is, and
    all that it names, it was pushed before. Raises as `attached`."""
    assert record.image is not None
    settings, image = worker_context().settings, parse(record.image.reference)
    builders.allowed(image.name, record.model, settings)
    name = f"{record.release}-model"
    with one_line(record.model, "modelpack") as line, builders.client_of(image.host, settings) as client:
        if not completeness.missing(client, Reference(image.host, image.repository, tag=name), settings.platform):
            line.note("stays")
            return
        found = find(worker_context().store, f"{record.model}/{record.release}")
        labels = {"org.opencontainers.image.title": record.model, "org.opencontainers.image.version": record.release}
        pack = Pack(record.model, record.release, spec.model.description, _files(found), labels)
        pushed = push(client, Reference(image.host, image.repository), pack)
        tag(client, pushed, name)
        line.note(f"{short(pushed.digest)}, {len(pack.files)} files")


def _files(found: Found) -> list[tuple[Artifact, Path]]:
    """All that `verify` looks at, by name; each is fetched by its digest, unless it is here."""
    cache, record = worker_context().cache, found.record
    artifacts = list(read_manifest(found, record).artifacts)
    for artifact in artifacts:
        download(found.store, f"{found.prefix}{artifact.name}", artifact)
    for name in (RECORD, MANIFEST, PROVENANCE, SIGNATURE):
        with suppress(NotFound):  # only what is signed has the last two
            artifacts.append(cache.write(found.document(name), name=name, media_type="application/json"))
    return [(artifact, cache.path(artifact)) for artifact in sorted(artifacts, key=lambda each: each.name)]


def _signed(found: Found, of: str) -> list[Attachment]:
    """The bundles that the signer left in the release's folder; none where nobody signs."""
    try:
        data = found.document(IMAGE_BUNDLES)
    except NotFound:
        return []
    return [_bundle(line, of) for line in data.splitlines()]


def _bundle(bundle: bytes, of: str) -> Attachment:
    """As cosign lays one down. Source: https://github.com/sigstore/cosign/blob/v3.0.0/specs/BUNDLE_SPEC.md."""
    predicate = str(unchecked(bundle, where=IMAGE_BUNDLES).get("predicateType", ""))
    annotations = {"dev.sigstore.bundle.content": "dsse-envelope", PREDICATE: predicate, OF_RECORD: of}
    annotations[DOCUMENT] = digest_bytes(bundle)
    return Attachment(BUNDLE, bundle, BUNDLE, annotations)


def _bill(found: Found, image: Reference) -> bytes:
    """Debian's and Python's packages of the runtime image, and the model with the files that the image serves."""
    record = found.record
    assert record.image is not None
    manifest = read_manifest(found, record)
    settings = worker_context().settings
    runtime = builders.runtime(settings.runtime_image).at(record.image.runtime)
    served = [file(manifest.artifact(name)) for made in manifest.formats if made.name in SERVED for name in made.files]
    components = [*builders.packages(runtime, settings), *served, _model(manifest)]
    return bill(image_component(image.name, image.digest), components)


def _model(manifest: Manifest) -> dict[str, object]:
    made_with = [str(each["purl"]) for each in libraries(manifest.inputs)]
    properties = [{"name": "packhouse:made-with", "value": purl} for purl in sorted(made_with)]
    return model_component(manifest.model, manifest.release) | {"properties": properties}
