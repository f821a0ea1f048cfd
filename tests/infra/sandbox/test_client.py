"""The sandbox's promises, each kept against jobs that hang, crash, lie, overfill and pry."""

from __future__ import annotations

import ctypes
import hashlib
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from infra.sandbox.client import ROOT, Limits, Sandbox
from infra.sandbox.connection import LOG_CAPPED
from infra.sandbox.lockdown import Measure
from packhouse.errors import LimitExceeded, ParityRefused, StageCrashed, Unavailable

pytestmark = pytest.mark.sandbox
MiB = 1024**2
SECRET = "s3cr3t"
SHORT = Limits(wall_s=0.5)
SOON_S = 30.0  # generous: a loaded machine, never a measurement


@pytest.fixture(scope="module")
def sandbox():
    with pytest.MonkeyPatch.context() as environment, Sandbox(allowed=("tests.support.",)) as sandbox:
        for name in ("AWS_SECRET_ACCESS_KEY", "PREFECT_API_KEY", "MLFLOW_TRACKING_TOKEN", "DB_PASSWORD", "SIGNING_KEY"):
            environment.setenv(name, SECRET)
        sandbox.start()
        yield sandbox


@pytest.fixture(scope="module")
def open_sandbox():
    """Without any lockdown: what an attempt must be able to do, for its refusal to mean something."""
    with Sandbox(allowed=("tests.support.",), omit=tuple(Measure)) as sandbox:
        sandbox.start()
        yield sandbox


@pytest.fixture
def run(sandbox, tmp_path):
    return runner(sandbox, tmp_path)


def runner(sandbox, folder):
    def run(job, limits=Limits(wall_s=60), readable=(), **arguments):  # noqa: B008 - frozen
        (folder / "work").mkdir(exist_ok=True)
        name = f"tests.support.sandbox_jobs:{job}"
        return sandbox.run(name, arguments, workdir=folder / "work", limits=limits, readable=readable)

    return run


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def within(seconds, condition):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return bool(condition())


def started(path):
    """The pid that a sleeping job wrote."""
    assert within(SOON_S, lambda: path.exists() and path.read_text()), "the job never started"
    return int(path.read_text())


# --- answers


def test_a_job_answers_with_what_it_returned_and_what_it_cost(run):
    answer = run("echo", text="ü", number=1.5, nothing=None, many=[1, {"a": 2}])
    assert answer.document == {"text": "ü", "number": 1.5, "nothing": None, "many": [1, {"a": 2}]}
    assert answer.seconds > 0
    assert answer.cpu_seconds > 0


def test_arguments_of_any_size_arrive_whole(run):
    assert run("echo", text="x" * MiB).document == {"text": "x" * MiB}


def test_a_job_outside_the_allowed_modules_is_not_run(sandbox, tmp_path):
    for job in (
        "os:getpid",
        "tests.infra_other:x",
        "tests.support.sandbox_jobs",
        "tests.support.sandbox_jobs:a.b",
        "tests.support.sandbox_jobs:a\n",
    ):
        with pytest.raises(ValueError, match="is not a job"):
            sandbox.run(job, {}, workdir=tmp_path)


def test_an_argument_that_is_not_json_is_not_sent(run):
    with pytest.raises(ValueError, match="JSON"):
        run("echo", number=float("nan"))
    with pytest.raises(TypeError, match="JSON"):
        run("echo", path=Path("x"))


def test_the_child_works_in_its_folder_with_an_empty_hand(run, tmp_path):
    me = run("about_me").document
    work = str((tmp_path / "work").resolve())
    assert me["folder"] == me["environment"]["HOME"] == me["environment"]["TMPDIR"] == work
    assert me["handles"][:4] == [0, 1, 2, 3]
    assert len(me["handles"]) == 5  # the last one lists them
    assert me["session"] == me["pid"] != os.getpid()
    assert me["core"] == [1, 1]


def test_no_secret_of_the_worker_reaches_a_job(run):
    assert os.environ["SIGNING_KEY"] == SECRET
    assert SECRET not in str(run("about_me").document)


def test_hashing_is_the_same_in_every_child_because_torchscript_bytes_depend_on_it(run):
    code = "print(hash('packhouse'))"
    want = subprocess.run([sys.executable, "-c", code], env={"PYTHONHASHSEED": "0"}, capture_output=True, check=True)
    assert {run("about_me").document["hash"] for _ in range(2)} == {int(want.stdout)}


def test_a_child_starts_from_a_warm_server(run):
    warmth = run("warmth").document
    assert warmth == {
        "torch_threads": 1,
        "loaded": ["torch", "onnx", "onnxruntime", "onnxscript", "packhouse.spec.model"],
    }


def test_the_server_has_one_thread_because_a_fork_copies_only_one(sandbox, run):
    run("echo")  # it is warm
    assert len(list(Path(f"/proc/{sandbox._server._process.pid}/task").iterdir())) == 1


def test_a_job_may_use_the_threads_it_was_given(run):
    assert run("threads_work").document == {"done": 1}
    assert run("use_two_threads", Limits(cpu_threads=2)).document == {"threads": 2}


# --- limits


@pytest.mark.parametrize("job", ["sleep", "hang_with_the_interpreter_held", "ignore_signals_and_hang"])
def test_a_job_over_its_time_is_ended_and_named(run, job):
    with pytest.raises(LimitExceeded, match=rf"{job}: took longer than its time limit; want 0.5 s"):
        run(job, SHORT)


@pytest.mark.parametrize("job", ["allocate", "allocate_tensor", "allocate_and_abort"])
def test_a_job_that_asks_for_too_much_memory_is_refused_by_name(run, job):
    with pytest.raises(LimitExceeded, match=rf"{job}: ran out of its memory.*want 8,192 MiB"):
        run(job)


def test_memory_that_the_kernel_does_not_count_is_seen_and_ended(run):
    with pytest.raises(LimitExceeded, match=r"took more than its memory; got at least .* MiB, want 200 MiB"):
        run("allocate_shared", Limits(wall_s=60, memory_bytes=200 * MiB))


def test_the_peak_is_the_memory_the_job_held(run):
    assert 300 * MiB < run("hold", mib=300).peak_bytes < 400 * MiB


def test_a_file_over_its_limit_is_refused_by_name(run):
    with pytest.raises(LimitExceeded, match="wrote too large a file; want 2,097,152 bytes"):
        run("write_file", Limits(file_bytes=2 * MiB), mib=3)


def test_an_answer_over_its_limit_is_refused_by_name(run):
    with pytest.raises(LimitExceeded, match="answered with too much; want at most 4,194,304 bytes"):
        run("answer_size", size=5 * MiB)


# --- ends


def test_a_signal_is_named_with_the_last_words_and_the_log(run, tmp_path):
    with pytest.raises(StageCrashed, match="segfault: died of SIGSEGV; got reading the weights; the log is") as caught:
        run("segfault")
    log = tmp_path / "work" / "job.log"
    assert caught.value.next == f"the log is {log.resolve()}"
    assert "jobs.py" in log.read_text()  # where it died


def test_an_end_without_an_answer_is_a_crash(run):
    with pytest.raises(StageCrashed, match="ended without a JSON answer; got exit status 3"):
        run("leave")
    with pytest.raises(StageCrashed, match="SystemExit: had enough"):
        run("leave_by_exception")


def test_a_refusal_comes_back_as_itself(run):
    with pytest.raises(ParityRefused) as caught:
        run("refuse")
    assert str(caught.value) == "model.onnx: outputs differ; got 0.5, want 1e-05; look at the report (PH-0010)"


def test_another_exception_is_a_crash_with_its_first_line_and_the_rest_in_the_log(run, tmp_path):
    with pytest.raises(StageCrashed, match="fail: ValueError: the first line; the log is"):
        run("fail")
    assert "the second line" in (tmp_path / "work" / "job.log").read_text()


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("nan", "ValueError: .*JSON"),
        ("list", "answered with list, not with an object"),
        ("object", "TypeError: .*JSON"),
    ],
)
def test_an_answer_that_is_no_json_object_is_a_crash(run, what, reason):
    with pytest.raises(StageCrashed, match=reason):
        run("answer_with", what=what)


@pytest.mark.parametrize(
    "text",
    ["no json", "[1]", '{"answer": [1]}', '{"answer": {"x": NaN}}', '{"answer": {"x": 1e999}}', '{"answer": null}',
     '{"error": {"error": "SystemExit", "what": "x"}}', '{"error": {"error": 1}}', '{"error": "x"}', "{}", "\xff", ""],
)  # fmt: skip
def test_a_forged_answer_is_a_crash_and_never_an_answer(run, text):
    with pytest.raises(StageCrashed, match="answer"):
        run("forge", text=text)


def test_a_forged_answer_can_not_exhaust_the_parser(run):
    with pytest.raises(StageCrashed, match="answer"):
        run("json_depth", depth=100_000)


def test_a_forged_answer_can_not_claim_a_lockdown(run):
    text = '{"lockdown": ["no network"]}\n{"answer": {}}'
    with pytest.raises(StageCrashed):
        run("forge", text=text)


def test_a_child_killed_from_outside_is_the_worlds_fault(run, tmp_path):
    pid_file = tmp_path / "work" / "pid"
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(run, "sleep", started=str(pid_file))
        os.kill(started(pid_file), signal.SIGKILL)
        with pytest.raises(Unavailable, match="was killed from outside"):
            call.result(SOON_S)


def test_what_a_job_prints_is_in_its_log_and_not_on_the_workers_terminal(run, tmp_path, capfd):
    run("print_noise", lines=3)
    assert (tmp_path / "work" / "job.log").read_text().endswith("noise 0\nnoise 1\nnoise 2\nfrom C\n")
    assert capfd.readouterr() == ("", "")


def test_a_log_is_capped_and_the_job_goes_on(run, tmp_path):
    assert run("fill_the_log", mib=5).document == {}
    assert (tmp_path / "work" / "job.log").stat().st_size == MiB + len(LOG_CAPPED)


def test_a_link_in_place_of_the_log_is_not_followed(run, tmp_path):
    (tmp_path / "work").mkdir()
    (tmp_path / "victim").write_text("whole")
    (tmp_path / "work" / "job.log").symlink_to(tmp_path / "victim")
    run("print_noise", lines=1)
    assert (tmp_path / "victim").read_text() == "whole"


# --- nothing is left behind


def test_a_grandchild_in_its_own_session_dies_with_the_job(open_sandbox, tmp_path):
    answer = runner(open_sandbox, tmp_path)("fork_and_leave", folder=str(tmp_path / "work"))
    assert not alive(answer.document["grandchild"])


def test_an_interrupted_call_kills_its_child_at_once(sandbox, tmp_path):
    run, pid_file, caught = runner(sandbox, tmp_path), tmp_path / "work" / "pid", []

    def call():
        try:
            run("sleep", started=str(pid_file))
        except KeyboardInterrupt:
            caught.append(alive(int(pid_file.read_text())))

    thread = threading.Thread(target=call)
    thread.start()
    started(pid_file)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(KeyboardInterrupt))
    thread.join(SOON_S)
    assert caught == [False]


def test_closing_ends_the_running_jobs_and_tells_their_callers(tmp_path):
    sandbox = Sandbox(allowed=("tests.support.",))
    pid_file = tmp_path / "work" / "pid"
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(runner(sandbox, tmp_path), "sleep", started=str(pid_file))
        child = started(pid_file)
        sandbox.close()
        with pytest.raises(Unavailable, match="the sandbox was closed"):
            call.result(SOON_S)
    assert not alive(child)


@pytest.mark.quiet
def test_a_server_killed_in_mid_run_takes_its_children_along_and_the_next_call_has_a_new_one(tmp_path):
    with Sandbox(allowed=("tests.support.",)) as sandbox, ThreadPoolExecutor(1) as pool:
        run, pid_file = runner(sandbox, tmp_path), tmp_path / "work" / "pid"
        call = pool.submit(run, "sleep", started=str(pid_file))
        child = started(pid_file)
        os.kill(sandbox._server._process.pid, signal.SIGKILL)
        with pytest.raises(Unavailable, match="the fork server died while the job ran"):
            call.result(SOON_S)
        assert within(1, lambda: not alive(child))
        assert run("echo", a=1).document == {"a": 1}


def test_a_server_that_can_not_start_says_why(tmp_path, monkeypatch):
    monkeypatch.setattr("infra.sandbox.client.ROOT", tmp_path)
    with Sandbox(allowed=("tests.support.",)) as sandbox, pytest.raises(Unavailable, match="No module named"):
        runner(sandbox, tmp_path)("echo")


@pytest.mark.parametrize("when", ["warming", "running"])
@pytest.mark.quiet
def test_a_worker_killed_with_9_leaves_no_process_behind(tmp_path, when):
    pid_file = tmp_path / "pid"
    code = f"""
        import sys
        from pathlib import Path
        from infra.sandbox.client import Sandbox
        sandbox = Sandbox(allowed=("tests.support.",))
        sandbox.start()
        print(sandbox._server._process.pid, flush=True)
        started = {{"started": {str(pid_file)!r}}}
        sandbox.run("tests.support.sandbox_jobs:sleep", started, workdir=Path({str(tmp_path)!r}))
    """
    worker = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    processes = [int(worker.stdout.readline())]
    if when == "running":
        processes.append(started(pid_file))
    else:
        assert within(SOON_S, lambda: b"infra.sandbox.server" in Path(f"/proc/{processes[0]}/cmdline").read_bytes())
    worker.kill()
    worker.wait()
    worker.stdout.close()
    # while it warms up the server is inside long imports; its watching thread is what ends it
    assert within(1 if when == "running" else 5, lambda: not any(alive(pid) for pid in processes))


def test_programs_that_the_worker_starts_do_not_hold_the_server(sandbox):
    sandbox.start()
    listing = [sys.executable, "-c", "import os; print(sorted(os.listdir('/proc/self/fd')))"]
    out = subprocess.run(listing, capture_output=True, text=True, close_fds=False, check=True).stdout
    assert f"'{sandbox._server.control.fileno()}'" not in out


# --- side by side


def test_callers_in_many_threads_get_their_own_answers(sandbox, tmp_path):
    def call(number):
        (folder := tmp_path / str(number)).mkdir()
        return runner(sandbox, folder)("echo", number=number).document["number"]

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(call, range(40))) == list(range(40))


def test_one_crash_does_not_disturb_its_neighbours(sandbox, tmp_path):
    def call(number):
        (folder := tmp_path / str(number)).mkdir()
        run = runner(sandbox, folder)
        if number % 2:
            with pytest.raises(StageCrashed, match="SIGSEGV"):
                run("segfault")
            return "crashed"
        return run("hold", mib=1).document

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(call, range(8))) == [{"bytes": MiB}, "crashed"] * 4


# --- lockdown


@pytest.fixture(scope="module")
def listener():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def attempt(tmp_path, listener):
    """Targets for what a job may not do, each in a place of its own outside the job's folder."""
    home = tmp_path / "home"
    (home / ".aws").mkdir(parents=True)
    (home / ".aws" / "credentials").write_text("aws_secret_access_key = x")
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(str(tmp_path / "docker.sock"))
    unix.listen()
    credentials = str(home / ".aws" / "credentials")
    yield {
        "read": credentials, "list": str(home), "append": credentials, "chmod": credentials, "delete": credentials,
        "touch": credentials, "hardlink": credentials, "symlink": credentials, "fifo": "",
        "write": str(tmp_path / "outside"), "connect": listener, "unix": str(tmp_path / "docker.sock"),
        "exec": "/bin/true", "program": "/bin/true", "fork": "", "kill": str(os.getpid()), "outlive": "",
    }  # fmt: skip
    unix.close()


NEEDS = {
    "read": Measure.READS_CONFINED, "list": Measure.READS_CONFINED, "append": Measure.WRITES_CONFINED,
    "delete": Measure.WRITES_CONFINED,
    "hardlink": Measure.WRITES_CONFINED, "symlink": Measure.WRITES_CONFINED, "fifo": Measure.WRITES_CONFINED,
    "write": Measure.WRITES_CONFINED, "connect": Measure.NO_NETWORK, "unix": Measure.CALLS_FILTERED,
    "exec": Measure.NO_EXEC, "program": Measure.NO_EXEC, "fork": Measure.NO_PROCESSES,
    "kill": Measure.SIGNALS_CONFINED, "outlive": Measure.CALLS_FILTERED,
}  # fmt: skip


def in_force(run, measure):
    measures = run("echo").lockdown
    if measure not in measures:
        pytest.skip(f"THIS HOST CAN NOT KEEP THE PROMISE: '{measure}' is not in force; it has {measures}")


@pytest.mark.parametrize("what", NEEDS)
def test_a_job_may_not(run, attempt, what):
    in_force(run, NEEDS[what])
    assert run("attempt", what=what, target=attempt[what]).document["worked"] is False


@pytest.mark.parametrize("what", [what for what in NEEDS if what != "exec"])
def test_without_lockdown_it_would_work_so_the_refusal_means_something(open_sandbox, tmp_path, attempt, what):
    run = runner(open_sandbox, tmp_path)
    assert run("attempt", what=what, target=attempt[what]).document["worked"] is True


def test_modes_and_times_of_files_outside_stay_as_they_are(run, open_sandbox, tmp_path, attempt):
    in_force(run, Measure.WRITES_CONFINED)

    def touched(run):
        for what in ("chmod", "touch"):
            assert run("attempt", what=what, target=attempt[what]).document["worked"] is True  # or so it believes
        return Path(attempt["chmod"]).stat().st_mode, Path(attempt["chmod"]).stat().st_mtime

    before = Path(attempt["chmod"]).stat()
    assert touched(run) == (before.st_mode, before.st_mtime)
    assert touched(runner(open_sandbox, tmp_path)) == (0o100777, 0)


@pytest.mark.parametrize(
    "path",
    ["/etc/shadow", "/proc/1/environ", "/proc/1/cmdline", f"/proc/{os.getpid()}/environ", str(ROOT / "pyproject.toml")],
    ids=["passwords", "environment of init", "command of init", "environment of this process", "repository"],
)
def test_the_hosts_and_the_repositorys_other_files_are_closed(run, path):
    in_force(run, Measure.READS_CONFINED)
    assert run("attempt", what="read", target=path).document["worked"] is False


def test_what_the_call_names_as_readable_is_open_for_reading_only(run, attempt):
    in_force(run, Measure.READS_CONFINED)
    credentials = Path(attempt["read"])
    assert run("attempt", readable=[credentials], what="read", target=str(credentials)).document["worked"] is True
    in_force(run, Measure.WRITES_CONFINED)
    assert run("attempt", readable=[credentials], what="append", target=str(credentials)).document["worked"] is False


def test_the_child_holds_no_capability(run):
    in_force(run, Measure.NO_CAPABILITIES)
    assert int(run("about_me").document["capabilities"], 16) == 0


def test_the_answer_names_the_measures_in_force(run, open_sandbox, tmp_path):
    assert set(run("echo").lockdown) <= set(Measure)
    assert Measure.NO_NEW_PRIVILEGES in run("echo").lockdown
    left = {Measure.NO_NEW_PRIVILEGES}
    assert set(runner(open_sandbox, tmp_path)("echo").lockdown) <= left


def test_a_required_measure_that_is_missing_stops_the_job_before_it_starts(open_sandbox, tmp_path, monkeypatch):
    monkeypatch.setattr(open_sandbox, "_require", (Measure.NO_EXEC,))
    mark = tmp_path / "work" / "mark"
    with pytest.raises(Unavailable, match="can not lock a job down as required; got missing: no exec"):
        runner(open_sandbox, tmp_path)("attempt", what="write", target=str(mark))
    assert not mark.exists()


# --- the real thing


def test_real_exports_work_under_lockdown_and_cost_little(run):
    answer = run("export_onnx")
    assert answer.document["difference"] < 1e-5
    assert answer.cpu_seconds < 10
    assert answer.peak_bytes < 200 * MiB


def test_an_lstm_exports_twice_because_every_export_has_a_fresh_process(run, tmp_path):
    digests = set()
    for _ in range(2):
        assert run("export_onnx", kind="lstm").document["difference"] < 1e-5
        digests.add(hashlib.sha256((tmp_path / "work" / "model.onnx").read_bytes()).hexdigest())
    assert len(digests) == 1


def test_torchscript_is_equal_to_the_byte_in_every_child(run, tmp_path):
    sizes = set()
    for _ in range(2):
        assert run("script").document == {"two": 2.0}
        sizes.add((tmp_path / "work" / "model.ts").stat().st_size)
    assert len(sizes) == 1


def test_quantisation_works_under_lockdown(run):
    assert run("quantise").document == {"smaller": True, "near": True}


def test_programs_and_safetensors_work_under_lockdown(run):
    assert run("save_program").document == {"names": ["bias", "weight"], "loads": True}


def test_a_preloaded_module_is_there_before_the_job(tmp_path):
    with Sandbox(allowed=("tests.",), readable=[ROOT / "tests"], preload=["wsgiref.util"]) as box:
        assert box.run(
            "tests.support.sandbox_jobs:is_imported", {"name": "wsgiref.util"}, workdir=tmp_path
        ).document == {"is": True}


def test_a_preloaded_module_that_can_not_be_imported_is_left_to_the_jobs(tmp_path):
    with Sandbox(allowed=("tests.",), readable=[ROOT / "tests"], preload=["no_such_module"]) as box:
        assert box.run("tests.support.sandbox_jobs:is_imported", {"name": "json"}, workdir=tmp_path).document == {
            "is": True
        }


def test_a_preloaded_module_that_leaves_a_thread_running_costs_one_call_and_no_more(tmp_path):
    with Sandbox(allowed=("tests.",), readable=[ROOT / "tests"], preload=["tests.support.threaded"]) as box:
        with pytest.raises(Unavailable):
            box.run("tests.support.sandbox_jobs:is_imported", {"name": "json"}, workdir=tmp_path)
        answer = box.run("tests.support.sandbox_jobs:is_imported", {"name": "tests.support.threaded"}, workdir=tmp_path)
        assert answer.document == {"is": False}


@pytest.mark.parametrize("preload", [[], ["own_models"]])
def test_a_package_outside_of_what_is_installed_is_imported_and_its_neighbours_are_not(tmp_path, preload):
    for file in ("models/own_models/__init__.py", "models/neighbour.py", "work/empty"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    package = tmp_path / "models" / "own_models"
    with Sandbox(allowed=("tests.support.",), packages=[package], preload=preload) as box:
        imported = runner(box, tmp_path)
        assert imported("imports", name="own_models").document == {"file": str(package / "__init__.py")}
        with pytest.raises(StageCrashed, match="PermissionError"):
            imported("imports", name="neighbour")
