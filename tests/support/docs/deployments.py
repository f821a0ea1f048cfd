"""The table of deployments, from prefect.yaml."""

from __future__ import annotations

from typing import Any

from tests.support.docs.markdown import table
from tests.support.docs.places import deployments

HEAD = ("deployment", "entrypoint", "work pool", "starts", "runs at a time", "parameters", "description")
FULL = {"CANCEL_NEW": "the next is cancelled", "ENQUEUE": "the next waits"}
"""Prefect's names for what happens to one run more."""


def blocks() -> dict[str, str]:
    return {"deployments": table(HEAD, (_row(each) for each in deployments()))}


def _row(deployment: dict[str, Any]) -> tuple[str, ...]:
    parameters = ", ".join(f"`{name}={value}`" for name, value in deployment.get("parameters", {}).items())
    return (
        f"`{deployment['name']}`",
        f"`{deployment['entrypoint']}`",
        f"`{deployment['work_pool']['name']}`",
        "; ".join(_starts(deployment)) or "on request",
        _limit(deployment.get("concurrency_limit")),
        parameters or "none",
        deployment["description"],
    )


def _starts(deployment: dict[str, Any]) -> list[str]:
    schedules = [f"`{each['cron']}` {each['timezone']}" for each in deployment.get("schedules", [])]
    events = [f"event `{event}`" for trigger in deployment.get("triggers", []) for event in trigger["expect"]]
    return schedules + events


def _limit(limit: dict[str, Any] | None) -> str:
    return f"{limit['limit']}; {FULL[limit['collision_strategy']]}" if limit else "any number"
