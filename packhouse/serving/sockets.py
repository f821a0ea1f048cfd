"""The socket that the server listens on: TCP, a path, or a descriptor that whoever started it opened."""

from __future__ import annotations

import socket
import stat
from pathlib import Path

from packhouse.errors import Refused, Unavailable

BACKLOG = 2048


def tcp(host: str, port: int) -> socket.socket:
    """Raises Unavailable: the address is taken, or none of this machine's."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[
            0
        ]
        found = socket.socket(family, kind)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        _listen(found)
    except OSError as error:
        raise Unavailable(
            "PH-0482 can not listen there", where=f"{host}:{port}", got=error.strerror or str(error)
        ) from error
    return found


def unix(path: Path) -> socket.socket:
    """A socket that an earlier server left there is replaced; a file is not."""
    try:
        if path.exists() and stat.S_ISSOCK(path.stat().st_mode):
            path.unlink()
        found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        found.bind(str(path))
        _listen(found)
    except OSError as error:
        raise Unavailable("PH-0482 can not listen there", where=str(path), got=error.strerror or str(error)) from error
    return found


def inherited(descriptor: int) -> socket.socket:
    """A stream socket of any family. Raises Refused: it is none."""
    try:
        found = socket.socket(fileno=descriptor)
        if found.type != socket.SOCK_STREAM:
            raise Refused("PH-0480 is no stream socket", where=f"descriptor {descriptor}")
        _listen(found)
    except OSError as error:
        raise Refused("PH-0481 is no socket", where=f"descriptor {descriptor}", got=error.strerror or "") from error
    return found


def _listen(found: socket.socket) -> None:
    """Connections inherit what is set here. asyncio sets TCP_NODELAY only where it knows that the protocol is TCP, and
    without it an answer's body waits 40 ms for the acknowledgement of its head."""
    if found.family in (socket.AF_INET, socket.AF_INET6):
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    found.listen(BACKLOG)


def address(found: socket.socket) -> str:
    if found.family == socket.AF_UNIX:
        return str(found.getsockname())
    host, port = found.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
