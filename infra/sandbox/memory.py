"""How much memory a job child and its descendants hold, read from /proc by the server."""

from __future__ import annotations

import time
from pathlib import Path

PRIVATE = ("Private_Dirty",)
RESIDENT = ("RssAnon", "RssShmem")
LOOK_CLOSER_S = 0.5  # costs about 3 ms of the server's time, an ordinary look 0.1 ms


class Watch:
    """Follows one child. peak: bytes, the most private memory seen (see `look`)."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.peak = 0
        self._baseline = _sum(pid, "status", RESIDENT)
        self._closer = 0.0

    def look(self) -> int:
        """Bytes of memory that the child and its descendants added to what the warm server had, now.

        Anonymous and shared-memory pages resident beyond the fork; files that are mapped are not memory, the kernel
        can drop them. For `peak`, twice a second, also what the kernel calls private and dirty, which besides counts
        the server's pages that the child wrote to and so made its own. A peak between two looks is missed; the
        kernel's own limit (RLIMIT_DATA) misses none.
        """
        family = (self.pid, *descendants(self.pid))
        added = sum(_sum(pid, "status", RESIDENT) for pid in family) - self._baseline
        private = 0
        if time.monotonic() >= self._closer:
            private = sum(_sum(pid, "smaps_rollup", PRIVATE) for pid in family)
            self._closer = time.monotonic() + LOOK_CLOSER_S
        self.peak = max(self.peak, added, private)
        return added


def descendants(pid: int) -> list[int]:
    found = children(pid)
    for each in found:
        found.extend(children(each))
    return found


def children(pid: int) -> list[int]:
    """Direct children, of every thread. Empty where the process has gone."""
    try:
        lists = [(task / "children").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [int(number) for text in lists for number in text.split()]


def _sum(pid: int, name: str, fields: tuple[str, ...]) -> int:
    """Bytes, 0 where the process has gone or is a zombie."""
    try:
        lines = Path(f"/proc/{pid}/{name}").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    wanted = [line.split()[1] for line in lines if line.partition(":")[0] in fields]
    return sum(int(kilobytes) for kilobytes in wanted) * 1024
