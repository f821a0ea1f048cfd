"""Whether an image is whole in its registry: its manifest, its config and each layer. No layer is moved for that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from infra.registry import oci_manifests
from infra.registry.client import Client
from infra.registry.oci_manifests import Descriptor
from infra.registry.reference import Reference
from packhouse.digest import short
from packhouse.errors import ImageInvalid, NotFound


def missing(client: Client, image: Reference, platform: str) -> tuple[str, ...]:
    """In words, what of the image its registry lost; nothing where it is whole. Of an index, what it lists for the
    platform. Costs one small read, and one HEAD for each blob.

    Raises ImageInvalid, DigestMismatch: what is there is no image, or another one. And the registry's errors."""
    version = image.version
    try:
        manifest = _read(client, image)
        if "manifests" in manifest:
            version = oci_manifests.for_platform(manifest, platform, where=str(image)).digest
            manifest = _read(client, image.at(version))
    except NotFound:
        return (f"manifest {_named(version)}",)
    parts = blobs(manifest, where=str(image))
    there = {digest: client.has_blob(image.repository, digest) for digest in {part.digest for part in parts.values()}}
    return tuple(f"{name} {short(part.digest)}" for name, part in parts.items() if not there[part.digest])


def blobs(manifest: Mapping[str, Any], *, where: str) -> dict[str, Descriptor]:
    """What a manifest names: `config`, `layer 1 of 5`, and so on. Raises ImageInvalid: it is no image's."""
    layers = manifest.get("layers")
    if not isinstance(layers, list):
        raise ImageInvalid("PH-0452 has no list of layers", where=where)
    named = {f"layer {at} of {len(layers)}": entry for at, entry in enumerate(layers, start=1)}
    every = {"config": manifest.get("config"), **named}
    return {name: oci_manifests.descriptor(entry, where=where) for name, entry in every.items()}


def _read(client: Client, image: Reference) -> dict[str, Any]:
    return oci_manifests.read(client.manifest(image.repository, image.version)[0], where=str(image))


def _named(version: str) -> str:
    return short(version) if version.startswith("sha256:") else version
