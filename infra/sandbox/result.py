"""From a child's end to an answer or an error. Reads what the child sent as foreign data."""

from __future__ import annotations

import json
import math
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.sandbox.connection import MAX_ANSWER_BYTES, End, Exchange
from infra.sandbox.lockdown import Measure
from infra.sandbox.request import OUT_OF_MEMORY, Request
from packhouse.errors import LimitExceeded, PackhouseError, StageCrashed, Unavailable, from_document

MAX_WORDS = 2000
FAULT_REPORT = "Fatal Python error"


@dataclass(frozen=True)
class Answer:
    """What a job returned, and what it cost.

    seconds: from the fork to the end. cpu_seconds: of the child and what it waited for. peak_bytes: the most private
    memory seen, over what the warm server had (memory.Watch). lockdown: the measures in force, in words.
    """

    document: dict[str, Any]
    seconds: float
    cpu_seconds: float
    peak_bytes: int
    lockdown: tuple[str, ...]


def outcome(request: Request, end: End, exchange: Exchange, log: Path) -> Answer:
    """The answer. Raises the error that the end amounts to."""
    if error := _limit(request, end, exchange.overflow):
        raise error
    if end.killed == "fork":
        raise Unavailable(
            "PH-0408 no process could be started", where=request.job, next="the machine is short of memory"
        )
    if end.killed:
        raise Unavailable("PH-0409 the sandbox was closed while the job ran", where=request.job)
    measures, said = _parse(exchange.answer)
    if end.status < 0 or said is None:
        raise _silent(request, end, exchange.tail(), log)
    if isinstance(document := said.get("answer"), dict) and end.status == 0:
        return Answer(document, end.seconds, end.cpu_seconds, end.peak_bytes, measures)
    raise _raised(request, said.get("error"), log)


def _limit(request: Request, end: End, overflow: bool) -> PackhouseError | None:
    if overflow:
        return LimitExceeded(
            "PH-0405 answered with too much", where=request.job, want=f"at most {MAX_ANSWER_BYTES:,} bytes"
        )
    if end.killed == "time":
        return LimitExceeded(
            "PH-0406 took longer than its time limit", where=request.job, want=f"{request.limits.wall_s:g} s"
        )
    if end.killed == "memory":
        got = f"at least {end.peak_bytes // 1024**2:,} MiB"
        return LimitExceeded(
            "PH-0407 took more than its memory", where=request.job, got=got, want=request.limits.memory
        )
    return None


def _silent(request: Request, end: End, tail: str, log: Path) -> PackhouseError:
    """The child ended without a word of its own."""
    last = _last_line(tail)
    if end.status == -signal.SIGKILL:
        what, hint = (
            "was killed from outside",
            "the kernel does so when the machine's memory is short: run fewer at once",
        )
        return Unavailable(what, where=request.job, next=hint)
    if end.status == -signal.SIGABRT and any(words in tail for words in OUT_OF_MEMORY):
        return LimitExceeded("PH-0360 ran out of its memory", where=request.job, got=last, want=request.limits.memory)
    what = (
        f"PH-0403 died of {signal.Signals(-end.status).name}"
        if end.status < 0
        else "PH-0404 ended without a JSON answer"
    )
    got = f"exit status {end.status}" if end.status >= 0 else ""
    told = ": ".join(part for part in (got, last) if part)
    return StageCrashed(what, where=request.job, got=told, next=f"the log is {log}")


def _raised(request: Request, document: object, log: Path) -> PackhouseError:
    texts = document if isinstance(document, dict) else {}
    if not all(isinstance(text, str) for text in texts.values()):
        texts = {}
    try:
        error = from_document({name: text[:MAX_WORDS] for name, text in texts.items()})
    except KeyError:
        return StageCrashed(
            "PH-0400 answered with something that is no answer", where=request.job, next=f"the log is {log}"
        )
    if isinstance(error, StageCrashed):
        error.next = error.next or f"the log is {log}"
    return error


def _parse(answer: bytes) -> tuple[tuple[str, ...], dict[str, Any] | None]:
    """The measures, told before the job's code ran, and what was said last; None where that is no object."""
    first, _, last = answer.partition(b"\n")
    told = _object(first) or {}
    measures = told.get("lockdown", [])
    said = _object(last) if last.strip() else (told if "error" in told else None)
    return tuple(measure.value for measure in Measure if measure in measures), said


def _object(line: bytes) -> dict[str, Any] | None:
    """Strict JSON: no NaN, no infinity (1e999 is one), no depth that the parser can not follow."""
    try:
        document = json.loads(line, parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _refuse(constant: str) -> float:
    raise ValueError(constant)


def _finite(text: str) -> float:
    return value if math.isfinite(value := float(text)) else _refuse(text)


def _last_line(tail: str) -> str:
    """The last thing the job said before Python's own report of a fatal signal."""
    lines = [line for line in tail.partition(FAULT_REPORT)[0].splitlines() if line.strip()]
    return lines[-1][:500] if lines else ""
