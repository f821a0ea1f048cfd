"""moto's S3 server: in memory and quick. Good for the shape of calls only: it takes wrong secrets and checksums."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec

from tests.servers.place import CannotRunError, Endpoint, answers, free_ports, running, scratch, wait_until


@contextmanager
def moto() -> Iterator[Endpoint]:
    if find_spec("moto") is None:
        raise CannotRunError("moto is not installed: pip install 'moto[s3,server]'")
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with scratch("moto") as home, running(command, log=home / "moto.log") as server:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: answers(url), what="moto", server=server, timeout_s=60)
        yield Endpoint(url, "any", "any", version=f"moto {version('moto')}")
