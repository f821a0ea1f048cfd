"""`package.toml`, schema 1: its rules as packhouse 0.1 had them, and the way to the form of schema 2 and back.

These rules do not change any more, whatever schema 2 learns.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from packhouse.artifact import Frozen
from packhouse.spec.steps import Step, listed
from packhouse.spec.tables import (
    DEFAULT_SPEED,
    Architecture,
    BuiltIn,
    Dimension,
    File,
    Image,
    MLflow,
    ModelSection,
    Tensor,
    Want,
    check_ordered,
    check_range,
)
from packhouse.spec.toml_location import Path
from packhouse.spec.types import Flag, Misplaced, Number, TensorName

Document = dict[str, Any]


class _Axis(Frozen):
    min: Dimension = 1
    max: Dimension

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        check_ordered(self.min, self.max)
        return self


class _Input(Tensor):
    range: tuple[Number, Number] | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        check_range(self.range)
        return self


class _Output(Tensor):
    scores: Flag = False


class _Samples(File):
    labels: Flag = False


class _Formats(BuiltIn):
    opset: Annotated[int, Field(strict=True, ge=18, le=24)] | None = None


class _Gates(Frozen):
    max_ratio: Annotated[float, Field(ge=1, le=1e6)] = 8.0
    rms_ratio: Annotated[float, Field(ge=1, le=1e6)] = 6.0
    atol: Annotated[float, Field(ge=0, le=1)] | None = None
    rtol: Annotated[float, Field(ge=0, le=1)] | None = None
    int8_accuracy_drop: Annotated[float, Field(ge=0, le=1)] = 0.01
    int8_agreement: Annotated[float, Field(ge=0, le=1)] = 0.99
    int8_sqnr_db: Annotated[float, Field(ge=0, le=200)] = 30.0
    int8_speed: Annotated[float, Field(gt=0, le=100)] = DEFAULT_SPEED
    cuda: Want = Want.OPTIONAL
    approve: Flag = False

    @model_validator(mode="after")
    def _both_tolerances(self) -> Self:
        if (self.atol is None) != (self.rtol is None):
            raise Misplaced("PH-0242 set both atol and rtol, or neither", "rtol" if self.atol is None else "atol")
        return self


class Spec1(Frozen):
    """A document of schema 1, as far as its tables can be checked one by one."""

    schema_version: Annotated[Literal[1], Field(alias="schema")]
    model: ModelSection
    architecture: Architecture
    axes: dict[TensorName, _Axis] = {}
    inputs: Annotated[tuple[_Input, ...], Field(min_length=1, max_length=64)]
    outputs: Annotated[tuple[_Output, ...], Field(min_length=1, max_length=64)]
    weights: File
    samples: _Samples
    preprocessing: Annotated[tuple[Step, ...], BeforeValidator(listed), Field(max_length=256)] = ()
    formats: _Formats = _Formats()
    gates: _Gates = _Gates()
    image: Image | None = None
    mlflow: MLflow | None = None


def upgraded(document: Document) -> Document:
    """In the form of schema 2, under its own schema number. Raises ValidationError: by the rules of schema 1."""
    Spec1.model_validate(document)
    outputs = [_exchanged(output, "scores", "kind", {True: "scores", False: "value"}) for output in document["outputs"]]
    samples = _exchanged(document["samples"], "labels", "labels", {True: "class", False: None})
    return document | {"outputs": outputs, "samples": samples}


def downgraded(document: Document) -> Document:
    """What `upgraded` made, as it was: without keys of schema 2, which have their defaults in it."""
    outputs = [_exchanged(output, "kind", "scores", {"scores": True, "value": False}) for output in document["outputs"]]
    samples = _exchanged(document["samples"], "labels", "labels", {"class": True, None: False})
    old: Document = _without_new(document | {"outputs": outputs, "samples": samples})
    return old


def _exchanged(table: Document, old: str, new: str, values: dict[Any, Any]) -> Document:
    """The table with one key in its place under another name."""
    return {(new if key == old else key): (values[value] if key == old else value) for key, value in table.items()}


_NEW = {
    (): {"needs", "card", "promotion"},
    ("axes", "*"): {"sizes"},
    ("inputs", "*"): {"nan", "inf", "bounded", "lengths_of", "index_of", "columns"},
    ("outputs", "*"): {"kind", "columns"},
    ("weights",): {"key", "prefix", "ignore", "cast"},
    ("samples",): {"slices"},
    ("gates",): {"int8_worth", "int8_embedding"},
}
"""Table -> its keys that schema 1 does not have."""


def _without_new(value: Any, *path: str) -> Any:
    if isinstance(value, list):
        return [_without_new(each, *path, "*") for each in value]
    if not isinstance(value, dict):
        return value
    new = _NEW.get(path, set()) | _NEW.get((*path[:-1], "*"), set())
    return {key: _without_new(each, *path, key) for key, each in value.items() if key not in new}


def needs_schema_2(path: Path) -> bool:
    """Whether schema 2 has this key, and schema 1 has it not."""
    table = tuple("*" if place else str(part) for place, part in enumerate(path[:-1]))
    return path[-1] in _NEW.get(table, ())
