"""A model's image: the runtime image by digest, and one layer more. No engine, and the base's bytes are not moved."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from infra.registry import oci_manifests
from infra.registry.client import Client
from infra.registry.layer import Layer
from infra.registry.oci_manifests import Descriptor
from infra.registry.reference import Reference
from infra.registry.upload import Body
from packhouse.digest import digest_bytes, short
from packhouse.errors import DigestMismatch, ImageInvalid


@dataclass(frozen=True)
class Base:
    """An image to build on. where: how it was asked for; digest: of its manifest, of one platform."""

    where: Reference
    digest: str
    manifest: dict[str, Any]
    config: dict[str, Any]

    @property
    def layers(self) -> list[Descriptor]:
        return [oci_manifests.descriptor(entry, where=str(self.where)) for entry in self.manifest["layers"]]

    @property
    def epoch(self) -> int:
        """When it was made, in seconds since 1970: the time that files get which are put on it."""
        return oci_manifests.epoch(self.config.get("created", ""))


@dataclass(frozen=True)
class Pushed:
    """An image that is in its registry, under its digest and no tag. sent: bytes of blobs that went over the wire;
    mounted, uploaded: blobs that the registry took from a neighbour, and that it got from us; the rest it had."""

    image: Reference
    layer: str
    base: str
    size: int
    sent: int
    mounted: int
    uploaded: int
    seconds: float


def pull_base(client: Client, image: Reference, platform: str) -> Base:
    """Manifest and config, hashed. Raises NotFound; ImageInvalid: it has no image for the platform."""
    where = str(image)
    data, digest = client.manifest(image.repository, image.version)
    manifest = oci_manifests.read(data, where=where)
    if "manifests" in manifest:
        entry = oci_manifests.for_platform(manifest, platform, where=where)
        data, digest = client.manifest(image.repository, entry.digest)
        manifest = oci_manifests.read(data, where=where)
        if "layers" not in manifest:
            raise ImageInvalid("PH-0419 is an index of an index", where=where)
    config = oci_manifests.read_json(
        client.small_blob(image.repository, oci_manifests.descriptor(manifest["config"], where=where)), where=where
    )
    has = f"{config.get('os')}/{config.get('architecture')}"
    if has != platform:
        raise ImageInvalid("PH-0417 is for another platform", where=where, got=has, want=platform)
    if len(config["rootfs"]["diff_ids"]) != len(manifest["layers"]):
        raise ImageInvalid("PH-0418 its config and its manifest disagree about layers", where=where)
    return Base(where=image, digest=digest, manifest=manifest, config=config)


def append(
    client: Client,
    base: Base,
    target: Reference,
    layer: Layer,
    *,
    labels: Mapping[str, str],
    environment: Mapping[str, str],
    source: Client | None = None,
    known: str = "",
) -> Pushed:
    """Pushes `base` with `layer` on it to the repository of `target`, under its digest. Whatever of it the registry
    lacks is sent, also where its manifest is there already: a registry can lose one blob.

    source: the client of the base's registry where that is another one; its layers are then copied once. known: the
    digest that it must come to.
    Raises RegistryUnavailable, RegistryRefusal, ImageInvalid; NotFound: the base lost a layer; DigestMismatch: it comes
    to another digest than the known one, and nothing was sent.
    """
    started, before = time.monotonic(), client.sent
    where, repository = target.name, target.repository
    config = oci_manifests.appended_config(base.config, layer, labels=labels, environment=environment)
    config_entry = Descriptor(mediaType=oci_manifests.CONFIG, digest=digest_bytes(config), size=len(config))
    annotations = {"org.opencontainers.image.base.digest": base.digest} | dict(labels)
    manifest = oci_manifests.appended_manifest(base.manifest, config_entry, layer, annotations=annotations, where=where)
    digest = digest_bytes(manifest)
    if known and digest != known:
        raise DigestMismatch(
            "PH-0415 what it is made of comes to another image",
            where=where,
            got=short(digest),
            want=short(known),
            next="an engine made it, or another packhouse: bring it back from a backup, or make another release",
        )
    mounted = uploaded = 0
    for entry in base.layers:
        if client.has_blob(repository, entry.digest):
            continue
        if source is None and client.mount(repository, entry.digest, base.where.repository):
            mounted += 1
            continue
        origin = source or client
        client.upload(repository, entry.digest, entry.size, _copying(origin, base, entry))
        uploaded += 1
    uploaded += client.ensure(repository, layer.digest, layer.size, layer.stream)
    uploaded += client.ensure_document(repository, config)
    if not client.has_manifest(repository, digest):
        client.put_manifest(repository, digest, manifest, oci_manifests.MANIFEST)
    if (there := client.has_manifest(repository, digest)) != digest:
        raise DigestMismatch("PH-0416 is not in the registry after the push", where=where, got=there, want=digest)
    return Pushed(
        image=target.at(digest),
        layer=layer.digest,
        base=base.digest,
        size=sum(entry.size for entry in base.layers) + layer.size + len(config) + len(manifest),
        sent=client.sent - before,
        mounted=mounted,
        uploaded=uploaded,
        seconds=time.monotonic() - started,
    )


def tag(client: Client, image: Reference, name: str) -> bool:
    """Points the tag at the image; whether it did not point there before. Raises NotFound: no such image."""
    if client.has_manifest(image.repository, name) == image.digest:
        return False
    data, _ = client.manifest(image.repository, image.digest)
    media_type = json.loads(data)["mediaType"]
    client.put_manifest(image.repository, name, data, media_type)
    return True


def _copying(origin: Client, base: Base, entry: Descriptor) -> Body:
    return lambda: origin.blob(base.where.repository, entry)
