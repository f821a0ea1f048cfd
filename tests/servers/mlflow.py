"""A real MLflow tracking server: SQLite, loopback, without its job runner, which takes a gigabyte and 20 s."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tests.servers.place import answers, free_ports, running, scratch, wait_until


@contextmanager
def mlflow(*options: str, environment: Sequence[str] = ()) -> Iterator[str]:
    """Its URL. Options and NAME=value go to the server."""
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    with scratch("mlflow") as home:
        command = ["env", f"--chdir={home}", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false", f"HOME={home}", *environment]
        command += [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
        command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{home}/mlflow.db"]
        command += ["--artifacts-destination", str(home / "artifacts"), *options]
        with running(command, log=home / "mlflow.log") as server:
            wait_until(lambda: answers(f"{url}/health"), what="MLflow", server=server, timeout_s=180)
            yield url


if __name__ == "__main__":
    with mlflow(*sys.argv[1:]) as url:
        print(url, flush=True)
        os.read(0, 1)
