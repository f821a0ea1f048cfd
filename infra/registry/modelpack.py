"""A release as an OCI artifact after the CNCF ModelPack specification, for tools that pull models.

One raw layer a file, so whoever pulls it has the release's folder. The same release is the same artifact.

Source: https://github.com/modelpack/model-spec, docs/spec.md, docs/config.md and schema/config-schema.json.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from infra.registry import oci_manifests
from infra.registry.client import Client
from infra.registry.oci_manifests import Descriptor
from infra.registry.reference import Reference
from packhouse.artifact import Artifact
from packhouse.digest import chunks, digest_bytes
from packhouse.formats.table import ROWS
from packhouse.release.manifest import GOLDEN
from packhouse.release.manifest import WEIGHTS as WEIGHTS_FILE

KIND = "application/vnd.cncf.model.manifest.v1+json"
CONFIG = "application/vnd.cncf.model.config.v1+json"
FILE_PATH = "org.cncf.model.filepath"
WEIGHTS = "application/vnd.cncf.model.weight.v1.raw"
WEIGHT_CONFIG = "application/vnd.cncf.model.weight.config.v1.raw"
DATASET = "application/vnd.cncf.model.dataset.v1.raw"
COMPUTES = frozenset({WEIGHTS_FILE}).union(*({*each.files, *filter(None, [each.data])} for each in ROWS.values()))
"""What computes is what they call weights; all else describes the weights."""


@dataclass(frozen=True)
class Pack:
    """files: of the release's folder, with where they lie here; every one was hashed."""

    model: str
    release: str
    description: str
    files: Sequence[tuple[Artifact, Path]]
    annotations: Mapping[str, str]

    @property
    def layers(self) -> list[dict[str, object]]:
        return [
            {
                **Descriptor(mediaType=kind(artifact.name), digest=artifact.digest, size=artifact.size).plain(),
                "annotations": {FILE_PATH: artifact.name},
            }
            for artifact, _ in self.files
        ]

    def config(self) -> bytes:
        described = {"name": self.model, "version": self.release, "description": self.description}
        return oci_manifests.compact(
            {
                "descriptor": {name: text for name, text in described.items() if text},
                "config": {"format": "onnx"},
                "modelfs": {"type": "layers", "diffIds": [artifact.digest for artifact, _ in self.files]},
            }
        )

    def manifest(self) -> bytes:
        config = self.config()
        entry = Descriptor(mediaType=CONFIG, digest=digest_bytes(config), size=len(config))
        return oci_manifests.compact(
            {
                "schemaVersion": 2,
                "mediaType": oci_manifests.MANIFEST,
                "artifactType": KIND,
                "config": entry.plain(),
                "layers": self.layers,
                "annotations": dict(self.annotations),
            }
        )


def kind(name: str) -> str:
    if name == GOLDEN:
        return DATASET
    return WEIGHTS if name in COMPUTES else WEIGHT_CONFIG


def push(client: Client, target: Reference, pack: Pack) -> Reference:
    """Under its digest. Raises RegistryUnavailable, RegistryRefusal, ImageInvalid."""
    config, manifest = pack.config(), pack.manifest()
    repository = target.repository
    for artifact, path in pack.files:
        client.ensure(repository, artifact.digest, artifact.size, partial(_read, path))
    client.ensure_document(repository, config)
    client.put_manifest(repository, digest_bytes(manifest), manifest, oci_manifests.MANIFEST)
    return target.at(digest_bytes(manifest))


def _read(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from chunks(file)
