"""`make up` and `make down`: the table of programs, the site, and the whole set as a new operator would use it."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from infra.deploy.postgres import programs
from infra.deploy.processes import Entry, Service, Table, marked
from infra.deploy.services import answers
from infra.deploy.site import PORTS, ROOT, settle, write
from packhouse.errors import NotFound, Refused, Unavailable
from packhouse.release.lookup import find
from packhouse.store import Store, open_store

PATIENCE_S = 300.0


def until(holds: Callable[[], bool], what: str, log: Path | None = None) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        said = log.read_text(errors="replace")[-3000:] if log and time.monotonic() > deadline else ""
        assert time.monotonic() < deadline, f"not in {PATIENCE_S:.0f} s: {what}\n{said}"
        time.sleep(0.2)


def gone(pid: int) -> bool:
    """Ended; that nobody asked for its exit status yet is not our business."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def ignores(pid: int, number: signal.Signals) -> bool:
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    (mask,) = (line.split()[1] for line in status if line.startswith("SigIgn:"))
    return bool(int(mask, 16) >> (number - 1) & 1)


# The table


@pytest.fixture
def table(tmp_path: Path) -> Iterator[Table]:
    made = Table(tmp_path / "run")
    with made.locked():
        yield made
        made.stop_all()


def program(name: str, script: str = "", **more: str) -> Service:
    """Says that it is ready by a file, and then sleeps."""
    command = [sys.executable, "-c", f"{script or 'pass'}\nimport time\ntime.sleep(600)"]
    return Service(name, command, {"PATH": os.environ["PATH"], **more}, lambda: True)


def pids(table: Table) -> dict[str, int]:
    return {entry.name: entry.pid for entry in table.entries() if entry.alive()}


def test_what_runs_is_not_started_again(table):
    assert [table.ensure(program("a")), table.ensure(program("b"))] == ["started", "started"]
    before = pids(table)
    assert [table.ensure(program("a")), table.ensure(program("b"))] == ["runs", "runs"]
    assert pids(table) == before


def test_what_was_killed_or_is_to_run_otherwise_is_started_again(table):
    table.ensure(program("a"))
    first = pids(table)["a"]
    os.kill(first, signal.SIGKILL)
    until(lambda: not pids(table), "a is gone")
    assert table.ensure(program("a")) == "started"
    second = pids(table)["a"]
    assert table.ensure(program("a", COLOUR="blue")) == "started"
    assert len({first, second, pids(table)["a"]}) == 3
    assert gone(second)


def test_the_newest_ends_first(table):
    order = table.folder / "order"
    for name in ("first", "second", "third"):
        script = f"""
import signal, sys
def end(*_):
    open({str(order)!r}, "a").write("{name}\\n")
    sys.exit()
signal.signal(signal.SIGTERM, end)
open({str(table.folder / name)!r}, "w")
"""
        table.ensure(program(name, script))
        until((table.folder / name).exists, f"{name} listens to its signal")
    assert table.stop_all() == ["third", "second", "first"]
    assert order.read_text().split() == ["third", "second", "first"]
    assert not table.entries()
    assert table.stop_all() == []


def test_what_a_killed_program_left_behind_ends_too(table):
    child = table.folder / "child"
    script = f"""
import subprocess, sys
started = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
open({str(child)!r}, "w").write(str(started.pid))
"""
    table.ensure(program("parent", script))
    until(lambda: child.exists() and child.read_text() != "", "the child runs")
    os.kill(pids(table)["parent"], signal.SIGKILL)
    left = int(child.read_text())
    assert left in marked(table.folder)
    table.stop_all()
    until(lambda: gone(left), "it ended")


def test_a_process_id_that_somebody_else_has_by_now_is_left_alone(table):
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as other:
        entry = Entry("a", other.pid, began=1, digest="", stop=signal.SIGKILL, stop_s=5)
        (table.folder / "001-a.json").write_text(json.dumps(vars(entry)))
        assert table.stop_all() == []
        assert other.poll() is None
        other.kill()


def test_a_program_that_does_not_listen_is_killed(table):
    listens = table.folder / "listens"
    script = f"import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nopen({str(listens)!r}, 'w')"
    service = program("stubborn", script)
    table.ensure(Service(service.name, service.command, service.environment, listens.exists, stop_s=0.5))
    pid = pids(table)["stubborn"]
    table.stop_all()
    assert gone(pid)


def test_a_program_that_ends_too_early_leaves_its_last_words_in_the_error(table):
    command = [sys.executable, "-c", "import sys; sys.exit('the disk is made of cheese')"]
    with pytest.raises(Unavailable, match=r"server: .*ended before it was ready.*made of cheese.*read .*server\.log"):
        table.ensure(Service("server", command, {}, lambda: False))


def test_a_server_of_somebody_else_on_its_port_is_not_taken_for_it(table):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        port = other.server_port
        command = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)]
        service = Service("web", command, {}, lambda: answers(f"http://127.0.0.1:{port}/"), port)
        with pytest.raises(Unavailable, match=r"web: ended before it was ready.*Address already in use"):
            table.ensure(service)
        other.shutdown()
    assert table.ensure(service) == "started"


def test_one_up_or_down_at_a_time(table):
    with pytest.raises(Unavailable, match="another up or down is at work"), Table(table.folder).locked():
        pass


# The site


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PACKHOUSE_STORE", "PACKHOUSE_SOURCES", "PACKHOUSE_HOME"):
        monkeypatch.delenv(name, raising=False)


def test_secrets_are_made_once_differ_and_are_for_their_owner_only(tmp_path, quiet):
    one, again = settle(tmp_path / "one", [], s3=False), settle(tmp_path / "one", [], s3=False)
    other = settle(tmp_path / "other", [], s3=False)
    assert one.secrets == again.secrets
    assert len({*one.secrets.values(), *other.secrets.values()}) == 2 * len(one.secrets)
    for path in tmp_path.rglob("*"):
        if path.is_file() and any(secret in path.read_text() for secret in one.secrets.values()):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_a_file_of_secrets_is_never_readable_by_others_not_even_where_one_was_left(tmp_path):
    (tmp_path / "env").write_text("old")
    (tmp_path / "env").chmod(0o644)
    write(tmp_path / "env", "new")
    assert (tmp_path / "env").read_text() == "new"
    assert stat.S_IMODE((tmp_path / "env").stat().st_mode) == 0o600


def test_a_port_that_somebody_has_is_left_to_him_and_the_next_up_takes_the_same_again(tmp_path, quiet):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        tmp_path.joinpath("ports.json").write_text(json.dumps(PORTS | {"prefect": port}))
        first = settle(tmp_path, [], s3=False).ports
        assert first["prefect"] != port
        assert len(set(first.values())) == len(PORTS)
        assert settle(tmp_path, ["prefect"], s3=False).ports["prefect"] == first["prefect"]
    assert settle(tmp_path, [], s3=False).ports == first


def test_programs_are_not_told_of_another_prefect_or_of_the_operators_keys(tmp_path, quiet, monkeypatch):
    strange = {"PREFECT_API_URL": "http://other/api", "PREFECT_PROFILE": "cloud", "PREFECT_API_KEY": "key"}
    strange |= {"MLFLOW_TRACKING_URI": "http://other", "GITHUB_TOKEN": "token", "PGHOST": "other"}
    for name, value in strange.items():
        monkeypatch.setenv(name, value)
    site = settle(tmp_path, [], s3=False)
    for told in (site.program(), site.worker(), site.client()):
        assert not {name for name, value in strange.items() if told.get(name) == value}


def test_a_store_and_sources_of_ones_own_are_taken_as_they_are(tmp_path, quiet, monkeypatch):
    monkeypatch.setenv("PACKHOUSE_STORE", "s3://acme/releases")
    monkeypatch.setenv("PACKHOUSE_SOURCES", '["s3://acme/sources"]')
    told = settle(tmp_path, [], s3=False).worker()
    assert told["PACKHOUSE_STORE"] == "s3://acme/releases"
    assert told["PACKHOUSE_SOURCES"] == '["s3://acme/sources"]'


# The whole set


def postgresql() -> str:
    try:
        programs()
    except Refused as missing:
        return str(missing)
    return "" if shutil.which("setpriv") else "setpriv is not installed: apt-get install util-linux"


class Machine:
    """What a new operator has: the repository, and a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        names = ("PATH", "HOME", "LANG", "TMPDIR", "VIRTUAL_ENV")
        self.environment = {name: os.environ[name] for name in names if name in os.environ}
        self.environment |= {"PACKHOUSE_UP": str(folder), "PYTHONPATH": str(ROOT), "PACKHOUSE_LATENCY_S": "0.02"}

    def local(self, verb: str) -> subprocess.CompletedProcess[str]:
        """As a script does that starts it with `&`: it ignores SIGINT."""
        command = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", sys.executable, "-m", "infra.deploy.local", verb]
        return subprocess.run(
            command, cwd=ROOT, env=self.environment, capture_output=True, text=True, check=False, timeout=2 * PATIENCE_S
        )

    def shell(self, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Where the operator did as the last words of `up` say."""
        line = ["sh", "-ec", f'. "{self.folder}/env"; exec {command}', "sh", *arguments]
        return subprocess.run(line, cwd="/", env=self.environment, capture_output=True, text=True, check=False)

    def entries(self) -> list[Entry]:
        return Table(self.folder / "run").entries()

    def told(self) -> Mapping[str, str]:
        lines = (self.folder / "env").read_text().splitlines()
        return {line.split("=", 1)[0].removeprefix("export "): line.split("=", 1)[1].strip("'") for line in lines}


@pytest.fixture
def machine() -> Iterator[Machine]:
    """In a folder that the database's user can reach."""
    if missing := postgresql():
        if os.environ.get("PACKHOUSE_TEST_SERVERS") == "required":
            pytest.fail(missing)
        pytest.skip(f"NOT TESTED: make up: {missing}")
    folder = Path(tempfile.mkdtemp(prefix="packhouse-up-", dir="/var/tmp"))
    folder.chmod(0o755)
    made = Machine(folder)
    try:
        yield made
    finally:
        made.local("down")
        shutil.rmtree(folder, ignore_errors=True)


STAGE = """
import sys, numpy as np, torch, packhouse
from packhouse.architectures import registry
torch.manual_seed(0)
samples = np.random.default_rng(0).normal(size=(24, 16)).astype(np.float32)
model = registry.build("test.linear", {})
others = ["torchscript", "program", "torchscript-int8", "onnx-int8"]
staged = packhouse.stage(model, to=sys.argv[1], name="linear", architecture="test.linear", inputs={"x": samples},
                         outputs=["y"], formats=dict.fromkeys(others, "off"))
print(staged.url, *staged.notes, sep="\\n")
"""


def asked(machine: Machine, about: str, *, login: str = "") -> tuple[int, list[Any]]:
    """What the server says to a question about its deployments or runs: its status, and what there is."""
    port = json.loads((machine.folder / "ports.json").read_text())["prefect"]
    user, _, password = login.partition(":")
    url = f"http://127.0.0.1:{port}/api/{about}/filter"
    answer = httpx.post(url, json={}, auth=(user, password) if login else None, timeout=60)
    return answer.status_code, answer.json() if answer.status_code == 200 else []


def scheduled(machine: Machine, login: str) -> bool:
    return any(run["state_type"] == "SCHEDULED" for run in asked(machine, "flow_runs", login=login)[1])


def released(store: Store) -> bool:
    try:
        find(store, "linear@latest")
    except NotFound:
        return False
    return True


@pytest.mark.flow
@pytest.mark.server
def test_on_a_new_machine_a_staged_source_becomes_a_release_by_itself_and_down_leaves_nothing(machine):
    up = machine.local("up")
    assert up.returncode == 0, up.stderr[-3000:]
    assert "login" in up.stdout
    running = {entry.name: entry.pid for entry in machine.entries()}
    assert {"postgres", "prefect", "mlflow", "webhook", "worker-cpu-1", "worker-cuda-1"} <= running.keys()
    assert not {name for name, pid in running.items() if ignores(pid, signal.SIGINT)}
    secrets = json.loads((machine.folder / "secrets.json").read_text())

    staged = machine.shell(
        f'{sys.executable} -c "$1" "$2"', STAGE, str(machine.folder / "sources" / "linear" / "run-1")
    )
    assert staged.returncode == 0, staged.stderr
    assert staged.stdout.splitlines()[1:] == [], "no note: the server was told"
    store = open_store(machine.told()["PACKHOUSE_STORE"])
    worker = machine.folder / "run" / "worker-cpu-1.log"
    until(lambda: released(store), "a release of linear in the channel latest", worker)
    verified = machine.shell(f"{sys.executable} -m packhouse verify linear@latest")
    assert verified.returncode == 0, verified.stderr

    assert asked(machine, "deployments")[0] == 401
    assert asked(machine, "deployments", login="packhouse:wrong")[0] == 401
    login = (machine.folder / "login").read_text().strip()
    assert len(asked(machine, "deployments", login=login)[1]) == 6
    until(lambda: scheduled(machine, login), "the schedules make runs", machine.folder / "run" / "prefect.log")
    for pid in marked(machine.folder / "run"):
        words = " ".join(psutil.Process(pid).cmdline()) if psutil.pid_exists(pid) else ""
        assert not [secret for secret in secrets.values() if secret in words]
    for log in (machine.folder / "run").glob("*.log"):
        assert not [name for name, secret in secrets.items() if secret in log.read_text(errors="replace")], log

    os.kill(running["worker-cpu-1"], signal.SIGKILL)
    until(lambda: machine.local("status").returncode == 2, "status knows")
    again = machine.local("up")
    assert again.returncode == 0, again.stderr[-3000:]
    after = {entry.name: entry.pid for entry in machine.entries()}
    assert {name for name in running if after[name] != running[name]} == {"worker-cpu-1"}

    os.kill(after["prefect"], signal.SIGKILL)
    down = machine.local("down")
    assert down.returncode == 0, down.stderr
    assert not machine.entries()
    assert not marked(machine.folder / "run")
    assert all(gone(pid) for pid in after.values())
    assert machine.local("down").returncode == 0
