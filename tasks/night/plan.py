"""A night's plan: which sources there are, which of them are released and unchanged, and how the rest is shared out.

An unchanged model costs two small reads, its package.toml and its channel; and one more where channels are signed. A
channel only ever points at a committed release, so what it names, or named before, needs no other look.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any

from infra.worker.context import worker_context
from infra.worker.release_inputs import release_inputs
from packhouse.architectures import registry
from packhouse.artifact import Frozen
from packhouse.digest import MiB, digest_bytes
from packhouse.errors import PackhouseError, SourceNotAllowed, SpecInvalid
from packhouse.spec.model import MAX_SPEC_BYTES, SPEC_FILE, Spec, parse
from packhouse.spec.sources import MAX_SOURCE_CHARACTERS, checked_source
from packhouse.spec.supported import check_supported
from packhouse.store import Retrying, Store, open_store
from tasks._support.pipeline_task import one_line, pipeline_task
from tasks.signing.sign_channel import settled

READERS = 16
FIXED_S, MIB_S = 6.0, 0.09
"""Estimated seconds of a release: so many, and so many for each MiB of weights. docs/benchmarks.md has what was
measured; only the proportion of models to each other matters here."""

REFERENCES_BYTES, LONG_BYTES = 4000, 400
"""What crosses from one flow run to another is references, and few of them."""


class Work(Frozen):
    """One model that is to be released. cost: estimated seconds."""

    source: str
    model: str
    cost: float


class Bad(Frozen):
    """A source that can not even be planned: error's class decides how the night counts it."""

    source: str
    error: dict[str, str]


class Night(Frozen):
    """older: sources of models of which there is a newer one."""

    work: tuple[Work, ...]
    unchanged: int
    older: int
    bad: tuple[Bad, ...]


@dataclass(frozen=True)
class _Read:
    source: str
    modified: float
    spec: Spec
    digest: str


@pipeline_task("plan night")
def night(roots: Sequence[str], channel: str) -> Night:
    """Every source below the roots; of each model the one that was staged last.

    Raises SpecInvalid: there is no root. SourceNotAllowed: a root is not below the worker's own. And the store's
    errors, where a root can not be listed; a single bad source is in the answer."""
    if not roots:
        raise SpecInvalid(
            "PH-0579 no roots", where="nightly", next="set PACKHOUSE_SOURCES on the worker, or give roots"
        )
    allowed = worker_context().settings.sources
    with one_line("nightly", "plan") as line:
        planned = plan_night([checked_source(root, allowed) for root in roots], channel)
        line.note(f"{len(planned.work)} to release, {planned.unchanged} unchanged, {len(planned.bad)} bad")
    return planned


def plan_night(roots: Sequence[str], channel: str) -> Night:
    with ThreadPoolExecutor(READERS) as pool:
        found = [entry for root in roots for entry in _listed(root)]
        results = list(pool.map(lambda entry: _attempt(entry[1], _read, *entry), found))
        newest, older = _newest([result for result in results if isinstance(result, _Read)])
        looked = list(pool.map(lambda read: _attempt(read.source, _work, read, channel), newest))
    bad = [result for result in (*results, *looked) if isinstance(result, Bad)]
    work = [result for result in looked if isinstance(result, Work)]
    return Night(work=tuple(work), unchanged=looked.count(None), older=older, bad=tuple(bad))


def shards(work: Sequence[Work], *, seconds: float, most: int) -> list[list[Work]]:
    """Shares work out over runs of about `seconds` estimated seconds each, at most `most` models in each, and no more
    than what makes REFERENCES_BYTES of parameters.

    The largest first, each to the run that has least so far (Graham's LPT rule: at most 4/3 of the best there is).
    Law: every model is in exactly one shard. Those with long URLs, of which a run can name only a few, are shared out
    by themselves.
    """
    short = [each for each in work if len(each.source.encode()) <= LONG_BYTES]
    long = [each for each in work if len(each.source.encode()) > LONG_BYTES]
    return [*_shared(short, seconds, most), *_shared(long, seconds, most)]


def _shared(work: Sequence[Work], seconds: float, most: int) -> list[list[Work]]:
    if not work:
        return []
    most = max(1, min(most, REFERENCES_BYTES // (4 + max(len(each.source.encode()) for each in work))))
    count = max(1, round(sum(each.cost for each in work) / seconds), -(-len(work) // most))
    runs: list[tuple[float, int, list[Work]]] = [(0.0, number, []) for number in range(min(count, len(work)))]
    for each in sorted(work, key=lambda each: (-each.cost, each.source)):
        full: list[tuple[float, int, list[Work]]] = []
        while len(runs[0][2]) >= most:
            full.append(heapq.heappop(runs))
        cost, number, members = heapq.heappop(runs)
        heapq.heappush(runs, (cost + each.cost, number, [*members, each]))
        for run in full:
            heapq.heappush(runs, run)
    return [members for _, _, members in sorted(runs, key=lambda run: run[1])]


def _listed(root: str) -> Iterator[tuple[Store, str, str, float]]:
    """The store, the source's URL, the key of its package.toml and when that was written."""
    store = Retrying(open_store(root))
    for stat in store.list():
        folder, _, name = stat.key.rpartition("/")
        if name == SPEC_FILE:
            yield store, below(store.url, folder), stat.key, stat.modified


def below(url: str, folder: str) -> str:
    """The URL of a folder of a store: before the options of an s3:// URL."""
    place, question, options = url.partition("?")
    return f"{place.rstrip('/')}/{folder}".rstrip("/") + question + options


def _attempt(source: str, function: Any, *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except PackhouseError as error:
        return Bad(source=source, error=error.document())


def _read(store: Store, source: str, key: str, modified: float) -> _Read:
    if len(source) > MAX_SOURCE_CHARACTERS:
        want = f"at most {MAX_SOURCE_CHARACTERS:,} characters"
        raise SourceNotAllowed(
            "PH-0578 its URL is too long", where=f"{source[:80]}...", got=f"{len(source):,}", want=want
        )
    data, _ = store.get(key, limit=MAX_SPEC_BYTES)
    spec = parse(data, where=f"{source}/{SPEC_FILE}")
    check_supported(spec, where=f"{source}/{SPEC_FILE}")
    return _Read(source, modified, spec, digest_bytes(data))


def _newest(found: Sequence[_Read]) -> tuple[list[_Read], int]:
    """Of each model the source that was staged last, and how many others there are."""
    last: dict[str, _Read] = {}
    for read in sorted(found, key=lambda read: (read.modified, read.source)):
        last[read.spec.model.name] = read
    return list(last.values()), len(found) - len(last)


def _work(read: _Read, channel: str) -> Work | None:
    """None where the model is released and unchanged, and its channel signed if it is to be."""
    inputs = release_inputs(
        read.spec,
        read.digest,
        runtime_image=worker_context().settings.runtime_image,
        fingerprint=_fingerprint,
    )
    model = read.spec.model.name
    if settled(model, channel, inputs.release_id):
        return None
    return Work(source=read.source, model=model, cost=FIXED_S + MIB_S * read.spec.weights.size / MiB)


@cache
def _fingerprint(name: str) -> dict[str, Any]:
    """A night lasts no longer than what is installed here."""
    return registry.fingerprint(name)
