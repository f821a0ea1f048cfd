"""The tables of `package.toml`, schema 2, and what they check by themselves. docs/spec.md describes every key."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, JsonValue, field_validator, model_validator

from packhouse.artifact import Frozen
from packhouse.digest import canonical_json
from packhouse.formats.table import ROWS, FormatName
from packhouse.formats.table import Format as Format
from packhouse.spec.errors import LICENCE, MODEL_NAME, PLAIN_NAME, REPOSITORY, SHA256, shown
from packhouse.spec.onnxruntimes import ORDER, RUNTIMES, blocks, lacks
from packhouse.spec.types import DType, Flag, Misplaced, Number, TensorName

DEFAULT_OPSET = 20
DEFAULT_WORTH = 0.1
DEFAULT_SPEED = 0.95
"""Of INT8, as fp32 time / INT8 time: what a clock can not tell from 1."""

ModelName = Annotated[str, Field(pattern=MODEL_NAME)]
FileName = Annotated[str, Field(pattern=PLAIN_NAME)]
Sha256 = Annotated[str, Field(pattern=SHA256)]
Size = Annotated[int, Field(strict=True, ge=1, lt=2**63)]
Dimension = Annotated[int, Field(strict=True, ge=1, le=2**31 - 1)]
EmptyOrMore = Annotated[int, Field(strict=True, ge=0, le=2**31 - 1)]
Words = Annotated[str, Field(min_length=1, max_length=200)]
Text = Annotated[str, Field(max_length=2000)]


class Want(StrEnum):
    """required: no release without it. optional: left out, with the reason in the report, where it can not be made,
    is wrong or (INT8) does not pay. off: not tried."""

    REQUIRED = "required"
    OPTIONAL = "optional"
    OFF = "off"


class ModelSection(Frozen):
    name: ModelName
    """Name of the model's releases: lower-case letters, digits and `-`, at most 63, a letter or digit first."""
    description: Annotated[str, Field(max_length=500)] = ""
    """Text for people, at most 500 characters."""


class Architecture(Frozen):
    """Which registered builder makes the module, and the keyword arguments it is called with."""

    name: Annotated[str, Field(pattern=PLAIN_NAME)]
    """A name in the entry point group `packhouse.architectures` of a package on the workers. Built in are
    `transformers` and `program` (docs/architectures.md)."""
    arguments: dict[str, JsonValue] = {}
    """Keyword arguments of the builder: text, numbers, flags, lists and tables."""

    @model_validator(mode="after")
    def _plain(self) -> Self:
        _check_plain(self.arguments, "arguments")
        return self


class Axis(Frozen):
    """A dynamic axis: every size from min to max must work, or those in `sizes` and no others. min and max are then
    the least and the greatest of them."""

    min: EmptyOrMore = 1
    """Smallest size. 0 is *not yet*."""
    max: Dimension = Field(default_factory=lambda: 0)
    """Largest size, at least 1 and `min`. Required, unless `sizes` is given."""
    sizes: Annotated[tuple[Dimension, ...], Field(min_length=1, max_length=1000)] | None = None
    """The only legal sizes, in ascending order, instead of `min` and `max`. *Not yet*."""

    @model_validator(mode="after")
    def _limits(self) -> Self:
        given = {"min", "max"} & self.model_fields_set
        if self.sizes is None:
            if "max" not in given:
                raise Misplaced("PH-0252 missing", "max")
        elif given and (self.min, self.max) != (min(self.sizes), max(self.sizes)):
            raise Misplaced("PH-0253 sizes stand instead of min and max", min(given))
        elif list(self.sizes) != sorted(set(self.sizes)):
            raise Misplaced("PH-0254 must go up", "sizes")
        else:
            # The model is frozen, and these are no keys that somebody wrote: `render` leaves them out.
            self.__dict__.update(min=min(self.sizes), max=max(self.sizes))
        check_ordered(self.min, self.max)
        return self

    def allows(self, size: int) -> bool:
        return self.min <= size <= self.max and (self.sizes is None or size in self.sizes)

    @property
    def words(self) -> str:
        """The sizes, for a message."""
        if self.sizes is None:
            return f"from {self.min} to {self.max}"
        return f"one of {', '.join(map(str, self.sizes))}"


def check_ordered(least: int, most: int) -> None:
    if least > most:
        raise Misplaced(f"PH-0260 min {least} is above max {most}", "min")


class Tensor(Frozen):
    """A named input or output."""

    name: TensorName
    """Letters, digits and `_`, at most 63, no digit first."""
    dtype: DType = DType.FLOAT32
    """Type of the elements."""
    shape: tuple[Dimension | TensorName, ...]
    """Sizes, and names of axes whose size may change."""

    @property
    def axes(self) -> tuple[str, ...]:
        return tuple(size for size in self.shape if isinstance(size, str))


Columns = Annotated[tuple[Words, ...], Field(max_length=100_000)]


class Input(Tensor):
    """An input, in the order of the module's forward."""

    range: tuple[Number, Number] | None = None
    """Smallest and largest value, both included. Samples must lie in it, and probes stay in it. Set it for integers
    that index something."""
    nan: Flag = False
    """Whether NaN is a legal value, of a floating input. *Not yet*."""
    inf: Flag = False
    """Whether infinity is a legal value, of a floating input. *Not yet*."""
    bounded: Flag = False
    """Whether values outside those of the samples have no meaning, so that no probe leaves them. *Not yet*."""
    lengths_of: TensorName | None = None
    """The axis whose valid lengths this integer input holds. *Not yet*."""
    index_of: Words | None = None
    """The tensor of the weights whose rows this integer input selects. *Not yet*."""
    columns: Columns = ()
    """Names along the last axis, each once, of a table whose columns no preprocessing step names."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        check_range(self.range)
        for key in ("nan", "inf"):
            if getattr(self, key) and not self.dtype.floating:
                raise Misplaced(f"PH-0250 {self.dtype} has no such value", key)
        for key in ("lengths_of", "index_of"):
            if getattr(self, key) is not None and not self.dtype.integer:
                raise Misplaced(f"PH-0251 an integer input has it, and {self.name!r} is {self.dtype}", key)
        _check_columns(self, self.columns)
        return self


def check_range(limits: tuple[float, float] | None) -> None:
    if limits and limits[0] > limits[1]:
        raise Misplaced(f"PH-0259 {limits[0]:g} is above {limits[1]:g}", "range")


class Kind(StrEnum):
    """scores: one score a class along the last axis, so that the largest is the answer and agreement can be counted.
    embedding: compared by direction. value: numbers."""

    SCORES = "scores"
    EMBEDDING = "embedding"
    VALUE = "value"


class Output(Tensor):
    """An output, in the order that the module gives. An axis that no input has needs no [axes] entry: its size
    follows from the others."""

    kind: Kind = Kind.VALUE
    """What the numbers are. `scores`: one score a class along the last axis; the largest is the result. `embedding`:
    compared by direction; *not yet*. `value`: numbers."""
    columns: Columns = ()
    """Names along the last axis, such as `churn_score`, each once."""

    @property
    def scores(self) -> bool:
        return self.kind is Kind.SCORES

    @model_validator(mode="before")
    @classmethod
    def _replaced(cls, given: Any) -> Any:
        if isinstance(given, dict) and "scores" in given:
            raise Misplaced('PH-0249 is a key of schema 1: in schema 2, write kind = "scores" for true', "scores")
        return given

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.kind is Kind.EMBEDDING and not self.dtype.floating:
            raise Misplaced(f"PH-0248 an embedding is floating, and {self.name!r} is {self.dtype}", "kind")
        _check_columns(self, self.columns)
        return self


def _check_columns(tensor: Tensor, columns: tuple[str, ...]) -> None:
    if not columns:
        return
    last = tensor.shape[-1] if tensor.shape else None
    if last != len(columns):
        raise Misplaced(
            f"PH-0258 {len(columns)} names, so the last axis of {tensor.name!r} must have that size", "columns"
        )
    _check_once(columns, "columns")


def _check_once(names: Iterable[str], key: str) -> None:
    seen: set[str] = set()
    for position, name in enumerate(names):
        if name in seen:
            raise Misplaced(f"PH-0257 {name[:80]!r} stands there twice", key, position)
        seen.add(name)


def _check_plain(value: Any, key: str) -> None:
    try:
        canonical_json(value)
    except ValueError as error:
        raise Misplaced("PH-0256 NaN and infinity are not plain values", key) from error


class File(Frozen):
    file: FileName
    """Plain name of a file beside `package.toml`: letters, digits, `.`, `_` and `-`, at most 120."""
    sha256: Sha256
    """SHA-256 of its bytes: 64 lower-case hex digits."""
    size: Size
    """Its size in bytes."""

    @property
    def digest(self) -> str:
        return f"sha256:{self.sha256}"


class Weights(File):
    """The file of the trained weights."""

    key: Words | None = None
    """The entry of the checkpoint that holds the state dict. *Not yet*."""
    prefix: Words | None = None
    """Text to cut from the front of each tensor's name. *Not yet*."""
    ignore: Annotated[tuple[Words, ...], Field(max_length=1000)] = ()
    """Patterns (`*`, `?`) of entries that are no part of the model. *Not yet*."""
    cast: Literal[DType.FLOAT32, DType.FLOAT64, DType.FLOAT16] | None = None
    """The dtype that floating weights of another dtype are cast to. *Not yet*."""


class Labels(StrEnum):
    """class: int64, the right class of each evaluation sample. value: float32 or float64, of a regression."""

    CLASS = "class"
    VALUE = "value"


def _labels(given: Any) -> Any:
    if isinstance(given, bool):
        raise Misplaced(
            'PH-0255 is true or false in schema 1: in schema 2, write "class" for true, and nothing for false'
        )
    return given


class Samples(File):
    """A safetensors file of real inputs: `calibration.<input>` and `evaluation.<input>`, both (n, ...)."""

    labels: Annotated[Labels | None, BeforeValidator(_labels)] = None
    """The file also has `label`, one number for each evaluation sample. `class`: int64, its class; needs an output
    of kind `scores`. `value`: float32 or float64, of a regression; *not yet*."""
    slices: Annotated[tuple[Words, ...], Field(max_length=1000)] = ()
    """Names of groups. The file also has `slice`: int64, the group of each evaluation sample by its position in this
    list. *Not yet*."""

    @model_validator(mode="after")
    def _once(self) -> Self:
        _check_once(self.slices, "slices")
        return self


class Asked(Frozen):
    """What is wanted of a format that is not built in, and how."""

    want: Want
    """Whether the format is made."""
    options: dict[str, JsonValue] = {}
    """The format's own options."""

    @model_validator(mode="before")
    @classmethod
    def _short(cls, given: Any) -> Any:
        return {"want": given} if isinstance(given, str) else given

    @model_validator(mode="after")
    def _plain(self) -> Self:
        _check_plain(self.options, "options")
        return self


class BuiltIn(Frozen):
    """What is wanted of each format that is built in."""

    onnx: Want = Want.REQUIRED
    """`model.onnx`."""
    torchscript: Want = Want.REQUIRED
    """`model.ts`."""
    program: Want = Want.OPTIONAL
    """`model.pt2`, of `torch.export`."""
    onnx_int8: Annotated[Want, Field(alias="onnx-int8")] = Want.OPTIONAL
    """`model.int8.onnx`."""
    torchscript_int8: Annotated[Want, Field(alias="torchscript-int8")] = Want.OPTIONAL
    """`model.int8.ts`."""
    onnxruntime: Annotated[str, Field(strict=True)] | None = None
    """The oldest onnxruntime that must read the ONNX files, such as `1.17` (docs/onnx.md)."""
    opset: Annotated[int, Field(strict=True, ge=17, le=24)] | None = None
    """ONNX opset. None: 20, or the newest that `onnxruntime` reads, if that is less. docs/onnx.md#opset-17 names
    what 17 lacks."""
    int8_weights: Literal[4, 8] | None = None
    """`onnx-int8` quantises only the weights of large matrices, to 4 or 8 bits, if that passes the gates
    (docs/int8.md). None: activations too."""

    def want(self, format: str) -> Want:
        """A format of which nothing is said is not tried."""
        if format in ROWS:
            want: Want = getattr(self, _field(format))
            return want
        return self.others[format].want if format in self.others else Want.OFF

    @property
    def wanted(self) -> tuple[str, ...]:
        """All that are tried: the formats that are built in, then the others as they are written."""
        every = (*Format, *self.others)
        return tuple(format for format in every if self.want(format) is not Want.OFF)

    @property
    def others(self) -> dict[str, Asked]:
        """The formats that are not built in."""
        return {}

    @property
    def onnx_opset(self) -> int:
        """The opset of the ONNX files."""
        if self.opset or not self.onnxruntime:
            return self.opset or DEFAULT_OPSET
        return min(DEFAULT_OPSET, RUNTIMES[self.onnxruntime].opset)

    @model_validator(mode="after")
    def _onnxruntime_reads_it(self) -> Self:
        if self.onnxruntime is None:
            return self
        if self.onnxruntime not in RUNTIMES:
            reason = f"PH-0245 {shown(self.onnxruntime)} is none of {ORDER[0]} to {ORDER[-1]}, written as major.minor"
            raise Misplaced(reason, "onnxruntime")
        newest = RUNTIMES[self.onnxruntime].opset
        if self.onnx_opset > newest:
            reason = f"PH-0246 {self.onnx_opset} is above what onnxruntime {self.onnxruntime} reads, which is {newest}"
            raise Misplaced(reason, "opset")
        if self.int8_weights and lacks(self.onnxruntime, blocks(self.int8_weights)):
            reason = f"PH-0247 onnxruntime {self.onnxruntime} has no {blocks(self.int8_weights)}"
            raise Misplaced(reason, "int8_weights")
        return self

    @model_validator(mode="after")
    def _int8_has_its_base(self) -> Self:
        for format in Format:
            if self.want(format) is not Want.OFF and self.want(format.base) is Want.OFF:
                written = _field(format) in self.model_fields_set
                raise Misplaced(
                    f'PH-0244 {format} is measured against {format.base}, which is off: set {format} = "off" too',
                    format.value if written else format.base.value,
                )
        if not self.wanted:
            raise ValueError("every format is off: nothing would be released")
        return self


def _field(format: str) -> str:
    return str(format).replace("-", "_")


class Formats(BuiltIn):
    """An open table by name: what is not built in, a package on the worker may add."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[FormatName, Asked]

    @property
    def others(self) -> dict[str, Asked]:
        return dict(self.__pydantic_extra__ or {})

    @property
    def asked(self) -> dict[str, Asked]:
        """Every format by its name."""
        return {format.value: Asked(want=self.want(format)) for format in Format} | self.others

    @field_validator(*(_field(format) for format in Format), mode="before")
    @classmethod
    def _as_table(cls, given: Any) -> Any:
        if isinstance(given, dict) and "options" in given:
            raise Misplaced("PH-0243 a format that is built in has no options", "options")
        return given["want"] if isinstance(given, dict) and set(given) == {"want"} else given


class Embedding(Frozen):
    """How far INT8 may move outputs of kind `embedding`."""

    cosine: Annotated[float, Field(ge=0, le=1)] = 0.995
    """Least mean cosine between the outputs of INT8 and those of fp32."""
    neighbours: Annotated[float, Field(ge=0, le=1)] = 0.98
    """Least part of the samples with the same nearest neighbour."""


class Gates(Frozen):
    """What a format must keep to. docs/parity.md says where the defaults come from."""

    max_ratio: Annotated[float, Field(ge=1, le=1e6)] = 8.0
    """Largest error, in units of the rounding that fp32 itself shows against float64."""
    rms_ratio: Annotated[float, Field(ge=1, le=1e6)] = 6.0
    """Root mean square error, in the same unit."""
    atol: Annotated[float, Field(ge=0, le=1)] | None = None
    """With `rtol`, instead of both ratios: every error is at most `atol + rtol * abs(value)`. Set both or neither."""
    rtol: Annotated[float, Field(ge=0, le=1)] | None = None
    """See `atol`."""
    int8_accuracy_drop: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Largest drop of accuracy; 0.01 is one percentage point. Applies if samples have labels."""
    int8_agreement: Annotated[float, Field(ge=0, le=1)] = 0.99
    """Least part of samples with the same result. Applies if outputs are scores and samples have no labels."""
    int8_sqnr_db: Annotated[float, Field(ge=0, le=200)] = 30.0
    """Least signal-to-noise ratio in dB, of floating outputs that are no scores."""
    int8_worth: Annotated[float, Field(ge=0, le=100)] = DEFAULT_WORTH
    """INT8 ships if it is smaller or faster by this part, and slower at no timed batch size
    (docs/int8.md#what-int8-has-to-be-worth). 0: it ships whatever its size and speed are."""
    int8_embedding: Embedding = Embedding()
    """Of outputs of kind `embedding`. *Not yet*."""
    int8_speed: Annotated[float, Field(gt=0, le=100)] | None = None
    """Of schema 1 alone, instead of `int8_worth`: fp32 time / INT8 time, at least. None: DEFAULT_SPEED."""
    cuda: Want = Want.OPTIONAL
    """Checks on a GPU (docs/parity.md#on-a-gpu). `required`: no release without a pass of every check. `optional`:
    tried if a GPU worker is online, and the release goes on whatever the verdicts are. `off`: not tried."""
    approve: Flag = False
    """Whether a person must approve a release before the channel `production` moves to it
    (docs/operators.md#approval)."""

    @model_validator(mode="after")
    def _both_tolerances(self) -> Self:
        if (self.atol is None) != (self.rtol is None):
            raise Misplaced("PH-0242 set both atol and rtol, or neither", "rtol" if self.atol is None else "atol")
        return self


class Image(Frozen):
    """Where the model's image goes."""

    repository: Annotated[str, Field(max_length=255, pattern=REPOSITORY)]
    """Registry repository that the model's image goes to: `host/path`, lower case, no scheme, user or tag, ending in
    the model's name (docs/images.md). Needs `onnx`."""
    modelpack: Flag = False
    """Whether the whole release goes there too, as an artifact of the CNCF ModelPack specification."""


class MLflow(Frozen):
    """Where the release is registered."""

    name: Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^/:\x00-\x1f]+$")]
    """Name of the registered model: no `/` and no `:` (docs/mlflow.md)."""


class Card(Frozen):
    """Text for people."""

    task: Words | None = None
    """What the model does, such as `tabular classification`."""
    licence: Annotated[str, Field(pattern=LICENCE)] | None = None
    """An SPDX expression, such as `Apache-2.0`."""
    datasets: Annotated[tuple[Words, ...], Field(max_length=100)] = ()
    """What the model was trained on."""
    intended_use: Text | None = None
    """What the model is for, and what it is not for."""
    contact: Words | None = None
    """Whom to ask."""
