"""Announcing a staged source: what is sent, what a server may do to us, and that staging never fails for it."""

from __future__ import annotations

import base64
import json
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import packhouse
from packhouse.architectures import registry
from packhouse.cli.app import app
from packhouse.spec.model import SPEC_FILE
from packhouse.training import prefect_client
from packhouse.training.announce import EVENT, announce, event
from packhouse.training.prefect_client import TRIES
from packhouse.training.source import stage_folder
from tests.servers.place import free_ports

SECRET = "hunter2hunter2"
DIGEST = f"sha256:{'0' * 64}"


class Server(ThreadingHTTPServer):
    """An API that answers as it is told: one (status, headers, body) a POST, the last one for ever after. Remembers
    what it was asked, and whether `watched` existed when it was."""

    def __init__(self, *answers: tuple[int, dict[str, str], bytes], csrf: str = "") -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers, self.csrf, self.watched = list(answers or [(204, {}, b"")]), csrf, Path("/")
        self.asked: list[tuple[str, dict[str, str], Any, bool]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/api"

    @property
    def posted(self) -> list[Any]:
        return [body for _, _, body, _ in self.asked]


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.asked.append((self.path, headers, body, self.server.watched.exists()))
        answers = self.server.answers
        self._answer(*(answers.pop(0) if len(answers) > 1 else answers[0]))

    def do_GET(self) -> None:
        if not self.path.startswith("/api/csrf-token?client="):
            self.server.asked.append((self.path, dict(self.headers.items()), None, False))
            self._answer(404, {}, b"")
        elif self.server.csrf:
            self._answer(200, {}, json.dumps({"token": self.server.csrf}).encode())
        else:
            self._answer(422, {}, b'{"detail": "CSRF protection is disabled."}')

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def serving(*answers: tuple[int, dict[str, str], bytes], csrf: str = "") -> Iterator[Server]:
    with Server(*answers, csrf=csrf) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(autouse=True)
def nobody_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING", "PREFECT_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a training job hands over: package.toml and its files."""
    to = tmp_path_factory.mktemp("made")
    x = np.random.default_rng(0).normal(size=(24, 16)).astype(np.float32)
    model = registry.build("test.linear", {})
    packhouse.stage(
        model, to=str(to), name="linear", architecture="test.linear", inputs={"x": x}, outputs=["y"], announce_to="off"
    )
    return to


def say(api: str | None) -> str:
    return announce("s3://models/churn/run-17", model="churn", digest=DIGEST, api=api)


def test_the_event_names_the_source_and_equal_sources_have_equal_ids():
    one, again = (event("s3://b/a", model="m", digest=DIGEST) for _ in range(2))
    assert one["id"] == again["id"]
    assert one["payload"] == {"source": "s3://b/a", "model": "m", "spec": DIGEST}
    assert one["resource"] == {"prefect.resource.id": f"packhouse.source.{one['id']}", "packhouse.model": "m"}
    others = [event("s3://b/b", model="m", digest=DIGEST), event("s3://b/a", model="m", digest=f"sha256:{'1' * 64}")]
    assert len({each["id"] for each in [one, *others]}) == 3


def test_one_event_is_posted_where_an_api_is_named_by_argument_or_environment(monkeypatch):
    with serving() as server:
        assert say(server.url) == ""
        monkeypatch.setenv("PREFECT_API_URL", f"{server.url}/")
        assert say(None) == ""
        assert say("off") == ""
        monkeypatch.delenv("PREFECT_API_URL")
        assert say(None) == ""
    assert [path for path, *_ in server.asked] == ["/api/events"] * 2
    (sent,) = server.posted[0]
    assert (sent["event"], sent["payload"]["source"]) == (EVENT, "s3://models/churn/run-17")


@pytest.mark.parametrize(
    "variable, given, header",
    [
        ("PREFECT_API_AUTH_STRING", "admin:pass", f"Basic {base64.b64encode(b'admin:pass').decode()}"),
        ("PREFECT_API_KEY", "key", "Bearer key"),
    ],
)
def test_the_credentials_of_prefects_own_client_go_along_and_the_token_of_a_careful_server(
    monkeypatch, variable, given, header
):
    monkeypatch.setenv(variable, given)
    with serving(csrf="a-token") as server:
        assert say(server.url) == ""
    (_, headers, _, _) = server.asked[0]
    assert headers["authorization"] == header
    assert headers["prefect-csrf-token"] == "a-token"
    assert headers["prefect-csrf-client"]


def test_a_server_that_stumbles_is_asked_again_and_one_that_is_down_gives_a_note():
    with serving((503, {}, b""), (204, {}, b"")) as server:
        assert say(server.url) == ""
    with serving((503, {}, b"")) as server:
        note = say(server.url)
    assert len(server.asked) == TRIES
    assert note.startswith("staged, but not announced: 127.0.0.1")
    assert "503" in note
    assert note.endswith("the nightly will find it")


def test_a_server_that_refuses_us_is_asked_once_and_the_note_says_what_to_check():
    with serving((401, {}, b"")) as server:
        note = say(server.url)
    assert len(server.asked) == 1
    assert "check PREFECT_API_AUTH_STRING" in note


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_credentials_are_not_carried_to_where_a_server_sends_us(monkeypatch, status):
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", f"admin:{SECRET}")
    with serving() as elsewhere, serving((status, {"Location": elsewhere.url}, b"")) as server:
        note = say(server.url)
    assert len(server.asked) == 1
    assert elsewhere.asked == []
    assert str(status) in note
    assert "correct PREFECT_API_URL" in note


def test_a_server_that_takes_the_connection_and_says_nothing_is_not_waited_for_for_long(monkeypatch):
    monkeypatch.setattr(prefect_client, "TIMEOUT_S", 0.2)
    with Server() as silent:  # it listens, and nothing takes the requests
        assert "timed out" in say(silent.url)


@pytest.mark.parametrize("answer", [(200, {}, b"not json"), (200, {"Content-Length": "9"}, b"short"), (999, {}, b"")])
def test_whatever_a_server_says_the_source_is_staged(answer):
    with serving(answer) as server:
        assert say(server.url).startswith("staged, but not announced: ")


@pytest.mark.parametrize(
    "url, key",
    [
        ("http://127.0.0.1:1/api", f"{SECRET}\n"),
        (f"http://user:{SECRET}@127.0.0.1:1/api", ""),
        (f"http://127.0.0.1:1/api?key={SECRET}", ""),
        (f"http://{SECRET}:port/api", ""),
        (f"http://[{SECRET}", ""),
        (f"file:///{SECRET}", ""),
        (SECRET, ""),
    ],
)
def test_what_is_wrong_with_the_url_or_the_key_is_a_note_of_one_line_without_the_secret(monkeypatch, url, key):
    monkeypatch.setenv("PREFECT_API_KEY", key)
    note = say(url)
    assert note.startswith("staged, but not announced: ")
    assert note.isprintable()
    assert SECRET not in note


def test_the_event_goes_out_when_the_source_is_whole_and_never_fails_the_staging(folder, tmp_path):
    document = tomllib.loads((folder / SPEC_FILE).read_text())
    with serving() as server:
        server.watched = tmp_path / "told" / SPEC_FILE
        staged = stage_folder(folder, document, to=str(tmp_path / "told"), announce_to=server.url)
    assert staged.notes == ()
    (_, _, ((sent,)), whole) = server.asked[0]
    assert sent["payload"]["source"] == staged.url
    assert whole, "package.toml was up before anybody was told"

    (port,) = free_ports(1)
    alone = stage_folder(folder, document, to=str(tmp_path / "alone"), announce_to=f"http://127.0.0.1:{port}/api")
    assert (tmp_path / "alone" / SPEC_FILE).is_file()
    (note,) = alone.notes
    assert "refused" in note


def test_the_command_says_on_stderr_that_nobody_was_told_and_is_done_all_the_same(folder, tmp_path, monkeypatch):
    (port,) = free_ports(1)
    monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{port}/api")
    told = CliRunner().invoke(app, ["stage", str(folder), "--to", str(tmp_path / "to")])
    assert (told.exit_code, told.stdout.strip()) == (0, f"file://{tmp_path / 'to'}")
    assert "staged, but not announced: " in told.stderr
    off = CliRunner().invoke(app, ["stage", str(folder), "--to", str(tmp_path / "to"), "--announce", "off"])
    assert (off.exit_code, "announced" in off.stderr) == (0, False)
