"""References and verdicts: what crosses a task boundary. Frozen, plain JSON, under 4 KB; never bytes, never a path."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from packhouse.digest import DIGEST

Digest = Annotated[str, Field(pattern=f"^{DIGEST.pattern}$")]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,119}$")]


class Frozen(BaseModel):
    """Every document of packhouse: immutable, unknown keys refused, NaN and infinity too, which JSON has not."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


SAFETENSORS = "application/vnd.safetensors"
BYTES = "application/octet-stream"


class Artifact(Frozen):
    """One file that was made, by reference. size: bytes."""

    name: Name
    digest: Digest
    size: Annotated[int, Field(ge=0)]
    media_type: str


class Beside(Frozen):
    """A file that is only whole with another one beside it, under that one's own name: an ONNX file and its data."""

    file: Artifact
    data: Artifact


class Outcome(StrEnum):
    PASS = "pass"  # noqa: S105 - no password
    REFUSED = "refused"
    NOT_RUN = "not run"


class Verdict(Frozen):
    """The outcome of one check, bound to the digests of what it compared.

    A refused or not-run verdict can not lack its reason. Holds nothing that was timed: it is digested.
    """

    check: str
    subject: str
    outcome: Outcome
    compared: tuple[Digest, ...] = ()
    reason: str = ""

    def model_post_init(self, _: object) -> None:
        if self.outcome is not Outcome.PASS and not self.reason:
            raise ValueError(f"a verdict that is {self.outcome} needs a reason")
