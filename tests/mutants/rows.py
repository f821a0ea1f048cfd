"""The rows of table.toml: faults that are planted in the product, one at a time, each for the tests that catch it."""

from __future__ import annotations

import ast
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TABLE = Path(__file__).with_name("table.toml")


@dataclass(frozen=True)
class Mutant:
    """One planted fault.

    Attributes:
        id: A short name, for `--only`.
        file: The module, relative to the repository.
        find: The text that is replaced. It occurs exactly once in the file.
        replace: What takes its place.
        promise: What the product promises, and this fault breaks.
        tests: Node ids. At least one of them must fail with the fault; all must pass without it.
    """

    id: str
    file: str
    find: str
    replace: str
    promise: str
    tests: tuple[str, ...]

    def planted(self, root: Path) -> str:
        """The module's text with the fault.

        Raises:
            ValueError: The text does not occur exactly once; the message names the row.
        """
        path = root / self.file
        if not path.is_file():
            raise ValueError(f"mutant {self.id}: there is no {self.file}")
        text = path.read_text()
        if (count := text.count(self.find)) != 1:
            raise ValueError(f"mutant {self.id}: its text occurs {count} times in {self.file}, not once: {self.find!r}")
        return text.replace(self.find, self.replace)


def mutants(table: Path = TABLE) -> list[Mutant]:
    """All rows, in the order of the table."""
    rows = tomllib.loads(table.read_text())["mutant"]
    return [Mutant(**{**row, "tests": tuple(row["tests"])}) for row in rows]


def has_test(node: str, root: Path = ROOT) -> bool:
    """Whether the file of a node id defines the test function (and class) that it names."""
    file, *names = node.partition("[")[0].split("::")
    path = root / file
    if not path.is_file() or not names:
        return False
    scope: list[ast.stmt] = ast.parse(path.read_text()).body
    for name in names:
        found = [each for each in scope if isinstance(each, ast.FunctionDef | ast.ClassDef) and each.name == name]
        if not found:
            return False
        scope = found[0].body
    return True
