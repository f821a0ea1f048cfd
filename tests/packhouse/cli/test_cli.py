"""The command: whatever goes wrong ends in one line and a status that says which kind it was."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from packhouse.cli import app, show
from packhouse.errors import NotFound, StoreUnavailable


def packhouse(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "packhouse", *arguments],
        env=os.environ | {"PACKHOUSE_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("name", ["x" * 300, "../up", "UPPER"])
def test_a_name_that_no_model_can_have_has_no_releases(tmp_path, name):
    listed = packhouse("ls", name, home=tmp_path)
    assert (listed.returncode, listed.stdout) == (3, "")
    shown = packhouse("show", f"{name}@latest", home=tmp_path)
    assert (shown.returncode, shown.stdout) == (1, "")
    assert len(shown.stderr.splitlines()) == 1


@pytest.mark.parametrize("text", ["a=" + "[" * 3000, "schema = " + "1" * 5000, "a=" + "{a=" * 400 + "1" + "}" * 400])
def test_a_draft_that_keeps_a_parser_busy_is_refused(tmp_path, text):
    (tmp_path / "package.toml").write_text(text)
    done = packhouse("stage", str(tmp_path), "--to", str(tmp_path / "to"), home=tmp_path)
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("refused: ")
    assert not (tmp_path / "to").exists()


ENDS = [
    (NotFound("is not there", where="here"), 1, "refused: here: is not there (PH-0020)"),
    (StoreUnavailable("did not answer"), 2, "unavailable: did not answer (PH-0022)"),
    (OSError(errno.EACCES, "x", "/some/file"), 2, "unavailable: /some/file: Permission denied"),
    (ValueError("not\na key"), 70, "fault of packhouse: ValueError: not a key"),
    (RecursionError("too deep"), 70, "fault of packhouse: RecursionError: too deep"),
]


@pytest.mark.parametrize("error, status, line", ENDS, ids=[type(row[0]).__name__ for row in ENDS])
def test_every_end_has_its_status_and_one_line(monkeypatch, capsys, error, status, line):
    assert ended(monkeypatch, error, "ls") == status
    assert capsys.readouterr() == ("", f"{line}\n")


def test_the_traceback_of_a_fault_is_for_those_who_ask(monkeypatch, capsys):
    assert ended(monkeypatch, ValueError("not a key"), "--verbose", "ls") == 70
    err = capsys.readouterr().err
    assert "Traceback (most recent call last)" in err
    assert err.splitlines()[-1] == "fault of packhouse: ValueError: not a key"


@pytest.mark.parametrize(
    "number, status, word", [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_a_signal_ends_a_command_in_one_line(monkeypatch, capsys, number, status, word):
    assert ended(monkeypatch, lambda: os.kill(os.getpid(), number), "ls") == status
    assert capsys.readouterr() == ("", f"{word}: what is not committed is not visible; run it again\n")


def ended(monkeypatch, what, *arguments: str) -> object:
    """The status of a command in whose middle this happens. Signals are as before after it."""

    def happens(*_: object) -> object:
        if isinstance(what, Exception):
            raise what
        what()
        return iter(())

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.setattr(show, "listing", happens)
    monkeypatch.setattr(sys, "argv", ["packhouse", *arguments])
    try:
        with pytest.raises(SystemExit) as end:
            app.main()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return end.value.code


def test_help_tells_the_statuses(tmp_path):
    text = " ".join(packhouse("--help", home=tmp_path).stdout.split())
    for words in (
        "0 done",
        "1 refused",
        "2 unavailable",
        "3 nothing to do",
        "64 wrong usage",
        "70 a fault of packhouse",
    ):
        assert words in text
    assert "130 interrupted" in text
    assert "143 terminated" in text
