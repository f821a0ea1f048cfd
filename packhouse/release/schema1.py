"""Schema 1: manifests and records as packhouse 0.1 wrote them. Read for good, by the rules that they were written by.

`up` gives them the form of schema 2, in which all else of packhouse sees them; `down` takes it back. Law: down(up(d))
equals d. What schema 1 does not say is empty or `untested`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from packhouse.artifact import Artifact, Digest, Frozen, Name, Verdict
from packhouse.release.manifest import (
    MAX_DOCUMENT_BYTES,
    RUNTIMES,
    AnyTolerance,
    ArchitectureCode,
    Inputs,
    Made,
    Manifest,
    Processors,
    Record,
    Release,
    ReleasedImage,
    ReleaseId,
    Runtime,
)
from packhouse.spec.model import Format, ModelName
from packhouse.spec.onnxruntimes import Onnx
from packhouse.spec.types import TensorName

NEEDS = "0.1"


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


def read(kind: type[Any], data: bytes) -> Any:
    """kind: Manifest or Record. Raises ValidationError: by schema 1 it is none, or does not hold together."""
    if kind is Manifest:
        return up_manifest(Manifest1.model_validate_json(data, strict=True))
    return up_record(Record1.model_validate_json(data, strict=True))


def up_manifest(old: Manifest1) -> Manifest:
    """What holds a manifest together is asked of its new form: schema 2 asks the same of what schema 1 has."""
    return Manifest(
        **{"schema": 1},
        needs=NEEDS,
        model=old.model,
        release=old.release,
        inputs=Inputs(**_fields(old.inputs)),
        outputs=old.outputs,
        text=old.text,
        formats=tuple(_up_release(made) for made in old.formats),
        artifacts=old.artifacts,
        verdicts=old.verdicts,
    )


def up_record(old: Record1) -> Record:
    made = Made(**_fields(old.provenance)) if old.provenance else None
    return Record(**{"schema": 1}, needs=NEEDS, **_fields(old, but={"schema_version", "provenance"}), provenance=made)


def down(new: Manifest | Record) -> Manifest1 | Record1:
    """Of a document that was read from schema 1."""
    if isinstance(new, Record):
        made = Made1(**_fields(new.provenance, but={"sandbox"})) if new.provenance else None
        return Record1(**_fields(new, but={"schema_version", "needs", "provenance"}), provenance=made)
    return Manifest1(
        model=new.model,
        release=new.release,
        inputs=Inputs1(**_fields(new.inputs, but={"environment", "format_packages"})),
        outputs=new.outputs,
        text=new.text,
        formats=tuple(_down_release(made) for made in new.formats),
        artifacts=new.artifacts,
        verdicts=new.verdicts,
    )


def _up_release(old: Release1) -> Release:
    facts: dict[str, Any] = {"opset": old.onnx.opset, "ir": old.onnx.ir} if old.onnx else {}
    oldest = old.onnx.onnxruntime if old.onnx else ""
    return Release(
        name=old.format.value,
        files=(old.file, old.data) if old.data else (old.file,),
        runtime=Runtime(name=RUNTIMES[old.format], oldest=oldest, facts=facts),
        tolerance=old.tolerance,
        recipe=old.recipe,
        processors=old.processors,
    )


def _down_release(new: Release) -> Release1:
    facts = new.runtime.facts
    return Release1(
        format=Format(new.name),
        file=new.file,
        tolerance=new.tolerance,
        recipe=new.recipe,
        processors=new.processors,
        onnx=Onnx.model_validate({**facts, "onnxruntime": new.runtime.oldest}) if facts else None,
        data=new.files[1] if len(new.files) > 1 else None,
    )


def _fields(document: Frozen, but: frozenset[str] | set[str] = frozenset()) -> dict[str, Any]:
    return {name: getattr(document, name) for name in type(document).model_fields if name not in but}
