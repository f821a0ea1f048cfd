"""Provenance: who made a release from what, as an in-toto statement that standard tools read.

A function of the record and the manifest, and of nothing else: no clock stands in it, and anybody can make it again.
Sources: https://github.com/in-toto/attestation/blob/v1.1.0/spec/v1/statement.md, https://slsa.dev/spec/v1.1/provenance.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from packhouse.artifact import Artifact, Verdict
from packhouse.digest import canonical_json
from packhouse.release.manifest import MANIFEST, Inputs, Made, Manifest, Record
from packhouse.spec.model import SPEC_FILE
from packhouse.trust.dsse import STATEMENT

PREDICATE = "https://slsa.dev/provenance/v1"
SIGNED = "https://sigstore.dev/cosign/sign/v1"
BUILD_TYPE = "urn:packhouse:release:v1"


def statement(record: Record, manifest: Manifest) -> dict[str, Any]:
    """Subjects: every file of the release, its manifest, and its image. Raises nothing: both were checked before."""
    made = record.provenance or Made(source="", builder="", version="")
    return {
        "_type": STATEMENT,
        "subject": list(_subjects(record, manifest)),
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"model": record.model, "source": made.source},
                "internalParameters": {
                    "release": record.release,
                    "device": manifest.inputs.device,
                    "architecture": manifest.inputs.architecture.name,
                    **({"environment": manifest.inputs.environment} if manifest.inputs.environment else {}),
                },
                "resolvedDependencies": list(_dependencies(manifest.inputs, made)),
            },
            "runDetails": {
                "builder": {
                    "id": made.builder,
                    "version": {"packhouse": made.version},
                    "builderDependencies": [{"uri": made.worker}] if made.worker else [],
                },
                **({"packhouse_sandbox": list(made.sandbox)} if made.sandbox else {}),
                "packhouse_verdicts": [_verdict(verdict) for verdict in (*manifest.verdicts, *record.verdicts)],
            },
        },
    }


def provenance(record: Record, manifest: Manifest) -> bytes:
    return canonical_json(statement(record, manifest))


def about(statement: dict[str, Any], name: str, digest: str) -> dict[str, Any]:
    """The same statement about one thing only, such as the image that it hangs on in a registry."""
    return statement | {"subject": [{"name": name, "digest": _hex(digest)}]}


def signed_image(name: str, digest: str) -> dict[str, Any]:
    """That the image is ours, and no more. Source: cosign's `sign` predicate, specs/BUNDLE_SPEC.md."""
    subject = [{"name": name, "digest": _hex(digest)}]
    return {"_type": STATEMENT, "subject": subject, "predicateType": SIGNED, "predicate": {}}


def _subjects(record: Record, manifest: Manifest) -> Iterator[dict[str, Any]]:
    artifacts: tuple[Artifact, ...] = manifest.artifacts
    for artifact in artifacts:
        yield {"name": artifact.name, "digest": _hex(artifact.digest)}
    yield {"name": MANIFEST, "digest": _hex(record.manifest)}
    if record.image:
        yield {"name": record.image.repository, "digest": _hex(record.image.digest)}


def _dependencies(inputs: Inputs, made: Made) -> Iterator[dict[str, Any]]:
    """All that decides the release's bytes, as manifest.Inputs lists it."""
    place = made.source.partition("?")[0]
    yield {"name": SPEC_FILE, "uri": f"{place}/{SPEC_FILE}", "digest": _hex(inputs.spec)}
    yield {"name": "weights", "digest": _hex(inputs.weights)}
    yield {"name": "samples", "digest": _hex(inputs.samples)}
    code = inputs.architecture
    yield {"name": "packhouse", "uri": f"pkg:pypi/packhouse@{made.version}", "digest": _hex(inputs.code)}
    if code.distribution:
        uri = f"pkg:pypi/{code.distribution}@{code.version}"
        yield {"name": code.distribution, "uri": uri, "digest": _hex(code.code)}
    for name, version in sorted((inputs.libraries | code.requires).items()):
        yield {"name": name, "uri": f"pkg:{'generic' if name == 'python' else 'pypi'}/{name}@{version}"}
    for name, package in sorted(inputs.format_packages.items()):
        yield {"name": name, "uri": f"pkg:pypi/{name}@{package.version}", "digest": _hex(package.digest)}
    if inputs.runtime:
        yield {"name": "runtime image", "digest": _hex(inputs.runtime)}


def _verdict(verdict: Verdict) -> dict[str, Any]:
    return verdict.model_dump(mode="json")


def _hex(digest: str) -> dict[str, str]:
    return {"sha256": digest.removeprefix("sha256:")}
