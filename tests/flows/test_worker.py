"""The embedded worker as a user meets it: it ends in one line, and the Prefect server that it started ends with it."""

from __future__ import annotations

import importlib.metadata
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.servers.place import small_disk

pytestmark = [pytest.mark.flow]
PATIENCE_S = 240.0


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One home for tests that do not look at its start: Prefect's empty database is made once."""
    return tmp_path_factory.mktemp("home")


def environment(home: Path, **more: str) -> dict[str, str]:
    """Of a user who has no Prefect server, and whose worker therefore starts one."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "PACKHOUSE_"))}
    return own | {"PACKHOUSE_HOME": str(home), "PACKHOUSE_LATENCY_S": "0.02", **more}


@contextmanager
def begun(source: str, home: Path, store: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "packhouse", "release", source, "--store", str(store)],
        env=environment(home),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def packhouse(*arguments: str, home: Path, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "packhouse", *arguments],
        env=environment(home, **more),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def reaches(process: subprocess.Popen[str], moment: str) -> list[psutil.Process]:
    """Waits until it says so; gives its children, of which one is the server."""
    assert process.stderr
    assert any(moment in line for line in process.stderr), f"never came to {moment!r}"
    children = psutil.Process(process.pid).children(recursive=True)
    assert any("infra.worker.local_prefect" in child.cmdline() for child in children)
    return children


def gone(processes: list[psutil.Process]) -> bool:
    """Waits for it. A zombie is gone: nobody reaps in a container without an init."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if all(not each.is_running() or each.status() == psutil.STATUS_ZOMBIE for each in processes):
            return True
        time.sleep(0.1)
    return False


def runs(home: Path) -> list[Path]:
    return list((home / "prefect").glob("run-*"))


def test_a_worker_that_is_killed_takes_its_server_along_and_the_next_two_at_once_do_not_notice(
    tmp_path, shared, staged
):
    store = tmp_path / "store"
    with begun(staged("linear"), shared, store) as process:
        children = reaches(process, "validate weights ...")
        process.send_signal(signal.SIGKILL)  # the worker alone, not its group
        assert gone(children)
        assert len(runs(shared)) == 1
    with begun(staged("linear"), shared, store) as one, begun(staged("tied"), shared, store) as two:
        said = [process.communicate(timeout=PATIENCE_S) for process in (one, two)]
    assert [process.returncode for process in (one, two)] == [0, 0], said
    assert runs(shared) == []


@pytest.mark.parametrize(
    "number, status, word", [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_a_signal_ends_a_run_in_one_line_and_all_that_it_started(tmp_path, shared, staged, number, status, word):
    with begun(staged("linear"), shared, tmp_path / "store") as process:
        children = reaches(process, "validate weights ...")
        process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == status, err
        assert gone(children)
    assert out == ""
    assert err.splitlines()[-1].startswith(f"{word}: ")
    assert "Traceback" not in err
    assert runs(shared) == []


def test_a_server_that_does_not_start_is_named_with_the_file_of_its_words_and_is_tried_afresh(tmp_path, staged):
    home = tmp_path / "home"
    database = home / "prefect" / f"empty-{importlib.metadata.version('prefect')}.db"
    database.parent.mkdir(parents=True)
    database.write_bytes(b"this is no database" * 1000)
    done = packhouse("release", staged("linear"), home=home)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    log = home / "prefect" / "server.log"
    assert done.stderr.splitlines()[-1].startswith("unavailable: ")
    assert str(log) in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert "Traceback" in log.read_text()
    assert not database.exists()


def test_a_full_disk_under_the_home_is_one_line(tmp_path, staged):
    with small_disk(tmp_path / "small", "3m") as disk:
        done = packhouse("release", staged("linear"), home=disk / "home", PACKHOUSE_CACHE=str(tmp_path / "cache"))
        assert done.returncode == 2, done.stderr
        assert done.stdout == ""
        last = done.stderr.splitlines()[-1]
        assert last.startswith(f"unavailable: {disk}/home/prefect: no space is left; got ")
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("home, cache", [("/proc/nope", ""), ("", "/proc/nope"), ("", __file__)])
def test_a_folder_that_can_not_be_made_is_unavailable(tmp_path, staged, home, cache):
    """The place is named; on stderr where nothing can begin, else as the end of the source."""
    more = {"PACKHOUSE_CACHE": cache} if cache else {}
    done = packhouse("release", staged("linear"), home=Path(home or tmp_path / "home"), **more)
    assert done.returncode == 2, done.stderr
    (line,) = (done.stdout + done.stderr).splitlines()
    assert line.startswith("unavailable")
    assert (home or cache) in line
