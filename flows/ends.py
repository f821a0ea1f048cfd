"""How a model's run ended, for those who started it: one line, one exit status."""

from __future__ import annotations

from enum import StrEnum

from packhouse.artifact import Frozen
from packhouse.errors import Refused, Unavailable
from tasks.states import Released


class Status(StrEnum):
    RELEASED = "released"
    UNCHANGED = "unchanged"
    REFUSED = "refused"
    UNAVAILABLE = "unavailable"
    FAILED = "failed"


class End(Frozen):
    """reason: one clear line; empty where there is a release."""

    source: str
    status: Status
    model: str = ""
    release: str = ""
    channel: str = ""
    serial: int = 0
    reason: str = ""

    def line(self) -> str:
        if self.release:
            return f"{self.status} {self.model}/{self.release} {self.channel}#{self.serial}"
        return f"{self.status} {self.model or self.source}: {self.reason}"


def end_of(source: str, result: Released | BaseException) -> End:
    """What is neither a release nor an error that packhouse can name is a fault of ours, and no reason to stop."""
    if isinstance(result, Released):
        status = Status.UNCHANGED if result.unchanged else Status.RELEASED
        return End(source=source, status=status, **result.model_dump(exclude={"unchanged"}))
    if isinstance(result, Refused):
        return End(source=source, status=Status.REFUSED, reason=str(result))
    if isinstance(result, Unavailable):
        return End(source=source, status=Status.UNAVAILABLE, reason=str(result))
    return End(source=source, status=Status.FAILED, reason=f"{type(result).__name__}: {' '.join(str(result).split())}")


def exit_status(ends: list[End]) -> int:
    """70 where packhouse itself failed at any, else 1 where any was refused, else 2 where any was unavailable, else
    3 where all were unchanged, else 0."""
    found = {end.status for end in ends}
    if Status.FAILED in found:
        return 70
    if Status.REFUSED in found:
        return 1
    if Status.UNAVAILABLE in found:
        return 2
    return 3 if found == {Status.UNCHANGED} else 0
