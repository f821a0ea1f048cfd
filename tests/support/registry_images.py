"""Small images for tests of registries, made of random bytes where no content matters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from infra.images.builders import COMMAND, SERVER_LABEL, USER, server_code
from infra.registry import oci_manifests
from infra.registry.client import Client
from infra.registry.layer import Layer, layer
from infra.registry.reference import Reference
from packhouse.digest import digest_bytes
from tests.servers.registry import TestRegistry

CREATED = "2025-01-01T00:00:00Z"


def small_layer(folder: Path, name: str, content: bytes) -> Layer:
    path = folder / digest_bytes(content)[7:19]
    path.write_bytes(content)
    return layer({name: path}, modified=1_735_689_600)


def blob_file(registry: TestRegistry, digest: str) -> Path:
    """Where the registry keeps a blob or a manifest: to be lost, or to rot."""
    plain = digest.removeprefix("sha256:")
    return registry.folder / "data/docker/registry/v2/blobs/sha256" / plain[:2] / plain / "data"


def push_base(client: Client, repository: str, made: Layer, config: dict[str, Any] | None = None) -> Reference:
    """A one-layer image, pushed by hand: what a test builds on."""
    config = config or {
        "os": "linux",
        "architecture": "amd64",
        "created": CREATED,
        "config": {
            "Env": ["PATH=/bin", "MODEL_DIR=/nowhere"],
            "Labels": {"vendor": "test", SERVER_LABEL: server_code()},
            "User": USER,
            "Cmd": list(COMMAND),
        },
        "rootfs": {"type": "layers", "diff_ids": [made.diff_id]},
    }
    data = oci_manifests.compact(config)
    client.upload(repository, made.digest, made.size, made.stream)
    client.upload(repository, digest_bytes(data), len(data), lambda: iter([data]))
    manifest = oci_manifests.compact(
        {
            "schemaVersion": 2,
            "mediaType": oci_manifests.MANIFEST,
            "config": {"mediaType": oci_manifests.CONFIG, "digest": digest_bytes(data), "size": len(data)},
            "layers": [{"mediaType": made.media_type, "digest": made.digest, "size": made.size}],
        }
    )
    client.put_manifest(repository, digest_bytes(manifest), manifest, oci_manifests.MANIFEST)
    return Reference(client.host, repository, digest=digest_bytes(manifest))
