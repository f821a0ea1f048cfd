"""Who listens on a port: ours, or somebody who was quicker."""

from __future__ import annotations

from pathlib import Path

LISTEN = "0A"


def listens(session: int, port: int) -> bool:
    """Whether a process of this session listens on this TCP port of this machine (IPv4)."""
    wanted = {f"socket:[{inode}]" for inode in _inodes(port)}
    return bool(wanted) and any(wanted & _sockets(process) for process in _members(session))


def _inodes(port: int) -> list[str]:
    """Of the sockets that listen there, as Linux tells: address:port in hex, state and inode are columns 1, 3 and 9."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [row[9] for row in rows if row[3] == LISTEN and int(row[1].rpartition(":")[2], 16) == port]


def _members(session: int) -> list[Path]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            fields = (process / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it ended
            continue
        if int(fields[3]) == session:
            found.append(process)
    return found


def _sockets(process: Path) -> set[str]:
    found = set()
    try:
        for descriptor in (process / "fd").iterdir():
            found.add(str(descriptor.readlink()))
    except OSError:  # it ended, or closed one meanwhile
        return found
    return found
