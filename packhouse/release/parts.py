"""Parts of a manifest and of a record that are the same in every schema."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from packhouse.artifact import Digest, Frozen
from packhouse.release.store_layout import ID
from packhouse.spec.model import REPOSITORY

MAX_DOCUMENT_BYTES = 16 * 1024 * 1024
ReleaseId = Annotated[str, Field(pattern=f"^{ID}$")]


class ArchitectureCode(Frozen):
    """The builder that was used, the digest over its package's sources, and the versions of what it requires."""

    name: str
    distribution: str
    version: str
    code: Digest
    requires: dict[str, str] = {}


class RatioTolerance(Frozen):
    """See judge.Ratio."""

    kind: Literal["ratio"] = "ratio"
    max: float
    rms: float


class AbsoluteTolerance(Frozen):
    """See judge.Absolute."""

    kind: Literal["absolute"] = "absolute"
    atol: float
    rtol: float


class SqnrTolerance(Frozen):
    """INT8: the golden answers' signal-to-noise ratio may not fall below this many dB."""

    kind: Literal["sqnr"] = "sqnr"
    sqnr_db: float


AnyTolerance = Annotated[RatioTolerance | AbsoluteTolerance | SqnrTolerance, Field(discriminator="kind")]


class Processors(StrEnum):
    """Where a format's answers are those that were judged. vnni: where 8-bit products are added in 32 bits; others add
    pairs of them in 16 bits, which such weights can overflow."""

    ANY = "any"
    VNNI = "vnni"


class ReleasedImage(Frozen):
    """The image that serves this release. repository: with its registry. runtime: the image that it was built on."""

    repository: Annotated[str, Field(max_length=255, pattern=REPOSITORY)]
    digest: Digest
    runtime: Digest

    @property
    def reference(self) -> str:
        return f"{self.repository}@{self.digest}"
