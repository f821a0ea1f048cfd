"""`python -P -m infra.images.canary_child FOLDER WORKDIR FD MEMORY`: the server, locked down as a container is.

No network, no capability, nothing to read but FOLDER and nothing to write but WORKDIR, and MEMORY bytes of its own; it
listens on a socket that is open already. The measures in force are told on stdout in one line before any byte of FOLDER
is read.
"""

from __future__ import annotations

import ctypes
import json
import resource
import signal
import sys
from pathlib import Path

import packhouse
from infra.sandbox import lockdown
from infra.sandbox.lockdown import Measure

PR_SET_PDEATHSIG = 1
NEEDED = (Measure.NO_NETWORK, Measure.NO_PROCESSES)
"""What the filter would take from a server: sockets, whose network is cut off in another way, and threads."""


def main(folder: str, workdir: str, handle: str, memory: str) -> int:
    cut = lockdown.cut_network()  # first: a process with more threads than one may not, unless it is root
    from packhouse.serving.__main__ import main as serve  # and all that it needs, while files can be read

    _alone()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_DATA, (int(memory), int(memory)))
    inside = lockdown.confine(Path(workdir), readable=[Path(folder)], code=_code(), omit=NEEDED, cuda=False)
    inside |= {Measure.NO_NETWORK} if cut else set()
    sys.stdout.write(json.dumps([measure.value for measure in Measure if measure in inside]) + "\n")
    sys.stdout.flush()
    sys.argv = ["packhouse.serving", "--fd", handle]
    return serve()


def _alone() -> None:
    """What confines a process confines the thread that asks for it, and those that it starts."""
    threads = len(list(Path("/proc/self/task").iterdir()))
    if threads > 1:
        sys.exit(f"an import started {threads - 1} threads, which could not be confined")


def _code() -> list[Path]:
    return [Path(__file__).resolve().parent.parent, Path(packhouse.__file__).resolve().parent]


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
