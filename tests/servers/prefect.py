"""A real Prefect server on loopback, on a database of its own in a folder that outlives it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from infra.worker.local_prefect import IN_BATCHES
from tests.servers.place import answers, free_ports, running, wait_until

START_TIMEOUT_S = 180
GRACE_S = 20


def api_url(port: int) -> str:
    return f"http://127.0.0.1:{port}/api"


@contextmanager
def prefect_server(folder: Path, environment: Mapping[str, str], port: int = 0) -> Iterator[str]:
    """The URL of its API, once it answers. Its words are in server.log. Ended by its process id."""
    port = port or free_ports(1)[0]
    url = api_url(port)
    own = {**IN_BATCHES, **environment, "PREFECT_HOME": str(folder), "PREFECT_API_URL": url}
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with running(command, log=folder / "server.log", grace_s=GRACE_S, environment=own) as server:
        wait_until(lambda: answers(f"{url}/health"), what="Prefect's server", server=server, timeout_s=START_TIMEOUT_S)
        yield url
