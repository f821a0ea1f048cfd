"""Which part of the code's lines ran in `make test`, by folder: `python -m tests.support.coverage_table FILE`.

FILE is the JSON that slipcover writes. Exit status: 0; 1, the total is below --floor.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

PARENTS = frozenset({"packhouse", "infra", "tasks"})
"""Their sub-folders have a row each."""


@dataclass(frozen=True)
class Row:
    """lines: those that hold a statement. ran: how many of them ran."""

    folder: str
    lines: int
    ran: int

    @property
    def part(self) -> float:
        return 100 * self.ran / self.lines if self.lines else 100.0


def folder(path: str) -> str:
    first, *others = PurePosixPath(path).parts
    return f"{first}/{others[0]}" if first in PARENTS and len(others) > 1 else first


def rows(files: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """One for each folder, by name, and the total last."""
    ran: dict[str, int] = {}
    lines: dict[str, int] = {}
    for path, file in files.items():
        summary = file["summary"]
        for name in (folder(path), "total"):
            ran[name] = ran.get(name, 0) + summary["covered_lines"]
            lines[name] = lines.get(name, 0) + summary["covered_lines"] + summary["missing_lines"]
    names = sorted(lines.keys() - {"total"})
    return [Row(name, lines[name], ran[name]) for name in [*names, *(["total"] if names else [])]]


def table(all_rows: list[Row]) -> str:
    """Parts are rounded down, so that 100 % means every line."""
    head = f"{'lines that ran':24} {'lines':>6} {'part':>5}"
    return "\n".join([head, *(f"{row.folder:24} {row.lines:6} {int(row.part):4}%" for row in all_rows)])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--floor", type=float, default=0.0, help="least part of the total, in percent")
    given = parser.parse_args()
    measured = rows(json.loads(given.file.read_text())["files"])
    print(table(measured))
    if not measured or measured[-1].part < given.floor:
        print(f"below the floor of {given.floor:g}%: test what you added, or say why it can not be measured")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
