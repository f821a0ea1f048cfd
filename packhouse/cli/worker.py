"""The worker's program, which some commands become."""

from __future__ import annotations

import importlib.metadata
import os
import re
import sys
from pathlib import Path
from typing import NoReturn

from packhouse.consume.fetch import home
from packhouse.errors import NotInstalled, Refused

PACKAGE = Path(__file__).resolve().parent.parent
DISTRIBUTION = "packhouse"
EXTRA = "worker"


def worker_root() -> Path:
    """Where the worker's code lies: flows, tasks, infra and the demo. A clone has them beside packhouse; a wheel
    carries them inside, since their names are too common for site-packages."""
    named = os.environ.get("PACKHOUSE_WORKER")
    candidates = [*([Path(named)] if named else []), PACKAGE.parent, PACKAGE / "_worker", Path.cwd()]
    for root in candidates:
        if all((root / file).is_file() for file in ("flows/__main__.py", "infra/sandbox/client.py")):
            return root.resolve()
    raise Refused(
        "PH-0119 the worker's code is not here", next="install packhouse's wheel, or set PACKHOUSE_WORKER to a clone"
    )


def worker(arguments: list[str], store: str = "", *, path: tuple[Path, ...] = ()) -> NoReturn:
    """Becomes the worker: another program, since this one is to stay small enough for every training environment.

    Args:
        arguments: Of Python.
        store: Where releases are, if not where the environment says.
        path: Folders of further packages.

    Raises:
        NotInstalled: The extra `worker` is not installed, or a part of it.
    """
    root = worker_root()
    insist_on(EXTRA)
    paths = [str(root), *map(str, path), os.environ.get("PYTHONPATH")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    environment |= {"PACKHOUSE_HOME": str(home())} | ({"PACKHOUSE_STORE": store} if store else {})
    sys.stdout.flush()
    # -P: the current folder may hold anything, also a `tasks` of another project
    os.execve(sys.executable, [sys.executable, "-P", *arguments], environment)  # noqa: S606


def insist_on(extra: str) -> None:
    """Raises NotInstalled: a package of this extra of packhouse is missing."""
    if missing := [name for name in _packages(extra) if not _is_installed(name)]:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise NotInstalled(
            f"PH-0681 this command needs the extra {extra!r}",
            got=f"not installed: {', '.join(missing[:3])}{more}",
            next=f"pip install '{DISTRIBUTION}[{extra}]'",
        )


def _packages(extra: str) -> list[str]:
    """The packages that an extra names, as this packhouse's own metadata has it."""
    try:
        lines = importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        return []  # it runs from its source, and was never installed: nothing is known of its extras
    marked = [line.partition(";") for line in lines]
    wanted = re.compile(rf"""\bextra == ["']{extra}["']""")
    return [re.split(r"[\s<>=!~\[(]", name, maxsplit=1)[0] for name, _, marker in marked if wanted.search(marker)]


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
