"""What this process may compute on: how many processors, and whether they have VNNI."""

from __future__ import annotations

import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
CPUINFO = Path("/proc/cpuinfo")
VNNI = frozenset({"avx512_vnni", "avx_vnni"})


def available(cgroup: Path = CGROUP) -> int:
    """Processors that this process may use, by its affinity and its container's quota. A quota is rounded down: more
    threads than it would be stopped in turns, in the middle of a run."""
    allowed = len(os.sched_getaffinity(0))
    quota = _quota(cgroup)
    return allowed if quota is None else max(1, min(allowed, int(quota)))


def _quota(cgroup: Path) -> float | None:
    """Processors, by version 2 or 1 of cgroups; None: no bound, or none that can be read here."""
    try:
        most, period = (cgroup / "cpu.max").read_text().split()[:2]
    except (OSError, ValueError):
        try:
            most = (cgroup / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (cgroup / "cpu" / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    return int(most) / int(period) if most.isdigit() and period.isdigit() and int(period) else None


def has_vnni(cpuinfo: Path = CPUINFO) -> bool:
    """False where the system does not tell."""
    try:
        text = cpuinfo.read_text()
    except OSError:
        return False
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return bool(VNNI & set(flags.split()))
