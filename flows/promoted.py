"""Promoted: what comes after a commit, in one order for all that come to it: runs, approvals, and the command where it
finds nothing else to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from prefect import Task

from infra.settings import settings
from infra.workshop import workshop
from packhouse.manifest import ChannelName, Record
from packhouse.spec import Spec
from tasks.attach import attach, modelpack
from tasks.commit import promote
from tasks.follow import follow
from tasks.register import register
from tasks.restore import restore
from tasks.sign import sign
from tasks.sign_channel import sign_channel
from tasks.states import Released

P = ParamSpec("P")
R = TypeVar("R")


def promoted(
    record: Record, spec: Spec, channel: ChannelName, source: str, *, again: bool = False, plain: bool = False
) -> Released:
    """Signed first, if it is to be; then the channel; what others see of it goes after it. A run that was killed in
    between does it again. again: of a release that stands already; its registry may have lost its image since. plain:
    outside of any run, as plain functions."""
    if record.image and again:
        _call(restore, plain)(record)
    if workshop().settings.signs:
        _call(sign, plain)(record)
    if record.image:
        _call(attach, plain)(record)
    if record.image and spec.image and spec.image.modelpack:
        _call(modelpack, plain)(record, spec)
    released = _call(promote, plain)(record, channel, source=source, again=again, approve=spec.gates.approve)
    followed(released, source, plain=plain)
    return released


def followed(released: Released, source: str, *, plain: bool = False) -> None:
    """What follows a channel: its signature, its image's tag, its alias in MLflow."""
    if released.moved and workshop().settings.signs:
        _call(sign_channel, plain)(released)
    if released.image:
        _call(follow, plain)(released)
    if settings().mlflow_uri:
        _call(register, plain)(released, source)


def _call(stage: Task[P, R], plain: bool) -> Callable[P, R]:
    return stage.fn if plain else stage
