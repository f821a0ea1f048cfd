"""Servers that take long to start begin as soon as a selected test is known to need them, while other tests run.

The process that owns the run starts them, once for all processes. They talk through files in the run's folder:
NAME.wanted asks for a server, and NAME.json says where it is, or why it cannot run.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from pathlib import Path

from packhouse.atomic_write import write
from tests.servers.ceph import ceph
from tests.servers.place import CannotRunError, Endpoint
from tests.servers.swift import swift

Start = Callable[[], AbstractContextManager[Endpoint]]
SLOW: dict[str, Start] = {"ceph": ceph, "swift": swift}


@contextmanager
def shared(name: str, folder: Path) -> Iterator[Endpoint]:
    """The server of this name of the run with this folder, once it answers. Raises CannotRunError as its start did."""
    ask(folder, name)
    yield _wait(folder / f"{name}.json")


class Owner:
    """Starts each server that is asked for in the folder, and ends them all at close."""

    def __init__(self, folder: Path, starts: dict[str, Start]) -> None:
        self._folder, self._starts, self._end = folder, starts, threading.Event()
        self._keepers: dict[str, threading.Thread] = {}
        self._watch = threading.Thread(target=self._follow)
        self._watch.start()

    def close(self) -> None:
        """Also a server that is just starting comes up first: a half-made one would not be ended whole."""
        self._end.set()
        self._watch.join()
        for keeper in self._keepers.values():
            keeper.join()

    def _follow(self) -> None:
        while not self._end.wait(0.2):
            for name in self._starts.keys() - self._keepers.keys():
                if (self._folder / f"{name}.wanted").exists():
                    self._keepers[name] = threading.Thread(target=self._keep, args=[name])
                    self._keepers[name].start()

    def _keep(self, name: str) -> None:
        """Its processes live as long as this thread: the kernel kills them with the thread that started them."""
        try:
            with self._starts[name]() as endpoint:
                self._publish(name, {"endpoint": asdict(endpoint)})
                self._end.wait()
        except CannotRunError as error:
            self._publish(name, {"cannot": str(error)})
        except BaseException as error:
            self._publish(name, {"failed": repr(error)})
            raise

    def _publish(self, name: str, found: dict[str, object]) -> None:
        write(self._folder / f"{name}.json", [json.dumps(found).encode()])


def ask(folder: Path, name: str) -> None:
    (folder / f"{name}.wanted").touch()


def _wait(path: Path) -> Endpoint:
    """A start ends by itself, with a server or an error: each of its steps has a limit."""
    while not path.exists():
        time.sleep(0.1)
    found = json.loads(path.read_bytes())
    if "cannot" in found:
        raise CannotRunError(found["cannot"])
    assert "endpoint" in found, found["failed"]
    return Endpoint(**found["endpoint"])
