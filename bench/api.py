"""A Prefect server for a benchmark, on loopback, and the environment that a worker's process meets it in.

PACKHOUSE_BENCH_API: the URL of a server that runs already, which is then used.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from infra.worker.local_prefect import IN_BATCHES

ROOT = Path(__file__).resolve().parent.parent

SERVER = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", **IN_BATCHES}


@contextmanager
def prefect_api(folder: Path) -> Iterator[str]:
    """Its URL; the server is stopped by its process id."""
    if given := os.environ.get("PACKHOUSE_BENCH_API"):
        yield given
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    url = f"http://127.0.0.1:{port}/api"
    server = subprocess.Popen(
        [str(Path(sys.executable).parent / "prefect"), "server", "start", "--host", "127.0.0.1", "--port", port],
        env=environment(folder, url, "api") | SERVER,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait(url)
        yield url
    finally:
        server.terminate()
        server.wait()


def environment(folder: Path, api: str, home: str) -> dict[str, str]:
    return os.environ | {
        "PYTHONPATH": str(ROOT),
        "PACKHOUSE_HOME": str(folder / f"home-{home}"),
        "PACKHOUSE_STORE": "",
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_API_URL": api,
        "PREFECT_LOGGING_LEVEL": "WARNING",
        "DO_NOT_TRACK": "1",
    }


def _wait(url: str) -> None:
    for _ in range(600):
        try:
            urllib.request.urlopen(f"{url}/health", timeout=1).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise SystemExit("Prefect's server did not start")
