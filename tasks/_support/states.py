"""The states that a model's bytes pass through: what one stage gives and the next one takes.

Frozen and plain JSON: references, never bytes, never a path that only one worker has. What publishing takes can
only be made from what the judge passed.
"""

from __future__ import annotations

from typing import Any

from pydantic import model_validator

from packhouse.artifact import Artifact, Beside, Frozen, Outcome, Verdict
from packhouse.parity.latency import Timing
from packhouse.parity.preflight import Finding
from packhouse.release.manifest import Counts, Inputs, Manifest, OpenFormat, Record, ReleasedImage, Sizes
from packhouse.spec.model import Spec


class Planned(Frozen):
    """A source whose release id is known. record: of the release that these inputs made before, None for none."""

    source: str
    spec: Spec
    inputs: Inputs
    record: Record | None

    @property
    def release(self) -> str:
        return self.inputs.release_id

    @property
    def model(self) -> str:
        return self.spec.model.name


class Fetched(Frozen):
    """Hashed, parsed by nobody yet."""

    planned: Planned
    spec_file: Artifact
    weights: Artifact
    samples: Artifact


class Validated(Frozen):
    """weights: canonical safetensors that we wrote. program: of the architecture `program`, the graph that they belong
    to."""

    planned: Planned
    spec_file: Artifact
    weights: Artifact
    samples: Artifact
    facts: dict[str, Any]
    lockdown: tuple[str, ...]
    program: Artifact | None = None

    @property
    def trained(self) -> dict[str, Artifact]:
        """What a job makes the trained model from, and its samples."""
        program = {"program": self.program} if self.program else {}
        return {"spec": self.spec_file, "weights": self.weights, "samples": self.samples, **program}


class Referenced(Frozen):
    """What the trained model itself answers: the probes, and all evaluation samples. findings: traps in its code.
    sizes: of the axes in all of these. samples: how many the source has."""

    cases: Artifact
    evaluation: Artifact
    notes: tuple[str, ...]
    findings: tuple[Finding, ...] = ()
    sizes: Sizes = Sizes()
    samples: Counts | None = None


class Candidate(Frozen):
    """A format that was made and that nobody has judged. data: the file beside the first one, of a format of two files;
    of an ONNX file that is too large to hold its weights, they are in it. facts: how it was made, for the report."""

    format: OpenFormat
    artifact: Artifact
    data: Artifact | None = None
    facts: dict[str, Any]
    seconds: float
    peak_bytes: int

    @property
    def files(self) -> tuple[Artifact, ...]:
        return (self.artifact, self.data) if self.data else (self.artifact,)

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)

    @property
    def whole(self) -> Artifact | Beside:
        """As a job opens it."""
        return Beside(file=self.artifact, data=self.data) if self.data else self.artifact


class LeftOut(Frozen):
    """A format that this release does not have, and can not lack its reason. notes: how it was made, where it was."""

    format: OpenFormat
    verdict: Verdict
    notes: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _has_a_reason(self) -> LeftOut:
        if self.verdict.outcome is Outcome.PASS:
            raise ValueError("a format that passed is not left out")
        return self


class Judged(Frozen):
    """A format that computes what the model computes. measures: deviations and quality, for the report."""

    candidate: Candidate
    verdict: Verdict
    measures: dict[str, Any]

    @model_validator(mode="after")
    def _passed(self) -> Judged:
        if self.verdict.outcome is not Outcome.PASS or self.candidate.artifact.digest not in self.verdict.compared:
            raise ValueError("only a pass on these very bytes makes a candidate a judged one")
        return self


class Measured(Frozen):
    """How long a call of each format takes, at several batch sizes and thread counts. untimed: what there was no time
    for. processor: its name."""

    timings: tuple[Timing, ...]
    untimed: tuple[str, ...] = ()
    processor: str


class Packed(Frozen):
    """A manifest and every artifact that it lists. sandbox: the protections that held while the model's bytes were
    parsed."""

    planned: Planned
    manifest: Manifest
    judged: tuple[Judged, ...]
    left_out: tuple[LeftOut, ...]
    sandbox: tuple[str, ...] = ()


class Published(Frozen):
    """All files are up under their names; no reader can see a release yet. manifest: of its bytes, in the store."""

    packed: Packed
    manifest: Artifact


class Imaged(Frozen):
    """The image is up under its digest and no tag. facts: how it got there, for an operator."""

    published: Published
    image: ReleasedImage
    facts: dict[str, Any] = {}


class Proven(Frozen):
    """What may be committed: the canary's verdict is in the record, and a record without it can not be made."""

    published: Published
    record: Record
    facts: dict[str, Any] = {}


class Released(Frozen):
    """A committed release, and where `channel` stands now. unchanged: this run had nothing to do, and wrote nothing.
    waiting: the channel has not moved, since a person must approve it first. points_at: the release that the channel
    points at, where that is another one; serial is of that. moved: the digest of the channel's file, where this run
    moved it, so that its signature is this run's to give. size: bytes of what was published. image: by digest, where
    the release has one."""

    model: str
    release: str
    channel: str
    serial: int
    unchanged: bool = False
    waiting: bool = False
    points_at: str = ""
    moved: str = ""
    size: int = 0
    image: str = ""
