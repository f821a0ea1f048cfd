"""Bills of materials: what is in a release, as CycloneDX 1.6. What only an image has is in infra/registry/packages.py.

Functions of what they are given: no clock, no serial number, sorted, so that the same release has the same bill.
The release's bill is among its digested files, so that this module's code is among the inputs of a release's id.
Source: https://cyclonedx.org/docs/1.6/json/.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from packhouse.artifact import Artifact
from packhouse.digest import canonical_json
from packhouse.release.manifest import Inputs

SBOM = "sbom.cdx.json"
MEDIA_TYPE = "application/vnd.cyclonedx+json"

Component = dict[str, Any]


def bill(about: Component, components: Iterable[Component]) -> bytes:
    """about: what the bill is of. Each component once, by its reference."""
    once = {each["bom-ref"]: each for each in components}
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": about, "tools": {"components": [{"type": "application", "name": "packhouse"}]}},
        "components": [once[reference] for reference in sorted(once)],
        "dependencies": [{"ref": about["bom-ref"], "dependsOn": sorted(once)}],
    }
    return canonical_json(document)


def release_bill(model: str, release: str, inputs: Inputs, artifacts: Iterable[Artifact], description: str) -> bytes:
    """The model, its files, and all whose versions decided its bytes."""
    files = [file(artifact) for artifact in artifacts]
    return bill(model_component(model, release, description), [*files, *libraries(inputs)])


def model_component(model: str, release: str, description: str = "") -> Component:
    described = {"description": description} if description else {}
    return {"type": "machine-learning-model", "bom-ref": f"{model}/{release}", "name": model, "version": release} | (
        described
    )


def file(artifact: Artifact) -> Component:
    return {
        "type": "file",
        "bom-ref": f"file:{artifact.name}",
        "name": artifact.name,
        "mime-type": artifact.media_type or "application/octet-stream",
        "hashes": [hashed(artifact.digest)],
    }


def libraries(inputs: Inputs) -> list[Component]:
    code = inputs.architecture
    own = [python_package(code.distribution, code.version)] if code.distribution else []
    added = {name: package.version for name, package in inputs.format_packages.items()}
    listed = {name: version for name, version in (inputs.libraries | code.requires | added).items() if name != "python"}
    return [*own, *(python_package(name, version) for name, version in listed.items())]


def python_package(name: str, version: str) -> Component:
    """Source of the name's form: https://github.com/package-url/purl-spec, type pypi."""
    plain = name.lower().replace("_", "-")
    return library(f"pkg:pypi/{quote(plain)}@{quote(version)}", name, version)


def hashed(digest: str) -> dict[str, str]:
    return {"alg": "SHA-256", "content": digest.removeprefix("sha256:")}


def library(purl: str, name: str, version: str) -> Component:
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
