"""The worker's program, which some commands become."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

from packhouse.consume.fetch import home
from packhouse.errors import Refused


def worker_root() -> Path:
    """Where the worker's code lies: flows, tasks and infra are run from the repository and are not in the wheel."""
    candidates = [
        Path(os.environ.get("PACKHOUSE_WORKER", "")),
        Path(__file__).resolve().parent.parent.parent,
        Path.cwd(),
    ]
    for root in candidates:
        if (root / "flows" / "__main__.py").is_file():
            return root
    raise Refused(
        "PH-0119 the worker's code is not here", next="run in a clone of the repository, or set PACKHOUSE_WORKER to one"
    )


def worker(arguments: list[str], store: str) -> NoReturn:
    """Becomes the worker: another program, since this one is to stay small enough for every training environment."""
    root = worker_root()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (str(root), os.environ.get("PYTHONPATH"))))}
    environment |= {"PACKHOUSE_HOME": str(home())} | ({"PACKHOUSE_STORE": store} if store else {})
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, *arguments], environment)  # noqa: S606
