"""Decide: what does not follow from the inputs alone is decided once for a release id, and remembered there."""

from __future__ import annotations

from collections.abc import Callable

from infra.worker.context import worker_context
from packhouse.errors import Contention, NotFound
from packhouse.release.manifest import DECISIONS, MAX_DOCUMENT_BYTES, Decisions, dump, load, release_key
from tasks._support.states import Planned

ATTEMPTS = 8


def decided(planned: Planned) -> Decisions:
    """What was decided so far under this release's id."""
    return _read(planned)[0]


def decide(planned: Planned, add: Callable[[Decisions], Decisions]) -> Decisions:
    """`add` takes what was decided before, which counts, and gives it back with what is decided now, for good.

    Raises Contention: other runs of the same inputs decide at the same time, again and again.
    """
    for _ in range(ATTEMPTS):
        before, version = _read(planned)
        now = add(before)
        if now == before or worker_context().store.swap(_key(planned), dump(now), expected=version):
            return now
    raise Contention("PH-0539 others keep deciding", where=_key(planned), next="run it again")


def _read(planned: Planned) -> tuple[Decisions, str | None]:
    try:
        data, version = worker_context().store.get(_key(planned), limit=MAX_DOCUMENT_BYTES)
    except NotFound:
        return Decisions(), None
    return load(Decisions, data, where=_key(planned)), version


def _key(planned: Planned) -> str:
    return release_key(planned.model, planned.release, DECISIONS)
