"""How a model's run ended, for those who started it: one line, one exit status, one Prefect state."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from prefect import State
from prefect.client.orchestration import get_client
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from packhouse.artifact import Frozen
from packhouse.errors import PackhouseError, Refused, Unavailable
from tasks.states import Released

NAME_CHARACTERS = 160
"""Of a run's name: what a run list can show."""


class Status(StrEnum):
    RELEASED = "released"
    UNCHANGED = "unchanged"
    WAITING = "waiting"
    REFUSED = "refused"
    UNAVAILABLE = "unavailable"
    FAILED = "failed"

    @property
    def good(self) -> bool:
        return self in (Status.RELEASED, Status.UNCHANGED)


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


def end_of(source: str, result: Released | BaseException) -> End:
    """What is neither a release nor an error that packhouse can name is a fault of ours, and no reason to stop."""
    if isinstance(result, Released):
        status = Status.UNCHANGED if result.unchanged else Status.WAITING if result.waiting else Status.RELEASED
        reason = f"a person must approve it for {result.channel}" if result.waiting else ""
        fields = result.model_dump(exclude={"unchanged", "waiting", "moved"})
        return End(source=source, status=status, reason=reason, **fields)
    if isinstance(result, Refused):
        return End(source=source, status=Status.REFUSED, reason=str(result))
    if isinstance(result, Unavailable):
        return End(source=source, status=Status.UNAVAILABLE, reason=str(result))
    return End(source=source, status=Status.FAILED, reason=f"{type(result).__name__}: {' '.join(str(result).split())}")


def exit_status(ends: Sequence[End]) -> int:
    """70 where packhouse itself failed at any, else 1 where any was refused, else 2 where any was unavailable or waits
    for a person, else 3 where all were unchanged, else 0."""
    found = {end.status for end in ends}
    if Status.FAILED in found:
        return 70
    if Status.REFUSED in found:
        return 1
    if found & {Status.UNAVAILABLE, Status.WAITING}:
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
    kind = Completed if end.status.good or end.status is Status.WAITING else Failed
    return kind(name=end.status.value.capitalize(), message=end.line(), data=end.model_dump(mode="json"))


def run_state(ends: Sequence[End], others: Mapping[Status, int] = MappingProxyType({})) -> State[Any]:
    """The state of a run over several models. Partial: some are released or unchanged, and some are not."""
    found = Counter(end.status for end in ends) + Counter(others)
    good = sum(count for status, count in found.items() if status.good)
    bad = [end for end in ends if not end.status.good]
    data = [end.model_dump(mode="json") for end in ends]
    if not bad:
        name = "Released" if found[Status.RELEASED] else "Unchanged"
        return Completed(name=name, message=_counted(found), data=data)
    name = "Partial" if good else max(found, key=list(Status).index).value.capitalize()
    named = "; ".join(end.line() for end in bad[:5]) + (f"; and {len(bad) - 5} more" if len(bad) > 5 else "")
    return Failed(name=name, message=f"{_counted(found)}: {named}", data=data)


def night_state(ends: Sequence[End], *, unchanged: int, late: Sequence[str] = ()) -> State[Any]:
    """The state of a night: of its runs, and of the models that needed none. late: lines, a channel each, of why
    somebody should look after its signature."""
    state = run_state(ends, {Status.UNCHANGED: unchanged})
    if not late:
        return state
    named = "; ".join(late[:5])
    name = "Late" if state.is_completed() else state.name
    return Failed(name=name, message=f"{state.message}; {len(late)} channels: {named}", data=state.data)


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
    if isinstance(data, BaseException):
        raise data
    return [End.model_validate(end) for end in data]


def end_in(source: str, state: State[Any]) -> End:
    """What `model_state` put into a state, or how a run ended that crashed or was cancelled, and so has no end."""
    try:
        data = state.result(raise_on_failure=False)
    except Exception as error:  # whatever it is, the other models go on
        return end_of(source, error)
    return end_of(source, data) if isinstance(data, BaseException) else End.model_validate(data)


def _counted(found: Counter[Status]) -> str:
    return ", ".join(f"{found[status]} {status}" for status in Status if found[status]) or "no models"


def _rename(name: str) -> None:
    if run := flow_run.id:
        with get_client(sync_client=True) as client:
            client.update_flow_run(run, name=name)
