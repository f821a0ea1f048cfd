"""Inside a forked job child, from the fork to `_exit`: take off what belongs to the server, lock down, run, tell.

The child writes to its answer pipe two lines of JSON: `{"lockdown": [...]}` before the job's code runs, so that
the job can not word it, then `{"answer": {...}}` or `{"error": {...}}`. Whoever reads must treat the second as foreign.
"""

from __future__ import annotations

import ctypes
import errno
import faulthandler
import importlib
import json
import os
import resource
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from infra.sandbox.lockdown import Measure, confine
from infra.sandbox.request import OUT_OF_MEMORY, Limits, Request
from packhouse.errors import LimitExceeded, PackhouseError, StageCrashed, StoreFull, Unavailable

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
ANSWER_FD = 3
OPEN_FILES = 1024
NO_CORE = 1  # bytes; 0 would still start a core handler that core_pattern pipes to


def live(request: Request, *, server: int, answer: int, log: int, given: frozenset[Measure]) -> None:
    """Be the job child; never returns. server: its pid. answer, log: pipes. given: measures the server has in force."""
    status = 1
    try:
        _detach(answer, log)
        _move_in(Path(request.workdir), request.limits)
        inside = given | confine(
            Path(request.workdir),
            readable=[Path(path) for path in request.readable],
            code=[Path(path) for path in request.code],
            omit=[Measure(name) for name in request.omit],
            cuda=request.cuda,
        )
        if os.getppid() != server:
            os._exit(1)  # the server died before PR_SET_PDEATHSIG was in place
        _require(request, inside)
        _say({"lockdown": [measure for measure in Measure if measure in inside]})
        _say({"answer": _run(request)})
        status = 0
    except BaseException as error:  # every end is told, also SystemExit
        traceback.print_exc()
        _say({"error": _told(error, request).document()})
    finally:
        _flush()
        os._exit(status)


def _detach(answer: int, log: int) -> None:
    """Own session, own standard files, no handle of the server's, and death with the server."""
    os.setsid()
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # its orphans stay with it, where they are counted and killed
    answer, log = (os.dup2(old, new, inheritable=False) for old, new in ((answer, 250), (log, 251)))
    nothing = os.open(os.devnull, os.O_RDONLY)
    for old, new in ((nothing, 0), (log, 1), (log, 2), (answer, ANSWER_FD)):
        os.dup2(old, new, inheritable=False)
    os.closerange(ANSWER_FD + 1, os.sysconf("SC_OPEN_MAX"))
    sys.stdout = os.fdopen(1, "w", buffering=1, errors="backslashreplace", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    faulthandler.enable(file=2)


def _move_in(workdir: Path, limits: Limits) -> None:
    import torch

    os.chdir(workdir)
    os.environ.update(HOME=str(workdir), TMPDIR=str(workdir), OMP_NUM_THREADS=str(limits.cpu_threads))
    tempfile.tempdir = None
    sys.dont_write_bytecode = True
    torch.set_num_threads(limits.cpu_threads)
    data = _status_bytes("VmData") + limits.memory_bytes
    for what, most in (
        (resource.RLIMIT_CORE, NO_CORE),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
        (resource.RLIMIT_FSIZE, limits.file_bytes),
        (resource.RLIMIT_DATA, data),
    ):
        _, hard = resource.getrlimit(what)
        allowed = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (allowed, allowed))
    Path("/proc/self/oom_score_adj").write_text("1000")  # when the machine runs out, this goes before the worker


def _require(request: Request, inside: frozenset[Measure]) -> None:
    missing = [name for name in request.require if name not in inside]
    if missing:
        raise Unavailable(
            "PH-0364 this host can not lock a job down as required",
            where=request.job,
            got=f"missing: {', '.join(missing)}",
            next="docs/sandbox.md says what each measure needs",
        )


def _run(request: Request) -> dict[str, Any]:
    module, _, name = request.job.partition(":")
    function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    answer = function(**request.arguments)
    if not isinstance(answer, dict):
        raise StageCrashed(f"PH-0363 answered with {type(answer).__name__}, not with an object", where=request.job)
    return answer


def _told(error: BaseException, request: Request) -> PackhouseError:
    """The error as the parent shall see it."""
    if isinstance(error, PackhouseError):
        return error
    first = (str(error).splitlines() or [""])[0][:500]
    if isinstance(error, MemoryError) or any(words in str(error) for words in OUT_OF_MEMORY):
        return LimitExceeded("PH-0360 ran out of its memory", where=request.job, got=first, want=request.limits.memory)
    if isinstance(error, OSError) and error.errno == errno.EFBIG:
        return LimitExceeded(
            "PH-0361 wrote too large a file", where=request.job, want=f"{request.limits.file_bytes:,} bytes"
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreFull("PH-0362 no space left", where=request.workdir, next="free some space; the job runs again")
    return StageCrashed(f"PH-0359 {type(error).__name__}: {first}", where=request.job)


def _say(line: dict[str, Any]) -> None:
    """Raises ValueError on NaN and infinity, TypeError on what JSON has not."""
    data = json.dumps(line, allow_nan=False).encode() + b"\n"
    while data:
        data = data[os.write(ANSWER_FD, data) :]


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            os._exit(1)  # nobody reads the log any more: the parent has gone
    ctypes.CDLL(None).fflush(None)


def _status_bytes(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(name)
