"""Chooses the cases that a release carries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from packhouse.parity.golden_file import golden, read_cases, write_cases


def run(*, cases: str, out: str) -> dict[str, Any]:
    chosen = golden(read_cases(Path(cases)))
    write_cases(Path(out), chosen)
    return {"cases": [case.name for case in chosen]}
