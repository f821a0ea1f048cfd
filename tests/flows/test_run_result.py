"""How a run ends: the state that an operator sees. The table is that of docs/contracts.md."""

from __future__ import annotations

import pytest
from prefect.exceptions import CancelledRun
from prefect.states import StateType

from flows.run_result import End, NotDone, Status, end_in, end_of, ends_in, exit_status, model_state, run_state
from packhouse.errors import NotFound, PackhouseError, Stopping, StoreUnavailable
from tasks._support.states import Released

RELEASED, UNCHANGED, WAITING = Status.RELEASED, Status.UNCHANGED, Status.WAITING
REFUSED, UNAVAILABLE, FAILED, CANCELLED = Status.REFUSED, Status.UNAVAILABLE, Status.FAILED, Status.CANCELLED
LATE = ["churn@latest: its signature ends in 2 days"]


def end(status: Status, number: int = 0) -> End:
    return End(source=f"/sources/{status}/{number}", status=status, reason=f"why {status}")


@pytest.mark.parametrize(
    ("statuses", "late", "state", "name"),
    [
        ([RELEASED, RELEASED], [], StateType.COMPLETED, "Released"),
        ([RELEASED, UNCHANGED], [], StateType.COMPLETED, "Released"),
        ([UNCHANGED, UNCHANGED], [], StateType.COMPLETED, "Unchanged"),
        ([], [], StateType.COMPLETED, "Unchanged"),
        ([WAITING], [], StateType.COMPLETED, "Waiting"),
        ([WAITING, RELEASED], [], StateType.COMPLETED, "Waiting"),
        ([WAITING, REFUSED], [], StateType.COMPLETED, "Partial"),
        ([REFUSED, RELEASED], [], StateType.COMPLETED, "Partial"),
        ([REFUSED, UNCHANGED], [], StateType.COMPLETED, "Partial"),
        ([REFUSED, REFUSED], [], StateType.FAILED, "Refused"),
        ([UNAVAILABLE, RELEASED], [], StateType.FAILED, "Partial"),
        ([UNAVAILABLE, REFUSED], [], StateType.FAILED, "Unavailable"),
        ([FAILED, RELEASED, REFUSED], [], StateType.FAILED, "Partial"),
        ([FAILED, UNAVAILABLE], [], StateType.FAILED, "Failed"),
        ([RELEASED], LATE, StateType.FAILED, "Late"),
        ([REFUSED, RELEASED], LATE, StateType.FAILED, "Late"),
        ([UNAVAILABLE, RELEASED], LATE, StateType.FAILED, "Partial"),
        ([REFUSED], LATE, StateType.FAILED, "Refused"),
        ([CANCELLED, RELEASED], [], StateType.CANCELLED, "Cancelled"),
    ],
)
def test_run_over_several_models_is_red_only_if_somebody_must_act(
    statuses: list[Status], late: list[str], state: StateType, name: str
) -> None:
    ends = [end(status, number) for number, status in enumerate(statuses)]
    got = run_state(ends, late=late)
    assert (got.type, got.name) == (state, name)
    for bad in (each for each in ends if not each.status.good):
        assert bad.line() in got.message
    assert all(line in got.message for line in late)
    assert ends_in(got) == ends, "whoever started the run learns how each model ended"


def test_night_of_unchanged_models_and_a_refused_one_is_partial_and_not_red() -> None:
    got = run_state([end(REFUSED)], {UNCHANGED: 999})
    assert (got.type, got.name) == (StateType.COMPLETED, "Partial")
    assert got.message.startswith("999 unchanged, 1 refused: ")


@pytest.mark.parametrize(
    ("result", "state", "name"),
    [
        (Released(model="m", release="r", channel="latest", serial=1), StateType.COMPLETED, "Released"),
        (
            Released(model="m", release="r", channel="latest", serial=1, unchanged=True),
            StateType.COMPLETED,
            "Unchanged",
        ),
        (Released(model="m", release="r", channel="latest", serial=1, waiting=True), StateType.COMPLETED, "Waiting"),
        (NotFound("is not there"), StateType.FAILED, "Refused"),
        (StoreUnavailable("did not answer"), StateType.FAILED, "Unavailable"),
        (Stopping("the run was ended"), StateType.CANCELLED, "Cancelled"),
    ],
)
def test_model_run_ends_in_the_state_of_its_end(
    result: Released | PackhouseError, state: StateType, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work() -> Released:
        if isinstance(result, PackhouseError):
            raise result
        return result

    got = model_state("/sources/m", work)
    assert (got.type, got.name) == (state, name)
    assert end_in("/sources/m", got) == end_of("/sources/m", result)
    if state is not StateType.COMPLETED:
        assert isinstance(got.data, NotDone), "Prefect takes nothing else, and logs a TypeError"


def test_run_that_prefect_cancelled_is_cancelled_and_no_fault() -> None:
    assert end_of("/sources/m", CancelledRun("Cancelled")).status is CANCELLED
    assert exit_status([end(CANCELLED), end(RELEASED)]) == 2
