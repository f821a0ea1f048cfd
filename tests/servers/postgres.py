"""A real PostgreSQL on loopback, from Debian's packages: a cluster of its own, gone at the end."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from infra.deploy.postgres import Postgres, environment
from packhouse.errors import Refused
from tests.servers.place import CannotRunError, free_ports, running, scratch, wait_until


@contextmanager
def postgres() -> Iterator[str]:
    """Its URL, for psycopg2. Below /var/tmp: its user must reach the folder."""
    for program, next in (("setpriv", "apt-get install util-linux"), ("psycopg2", "pip install psycopg2-binary")):
        if not (shutil.which(program) or find_spec(program)):
            raise CannotRunError(f"{program} is not installed: {next}")
    with scratch("postgres", under=Path("/var/tmp")) as home:
        home.chmod(0o755)
        server = Postgres(home / "cluster", free_ports(1)[0], secrets.token_hex(8))
        try:
            server.prepare()
        except Refused as missing:
            raise CannotRunError(str(missing)) from missing
        command = ["env", "--chdir=/", *server.command()]
        with running(command, log=home / "postgres.log", environment=environment()) as process:
            wait_until(server.ready, what="PostgreSQL", server=process, timeout_s=60)
            yield server.url.replace("+asyncpg", "+psycopg2")
