"""docs/architecture.md against the code: its folders are those of the code, and its way through the files is true."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.test_layers import ORDER

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text()
MOST_FILES, MOST_TURNS = 22, 15
ROW = re.compile(r"^\| (\d+) \| `([^`]+)` \| `([^`]+)` \|(?: (\d+))? \|$", re.MULTILINE)


class Step(NamedTuple):
    """One file on the way of a source. read: the function in it. origin: the number of the file that calls it."""

    number: int
    file: str
    read: str
    origin: int


WAY = [Step(int(number), file, read, int(origin or 0)) for number, file, read, origin in ROW.findall(PAGE)]


def test_the_way_is_short_and_turns_back_seldom():
    assert [step.number for step in WAY] == list(range(1, len(WAY) + 1))
    assert len({step.file for step in WAY}) == len(WAY) <= MOST_FILES
    turns = sum(step.origin != step.number - 1 for step in WAY)
    assert turns <= MOST_TURNS
    words = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
    assert f"{words[turns]} times on this way" in PAGE


@pytest.mark.parametrize("step", WAY[1:], ids=lambda step: step.file)
def test_each_file_on_the_way_has_the_function_and_is_called_from_where_the_page_says(step):
    functions = {
        node.name for node in ast.walk(ast.parse((ROOT / step.file).read_text())) if isinstance(node, ast.FunctionDef)
    }
    assert step.read in functions
    caller = (ROOT / WAY[step.origin - 1].file).read_text()
    module = step.file.removesuffix(".py").replace("/", ".")
    is_job = step.file.startswith("tasks/jobs/")
    assert (module if is_job else rf"{step.read}") in caller
    assert re.search(rf"{re.escape(module)}:{step.read}" if is_job else rf"\b{step.read}\b", caller)


def test_every_sub_package_is_on_the_page():
    for layer, names in ORDER.items():
        for name in names:
            folder = ROOT / layer / name
            shown = f"`{name}/`" if folder.is_dir() else f"`{name}.py`"
            if layer != "tasks" or folder.is_dir():
                assert shown in PAGE or name in ("jobs", "__main__"), f"{layer}/{name}"
