"""Traps: what in a model's code makes exporters go wrong in silence. Pure; tasks/jobs/preflight.py finds them.

docs/preflight.md has the table: each trap, how it is found, what to do.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from enum import StrEnum

from packhouse.artifact import Frozen

MOST_FINDINGS = 12
"""A report names so many and says how many more there are."""


class Trap(StrEnum):
    BRANCH = "branch"
    CONVERSION = "conversion"
    LOOP = "loop"
    CUSTOM = "custom operator"
    INTERPOLATE = "interpolate"
    INPUT = "input"
    STATE = "state"
    TRAINING = "training"
    RANDOM = "random"


class Severity(StrEnum):
    WARNING = "warning"
    REFUSED = "refused"


FROZEN_BY_A_TRACE = (Trap.BRANCH, Trap.CONVERSION, Trap.LOOP)
"""What a tracer evaluates once, with the example's values, and keeps."""

DIFFERS_BETWEEN_CALLS = (Trap.RANDOM, Trap.STATE, Trap.TRAINING)

NEXT = {
    Trap.BRANCH: "make forward scriptable, so that script keeps the branch, or use torch.where or torch.cond",
    Trap.CONVERSION: "keep the value a tensor, or make forward scriptable",
    Trap.LOOP: "make forward scriptable, so that script keeps the loop, or write it without a loop",
    Trap.CUSTOM: "write it with torch's own operators: a release must run without the package that registers it",
    Trap.INTERPOLATE: "give `size`, or leave recompute_scale_factor out",
    Trap.INPUT: "work on a copy: x = x + 1 instead of x += 1",
    Trap.STATE: "take the state in as an input and give it back as an output",
    Trap.TRAINING: "leave the layers in eval mode, and give F.dropout and F.batch_norm training=self.training",
    Trap.RANDOM: "take the random part out of forward, or take the noise in as an input",
}
"""What to do about it."""


class Finding(Frozen):
    """A trap in the model. what: such as "the model branches on data". where: file:line of the code, the file as its
    package names it; empty where it is not known. proof: what the probes showed of it. severity: refused only where no
    faithful release can exist, and that is proven."""

    trap: Trap
    what: str
    where: str = ""
    proof: str = ""
    severity: Severity = Severity.WARNING

    def line(self) -> str:
        return f"{self.what} at {self.where}" if self.where else self.what

    @property
    def next(self) -> str:
        return NEXT[self.trap]


def distinct(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """In order, what is refused first, each trap once a place, and no more than MOST_FINDINGS."""
    first: dict[tuple[Trap, str, str], Finding] = {}
    for finding in findings:
        first.setdefault((finding.trap, finding.where, "" if finding.where else finding.what), finding)
    ordered = sorted(first.values(), key=lambda finding: finding.severity is not Severity.REFUSED)
    return tuple(ordered[:MOST_FINDINGS])


def of(findings: Sequence[Finding], traps: Collection[Trap]) -> str:
    """The first of these traps in one line, or nothing."""
    return next((finding.line() for trap in traps for finding in findings if finding.trap is trap), "")


def explained(reason: str, findings: Sequence[Finding], traps: Collection[Trap]) -> str:
    """A refusal's reason, and the trap that is behind it, in one line. No reason stays none."""
    line = of(findings, traps)
    return f"{reason}; {line}" if reason and line else reason
