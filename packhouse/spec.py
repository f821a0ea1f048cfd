"""The spec: what `package.toml` says a model is, what to make of it and which gates it must pass.

`parse` reads it, `render` writes it. Law: parse(render(spec)) == spec. docs/spec.md describes every key.
"""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

import tomli_w
from pydantic import BeforeValidator, Field, JsonValue, ValidationError, model_validator

from packhouse.artifact import Frozen
from packhouse.digest import canonical_json
from packhouse.errors import SpecInvalid
from packhouse.keys import DType, Flag, Misplaced, Number, TensorName
from packhouse.onnxruntimes import ORDER, RUNTIMES, blocks, lacks
from packhouse.steps import KINDS, Step, Value, listed, prepared, text_of

SPEC_FILE = "package.toml"
DEFAULT_OPSET = 20
PROGRAM = "program"
"""The architecture whose weights file is the model: a `.pt2` of torch.export."""
MAX_SPEC_BYTES = 1024 * 1024
MAX_KEY_PARTS = 32
"""Parts of a dotted key. tomllib's time grows with their square: one key of 1 MiB keeps it busy for many minutes."""

ModelName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,119}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Size = Annotated[int, Field(strict=True, ge=1, lt=2**63)]
Dimension = Annotated[int, Field(strict=True, ge=1, le=2**31 - 1)]


REPOSITORY = r"^[a-z0-9][a-z0-9.-]*(:[0-9]{1,5})?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+$"


class Format(StrEnum):
    """The formats of a release; the value is the name in `[formats]`."""

    ONNX = "onnx"
    TORCHSCRIPT = "torchscript"
    PROGRAM = "program"
    ONNX_INT8 = "onnx-int8"
    TORCHSCRIPT_INT8 = "torchscript-int8"

    @property
    def int8(self) -> bool:
        return self in (Format.ONNX_INT8, Format.TORCHSCRIPT_INT8)

    @property
    def base(self) -> Format:
        """The fp32 format that an INT8 format is measured against; itself for the others."""
        return {Format.ONNX_INT8: Format.ONNX, Format.TORCHSCRIPT_INT8: Format.TORCHSCRIPT}.get(self, self)

    @property
    def file(self) -> str:
        return _FILES[self]

    @property
    def data(self) -> str:
        """The file of an ONNX file's weights, where they do not fit into it."""
        return f"{self.file}.data"


_FILES = {
    Format.ONNX: "model.onnx",
    Format.TORCHSCRIPT: "model.ts",
    Format.PROGRAM: "model.pt2",
    Format.ONNX_INT8: "model.int8.onnx",
    Format.TORCHSCRIPT_INT8: "model.int8.ts",
}


class Want(StrEnum):
    """required: no release without it. optional: left out, with the reason in the report, where it can not be made,
    is wrong or (INT8) does not pay. off: not tried."""

    REQUIRED = "required"
    OPTIONAL = "optional"
    OFF = "off"


class ModelSection(Frozen):
    name: ModelName
    description: Annotated[str, Field(max_length=500)] = ""


class Architecture(Frozen):
    """Which registered builder makes the module, and the keyword arguments it is called with."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,119}$")]
    arguments: dict[str, JsonValue] = {}

    @model_validator(mode="after")
    def _plain(self) -> Self:
        try:
            canonical_json(self.arguments)
        except ValueError as error:
            raise Misplaced("NaN and infinity are not plain values", "arguments") from error
        return self


class Axis(Frozen):
    """A dynamic axis: every size from min to max must work."""

    min: Dimension = 1
    max: Dimension

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min > self.max:
            raise Misplaced(f"min {self.min} is above max {self.max}", "min")
        return self


class Tensor(Frozen):
    """A named input or output. shape: sizes, and names of axes where the size may change."""

    name: TensorName
    dtype: DType = DType.FLOAT32
    shape: tuple[Dimension | TensorName, ...]

    @property
    def axes(self) -> tuple[str, ...]:
        return tuple(size for size in self.shape if isinstance(size, str))


class Input(Tensor):
    """range: smallest and largest value, both included; needed for integers that index something."""

    range: tuple[Number, Number] | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.range and self.range[0] > self.range[1]:
            raise Misplaced(f"{self.range[0]:g} is above {self.range[1]:g}", "range")
        return self


class Output(Tensor):
    """An axis that no input has needs no [axes] entry: its size follows from the others.

    scores: one score a class along the last axis, so that the largest is the answer and agreement can be counted."""

    scores: Flag = False


class File(Frozen):
    file: FileName
    sha256: Sha256
    size: Size

    @property
    def digest(self) -> str:
        return f"sha256:{self.sha256}"


class Samples(File):
    """A safetensors file of real inputs: `calibration.<input>` and `evaluation.<input>`, both (n, ...), and, where
    `labels` is true, `label`: int64, (n of evaluation,), the right class of each evaluation sample."""

    labels: Flag = False


class Formats(Frozen):
    """What is wanted of each format. int8_weights: bits of large matrices in `onnx-int8` whose activations stay in
    floats, if that keeps to the gates; None: activations are quantised too. onnxruntime: the oldest release that must
    read the ONNX files; None: nobody asks. opset: None: `onnx_opset` follows from the others."""

    onnx: Want = Want.REQUIRED
    torchscript: Want = Want.REQUIRED
    program: Want = Want.OPTIONAL
    onnx_int8: Annotated[Want, Field(alias="onnx-int8")] = Want.OPTIONAL
    torchscript_int8: Annotated[Want, Field(alias="torchscript-int8")] = Want.OPTIONAL
    onnxruntime: Annotated[str, Field(strict=True)] | None = None
    opset: Annotated[int, Field(strict=True, ge=18, le=24)] | None = None
    int8_weights: Literal[4, 8] | None = None

    def want(self, format: Format) -> Want:
        want: Want = getattr(self, _field(format))
        return want

    @property
    def wanted(self) -> tuple[Format, ...]:
        return tuple(format for format in Format if self.want(format) is not Want.OFF)

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
            reason = f"{_shown(self.onnxruntime)} is none of {ORDER[0]} to {ORDER[-1]}, written as major.minor"
            raise Misplaced(reason, "onnxruntime")
        newest = RUNTIMES[self.onnxruntime].opset
        if self.onnx_opset > newest:
            reason = f"{self.onnx_opset} is above what onnxruntime {self.onnxruntime} reads, which is {newest}"
            raise Misplaced(reason, "opset")
        if self.int8_weights and lacks(self.onnxruntime, blocks(self.int8_weights)):
            reason = f"onnxruntime {self.onnxruntime} has no {blocks(self.int8_weights)}"
            raise Misplaced(reason, "int8_weights")
        return self

    @model_validator(mode="after")
    def _int8_has_its_base(self) -> Self:
        for format in self.wanted:
            if self.want(format.base) is Want.OFF:
                written = _field(format) in self.model_fields_set
                raise Misplaced(
                    f'{format} is measured against {format.base}, which is off: set {format} = "off" too',
                    format.value if written else format.base.value,
                )
        if not self.wanted:
            raise ValueError("every format is off: nothing would be released")
        return self


def _field(format: Format) -> str:
    return format.value.replace("-", "_")


class Gates(Frozen):
    """What a format must keep to. docs/parity.md says where the defaults come from.

    max_ratio, rms_ratio: error against float64, in units of the rounding that fp32 itself shows.
    atol, rtol: set both to be held to |error| <= atol + rtol * |value| instead.
    int8_*: how far INT8 may fall: accuracy in points of 1 where samples have labels, else the part of equal answers
    where outputs are scores, else the signal-to-noise ratio in dB. int8_speed: fp32 time / INT8 time, at least.
    cuda: whether a release must run and reproduce on a GPU. optional: it is tried where a GPU worker is online, and the
    release goes on whatever the verdicts in its manifest are.
    approve: a person must approve a release before the channel `production` moves to it.
    """

    max_ratio: Annotated[float, Field(ge=1, le=1e6)] = 8.0
    rms_ratio: Annotated[float, Field(ge=1, le=1e6)] = 6.0
    atol: Annotated[float, Field(ge=0, le=1)] | None = None
    rtol: Annotated[float, Field(ge=0, le=1)] | None = None
    int8_accuracy_drop: Annotated[float, Field(ge=0, le=1)] = 0.01
    int8_agreement: Annotated[float, Field(ge=0, le=1)] = 0.99
    int8_sqnr_db: Annotated[float, Field(ge=0, le=200)] = 30.0
    int8_speed: Annotated[float, Field(gt=0, le=100)] = 0.95
    cuda: Want = Want.OPTIONAL
    approve: Flag = False

    @model_validator(mode="after")
    def _both_tolerances(self) -> Self:
        if (self.atol is None) != (self.rtol is None):
            raise Misplaced("set both atol and rtol, or neither", "rtol" if self.atol is None else "atol")
        return self


class Image(Frozen):
    """The registry repository that the model's image goes to, such as `registry.example/models/churn`. modelpack: the
    whole release goes there too, as an artifact of the CNCF ModelPack specification."""

    repository: Annotated[str, Field(max_length=255, pattern=REPOSITORY)]
    modelpack: Flag = False


class MLflow(Frozen):
    """The registered model's name in MLflow."""

    name: Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^/:\x00-\x1f]+$")]


class Spec(Frozen):
    """One parsed package.toml."""

    schema_version: Annotated[Literal[1], Field(alias="schema")]
    model: ModelSection
    architecture: Architecture
    axes: dict[TensorName, Axis] = {}
    inputs: Annotated[tuple[Input, ...], Field(min_length=1, max_length=64)]
    outputs: Annotated[tuple[Output, ...], Field(min_length=1, max_length=64)]
    weights: File
    samples: Samples
    preprocessing: Annotated[tuple[Step, ...], BeforeValidator(listed), Field(max_length=256)] = ()
    formats: Formats = Formats()
    gates: Gates = Gates()
    image: Image | None = None
    mlflow: MLflow | None = None

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

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for kind, tensors in (("inputs", self.inputs), ("outputs", self.outputs)):
            names = [tensor.name for tensor in tensors]
            for position, name in enumerate(names):
                if name in names[:position]:
                    raise Misplaced(f"{name!r} is declared {names.count(name)} times", kind, position, "name")
        for position, tensor in enumerate(self.inputs):
            for axis in tensor.axes:
                if axis not in self.axes:
                    reason = f"axis {axis!r} is used but [axes.{axis}] does not say its min and max"
                    raise Misplaced(reason, "inputs", position, "shape")
        used = {axis for tensor in self.inputs for axis in tensor.axes}
        if idle := sorted(set(self.axes) - used):
            raise Misplaced(f"axis {idle[0]!r} is declared but no input has it", "axes", idle[0])
        for position, output in enumerate(self.outputs):
            if output.scores and len(output.shape) < (2 if self.batch else 1):
                raise Misplaced("scores need a last axis of classes", "outputs", position, "shape")
        if SPEC_FILE in (self.weights.file, self.samples.file):
            raise Misplaced(
                f"{SPEC_FILE} is this file", "samples" if self.samples.file == SPEC_FILE else "weights", "file"
            )
        if self.weights.file == self.samples.file:
            raise Misplaced("weights and samples name the same file", "samples", "file")
        self._check_program()
        if self.image and self.formats.onnx is Want.OFF:
            raise Misplaced("an image serves onnx, which is off", "image", "repository")
        self._check_preprocessing()
        return self

    def _check_program(self) -> None:
        if self.architecture.name != PROGRAM:
            return
        if self.architecture.arguments:
            raise Misplaced("a program is what it is and takes no arguments", "architecture", "arguments")
        if not self.weights.file.endswith(".pt2"):
            raise Misplaced("the architecture `program` is a .pt2 of torch.export", "weights", "file")
        if self.gates.cuda is Want.REQUIRED:
            raise Misplaced("a program itself is not run on a GPU, so nothing could pass there", "gates", "cuda")

    def _check_preprocessing(self) -> None:
        try:
            prepared(self.preprocessing, {tensor.name: Value(tensor.dtype, tensor.shape) for tensor in self.inputs})
        except Misplaced as error:
            raise Misplaced(str(error), "preprocessing", *error.path) from error


def parse(data: bytes, *, where: str = SPEC_FILE) -> Spec:
    """Raises SpecInvalid with the line and the key of the first finding, and how many more there are."""
    document = read(data, where=where)
    try:
        return Spec.model_validate(document)
    except ValidationError as error:
        one = isinstance(document.get("preprocessing"), dict)
        raise _finding(error, data.decode("utf-8"), where, one_step=one) from error


def read(data: bytes, *, where: str = SPEC_FILE) -> dict[str, Any]:
    """The TOML document, whatever it says. Raises SpecInvalid: it is none, or one that keeps a parser busy for good."""
    if len(data) > MAX_SPEC_BYTES:
        raise SpecInvalid("too large", where=where, got=f"{len(data):,} bytes", want=f"at most {MAX_SPEC_BYTES:,}")
    try:
        text = data.decode("utf-8")
        if deep := _DEEP_KEY.search(text):
            place = f"{where}:{text.count(chr(10), 0, deep.start()) + 1}"
            raise SpecInvalid("nested too deep", where=place, want=f"keys of at most {MAX_KEY_PARTS} parts")
        return tomllib.loads(text)
    except UnicodeDecodeError as error:
        raise SpecInvalid("not UTF-8", where=f"{where} byte {error.start}") from error
    except tomllib.TOMLDecodeError as error:
        at = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)$", str(error))
        line = (at[1] or str(text.count("\n") + 1)) if at else ""
        raise SpecInvalid(f"not TOML: {error}", where=f"{where}:{line}".rstrip(":")) from error
    except RecursionError as error:
        raise SpecInvalid("nested too deep", where=where) from error
    except ValueError as error:  # a number of more digits than Python reads
        raise SpecInvalid(f"not TOML that can be read: {error}", where=where) from error


def render(spec: Spec) -> bytes:
    """The spec as package.toml."""
    document = spec.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude_none=True)
    document = {"schema": spec.schema_version, **document}
    return tomli_w.dumps(document).encode()


def _finding(error: ValidationError, text: str, where: str, *, one_step: bool) -> SpecInvalid:
    """one_step: preprocessing is written as one table, and not as a list of steps."""
    findings = error.errors(include_url=False)
    first = findings[0]
    cause = first.get("ctx", {}).get("error")
    path = (*_written(first["loc"]), *(cause.path if isinstance(cause, Misplaced) else ()))
    no_kind = first["type"].startswith("union_tag") and path[:1] == ("preprocessing",)
    if no_kind:
        path = (*path, "kind")
    if one_step and path[:1] == ("preprocessing",):
        path = (path[0], *path[2:])
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")[:MAX_SHOWN]
    line = _line_of(path, text)
    what = first["msg"].removeprefix("Value error, ")
    what = {"Extra inputs are not permitted": "unknown key", "Field required": "missing"}.get(what, what)
    if path[2:3] == ("shape",) and len(path) == 4:
        what = "neither a size nor the name of an axis"
    if no_kind:
        what = "no such step"
    if not cause and isinstance(path[-1], int) and {"categories", "values"} & set(path):
        what = "integers alone, or text alone"
    got = first["ctx"]["tag"] if first["type"] == "union_tag_invalid" else first["input"]
    others = _places(_written(finding["loc"]) for finding in findings) - 1
    pattern = str(first.get("ctx", {}).get("pattern", ""))
    return SpecInvalid(
        f"{key}: {'has another form' if what.startswith('String should match') else what}".removeprefix(": "),
        where=f"{where}:{line}" if line else where,
        got="" if first["type"] in ("missing", "extra_forbidden") or cause else _shown(got),
        want=", ".join(KINDS) if no_kind else _FORMS.get(pattern, pattern),
        next=f"and {others} more" if others else "",
    )


def _places(paths: Iterable[tuple[int | str, ...]]) -> int:
    """How many places have a finding: pydantic also calls a list too short whose only entry is wrong."""
    every = set(paths)
    return sum(not any(other != path and other[: len(path)] == path for other in every) for path in every)


MAX_SHOWN = 80
"""Characters of a value or key of somebody's file that a message repeats."""

_FORMS = {
    r"^[a-z0-9][a-z0-9-]{0,62}$": "lower-case letters, digits and -, at most 63",
    r"^[A-Za-z_][A-Za-z0-9_]{0,62}$": "letters, digits and _, at most 63, no digit first",
    r"^[A-Za-z0-9][A-Za-z0-9._-]{0,119}$": "letters, digits, . _ and -, at most 120: a plain name, no folder, no URL",
    r"^[0-9a-f]{64}$": "sha256: 64 lower-case hex digits",
    REPOSITORY: "host/path, lower case, no scheme, no user: registry.example/models/churn",
}


def _shown(value: object) -> str:
    """A value for a message, without what may be a secret in it: a URL's user and query."""
    if isinstance(value, (dict, list)):
        return "a table" if isinstance(value, dict) else "an array"
    if not isinstance(value, str):
        return str(value)[:MAX_SHOWN]
    plain, query, _ = value.partition("?")
    _, at, public = plain.rpartition("@")
    return repr(f"{'…@' if at else ''}{public}"[:MAX_SHOWN] + ("?…" if query else ""))


def _written(location: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """pydantic's location as the keys that stand in the file: it adds `[key]` to a dictionary's bad key, and the
    members of a union to a size in a shape, to a value among the arguments and to a step of the preprocessing."""
    if location[:1] == ("preprocessing",):
        return (*location[:2], *location[3:4], *(part for part in location[4:] if isinstance(part, int)))
    if location[:2] == ("architecture", "arguments"):
        return location[:3]
    if location[2:3] == ("shape",):
        return location[:4]
    return tuple(part for part in location if part != "[key]")


_PART = r"""(?:"(?:\\.|[^"\\\n])*"|'[^'\n]*'|[A-Za-z0-9_-]+)"""
_STATEMENT = re.compile(rf"\s*(\[\[?)?\s*({_PART}(?:\s*\.\s*{_PART})*)\s*[=\]]")
_DEEP_KEY = re.compile(rf"(?:^|[\[{{,])[ \t]*(?:{_PART}[ \t]*\.[ \t]*){{{MAX_KEY_PARTS}}}", re.MULTILINE)
_TOKEN = re.compile(
    r"""
    \"\"\"(?:\\.|[^\\])*?\"\"\"(?!\") | '''.*?'''(?!') | "(?:\\.|[^"\\\n])*" | '[^'\n]*' | \#[^\n]*
    | (?P<open>[\[{]) | (?P<close>[\]}]) | (?P<end>\n)
    """,
    re.VERBOSE | re.DOTALL,
)


def _line_of(path: tuple[int | str, ...], text: str) -> int | None:
    """The line, from 1, of the deepest part of the path that is written in the text; None where none is."""
    best: tuple[int, int] | None = None
    table: tuple[int | str, ...] = ()
    elements: Counter[tuple[int | str, ...]] = Counter()
    for number, statement in _statements(text):
        if not (found := _STATEMENT.match(statement)):
            continue
        names = [part.strip("\"'") for part in re.findall(_PART, found[2])]
        if found[1]:
            table = ()
            for depth, name in enumerate(names, start=1):
                table = (*table, name)
                if found[1] == "[[" and depth == len(names):
                    elements[table] += 1
                if elements[table]:
                    table = (*table, elements[table] - 1)
        here = table if found[1] else (*table, *names)
        if here and here == path[: len(here)] and (best is None or len(here) > best[0]):
            best = (len(here), number)
    return best[1] if best else None


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """The line number and text of each table header and each `key = value`, whose value may go over many lines."""
    start, line, depth, first = 0, 1, 0, 1
    for token in _TOKEN.finditer(f"{text}\n"):
        depth += bool(token["open"]) - bool(token["close"])
        line += token[0].count("\n")
        if token["end"] and not depth:
            yield first, text[start : token.start()]
            start, first = token.end(), line
