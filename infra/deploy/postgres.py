"""PostgreSQL from Debian's packages: a cluster of our own in a folder, on loopback, with a password."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from packhouse.errors import Refused, Unavailable

USER = "postgres"
"""It refuses to run as root, and then runs as Debian's user for it."""
DATABASE = "postgres"
PLACES = ("/usr/lib/postgresql/*/bin", "/usr/local/pgsql/bin")


@dataclass(frozen=True)
class Postgres:
    folder: Path
    port: int
    password: str

    @property
    def url(self) -> str:
        return f"postgresql+asyncpg://{USER}:{self.password}@127.0.0.1:{self.port}/{DATABASE}"

    def prepare(self) -> None:
        """Makes the cluster where there is none; a half-made one never gets its name.
        Raises Refused: PostgreSQL is not installed, or its user can not reach the folder."""
        if (self.folder / "data" / "PG_VERSION").is_file():
            return
        self._own()
        half, password = self.folder / "half", self.folder / "initial-password"
        shutil.rmtree(half, ignore_errors=True)
        password.write_text(self.password)
        _give(password, 0o600)
        options = [
            "--auth=scram-sha-256",
            f"--username={USER}",
            f"--pwfile={password}",
            "--encoding=UTF8",
            "--locale=C",
        ]
        made = subprocess.run(
            [*as_user(), str(programs() / "initdb"), *options, "-D", str(half)],
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            env=environment(),
        )
        password.unlink()
        if made.returncode:
            raise Unavailable("PH-0374 initdb failed", where=str(half), got=" ".join(made.stderr.split())[-300:])
        half.rename(self.folder / "data")

    def command(self) -> list[str]:
        settings = {"listen_addresses": "127.0.0.1", "port": str(self.port), "unix_socket_directories": ""}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [*as_user(), str(programs() / "postgres"), "-D", str(self.folder / "data"), *options]

    def ready(self) -> bool:
        asked = [str(programs() / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(asked, check=False, env=environment()).returncode == 0

    def _own(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        _give(self.folder, 0o700)
        reached = subprocess.run([*as_user(), "test", "-w", str(self.folder)], check=False, cwd="/", env=environment())
        if reached.returncode:
            next_step = "set PACKHOUSE_UP to a folder that it can reach, such as /var/tmp/packhouse"
            raise Refused(f"PH-0373 the user {USER} can not reach it", where=str(self.folder), next=next_step)


def programs() -> Path:
    """Raises Refused: PostgreSQL is not installed."""
    found = [path for place in PLACES for path in sorted(Path("/").glob(place[1:])) if (path / "initdb").is_file()]
    if not found:
        want = " or ".join(PLACES)
        raise Refused("PH-0376 PostgreSQL is not installed", want=want, next="apt-get install postgresql")
    return max(found, key=lambda path: [int(part) for part in path.parent.name.split(".") if part.isdigit()])


def as_user() -> list[str]:
    """The words before a command of PostgreSQL."""
    if os.geteuid() != 0:
        return []
    try:
        pwd.getpwnam(USER)
    except KeyError as error:
        raise Refused(
            f"PH-0375 there is no user {USER}", next="apt-get install postgresql, or run as another user"
        ) from error
    return ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--init-groups", "--"]


def environment() -> Mapping[str, str]:
    """Nothing of ours: PG* variables of the operator would lead elsewhere."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8"}


def _give(path: Path, mode: int) -> None:
    path.chmod(mode)
    if os.geteuid() == 0:
        shutil.chown(path, USER)
