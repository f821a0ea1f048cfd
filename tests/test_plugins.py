"""The suite's own rules: what is left out, what starts nothing, what is told at the end, what runs alone."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.plugins.not_run import by_reason
from tests.servers.place import CannotRunError, Endpoint, made_once
from tests.servers.shared import Owner, shared

ROOT = Path(__file__).resolve().parent.parent
PLUGINS = [word for name in ("run", "selection", "quiet", "not_run") for word in ("-p", f"tests.plugins.{name}")]
INI = """
[pytest]
markers =
    flow
    server
    sandbox
    slow
    long
    quiet
"""


def suite(folder: Path, tests: str, *options: str, **environment: str) -> str:
    """What pytest prints about these tests, under the suite's plugins."""
    (folder / "pytest.ini").write_text(INI)
    (folder / "test_sample.py").write_text(textwrap.dedent(tests))
    command = [
        sys.executable,
        "-m",
        "pytest",
        *PLUGINS,
        "-p",
        "no:cacheprovider",
        "-c",
        folder / "pytest.ini",
        *options,
    ]
    command += ["--rootdir", folder, folder]
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "PACKHOUSE_TEST"))}
    done = subprocess.run(command, env=ours | environment, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


SERVERS = """
    import pytest
    from infra.sandbox.client import Sandbox
    from tests.servers.place import running

    @pytest.fixture
    def api():
        return "http://127.0.0.1:1"

    @pytest.fixture
    def home(api):
        return api

    def test_by_a_fixture_of_a_fixture(home):
        pass

    @pytest.mark.server
    def test_by_its_mark():
        pass

    def test_unmarked_server(tmp_path):
        with running(["true"], log=tmp_path / "log"):
            pass

    def test_unmarked_sandbox():
        with Sandbox() as sandbox:
            sandbox.start()

    def test_plain():
        pass
"""


def test_where_no_server_may_start_marked_tests_are_left_out_and_a_start_is_an_error(tmp_path):
    said = suite(tmp_path, SERVERS, PACKHOUSE_TEST_SERVERS="none")
    assert "2 failed, 1 passed, 2 deselected" in said
    assert "this test starts true: mark it @pytest.mark.server" in said
    assert "this test starts a sandbox: mark it @pytest.mark.sandbox" in said


def test_a_test_has_the_mark_of_the_fixtures_that_it_uses(tmp_path):
    said = suite(tmp_path, SERVERS, "-m", "server", "--collect-only", "-q")
    assert "2/5 tests collected" in said
    assert "test_by_a_fixture_of_a_fixture" in said


def test_what_was_skipped_is_told_by_reason_at_the_end(tmp_path):
    tests = """
        import pytest

        @pytest.mark.parametrize("number", [1, 2])
        def test_skipped(number):
            pytest.skip("NOT RUN: no GPU here")
    """
    said = suite(tmp_path, tests, "-q")
    assert "NOT RUN: 2, by reason" in said
    assert "   2 NOT RUN: no GPU here\n     such as test_sample.py::test_skipped[1]" in said


def test_what_has_nothing_to_test_comes_after_what_this_machine_lacks():
    reports = [pytest.TestReport("t::a", ("t", 1, ""), {}, "skipped", ("t", 1, "Skipped: this store can"), "call")]
    assert by_reason(reports) == {"this store can": ["t::a"]}


@pytest.mark.slow
def test_a_quiet_test_runs_alone_among_several_processes(tmp_path):
    tests = f"""
        import time
        from pathlib import Path
        import pytest

        QUIET = pytest.mark.quiet
        NUMBERS = [pytest.param(n, marks=QUIET if n % 4 == 1 else ()) for n in range(12)]

        @pytest.mark.parametrize("number", NUMBERS)
        def test_takes_a_while(number):
            began = time.monotonic()
            time.sleep(0.1)
            Path({str(tmp_path)!r}, f"{{number}}.times").write_text(f"{{began}} {{time.monotonic()}}")
    """
    said = suite(tmp_path, tests, "-n", "3", "--dist", "load")
    assert "12 passed" in said
    times = {int(path.stem): [float(word) for word in path.read_text().split()] for path in tmp_path.glob("*.times")}
    over = {(a, b) for a, one in times.items() for b, other in times.items() if a < b and _overlap(one, other)}
    assert over, "nothing ran at the same time"
    assert not [pair for pair in over if any(number % 4 == 1 for number in pair)]


def _overlap(one: list[float], other: list[float]) -> bool:
    return one[0] < other[1] and other[0] < one[1]


def test_a_test_that_hangs_fails_with_its_place_and_its_fixtures_clean_up(tmp_path):
    tests = """
        import time
        import pytest

        @pytest.fixture
        def server(tmp_path):
            yield
            print("the server was ended")

        @pytest.mark.timeout(1)
        def test_hangs(server):
            time.sleep(60)

        def test_after_it():
            pass
    """
    said = suite(tmp_path, tests, "-s")
    assert "1 failed, 1 passed" in said
    assert "Timeout" in said
    assert ">       time.sleep(60)" in said
    assert "the server was ended" in said


HERE = Endpoint("http://127.0.0.1:1", "user", "secret", version="1")


def test_a_shared_server_starts_once_when_it_is_asked_for_and_ends_with_its_owner(tmp_path):
    events: list[str] = []

    @contextmanager
    def start():
        events.append("start")
        yield HERE
        events.append("end")

    owner = Owner(tmp_path, {"one": start, "never asked for": start})
    try:
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(lambda _: _take("one", tmp_path), range(4))) == [HERE] * 4
        assert events == ["start"]
    finally:
        owner.close()
    assert events == ["start", "end"]


@pytest.mark.parametrize(
    "error, raised, words",
    [(CannotRunError("needs root"), CannotRunError, "needs root"), (KeyError("why"), AssertionError, "KeyError")],
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_shared_server_that_does_not_start_says_why_to_all_who_wait(tmp_path, error, raised, words):
    @contextmanager
    def start():
        raise error
        yield

    owner = Owner(tmp_path, {"one": start})
    try:
        for _ in range(2):
            with pytest.raises(raised, match=words):
                _take("one", tmp_path)
    finally:
        owner.close()


def _take(name: str, folder: Path) -> Endpoint:
    with shared(name, folder) as endpoint:
        return endpoint


def test_what_is_made_once_is_made_by_one_of_many(tmp_path):
    made: list[Path] = []

    def make(half: Path) -> None:
        time.sleep(0.05)
        made.append(half)
        (half / "file").touch()

    with ThreadPoolExecutor(4) as pool:
        found = set(pool.map(lambda _: made_once(tmp_path, "it", make), range(8)))
    assert found == {tmp_path / "it"}
    assert len(made) == 1
    assert (tmp_path / "it" / "file").exists()


@pytest.mark.slow
def test_a_file_is_run_by_one_process_in_its_order(tmp_path):
    """pytest-xdist's own option for it: what the Makefile relies on, and what other options do not keep."""
    tests = """
        import os
        from pathlib import Path
        import pytest

        @pytest.mark.parametrize("number", range(6))
        def test_notes_its_process(number):
            with Path(__file__).with_suffix(".pids").open("a") as file:
                file.write(f"{number} {os.getpid()}\\n")
    """
    (tmp_path / "test_another.py").write_text(textwrap.dedent(tests))
    said = suite(tmp_path, tests, "-n", "2", "--dist", "loadfile", "--no-loadscope-reorder")
    assert "12 passed" in said
    lines = [(tmp_path / f"test_{name}.pids").read_text().splitlines() for name in ("another", "sample")]
    assert [[line.split()[0] for line in each] for each in lines] == [list("012345")] * 2
    one, other = ({line.split()[1] for line in each} for each in lines)
    assert len(one) == len(other) == 1
    assert one != other
