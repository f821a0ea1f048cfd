"""The spec: what `package.toml` says a model is, what to make of it and which gates it must pass.

`parse` reads it, `render` writes it. Law: parse(render(spec)) == spec. docs/spec.md describes every key. A spec is read
by the rules of its own schema; whatever it is, it has the form of schema 2 in memory. What a released spec may say and
a new one may not is looked at where a model is staged or planned: packhouse/spec/supported.py.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

import tomli_w
from pydantic import BeforeValidator, Field, ValidationError, model_validator

from packhouse.artifact import Frozen
from packhouse.errors import SpecInvalid
from packhouse.spec.errors import REPOSITORY, VERSION, Finding, finding
from packhouse.spec.policy import Promotion
from packhouse.spec.schema1 import downgraded, needs_schema_2, upgraded
from packhouse.spec.steps import Step, Value, listed, prepared, text_of
from packhouse.spec.tables import (
    DEFAULT_OPSET,
    DEFAULT_SPEED,
    Architecture,
    Asked,
    Axis,
    Card,
    Embedding,
    File,
    FileName,
    Format,
    Formats,
    Gates,
    Image,
    Input,
    Kind,
    Labels,
    MLflow,
    ModelName,
    ModelSection,
    Output,
    Samples,
    Tensor,
    Want,
    Weights,
)
from packhouse.spec.toml_location import MAX_KEY_PARTS, MAX_SPEC_BYTES, SPEC_FILE, key_of, line_of, read
from packhouse.spec.types import Misplaced, TensorName
from packhouse.spec.versions import refuse_newer

__all__ = [
    "DEFAULT_OPSET",
    "DEFAULT_SPEED",
    "MAX_KEY_PARTS",
    "MAX_SPEC_BYTES",
    "PROGRAM",
    "REPOSITORY",
    "SCHEMA",
    "SPEC_FILE",
    "Architecture",
    "Asked",
    "Axis",
    "Card",
    "Embedding",
    "File",
    "FileName",
    "Format",
    "Formats",
    "Gates",
    "Image",
    "Input",
    "Kind",
    "Labels",
    "MLflow",
    "ModelName",
    "ModelSection",
    "Output",
    "Samples",
    "Spec",
    "Tensor",
    "Want",
    "Weights",
    "checked",
    "parse",
    "read",
    "render",
]

SCHEMA = 2
"""What this version writes. It reads this one and 1."""
PROGRAM = "program"
"""The architecture whose weights file is the model: a `.pt2` of torch.export."""


class Spec(Frozen):
    """One parsed package.toml."""

    schema_version: Annotated[Literal[1, 2], Field(alias="schema")]
    """Version of this format. packhouse writes 2, and reads 1 too (docs/spec.md#schema-1)."""
    needs: Annotated[str, Field(pattern=VERSION)] | None = None
    """The oldest packhouse that reads this file, such as `0.2`. An older one refuses the file in one line."""
    model: ModelSection
    """What the model is called."""
    architecture: Architecture
    """Who builds the module."""
    axes: dict[TensorName, Axis] = {}
    """Sizes that may change, by name."""
    inputs: Annotated[tuple[Input, ...], Field(min_length=1, max_length=64)]
    """From 1 to 64, in the order in which the module takes them."""
    outputs: Annotated[tuple[Output, ...], Field(min_length=1, max_length=64)]
    """From 1 to 64, in the order in which the module gives them."""
    weights: Weights
    """The file of the trained weights."""
    samples: Samples
    """The file of real inputs."""
    preprocessing: Annotated[tuple[Step, ...], BeforeValidator(listed), Field(max_length=256)] = ()
    """Up to 256 steps, in their order."""
    formats: Formats = Formats()
    """Which formats are made."""
    gates: Gates = Gates()
    """What a format must keep to."""
    promotion: Promotion | None = None
    """Margins to the release of another channel. *Not yet*."""
    card: Card | None = None
    """Text for people."""
    image: Image | None = None
    """Where the model's image goes."""
    mlflow: MLflow | None = None
    """Where the release is registered."""

    @property
    def text(self) -> dict[str, tuple[str, ...]]:
        """The inputs that ONNX takes as text -> what their codes stand for: the code is the position here, and
        UNKNOWN any other text. Samples and all other formats have the codes."""
        return text_of(self.preprocessing)

    @property
    def batch(self) -> str | None:
        """The axis along which samples are stacked: the first axis of every input, where it is one and the same and
        stands nowhere else (a matrix of nodes by nodes is one sample, and not a stack of rows)."""
        first = {tensor.shape[0] if tensor.shape else None for tensor in self.inputs}
        axis = first.pop()
        elsewhere = {size for tensor in self.inputs for size in tensor.shape[1:]}
        return axis if isinstance(axis, str) and not first and axis not in elsewhere else None

    @property
    def input_axes(self) -> frozenset[str]:
        return frozenset(axis for tensor in self.inputs for axis in tensor.axes)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for kind, tensors in (("inputs", self.inputs), ("outputs", self.outputs)):
            names = [tensor.name for tensor in tensors]
            for position, name in enumerate(names):
                if name in names[:position]:
                    raise Misplaced(f"PH-0235 {name!r} is declared {names.count(name)} times", kind, position, "name")
        for position, tensor in enumerate(self.inputs):
            for axis in tensor.axes:
                if axis not in self.axes:
                    reason = f"PH-0234 axis {axis!r} is used but [axes.{axis}] does not say its min and max"
                    raise Misplaced(reason, "inputs", position, "shape")
        self._check_idle_axes()
        for position, output in enumerate(self.outputs):
            if output.kind is not Kind.VALUE and len(output.shape) < (2 if self.batch else 1):
                reason = (
                    "PH-0232 scores need a last axis of classes"
                    if output.scores
                    else "PH-0233 an embedding needs a last axis"
                )
                raise Misplaced(reason, "outputs", position, "shape")
        if SPEC_FILE in (self.weights.file, self.samples.file):
            raise Misplaced(
                f"PH-0229 {SPEC_FILE} is this file", "samples" if self.samples.file == SPEC_FILE else "weights", "file"
            )
        if self.weights.file == self.samples.file:
            raise Misplaced("PH-0230 weights and samples name the same file", "samples", "file")
        self._check_program()
        if self.image and self.formats.onnx is Want.OFF:
            raise Misplaced("PH-0231 an image serves onnx, which is off", "image", "repository")
        self._check_preprocessing()
        if self.schema_version != 1:
            self._check_schema_2()
        return self

    def _check_idle_axes(self) -> None:
        used, words = self.input_axes, "no input has it"
        if self.schema_version != 1:
            used, words = used | {axis for output in self.outputs for axis in output.axes}, "no input or output has it"
        if idle := sorted(set(self.axes) - used):
            raise Misplaced(f"PH-0228 axis {idle[0]!r} is declared but {words}", "axes", idle[0])

    def _check_program(self) -> None:
        if self.architecture.name != PROGRAM:
            return
        if self.architecture.arguments:
            raise Misplaced("PH-0225 a program is what it is and takes no arguments", "architecture", "arguments")
        if not self.weights.file.endswith(".pt2"):
            raise Misplaced("PH-0226 the architecture `program` is a .pt2 of torch.export", "weights", "file")
        if self.gates.cuda is Want.REQUIRED:
            raise Misplaced(
                "PH-0227 a program itself is not run on a GPU, so nothing could pass there", "gates", "cuda"
            )

    def _check_preprocessing(self) -> None:
        try:
            prepared(self.preprocessing, {tensor.name: Value(tensor.dtype, tensor.shape) for tensor in self.inputs})
        except Misplaced as error:
            raise Misplaced(str(error), "preprocessing", *error.path) from error

    def _check_schema_2(self) -> None:
        for position, tensor in enumerate(self.inputs):
            if tensor.lengths_of and tensor.lengths_of not in self.input_axes:
                reason = f"PH-0223 no input has the axis {tensor.lengths_of!r}"
                raise Misplaced(reason, "inputs", position, "lengths_of")
            named = any(getattr(step, "columns", ()) for step in self.preprocessing if step_of(step, tensor.name))
            if tensor.columns and named:
                raise Misplaced("PH-0224 a step of the preprocessing names them already", "inputs", position, "columns")
        if self.gates.int8_speed is not None:
            instead = "int8_worth says by which part INT8 must be smaller or faster, and 0 asks for neither"
            raise Misplaced(f"PH-0222 is a key of schema 1: in schema 2, {instead}", "gates", "int8_speed")


def step_of(step: Step, name: str) -> bool:
    return getattr(step, "input", None) == name


def parse(data: bytes, *, where: str = SPEC_FILE) -> Spec:
    """Raises SpecInvalid with the line and the key of the first finding, and how many more there are."""
    document = read(data, where=where)
    text = data.decode("utf-8")
    refuse_newer(document, SCHEMA, where=f"{where}:{line_of(('schema',), text)}", error=SpecInvalid)
    found = checked(document)
    if isinstance(found, Spec):
        return found
    line = line_of(found.path, text)
    raise SpecInvalid(
        found.coded(f"{key_of(found.path)}: {found.what}".removeprefix(": ")),
        where=f"{where}:{line}" if line else where,
        got=found.got,
        want=found.want,
        next=found.next,
    )


def checked(document: dict[str, Any]) -> Spec | Finding:
    """The spec, or the first thing that is wrong with it. document: what `read` gives."""
    one = document.get("schema") == 1
    try:
        return Spec.model_validate(upgraded(document) if one else document)
    except ValidationError as error:
        found = finding(error, one_step=isinstance(document.get("preprocessing"), dict))
        if one and found.what == "unknown key" and needs_schema_2(found.path):
            return Finding(found.path, "unknown key in schema 1: it needs `schema = 2`", others=found.others)
        return found


def render(spec: Spec) -> bytes:
    """The spec as package.toml, in its own schema."""
    document = spec.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude_none=True)
    document = {"schema": spec.schema_version, **document}
    if "formats" in document:
        document["formats"] = {name: _short(asked) for name, asked in document["formats"].items()}
    if spec.schema_version == 1:
        if "labels" in spec.samples.model_fields_set:
            document["samples"].setdefault("labels", None)
        document = downgraded(document)
    return tomli_w.dumps(document).encode()


def _short(asked: Any) -> Any:
    return asked["want"] if isinstance(asked, dict) and set(asked) == {"want"} else asked
