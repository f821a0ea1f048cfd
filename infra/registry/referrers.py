"""Referrers: documents that hang on an image, such as signatures, provenance and bills of materials.

Source: https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#listing-referrers and
image-spec/manifest.md, "Guidelines for Artifact Usage". A registry without that API is served by the specification's
own fallback: an index under the tag `sha256-<hex>`. That is read, changed and written, so two writers can lose each
other's entries: it is read again afterwards, until all of ours are there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from infra.registry import oci_manifests
from infra.registry.client import Client
from infra.registry.oci_manifests import Descriptor
from infra.registry.reference import Reference
from packhouse.digest import digest_bytes
from packhouse.errors import Contention, ImageInvalid, NotFound

EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
EMPTY = b"{}"
ATTEMPTS = 8


@dataclass(frozen=True)
class Attachment:
    """kind: the artifact's type, for those who look for it. media_type: of the data."""

    kind: str
    data: bytes
    media_type: str
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Referrer:
    """A document that hangs there, by reference."""

    digest: str
    kind: str
    annotations: Mapping[str, str]


def attach(client: Client, image: Reference, attachments: Sequence[Attachment]) -> int:
    """How many hang there that did not before. Deterministic: the same documents are attached once.

    Raises NotFound: there is no such image. Contention: others write the index all the time. And the registry's."""
    subject = _subject(client, image)
    before = {each.digest for each in referrers(client, image)}
    entries, listed = [], True
    for attachment in attachments:
        entry, by_api = _push(client, image, subject, attachment)
        entries.append(entry)
        listed = listed and by_api
    if not listed:
        _list(client, image, entries)
    return len({str(entry["digest"]) for entry in entries} - before)


def referrers(client: Client, image: Reference) -> list[Referrer]:
    """By the API where there is one, else by the fallback tag. Entries that can not be read here are others'."""
    index = _by_api(client, image) or _by_tag(client, image)
    found = []
    for entry in index.get("manifests", []):
        try:
            described = oci_manifests.descriptor(entry, where=str(image))
        except ImageInvalid:
            continue
        annotations = entry.get("annotations")
        known = annotations if isinstance(annotations, dict) else {}
        found.append(Referrer(described.digest, str(entry.get("artifactType", "")), known))
    return found


def read(client: Client, image: Reference, referrer: Referrer) -> bytes:
    """The document itself, hashed. Raises ImageInvalid: it has no single layer; NotFound, DigestMismatch."""
    data, _ = client.manifest(image.repository, referrer.digest)
    layers = oci_manifests.read(data, where=str(image)).get("layers", [])
    if len(layers) != 1:
        raise ImageInvalid(
            "PH-0450 is not one document", where=f"{image.name}@{referrer.digest}", got=f"{len(layers)} layers"
        )
    return client.small_blob(image.repository, oci_manifests.descriptor(layers[0], where=str(image)))


def fallback_tag(image: Reference) -> str:
    return image.digest.replace(":", "-")


def _subject(client: Client, image: Reference) -> dict[str, Any]:
    data, digest = client.manifest(image.repository, image.digest)
    kind = oci_manifests.read(data, where=str(image))["mediaType"]
    return Descriptor(mediaType=kind, digest=digest, size=len(data)).plain()


def _push(
    client: Client, image: Reference, subject: dict[str, Any], attachment: Attachment
) -> tuple[dict[str, Any], bool]:
    """Its entry in an index, and whether the registry lists it by itself."""
    for data in (EMPTY, attachment.data):
        client.ensure_document(image.repository, data)
    annotations = dict(attachment.annotations)
    config = Descriptor(mediaType=EMPTY_TYPE, digest=digest_bytes(EMPTY), size=len(EMPTY))
    layer = Descriptor(mediaType=attachment.media_type, digest=digest_bytes(attachment.data), size=len(attachment.data))
    manifest = oci_manifests.compact(
        {
            "schemaVersion": 2,
            "mediaType": oci_manifests.MANIFEST,
            "artifactType": attachment.kind,
            "config": config.plain(),
            "layers": [layer.plain()],
            "subject": subject,
            "annotations": annotations,
        }
    )
    digest = digest_bytes(manifest)
    answer = client.put_manifest(image.repository, digest, manifest, oci_manifests.MANIFEST)
    entry = Descriptor(mediaType=oci_manifests.MANIFEST, digest=digest, size=len(manifest)).plain()
    described = entry | {"artifactType": attachment.kind, "annotations": annotations}
    return described, answer.get("OCI-Subject") == image.digest


def _list(client: Client, image: Reference, entries: Sequence[dict[str, Any]]) -> None:
    """Entries of others stay as they are, whatever they are. Raises ImageInvalid: the tag is of something else."""
    wanted = {entry["digest"]: entry for entry in entries}
    for attempt in range(ATTEMPTS + 1):
        index = _by_tag(client, image) or {"schemaVersion": 2, "mediaType": oci_manifests.INDEX, "manifests": []}
        there = index["manifests"]
        missing = wanted.keys() - {str(entry.get("digest")) for entry in there}
        if not missing:
            return
        if attempt == ATTEMPTS:
            break
        listed = [*there, *(wanted[digest] for digest in missing)]
        changed = index | {"manifests": sorted(listed, key=lambda entry: str(entry.get("digest")))}
        client.put_manifest(image.repository, fallback_tag(image), oci_manifests.compact(changed), index["mediaType"])
    raise Contention("PH-0449 others keep changing what hangs on this image", where=str(image), next="run it again")


def _by_api(client: Client, image: Reference) -> dict[str, Any]:
    """Empty where the registry has no such API. The list may come in pages; ours is short."""
    answer = client.referrers(image.repository, image.digest)
    return oci_manifests.read(answer, where=str(image)) if answer else {}


def _by_tag(client: Client, image: Reference) -> dict[str, Any]:
    try:
        data, _ = client.manifest(image.repository, fallback_tag(image))
    except NotFound:
        return {}
    index = oci_manifests.read(data, where=str(image))
    entries = index.get("manifests")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ImageInvalid("PH-0448 is no list of what hangs on an image", where=f"{image.name}:{fallback_tag(image)}")
    return index
