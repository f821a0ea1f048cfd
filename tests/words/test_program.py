"""The program as `make lint` runs it."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest

from tests.words import __main__ as program
from tests.words import ratchet
from tests.words.ratchet import Entry
from tests.words.sentences import Block
from tests.words.texts import ROOT, Text

BAD = "# A new page\n\nThe worker says so.\n\n- We recieve it.\n"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.words", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_a_made_up_page_fails(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(BAD)
    ran = run(str(page))
    assert ran.returncode == 1
    assert f"{page}:3: banned word, got 'says so'" in ran.stdout
    assert f"{page}:5: spelling, got 'recieve', write 'receive' instead" in ran.stdout


def test_a_page_without_findings_passes(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# A new page\n\nThe worker logs the reason.\n")
    ran = run(str(page))
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Gives the program one text, whose prose and exceptions the test sets."""

    def set_up(prose: str, listed: int) -> ratchet.Path:
        path = tmp_path / "exceptions.toml"
        path.write_text(ratchet.render(Counter({Entry("pages", "a.md", "word"): listed})))
        monkeypatch.setattr(program, "ROOT", tmp_path)
        monkeypatch.setattr(ratchet, "EXCEPTIONS", path)
        monkeypatch.setattr(program, "all_texts", lambda: [Text("pages", "a.md", "a.md", Block(1, prose))])
        return path

    return set_up


def test_a_listed_finding_passes_and_one_more_fails(project, capsys):
    project("Nobody reads it.", listed=1)
    assert program.main([]) == 0
    assert capsys.readouterr().out == ""
    project("Nobody reads it. Nobody writes it.", listed=1)
    assert program.main([]) == 1
    assert capsys.readouterr().out.count("banned word") == 2


def test_a_mended_text_fails_until_the_number_is_lowered(project, capsys):
    path = project("The worker reads it.", listed=1)
    assert program.main([]) == 1
    assert "lower it with" in capsys.readouterr().out
    assert program.main(["--update"]) == 0
    assert ratchet.read(path) == {}
    assert program.main([]) == 0


def test_an_update_does_not_allow_a_new_finding(project):
    path = project("Nobody reads it. Nobody writes it.", listed=1)
    assert program.main(["--update"]) == 1
    assert ratchet.read(path).total() == 1


def test_all_shows_what_is_listed(project, capsys):
    project("Nobody reads it.", listed=1)
    assert program.main(["--all"]) == 1
    assert "a.md:1: banned word, got 'Nobody'" in capsys.readouterr().out
