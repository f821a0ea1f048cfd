"""The `packhouse` command for tests that give it many times: a fixture of the session, called as a function.

    def test_something(home, command):
        done = command("sign", "linear@latest", home=home, PACKHOUSE_SIGNING_KEY=str(key))
        assert done.returncode == 0, done.stderr

Starting Python and importing Prefect takes seconds; a child of a process that has done so starts at once. A test whose
promise is about the process itself (signals, a missing module, another Prefect server) starts one of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
Done = subprocess.CompletedProcess[str]


class WarmCommand:
    """Gives commands to one `tests.support.warm_command`, one at a time.

    Args:
        folder: Where the streams of each command are written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._lock, self._count = folder, threading.Lock(), 0
        self._process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", sys.executable, "-m", "tests.support.warm_command"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *arguments: str, home: Path, **environment: str) -> Done:
        """Runs `packhouse ARGUMENTS` to its end.

        Args:
            arguments: What stands after `packhouse`.
            home: PACKHOUSE_HOME.
            environment: Variables besides those of this process.
        """
        assert self._process.stdin
        assert self._process.stdout
        with self._lock:
            self._count += 1
            out, err = (self._folder / f"{self._count}.{name}" for name in ("out", "err"))
            whole = os.environ | {"PACKHOUSE_HOME": str(home)} | environment
            request = {"arguments": arguments, "environment": whole, "out": str(out), "err": str(err)}
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            status = self._process.stdout.readline()
        assert status, "tests.support.warm_command has died"
        return subprocess.CompletedProcess(arguments, int(status), out.read_text(), err.read_text())

    def close(self) -> None:
        """Ends it: it has no more to read."""
        self._process.communicate()


@pytest.fixture(scope="session")
def command(api: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Done]]:
    """Runs the `packhouse` command, as the function `packhouse` of tests.flows.test_bad_input, without the start."""
    warm = WarmCommand(tmp_path_factory.mktemp("command"))
    yield warm
    warm.close()
