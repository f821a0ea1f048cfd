"""Manifests and configs of images: read strictly, and written so that equal images have equal digests.

Source: https://github.com/opencontainers/image-spec/blob/v1.1.1/manifest.md, config.md and image-index.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from infra.registry.layer import Layer
from packhouse.artifact import Digest, Frozen
from packhouse.errors import ImageInvalid

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
ACCEPTED = (MANIFEST, INDEX, DOCKER_MANIFEST, DOCKER_INDEX)
MAX_BYTES = 4 * 1024 * 1024
"""Of a manifest or a config; registries themselves stop at this size."""

OCI_TYPES = {
    "application/vnd.docker.container.image.v1+json": CONFIG,
    "application/vnd.docker.image.rootfs.diff.tar.gzip": "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.docker.image.rootfs.diff.tar": "application/vnd.oci.image.layer.v1.tar",
}
RUNTIME_ONLY = ("container", "container_config", "docker_version", "id", "parent")
"""What engines leave in a config about the container that it was built in."""


class Descriptor(Frozen):
    """A blob or manifest by reference. size: bytes."""

    mediaType: str  # noqa: N815 - the specification's name
    digest: Digest
    size: int

    def plain(self) -> dict[str, Any]:
        return self.model_dump()


def compact(document: Any) -> bytes:
    """Sorted and without blanks, so that equal documents have equal digests."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def read(data: bytes, *, where: str) -> dict[str, Any]:
    """A manifest or an index. Raises ImageInvalid: not JSON, both at once, or of a type that its content denies
    (CVE-2021-41190: one digest must not have two meanings)."""
    document = read_json(data, where=where)
    kind = document.get("mediaType")
    both = "manifests" in document and ("layers" in document or "config" in document)
    index = kind in (INDEX, DOCKER_INDEX)
    if kind not in ACCEPTED or both or index != ("manifests" in document):
        raise ImageInvalid("PH-0444 is no image", where=where, got=str(kind), want=" or ".join((MANIFEST, INDEX)))
    return document


def read_json(data: bytes, *, where: str) -> dict[str, Any]:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ImageInvalid("PH-0443 is not JSON", where=where) from error
    if not isinstance(document, dict):
        raise ImageInvalid("PH-0442 is not a JSON object", where=where)
    return document


def descriptor(entry: Any, *, where: str) -> Descriptor:
    """Raises ImageInvalid: it has no digest, size or type."""
    try:
        return Descriptor(mediaType=entry["mediaType"], digest=entry["digest"], size=entry["size"])
    except (KeyError, TypeError, ValueError) as error:
        raise ImageInvalid("PH-0441 is no descriptor", where=where, got=str(entry)[:120]) from error


def epoch(created: str) -> int:
    """Seconds since 1970 of RFC 3339; 0 where the image does not say."""
    try:
        return max(0, int(datetime.fromisoformat(created).timestamp()))
    except ValueError:
        return 0


def for_platform(index: Mapping[str, Any], platform: str, *, where: str) -> Descriptor:
    """The image of `linux/amd64`, say. Raises ImageInvalid: the index has none."""
    system, architecture = platform.split("/")
    there = []
    for entry in index["manifests"]:
        found = entry.get("platform", {})
        there.append(f"{found.get('os')}/{found.get('architecture')}")
        if (found.get("os"), found.get("architecture")) == (system, architecture):
            return descriptor(entry, where=where)
    raise ImageInvalid("PH-0440 has no image for this platform", where=where, got=", ".join(there), want=platform)


def appended_config(
    base: Mapping[str, Any], layer: Layer, *, labels: Mapping[str, str], environment: Mapping[str, str]
) -> bytes:
    """The base's config with one more layer. Times are the base's own, so that no clock decides the digest."""
    config: dict[str, Any] = json.loads(json.dumps(base))
    for name in RUNTIME_ONLY:
        config.pop(name, None)
    inner = config.setdefault("config", {})
    inner.pop("Image", None)
    if not inner.get("Hostname", True):
        del inner["Hostname"]
    inner["Labels"] = {**(inner.get("Labels") or {}), **labels}
    kept = [entry for entry in inner.get("Env") or [] if entry.partition("=")[0] not in environment]
    inner["Env"] = [*kept, *(f"{name}={value}" for name, value in sorted(environment.items()))]
    config["rootfs"] = {"type": "layers", "diff_ids": [*config["rootfs"]["diff_ids"], layer.diff_id]}
    said = {"created_by": "packhouse: the release's files", **_created(config)}
    config["history"] = [*config.get("history", []), said]
    return compact(config)


def _created(config: Mapping[str, Any]) -> dict[str, str]:
    return {"created": config["created"]} if "created" in config else {}


def appended_manifest(
    base: Mapping[str, Any], config: Descriptor, layer: Layer, *, annotations: Mapping[str, str], where: str
) -> bytes:
    """The base's layers and one more, in OCI's types whatever the base's were."""
    layers = [descriptor(entry, where=where) for entry in base["layers"]]
    kept = [entry.model_copy(update={"mediaType": OCI_TYPES.get(entry.mediaType, entry.mediaType)}) for entry in layers]
    ours = Descriptor(mediaType=layer.media_type, digest=layer.digest, size=layer.size)
    return compact(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config.plain(),
            "layers": [entry.plain() for entry in (*kept, ours)],
            "annotations": dict(annotations),
        }
    )
