"""The `packhouse` command in children of a process that has imported it already. Run with `python -m`.

Each request is a line of JSON on stdin, each answer the exit status on a line of stdout. A child has the environment,
the folder and the streams of its request, and nothing of the one before it. What differs from the command itself: when
it becomes the worker (`packhouse.cli.worker.worker`), the child goes on in the worker's `main`, which is imported too,
instead of starting Python again.
"""

from __future__ import annotations

import atexit
import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import flows.__main__
import flows.sign
from packhouse.cli import app

MAINS: dict[str, Callable[[], int | None]] = {
    "flows": flows.__main__.guarded_main,
    "flows.sign": lambda: flows.sign.main(sys.argv[1:]),
}


def become(program: str, arguments: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
    """In place of os.execve: runs the worker's module here, and ends as its process would."""
    _, *options, module = arguments[:4]
    assert (program, options) == (sys.executable, ["-P", "-m"]), arguments
    _use(environment)
    sys.argv = [module, *arguments[4:]]
    _leave(MAINS[module])


def child(request: Mapping[str, Any]) -> NoReturn:
    for descriptor, path in ((1, request["out"]), (2, request["err"])):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    _use(request["environment"])
    os.execve = become  # type: ignore[assignment]
    sys.modules["__main__"].__package__ = "packhouse"  # where click looks for the name that it shows
    sys.argv = [str(Path(app.__file__).with_name("__main__.py")), *request["arguments"]]
    _leave(app.main)


def _use(environment: Mapping[str, str]) -> None:
    from prefect.context import refresh_global_settings_context

    os.environ.clear()
    os.environ.update(environment)
    refresh_global_settings_context()


def _leave(main: Callable[[], int | None]) -> NoReturn:
    """Ends this process as Python does at the end of `sys.exit(main())`."""
    status: int | None = 1
    try:
        status = main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status or 0)


def serve() -> None:
    for line in sys.stdin:
        process = os.fork()
        if not process:
            child(json.loads(line))
        _, end = os.waitpid(process, 0)
        print(os.waitstatus_to_exitcode(end), flush=True)


if __name__ == "__main__":
    serve()
