"""Schema 1: manifests and records as packhouse 0.1 wrote them. Read for good, by the rules that they were written by.

`manifest_up` and `record_up` give the form of schema 2, in which all else of packhouse sees a document; `manifest_down`
and `record_down` take it back. Law: down(up(d)) equals d. What schema 1 does not say is empty or `untested`.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import Field

from packhouse.artifact import Artifact, Digest, Frozen, Name, Verdict
from packhouse.formats.table import Format, row
from packhouse.release.parts import (
    MAX_DOCUMENT_BYTES,
    AnyTolerance,
    ArchitectureCode,
    Processors,
    ReleasedImage,
    ReleaseId,
)
from packhouse.spec.model import ModelName
from packhouse.spec.onnxruntimes import Onnx
from packhouse.spec.types import TensorName

NEEDS = "0.1"
Plain = dict[str, Any]
"""A document, or a part of one, as JSON has it."""


class Inputs1(Frozen):
    spec: Digest
    weights: Digest
    samples: Digest
    architecture: ArchitectureCode
    code: Digest
    libraries: dict[str, str]
    device: str
    runtime: Digest | None = None


class Release1(Frozen):
    format: Format
    file: Name
    tolerance: AnyTolerance
    recipe: Annotated[str, Field(max_length=200)] = ""
    processors: Processors = Processors.ANY
    onnx: Onnx | None = None
    data: Name | None = None


class Manifest1(Frozen):
    schema_version: Annotated[Literal[1], Field(alias="schema")] = 1
    model: ModelName
    release: ReleaseId
    inputs: Inputs1
    outputs: tuple[str, ...]
    text: dict[TensorName, tuple[str, ...]] = {}
    formats: Annotated[tuple[Release1, ...], Field(min_length=1)]
    artifacts: tuple[Artifact, ...]
    verdicts: tuple[Verdict, ...]


class Made1(Frozen):
    source: Annotated[str, Field(max_length=2000)]
    builder: Annotated[str, Field(max_length=300)]
    version: Annotated[str, Field(max_length=100)]
    worker: Annotated[str, Field(max_length=500)] = ""


class Record1(Frozen):
    schema_version: Annotated[Literal[1], Field(alias="schema")] = 1
    model: ModelName
    release: ReleaseId
    manifest: Digest
    manifest_size: Annotated[int, Field(ge=1, le=MAX_DOCUMENT_BYTES)]
    image: ReleasedImage | None = None
    verdicts: tuple[Verdict, ...] = ()
    provenance: Made1 | None = None


def manifest_up(data: bytes) -> dict[str, Any]:
    """The fields of the manifest in schema 2, which then checks them. Raises ValidationError: none by schema 1."""
    old = Manifest1.model_validate_json(data, strict=True)
    return _fields(old) | {
        "needs": NEEDS,
        "inputs": _fields(old.inputs),
        "formats": tuple(map(_release_up, old.formats)),
    }


def record_up(data: bytes) -> dict[str, Any]:
    """As `manifest_up`, of a record."""
    old = Record1.model_validate_json(data, strict=True)
    return _fields(old) | {"needs": NEEDS, "provenance": _fields(old.provenance) if old.provenance else None}


def manifest_down(new: Plain) -> Plain:
    """The JSON document of schema 1, of a manifest in schema 2 that was read from it."""
    return _plain(
        Manifest1,
        {
            **_known(Manifest1, new),
            "inputs": _known(Inputs1, new["inputs"]),
            "formats": [_release_down(made) for made in new["formats"]],
        },
    )


def record_down(new: Plain) -> Plain:
    """As `manifest_down`, of a record."""
    made = new["provenance"]
    return _plain(Record1, {**_known(Record1, new), "provenance": _known(Made1, made) if made else None})


def _release_up(old: Release1) -> dict[str, Any]:
    facts = {"opset": old.onnx.opset, "ir": old.onnx.ir} if old.onnx else {}
    oldest = old.onnx.onnxruntime if old.onnx else ""
    return {
        "name": old.format.value,
        "files": (old.file, old.data) if old.data else (old.file,),
        "runtime": {"name": row(old.format).package, "oldest": oldest, "facts": facts},
        "tolerance": old.tolerance,
        "recipe": old.recipe,
        "processors": old.processors,
    }


def _release_down(new: Plain) -> Plain:
    file, *data = new["files"]
    facts, oldest = new["runtime"]["facts"], new["runtime"]["oldest"]
    return {
        **_known(Release1, new),
        "format": new["name"],
        "file": file,
        "data": data[0] if data else None,
        "onnx": {**facts, "onnxruntime": oldest} if facts else None,
    }


def _fields(document: Frozen) -> dict[str, Any]:
    """By the names that they have in JSON."""
    fields = type(document).model_fields
    return {field.alias or name: getattr(document, name) for name, field in fields.items()}


def _known(kind: type[Frozen], document: Plain) -> Plain:
    """The keys that this part has in schema 1."""
    names = {field.alias or name for name, field in kind.model_fields.items()}
    return {key: value for key, value in document.items() if key in names}


def _plain(kind: type[Frozen], document: Plain) -> Plain:
    return kind.model_validate_json(json.dumps(document)).model_dump(mode="json", by_alias=True)
