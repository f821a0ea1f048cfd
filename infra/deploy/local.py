"""Starts the whole set on one machine, from Debian's and PyPI's packages, without containers. `make up`, `make down`.

`python -m infra.deploy.local up [--s3] [--workers N]`, `down`, `status`. PACKHOUSE_UP: the folder of it all,
`.packhouse-up` in the repository by default. PostgreSQL, Prefect's server, MLflow, a registry where Debian's is
installed, the webhook receiver, N workers for the pool `cpu` (1) and one for `cuda`; releases are kept in a folder.
Everything listens on loopback and asks for a password. For try-outs and tests, and good for one team's machine;
docs/cluster.md says what comes next.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from shlex import quote

from infra.deploy import services
from infra.deploy.postgres import Postgres
from infra.deploy.processes import Service, Table
from infra.deploy.site import ROOT, USER, Site, settle, write
from packhouse import exit_status
from packhouse.errors import PackhouseError, Refused, Unavailable

MOTO = "moto is a test server: it keeps everything in memory until `make down`, and takes any password"


def up(table: Table, *, s3: bool, workers: int) -> Site:
    """Each in its order: what it needs is ready. workers: for the pool `cpu`.

    Raises Unavailable: which one did not start, and its last words."""
    running = {entry.name for entry in table.entries() if entry.alive()}
    site = settle(table.folder.parent, running, s3=s3)
    database = Postgres(site.folder / "postgres", site.ports["postgres"], site.secrets["postgres"]).url
    _ensure(table, services.postgres(site))
    _ensure(table, services.prefect(site, database))
    if s3:
        _ensure(table, services.s3(site))
        say(MOTO)
    _ensure(table, services.mlflow(site))
    try:
        _ensure(table, services.registry(site))
    except Refused as missing:
        say(f"registry: left out: {missing}")
    _deploy(site)
    for number in range(1, workers + 1):
        _ensure(table, services.worker(site, "cpu", number))
    _ensure(table, services.worker(site, "cuda"))
    _ensure(table, services.webhook(site))
    _leave_words(site)
    return site


def down(table: Table) -> list[str]:
    return table.stop_all()


def say(words: str) -> None:
    sys.stderr.write(f"{words}\n")
    sys.stderr.flush()


def _ensure(table: Table, service: Service) -> None:
    say(f"{service.name}: {table.ensure(service)}")


def _deploy(site: Site) -> None:
    """A program of its own: Prefect reads its settings when it is imported. Raises Unavailable, with its words."""
    command = [sys.executable, "-m", "infra.deploy.apply", "--kind", "process"]
    done = subprocess.run(command, env=site.worker(), cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unavailable("PH-0372 was not carried out", where="prefect.yaml", got=" ".join(done.stderr.split())[-600:])
    for line in done.stdout.splitlines():
        say(line)


def _leave_words(site: Site) -> None:
    """The login, and what a shell needs to work with this set, each for its owner only."""
    write(site.folder / "login", f"{site.login}\n")
    write(site.folder / "env", "".join(f"export {name}={quote(value)}\n" for name, value in site.client().items()))


def words(site: Site) -> str:
    """What an operator does next."""
    folder, programs = _short(site.folder), _short(Path(sys.executable).parent)
    sources = f"'{site.sources.replace('?', '/NAME/RUN?')}'" if site.s3 else f"{folder}/sources/NAME/RUN"
    example = "" if site.s3 else f"try it         {programs}/python examples/train.py {folder}/sources\n"
    return f"""
Prefect's UI   {site.url("prefect")}   login: cat {folder}/login
MLflow         {site.url("mlflow")}   user {USER}, password in {folder}/env
a shell        . {folder}/env
{example}stage          {programs}/packhouse stage FOLDER --to {sources}
               a release appears in {site.client()["PACKHOUSE_STORE"]}
logs           {folder}/run/*.log
end            make down
"""


def _short(folder: Path) -> Path:
    """As one would type it here."""
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m infra.deploy.local", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("verb", choices=("up", "down", "status"))
    parser.add_argument("--s3", action="store_true", help=f"keep releases in an S3 server; {MOTO}")
    parser.add_argument("--workers", type=int, default=1, help="for the pool cpu; default: 1")
    options = parser.parse_args(arguments)
    _heed_interrupts()
    table = Table(Path(os.environ.get("PACKHOUSE_UP") or ROOT / ".packhouse-up").resolve() / "run")
    try:
        if options.verb == "status":
            return _status(table)
        with table.locked():
            if options.verb == "down":
                for name in down(table):
                    say(f"{name}: ended")
            else:
                sys.stdout.write(words(up(table, s3=options.s3, workers=options.workers)))
    except PackhouseError as error:
        return exit_status.said(error, verbose=False)
    return 0


def _heed_interrupts() -> None:
    """A shell that starts a program with `&` in a script lets it ignore SIGINT, and so would all that it starts: a
    Prefect worker, which ends by it, would not end."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _status(table: Table) -> int:
    """0: all that was started runs. 2: something ended."""
    entries = table.entries()
    for entry in entries:
        how = "runs" if entry.alive() else "ended"
        sys.stdout.write(f"{entry.name} {how} pid {entry.pid} {table.log(entry.name)}\n")
    return 0 if entries and all(entry.alive() for entry in entries) else 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
