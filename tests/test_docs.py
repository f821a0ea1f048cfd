"""The documentation against the project: its links lead somewhere, and its commands can be typed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import typer.main

from infra.deploy.apply import parser as deploy_parser
from packhouse.cli.app import app

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")
PROMPT = re.compile(r"^\s*\$ ")
TARGET = re.compile(r"^([\w.$()/-]+):(?!=)", re.MULTILINE)
REPOSITORY = re.compile(r"(?<![\w/.:-])(?:bench|docs|examples|flows|infra|packhouse|tasks|tests)/[\w./-]*[\w/]")

OF_TODAY = [page for page in PAGES if page.name != "CHANGELOG.md" and "decisions" not in page.parts]
"""The others tell of the past, also of files that are gone."""


def each(of: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("page", of, ids=[str(page.relative_to(ROOT)) for page in of])


def anchors(text: str) -> set[str]:
    """Of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def commands(text: str) -> Iterator[list[str]]:
    """The words of each command in a code span, an indented block or a fence."""
    spans = SPAN.findall(FENCE.sub("", text))
    blocks = [line for block in FENCE.finditer(text) for line in block[0].splitlines()]
    blocks += [line for line in text.splitlines() if line.startswith("    ")]
    for line in (*spans, *blocks):
        words = PROMPT.sub("", line).split("#")[0].split()
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words = words[1:]
        if words:
            yield words


def wrong_links(page: Path) -> list[str]:
    found = []
    for link in LINK.findall(FENCE.sub("", page.read_text())):
        name, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", name):
            continue
        target = page.parent / name if name else page
        if not target.exists() or (anchor and anchor not in anchors(target.read_text())):
            found.append(link)
    return found


def wrong_command(words: list[str]) -> str:
    """What can not be typed in it; empty where it can, or where it is no command of this project."""
    match words:
        case ["make", target, *_] if re.fullmatch(r"[a-z][a-z-]*", target):
            known = target in TARGET.findall((ROOT / "Makefile").read_text())
            return "" if known else f"no target {target}"
        case ["packhouse", name, *rest] if re.fullmatch(r"[a-z]+", name):
            return _wrong_options(name, rest)
        case ["python", "-m", module, *_]:
            return _wrong_module(module)
        case ["pytest", *rest] | ["python", "-m", "pytest", *rest]:
            gone = [word for word in rest if REPOSITORY.fullmatch(word) and not (ROOT / word).exists()]
            return f"no {gone}" if gone else ""
    return ""


def _wrong_module(module: str) -> str:
    try:
        return "" if find_spec(module) else f"no module {module}"
    except ModuleNotFoundError as error:  # a program that was renamed says so
        return str(error)


def _wrong_options(name: str, rest: list[str]) -> str:
    group = typer.main.get_command(app)
    command = group.commands.get(name)  # type: ignore[attr-defined]
    if command is None:
        return f"no command {name}"
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    if name == "deploy":  # passes on what it does not know
        known |= set(deploy_parser()._option_string_actions)
    ours = rest[: next((at for at, word in enumerate(rest) if word in ("|", "&&", ";", ">")), len(rest))]
    given = {word.split("=")[0] for word in ours if re.fullmatch(r"--[a-z][\w-]*(=.*)?", word)}
    unknown = given - known - {"--help"}
    return f"{name} has no {', '.join(sorted(unknown))}" if unknown else ""


@each(PAGES)
def test_links_of_a_page_lead_to_a_file_and_a_heading(page):
    assert wrong_links(page) == []


@each(PAGES)
def test_commands_of_a_page_can_be_typed(page):
    found = [wrong for words in commands(page.read_text()) if (wrong := wrong_command(words))]
    assert [wrong for wrong in found if page in OF_TODAY or " is now " not in wrong] == []


@each(OF_TODAY)
def test_files_that_a_page_names_are_there(page):
    named = {path for words in commands(page.read_text()) if len(words) == 1 for path in REPOSITORY.findall(words[0])}
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


@pytest.mark.parametrize(
    "line, wrong",
    [
        ("make test", ""),
        ("make no-such-thing", "no target no-such-thing"),
        ("packhouse verify m@latest --trust key.pem", ""),
        ("packhouse verify m@latest --no-such-option", "verify has no --no-such-option"),
        ("packhouse verifies m", "no command verifies"),
        ("packhouse deploy --kind docker --folder", ""),
        ("packhouse deploy --no-such-option", "deploy has no --no-such-option"),
        ("python -m infra.no_such_module", "no module infra.no_such_module"),
        ("pytest tests/no_such_file.py", "no ['tests/no_such_file.py']"),
    ],
)
def test_what_can_not_be_typed_is_found(line, wrong):
    assert wrong_command(line.split()) == wrong


def test_a_link_that_leads_nowhere_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# One heading\n[a](#one-heading) [b](#another) [c](gone.md) [d](page.md#one-heading)\n")
    assert wrong_links(page) == ["#another", "gone.md"]
