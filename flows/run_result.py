"""How a model's run ended, for those who started it: one line, one exit status, one Prefect state."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from prefect import State
from prefect.client.orchestration import get_client
from prefect.exceptions import CancelledRun
from prefect.runtime import flow_run
from prefect.states import Cancelled, Completed, Failed

from packhouse.artifact import Frozen
from packhouse.errors import PackhouseError, Refused, Stopping, Unavailable
from tasks._support.states import Released

NAME_CHARACTERS = 160
"""Of a run's name: what a run list can show."""


class Status(StrEnum):
    RELEASED = "released"
    UNCHANGED = "unchanged"
    WAITING = "waiting"
    REFUSED = "refused"
    UNAVAILABLE = "unavailable"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def good(self) -> bool:
        return self in (Status.RELEASED, Status.UNCHANGED)


RED = (Status.REFUSED, Status.UNAVAILABLE, Status.FAILED)
"""Of a model's run: a person must do something now."""

RETRY_HELPS = (Status.UNAVAILABLE, Status.FAILED)


class End(Frozen):
    """serial: of the channel, which points at points_at where that is another release. reason: one clear line; empty
    where there is a release. seconds: wall time of this model's run; size: bytes published.
    image: by digest, where the release has one."""

    source: str
    status: Status
    model: str = ""
    release: str = ""
    channel: str = ""
    serial: int = 0
    points_at: str = ""
    reason: str = ""
    seconds: float = 0.0
    size: int = 0
    image: str = ""

    def line(self) -> str:
        if self.status is Status.WAITING:
            return f"{self.status} {self.model}/{self.release} {self.reason}"
        if self.points_at:
            stays = f"{self.channel} stays at {self.points_at}#{self.serial}"
            return f"{self.status} {self.model}/{self.release} ({stays})"
        if self.release:
            return f"{self.status} {self.model}/{self.release} {self.channel}#{self.serial}"
        return f"{self.status} {self.model or self.source}: {self.reason}"

    def title(self) -> str:
        """For a run's name: what a run list can show."""
        where = short(self.source)
        words = f"{self.line()} · {where}" if self.release else f"{self.status} {where}: {self.reason}"
        return words[:NAME_CHARACTERS]


def short(source: str) -> str:
    """The last two parts of a source's URL: mostly the model and its training run."""
    return "/".join(source.partition("?")[0].rstrip("/").split("/")[-2:])


class Ends(Frozen):
    """What one run of `release` leaves behind for the run that started it."""

    ends: tuple[End, ...]


class NotDone(Exception):
    """What a run raises that did not do all it should. Prefect wants an exception in a state that is no success.

    ends: of all its models, also of those that are released.
    """

    def __init__(self, message: str, ends: Sequence[End]) -> None:
        super().__init__(message)
        self.ends = tuple(ends)


def end_of(source: str, result: Released | BaseException) -> End:
    """What is neither a release nor an error that packhouse can name is a fault of ours, and no reason to stop."""
    if isinstance(result, Released):
        status = Status.UNCHANGED if result.unchanged else Status.WAITING if result.waiting else Status.RELEASED
        reason = f"a person must approve it for {result.channel}" if result.waiting else ""
        fields = result.model_dump(exclude={"unchanged", "waiting", "moved"})
        return End(source=source, status=status, reason=reason, **fields)
    if isinstance(result, Refused):
        return End(source=source, status=Status.REFUSED, reason=str(result))
    if isinstance(result, Stopping | CancelledRun):
        return End(source=source, status=Status.CANCELLED, reason=str(result))
    if isinstance(result, Unavailable):
        return End(source=source, status=Status.UNAVAILABLE, reason=str(result))
    return End(source=source, status=Status.FAILED, reason=f"{type(result).__name__}: {' '.join(str(result).split())}")


def exit_status(ends: Sequence[End]) -> int:
    """70 where packhouse itself failed at any, else 1 where any was refused, else 2 where any was unavailable, was
    cancelled or waits for a person, else 3 where all were unchanged, else 0."""
    found = {end.status for end in ends}
    if Status.FAILED in found:
        return 70
    if Status.REFUSED in found:
        return 1
    if found & {Status.UNAVAILABLE, Status.WAITING, Status.CANCELLED}:
        return 2
    return 3 if found == {Status.UNCHANGED} else 0


def model_state(source: str, work: Callable[[], Released]) -> State[Any]:
    """Does the work of one model's run and ends it in a state whose name and message say how, as does the run's name
    from then on: a run list shows nothing else. A fault of ours goes on as it is, with its traceback."""
    try:
        end = end_of(source, work())
    except PackhouseError as error:
        end = end_of(source, error)
    _rename(end.title())
    return _state(end.status.value, end.line(), [end], red=end.status in RED)


def run_state(
    ends: Sequence[End], others: Mapping[Status, int] = MappingProxyType({}), late: Sequence[str] = ()
) -> State[Any]:
    """The state of a run over several models.

    Args:
        ends: Of its models.
        others: How many more models ended in which way.
        late: Lines, a channel each: why its signature is late.

    Returns:
        A success, unless somebody must do something now: trying again can help, nothing was released, unchanged or
        waiting, or a signature is late. Source: docs/contracts.md, "States of a run".
    """
    found = Counter(end.status for end in ends) + Counter(others)
    done = sum(count for status, count in found.items() if status.good or status is Status.WAITING)
    retry_helps = any(found[status] for status in RETRY_HELPS)
    red = bool(late) or retry_helps or (bool(found) and not done)
    name = _name_of(found, done=bool(done))
    if late and not retry_helps and done:
        name = LATE
    return _state(name, _message(found, ends, late), ends, red=red)


PARTIAL, LATE = "partial", "late"


def _name_of(found: Counter[Status], *, done: bool) -> str:
    """Of a run over several models."""
    if found[Status.CANCELLED]:
        return Status.CANCELLED
    if bad := [status for status in RED if found[status]]:
        return PARTIAL if done else bad[-1]
    first = (Status.WAITING, Status.RELEASED, Status.UNCHANGED)
    return next((status for status in first if found[status]), Status.UNCHANGED)


def _message(found: Counter[Status], ends: Sequence[End], late: Sequence[str]) -> str:
    bad = [end.line() for end in ends if not end.status.good]
    named = [*bad[:5], *([f"and {len(bad) - 5} more"] if len(bad) > 5 else [])]
    channels = [f"{len(late)} channels: {'; '.join(late[:5])}"] if late else []
    return "; ".join([f"{_counted(found)}: {'; '.join(named)}" if named else _counted(found), *channels])


def _state(name: str, message: str, ends: Sequence[End], *, red: bool) -> State[Any]:
    """Prefect takes an exception for the data of a failed or cancelled run, and plain JSON for that of another."""
    title = name.capitalize()
    if name == Status.CANCELLED:
        return Cancelled(name=title, message=message, data=NotDone(message, ends))
    if red:
        return Failed(name=title, message=message, data=NotDone(message, ends))
    return Completed(name=title, message=message, data=[end.model_dump(mode="json") for end in ends])


def audit_state(
    reasons: Mapping[str, str],
    unasked: Mapping[str, str],
    mended: Mapping[str, str] = MappingProxyType({}),
    behind: Sequence[str] = (),
    lost: Mapping[str, str] = MappingProxyType({}),
) -> State[Any]:
    """reasons: for each release why it does not verify, or nothing. unasked: of those that could not be asked, why.
    mended: of channels that something did not follow, what follows now. behind: lines, a channel each, of what still
    does not follow it, or is not signed as it stands, and why. lost: of channels whose image is not whole any more,
    what is missing."""
    bad = [f"{release}: {reason}" for release, reason in reasons.items() if reason]
    away = [f"{release}: {reason}" for release, reason in unasked.items()]
    total = len(reasons) + len(away)
    gone = [f"{channel}: {reason}" for channel, reason in lost.items()]
    if bad or away or behind or gone:
        named = "; ".join([*bad, *gone, *away, *behind][:5])
        counts = f"{len(bad)} of {total} do not verify" + (f", {len(away)} could not be asked" if away else "")
        counts += f", {len(gone)} channels have no whole image" if gone else ""
        counts += f", {len(behind)} channels are not followed, or not signed as they stand" if behind else ""
        return Failed(name="Rotten" if bad or gone else "Unavailable", message=f"{counts}: {named}")
    followed = "; ".join(f"{channel} mended: {done}" for channel, done in list(mended.items())[:5])
    return Completed(name="Verified", message="; ".join(filter(None, [f"{total} releases verify", followed])))


def ends_in(state: State[Any]) -> list[End]:
    """What `run_state` put into a state. Raises what the run itself raised where it came to no such end."""
    data = state.result(raise_on_failure=False)
    if isinstance(data, NotDone):
        return list(data.ends)
    if isinstance(data, BaseException):
        raise data
    return [End.model_validate(end) for end in data]


def end_in(source: str, state: State[Any]) -> End:
    """What `model_state` put into a state, or how a run ended that crashed or was cancelled, and so has no end."""
    try:
        (end,) = ends_in(state)
    except Exception as error:  # whatever it is, the other models go on
        return end_of(source, error)
    return end


def _counted(found: Counter[Status]) -> str:
    return ", ".join(f"{found[status]} {status}" for status in Status if found[status]) or "no models"


def _rename(name: str) -> None:
    if run := flow_run.id:
        with get_client(sync_client=True) as client:
            client.update_flow_run(run, name=name)
