"""`python -P -m infra.locked_server FOLDER WORKDIR FD`: the server in a child that is locked down as a container is.

No network, no capability, nothing to read but FOLDER and nothing to write but WORKDIR; it listens on a socket that is
open already. The measures in force are told on stdout in one line before any byte of FOLDER is read.
"""

from __future__ import annotations

import ctypes
import json
import signal
import sys
from pathlib import Path

from infra import lockdown
from infra.lockdown import Measure

PR_SET_PDEATHSIG = 1
NEEDED = (Measure.NO_NETWORK, Measure.NO_PROCESSES)
"""What the filter would take from a server: sockets, whose network is cut off in another way, and threads."""


def main(folder: str, workdir: str, handle: str) -> int:
    from infra.serving.__main__ import main as serve  # and all that it needs, while files can be read

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    cut = lockdown.cut_network()
    inside = lockdown.confine(Path(workdir), readable=[Path(folder)], code=_code(), omit=NEEDED, cuda=False)
    inside |= {Measure.NO_NETWORK} if cut else set()
    sys.stdout.write(json.dumps([measure.value for measure in Measure if measure in inside]) + "\n")
    sys.stdout.flush()
    sys.argv = ["infra.serving", "--fd", handle]
    return serve()


def _code() -> list[Path]:
    root = Path(__file__).resolve().parent.parent
    return [root / "infra", root / "packhouse"]


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
