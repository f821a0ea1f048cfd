"""The documents of a release: inputs, manifest, record, channel. docs/release.md shows them.

All are functions of the inputs alone: what was timed stands in the report. The release's id is computed from its
inputs before any work; its proof is the record's digest.

Manifest and record are of schema 2. Those of schema 1 are read for good, by their own rules (schema1.py), and have the
same form in memory; `schema_version` says what they were read from.
"""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated, Literal, TypeVar

from pydantic import Field, JsonValue, ValidationError, model_validator

from packhouse.artifact import Artifact, Digest, Frozen, Name, Outcome, Verdict
from packhouse.digest import canonical_json, digest_bytes, unique
from packhouse.errors import ReleaseInvalid, Unavailable
from packhouse.formats.table import Format, known
from packhouse.formats.table import FormatName as FormatName
from packhouse.release import schema1
from packhouse.release.parts import MAX_DOCUMENT_BYTES as MAX_DOCUMENT_BYTES
from packhouse.release.parts import AbsoluteTolerance as AbsoluteTolerance
from packhouse.release.parts import AnyTolerance as AnyTolerance
from packhouse.release.parts import ArchitectureCode as ArchitectureCode
from packhouse.release.parts import Processors as Processors
from packhouse.release.parts import RatioTolerance as RatioTolerance
from packhouse.release.parts import ReleasedImage as ReleasedImage
from packhouse.release.parts import ReleaseId as ReleaseId
from packhouse.release.parts import SqnrTolerance as SqnrTolerance
from packhouse.release.store_layout import channel_key as channel_key
from packhouse.release.store_layout import release_key as release_key
from packhouse.spec.model import ModelName
from packhouse.spec.onnxruntimes import Onnx
from packhouse.spec.types import CHANNEL as CHANNEL
from packhouse.spec.types import PRODUCTION as PRODUCTION
from packhouse.spec.types import ChannelName as ChannelName
from packhouse.spec.types import Number, TensorName
from packhouse.spec.versions import NEEDS, Version, refuse_newer

MANIFEST = "manifest.json"
RECORD = "record.json"
GOLDEN = "golden.safetensors"
WEIGHTS = "weights.safetensors"
REPORT_JSON = "report.json"
REPORT_MD = "report.md"
REPORT_HTML = "report.html"
DECISIONS = "decisions.json"
PROVENANCE = "provenance.json"
SIGNATURE = "model.sig"
IMAGE_BUNDLES = "image.sigstore.jsonl"
"""What is signed about the image, a bundle a line, to be attached to it in its registry."""
MEASURED = frozenset({REPORT_JSON, REPORT_MD, REPORT_HTML, DECISIONS})
"""What was measured, and when: the only files that no signature covers, but for itself."""
UNDIGESTED = frozenset({RECORD, MANIFEST, PROVENANCE, SIGNATURE, IMAGE_BUNDLES}) | MEASURED
"""Names in a release's folder that the manifest does not list: itself, its record, what is said of that record, and
what was measured."""

T = TypeVar("T", bound=Frozen)
OpenFormat = Annotated[Format | FormatName, Field(union_mode="left_to_right")]
"""A format by name: one that this version knows, or another one's name."""


class FormatPackage(Frozen):
    """A package that adds a format: its version, and the digest over its files."""

    version: Annotated[str, Field(max_length=100)]
    digest: Digest


class Inputs(Frozen):
    """All that decides a release's bytes. libraries: name -> version. device: the class of processor, since INT8
    arithmetic and rounding follow it. code: digest over packhouse's own sources. runtime: the image that the model's
    image is built on, where the spec wants one. environment: variables that the sandbox fixes. format_packages: those
    that add formats, by name."""

    spec: Digest
    weights: Digest
    samples: Digest
    architecture: ArchitectureCode
    code: Digest
    libraries: dict[str, str]
    device: str
    runtime: Digest | None = None
    environment: dict[str, str] = {}
    format_packages: dict[str, FormatPackage] = {}

    @property
    def release_id(self) -> str:
        """Of a release that is made now."""
        return self.release_id_of(2)

    def release_id_of(self, schema: int) -> str:
        """By the rules of the manifest's schema. A release without an image is named as if there were no such input."""
        left_out = set() if schema > 1 else {"environment", "format_packages"}
        document = self.model_dump(mode="json", exclude=left_out | ({"runtime"} if self.runtime is None else set()))
        return digest_bytes(canonical_json(document)).removeprefix("sha256:")[:32]


class Rows(StrEnum):
    """Whether a row's output depends on the other rows of its batch."""

    INDEPENDENT = "independent"
    DEPENDENT = "dependent"
    UNTESTED = "untested"


class Selection(StrEnum):
    """named: nothing picks the format by default; a user must name it."""

    AUTO = "auto"
    NAMED = "named"


class Runtime(Frozen):
    """What opens a format: a package's name, and the oldest version that does; empty: nobody knows. facts: what else is
    known, such as an ONNX file's opset."""

    name: Name
    oldest: Annotated[str, Field(max_length=100)] = ""
    facts: dict[str, JsonValue] = {}


class Release(Frozen):
    """One format that a release holds, and how close its golden answers must stay for good. name: open; this version
    knows the names of `Format`. files: the first is opened, the others lie beside it. recipe: how an INT8 format was
    quantised, where there was a choice. way: which exporter made it. computed_in: the floating precision of the
    computation. Both are empty where nobody knows."""

    name: FormatName
    files: Annotated[tuple[Name, ...], Field(min_length=1)]
    runtime: Runtime
    tolerance: AnyTolerance
    recipe: Annotated[str, Field(max_length=200)] = ""
    processors: Processors = Processors.ANY
    way: Annotated[str, Field(max_length=100)] = ""
    computed_in: Annotated[str, Field(max_length=100)] = ""
    rows: Rows = Rows.UNTESTED
    selection: Selection = Selection.AUTO

    @property
    def format(self) -> Format | str | None:
        """By name. None: it is not built in, and no package that is installed here adds it. Its bytes can be verified,
        and it can not be run."""
        return known(self.name)

    @property
    def file(self) -> str:
        """What is opened."""
        return self.files[0]

    @property
    def onnx(self) -> Onnx | None:
        """Of an ONNX file, what reads it."""
        opset, ir = self.runtime.facts.get("opset"), self.runtime.facts.get("ir")
        if self.runtime.name != "onnxruntime" or not isinstance(opset, int) or not isinstance(ir, int):
            return None
        return Onnx(opset=opset, ir=ir, onnxruntime=self.runtime.oldest)

    def not_run(self, where: str) -> Unavailable:
        """What a reader says that does not know the format."""
        return Unavailable(f"PH-0151 not run: install {self.runtime.name}", where=f"{where}: {self.name}")


class Sizes(Frozen):
    """Axis -> sizes that the formats were compared at with the trained model: by value, or by shape alone. not_tried:
    what was not, in words."""

    compared: dict[TensorName, tuple[int, ...]] = {}
    by_shape: dict[TensorName, tuple[int, ...]] = {}
    not_tried: tuple[Annotated[str, Field(max_length=500)], ...] = ()


class Values(Frozen):
    """Which values of an input are legal. range: both ends included."""

    range: tuple[Number, Number] | None = None
    nan: bool = False
    inf: bool = False


class Counts(Frozen):
    """How many samples the source has of each kind."""

    calibration: Annotated[int, Field(ge=0)]
    evaluation: Annotated[int, Field(ge=0)]


class Manifest(Frozen):
    """The list of a release's artifacts and the verdicts on them. text: the inputs that ONNX takes as text -> what the
    codes stand for that golden inputs and other formats have: the code is the position. values: by input. samples: None
    in schema 1. extensions: free; readers ignore it."""

    schema_version: Annotated[Literal[1, 2], Field(alias="schema")] = 2
    needs: Version = NEEDS
    model: ModelName
    release: ReleaseId
    inputs: Inputs
    outputs: tuple[str, ...]
    text: dict[TensorName, tuple[str, ...]] = {}
    sizes: Sizes = Sizes()
    values: dict[TensorName, Values] = {}
    samples: Counts | None = None
    formats: Annotated[tuple[Release, ...], Field(min_length=1)]
    artifacts: tuple[Artifact, ...]
    verdicts: tuple[Verdict, ...]
    extensions: dict[str, JsonValue] = {}

    @model_validator(mode="after")
    def _coherent(self) -> Manifest:
        names = [artifact.name for artifact in self.artifacts]
        if names != sorted(set(names)):
            raise ValueError("artifacts must be sorted by name, each once")
        if set(names) & UNDIGESTED:
            raise ValueError(f"{sorted(set(names) & UNDIGESTED)[0]} can not be an artifact")
        if self.release != self.inputs.release_id_of(self.schema_version):
            raise ValueError("the release's id is not that of its inputs")
        by_name = {artifact.name: artifact for artifact in self.artifacts}
        if len({made.name for made in self.formats}) != len(self.formats):
            raise ValueError("a format stands there twice")
        for made in self.formats:
            if missing := [name for name in made.files if name not in by_name]:
                raise ValueError(f"{made.name}: {missing[0]} is not among the artifacts")
            if self.schema_version > 1 and len(set(made.files)) != len(made.files):
                raise ValueError(f"{made.name}: a file stands there twice")
            if not self._passed(by_name[made.file].digest):
                raise ValueError(f"{made.name}: no verdict of parity passes the digest of {made.file}")
        return self

    def _passed(self, digest: str) -> bool:
        checks = [v for v in self.verdicts if v.check == PARITY and digest in v.compared]
        return bool(checks) and all(verdict.outcome is Outcome.PASS for verdict in checks)

    def artifact(self, name: str) -> Artifact:
        """Raises ReleaseInvalid: no such artifact."""
        for artifact in self.artifacts:
            if artifact.name == name:
                return artifact
        raise ReleaseInvalid("PH-0150 is not in the manifest", where=name)


PARITY = "parity-cpu"
"""The check that no format can be released without."""


CANARY = "canary"
"""The check that no image can be released without: started as its user starts it, it answered the golden inputs."""


class Made(Frozen):
    """Who made a release. source: where from, without credentials. builder: an URI that the operator gives to these
    workers; worker: their image by digest, in which a step can be replayed; empty where they run in none. version: of
    packhouse. sandbox: the protections that held while the model's bytes were parsed."""

    source: Annotated[str, Field(max_length=2000)]
    builder: Annotated[str, Field(max_length=300)]
    version: Annotated[str, Field(max_length=100)]
    worker: Annotated[str, Field(max_length=500)] = ""
    sandbox: tuple[Annotated[str, Field(max_length=200)], ...] = ()


class Record(Frozen):
    """The commit: what makes a release visible. Written last, if absent. verdicts: on the image, which holds the
    manifest, so that the manifest can not hold them. provenance: of the run that was first to commit."""

    schema_version: Annotated[Literal[1, 2], Field(alias="schema")] = 2
    needs: Version = NEEDS
    model: ModelName
    release: ReleaseId
    manifest: Digest
    manifest_size: Annotated[int, Field(ge=1, le=MAX_DOCUMENT_BYTES)]
    image: ReleasedImage | None = None
    verdicts: tuple[Verdict, ...] = ()
    provenance: Made | None = None

    @model_validator(mode="after")
    def _image_is_proven(self) -> Record:
        if self.image:
            checks = [v for v in self.verdicts if v.check == CANARY and self.image.digest in v.compared]
            if not checks or any(verdict.outcome is not Outcome.PASS for verdict in checks):
                raise ValueError("no verdict of the canary passes the digest of the image")
        return self


REMEMBERED = 100
MAX_SERIAL = 2**40
"""More than anybody moves a channel. A file that says more is read, and neither moved on from nor signed."""


class Why(StrEnum):
    """Why a channel moved."""

    RELEASE = "release"
    APPROVAL = "approval"
    PROMOTE = "promote"
    ROLLBACK = "rollback"


class Move(Frozen):
    """One move of a channel. by: who, as they named themselves; of a run, its id. moved_at: RFC 3339, UTC."""

    release: ReleaseId
    serial: Annotated[int, Field(ge=1)]
    moved_at: str
    by: Annotated[str, Field(max_length=200)] = ""
    why: Why


class Channel(Frozen):
    """A moving name. serial: only goes up, by one with each move. moved_at: RFC 3339, UTC. earlier: the releases that
    it pointed at before, the latest last, up to REMEMBERED of them. staged_at: when the source was staged, in seconds
    since 1970 by the clock of its store; 0 where nobody knows. moves: how it came here, the latest last, up to
    REMEMBERED."""

    schema_version: Annotated[Literal[1], Field(alias="schema")] = 1
    release: ReleaseId
    serial: Annotated[int, Field(ge=1)]
    moved_at: str
    earlier: tuple[ReleaseId, ...] = ()
    staged_at: float = 0.0
    moves: tuple[Move, ...] = ()


class Decisions(Frozen):
    """What hangs on a clock or on a GPU, decided once for a release id, so that a second run does not turn it over.

    slower: for each INT8 format that was measured, whether it was slower than its base at some batch size. faster:
    whether it was faster, over them all, by the part that the spec names; none of a spec of schema 1. cuda: the
    verdicts of the GPU, also that none was there; None: not decided yet."""

    slower: dict[FormatName, bool] = {}
    faster: dict[FormatName, bool] = {}
    cuda: tuple[Verdict, ...] | None = None


class Hold(Frozen):
    """What keeps a release from being deleted, until an operator removes it. held_at: RFC 3339, UTC."""

    schema_version: Annotated[Literal[1], Field(alias="schema")] = 1
    model: ModelName
    release: ReleaseId
    held_at: Annotated[str, Field(max_length=40)]
    by: Annotated[str, Field(max_length=200)] = ""
    reason: Annotated[str, Field(max_length=500)]


class Tombstone(Frozen):
    """What is left of a release that was deleted. deleted_at: RFC 3339, UTC. record: the digest of its record, so that
    signatures and images that name it can still be told."""

    schema_version: Annotated[Literal[1], Field(alias="schema")] = 1
    model: ModelName
    release: ReleaseId
    deleted_at: Annotated[str, Field(max_length=40)]
    by: Annotated[str, Field(max_length=200)] = ""
    reason: Annotated[str, Field(max_length=500)]
    record: Digest | None = None


def dump(document: Frozen) -> bytes:
    """Canonical JSON, in the schema that the document was read from. Law: load(type(d), dump(d)) == d."""
    plain = document.model_dump(mode="json", by_alias=True)
    if isinstance(document, Manifest) and document.schema_version == 1:
        plain = schema1.manifest_down(plain)
    if isinstance(document, Record) and document.schema_version == 1:
        plain = schema1.record_down(plain)
    return canonical_json(plain)


def load(kind: type[T], data: bytes, *, where: str) -> T:
    """Raises ReleaseInvalid: not JSON, duplicate keys, not canonical, not such a document, or of a later schema."""
    name = kind.__name__.lower()
    try:
        document = json.loads(data, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise ReleaseInvalid(f"PH-0153 is not a {name}: {error}", where=where) from error
    refuse_newer(document, 2 if kind in (Manifest, Record) else 1, where=where)
    try:
        canonical = canonical_json(document)
        loaded = _validated(kind, document, data)
    except (ValueError, RecursionError) as error:
        first = error.errors(include_url=False)[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise ReleaseInvalid(f"PH-0153 is not a {name}: {first}", where=where) from error
    if canonical != data:
        raise ReleaseInvalid("PH-0152 is not canonical JSON", where=where)
    return loaded


def _validated(kind: type[T], document: object, data: bytes) -> T:
    if kind in (Manifest, Record) and isinstance(document, dict) and document.get("schema", 1) == 1:
        return kind.model_validate(schema1.manifest_up(data) if kind is Manifest else schema1.record_up(data))
    return kind.model_validate_json(data, strict=True)
