"""The server as a process: limits, sockets, a locked-down place, the end."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from packhouse.serving.healthcheck import UnixConnection
from tests.packhouse.serving.conftest import COMMAND, serve
from tests.servers.place import until
from tests.support import served_models

SLOW = {"width": 512, "layers": 700, "most": 64}
"""Some tenths of a second for 64 rows, on one thread."""
ROWS = {"inputs": {"x": np.zeros((64, 512)).tolist()}}


@pytest.fixture(scope="session")
def slow(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("slow") / "release"
    served_models.matrix(folder, **SLOW)
    return folder


def in_the_background(count: int, ask) -> tuple[list[threading.Thread], list]:
    replies: list = []

    def call() -> None:
        try:
            replies.append(ask())
        except (OSError, http.client.HTTPException) as error:
            replies.append(error)

    threads = [threading.Thread(target=call) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads, replies


def joined(threads) -> None:
    for thread in threads:
        thread.join(60)


def running(server) -> int:
    text = server.ask("/metrics").body.decode()
    return int(float(next(line for line in text.splitlines() if line.startswith("packhouse_queue_depth ")).split()[1]))


@pytest.mark.server
def test_more_requests_than_may_wait_are_told_so_at_once(slow, tmp_path):
    with serve(slow, tmp_path / "log", PACKHOUSE_THREADS="1", PACKHOUSE_RUNS="1", PACKHOUSE_QUEUE="2") as server:
        threads, replies = in_the_background(12, lambda: server.ask("/predict", ROWS))
        joined(threads)
    statuses = sorted(reply.status for reply in replies)
    assert set(statuses) == {200, 429}
    assert statuses.count(200) >= 3
    busy = next(reply for reply in replies if reply.status == 429)
    assert busy.headers["retry-after"] == "1"
    assert "as many requests as this server takes are waiting; want at most 2" in busy.json["error"]


@pytest.mark.server
def test_sigterm_answers_what_is_under_way_and_ends_with_0(slow, tmp_path):
    with serve(slow, tmp_path / "log", PACKHOUSE_THREADS="1", PACKHOUSE_RUNS="1") as server:
        threads, replies = in_the_background(4, lambda: server.ask("/predict", ROWS))
        until(lambda: running(server) > 1, "requests wait", seconds=30, every_s=0.005)
        under_way = running(server)
        os.kill(server.pid, signal.SIGTERM)
        joined(threads)
        statuses = [reply.status for reply in replies]
        assert set(statuses) <= {200, 503}, "who came too late is told so"
        assert statuses.count(200) >= under_way > 0
        status = os.waitpid(server.pid, 0)[1]
    assert os.waitstatus_to_exitcode(status) == 0
    assert [event["event"] for event in server.events()][-1] == "stopped"


@pytest.mark.server
def test_what_takes_longer_than_the_grace_is_cut_off_and_said(slow, tmp_path):
    given = {"PACKHOUSE_THREADS": "1", "PACKHOUSE_RUNS": "1", "PACKHOUSE_GRACE_S": "0.05"}
    with serve(slow, tmp_path / "log", **given) as server:
        threads, replies = in_the_background(16, lambda: server.ask("/predict", ROWS))
        until(lambda: running(server) > 8, "requests wait", seconds=30, every_s=0.005)
        os.kill(server.pid, signal.SIGTERM)
        joined(threads)
        status = os.waitpid(server.pid, 0)[1]
    assert os.waitstatus_to_exitcode(status) == 143
    assert server.events()[-1]["event"] == "cut off"
    assert all(getattr(reply, "status", 503) in (200, 503) for reply in replies)
    assert "Traceback" not in server.log.read_text()


def test_a_body_over_the_limit_is_refused_whether_or_not_its_length_is_declared(release, tmp_path):
    with serve(release.folder, tmp_path / "log", PACKHOUSE_MAX_BODY_BYTES="2000") as server:
        host = server.url.removeprefix("http://")
        reply = server.ask("/predict", b" " * 2001)
        assert (reply.status, reply.json) == (
            413,
            {"error": "the body is too large; want at most 2,000 bytes (PH-0465)"},
        )
        connection = http.client.HTTPConnection(host, timeout=10)
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/predict", iter([b" " * 1000] * 3), headers, encode_chunked=True)
        assert connection.getresponse().status == 413


def test_a_body_that_does_not_arrive_is_given_up(release, tmp_path):
    with serve(release.folder, tmp_path / "log", PACKHOUSE_BODY_S="0.2") as server:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as raw:
            head = "POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n{"
            raw.sendall(head.encode())
            assert raw.recv(4000).startswith(b"HTTP/1.1 408")


def test_it_listens_on_a_unix_socket_and_on_a_descriptor(release, tmp_path):
    path = tmp_path / "socket"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "inherited"))
    environment = os.environ | {"MODEL_DIR": str(release.folder)}
    ways = {path: ["--uds", str(path)], tmp_path / "inherited": ["--fd", str(listener.fileno())]}
    for place, arguments in ways.items():
        process = subprocess.Popen(
            [*COMMAND, *arguments],
            env=environment,
            pass_fds=[listener.fileno()],
            stderr=subprocess.DEVNULL,
        )
        check = [sys.executable, "-m", "packhouse.serving.healthcheck", "--uds", str(place)]
        try:
            until(lambda check=check: subprocess.run(check, capture_output=True).returncode == 0, seconds=30)
            connection = UnixConnection(str(place))
            body = json.dumps({"rows": [[0.0] * 16]})
            connection.request("POST", "/predict", body, {"Content-Type": "application/json"})
            assert connection.getresponse().status == 200
        finally:
            process.terminate()
            assert process.wait(20) == 0
    assert subprocess.run(check, capture_output=True).returncode == 1


def test_the_health_check_says_what_is_wrong():
    environment = os.environ | {"PORT": "1"}
    command = [sys.executable, "-m", "packhouse.serving.healthcheck"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("not ready: ")


LOCKED = """
mount --make-rprivate /
mount -t tmpfs -o ro none /dev/shm
mount -o remount,ro,bind / || exit 99
touch /tmp/x 2>/dev/null && exit 98
user=$1; shift
exec setpriv --reuid $user --regid $user --clear-groups --bounding-set=-all --inh-caps=-all --no-new-privs "$@"
"""


def test_it_runs_read_only_without_capabilities_network_or_tmp(release, tmp_path):
    """As in the image; its socket is handed to it, since it has no network. As uid 10001 too, unless Python lies where
    another user may not read it."""
    if os.geteuid() != 0:
        pytest.skip("NOT RUN: another namespace and user need root")
    user = "10001" if readable_by_others(Path(sys.executable).resolve()) else "0"
    place, folder = tmp_path / "socket", readable(release.copied(tmp_path / "store").folder)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place))
        command = [
            "unshare",
            "--net",
            "--mount",
            "sh",
            "-c",
            LOCKED,
            "sh",
            user,
            *COMMAND,
            "--fd",
            str(listener.fileno()),
        ]
        log = tmp_path / "log"
        with log.open("wb") as out:
            environment = {
                "MODEL_DIR": str(folder),
                "PATH": os.environ["PATH"],
            }
            process = subprocess.Popen(command, env=environment, pass_fds=[listener.fileno()], stderr=out)
    check = [sys.executable, "-m", "packhouse.serving.healthcheck", "--uds", str(place)]
    try:
        until(
            lambda: process.poll() is not None or subprocess.run(check, capture_output=True).returncode == 0,
            seconds=30,
        )
        assert process.poll() is None, log.read_text()
        status = Path(f"/proc/{process.pid}/status").read_text()
        assert f"Uid:\t{user}\t{user}" in status
        assert "CapEff:\t0000000000000000" in status
    finally:
        process.terminate()
        assert process.wait(20) == 0, log.read_text()


def readable_by_others(path: Path) -> bool:
    return all(parent.stat().st_mode & 0o001 for parent in path.parents)


def readable(folder: Path) -> Path:
    """pytest's own folders are closed to others; they are opened on the way down."""
    for parent in folder.parents:
        if "pytest" in parent.name or "pytest" in str(parent):
            parent.chmod(0o755)
    folder.chmod(0o755)
    return folder
