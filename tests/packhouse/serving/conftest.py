"""Servers as they are started in an image, on loopback, over small releases of several kinds."""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.packhouse.conftest import other_release, release
from tests.servers.place import free_ports, running, wait_until
from tests.support import served_models
from tests.support.small_release import Small

__all__ = ["other_release", "release"]

COMMAND = [sys.executable, "-m", "packhouse.serving"]


@dataclass(frozen=True)
class Reply:
    status: int
    body: bytes
    headers: dict[str, str]

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Running:
    """log: what the server wrote to stderr."""

    url: str
    log: Path
    pid: int

    def ask(self, path: str, body: Any = None, **headers: str) -> Reply:
        """A dict is sent as JSON. Underscores of a header's name become hyphens."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        given = {"Content-Type": "application/json"} | {name.replace("_", "-"): text for name, text in headers.items()}
        request = urllib.request.Request(f"{self.url}{path}", data, given)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return Reply(answer.status, answer.read(), {k.lower(): v for k, v in answer.headers.items()})
        except urllib.error.HTTPError as error:
            with error:
                return Reply(error.code, error.read(), {k.lower(): v for k, v in error.headers.items()})

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@contextmanager
def serve(folder: Path, log: Path, *, until: str = "/ready", **environment: str) -> Iterator[Running]:
    """Started, and answering `until` with 200."""
    (port,) = free_ports(1)
    given = {"MODEL_DIR": str(folder), "HOST": "127.0.0.1", "PORT": str(port), **environment}
    with running(COMMAND, log=log, environment=given, grace_s=10) as server:
        found = Running(f"http://127.0.0.1:{port}", log, server.process.pid)

        def there() -> bool:
            try:
                return found.ask(until).status == 200
            except OSError:
                return False

        wait_until(there, what="the server", server=server, timeout_s=60)
        yield found


Serve = Callable[..., AbstractContextManager[Running]]


@pytest.fixture(scope="session")
def linear(release: Small, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serve(release.folder, tmp_path_factory.mktemp("linear") / "log") as server:
        yield server


@pytest.fixture(scope="session")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Integers with a range, booleans, text, two axes; outputs with NaN and infinity, and text."""
    folder = tmp_path_factory.mktemp("mixed")
    served_models.mixed(folder / "release")
    with serve(folder / "release", folder / "log", PACKHOUSE_MAX_JSON_BYTES="20000") as server:
        yield server
