"""Makes a format that an installed package adds: calls the package's own function, here in the sandbox."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from packhouse.errors import ExportFailed, PackhouseError, squeezed, without_paths
from packhouse.formats.table import load, row
from tasks.jobs import model as models

MOST_WORDS = 500
"""Characters of another program's error: it may span pages."""
TOLD = ("exporter", "notes", "runtime")
"""What a function may say of how it made the files."""


def run(
    *,
    format: str,
    spec: str,
    samples: str,
    options: Mapping[str, Any],
    out: str,
    weights: str = "",
    program: str = "",
    model: str = "",
) -> dict[str, Any]:
    """Has the files made, the first of them at `out` and the others beside it. model: the file that they are made from;
    without one, the function gets the trained model. Returns what it says of TOLD.

    Raises ExportFailed: the function did not make the files.
    """
    parsed = models.read_spec(spec)
    given: dict[str, Any] = {"spec": parsed, "options": dict(options), "out": Path(out)}
    if model:
        given["model"] = Path(model)
    else:
        given |= {"module": models.load(parsed, weights, program), "inputs": models.example(parsed, samples)}
    try:
        said = load(row(format).job)(**given)
    except PackhouseError:
        raise
    except Exception as error:  # the package's own code and its libraries: their errors have no common class
        words = without_paths(squeezed(error, MOST_WORDS))
        raise ExportFailed(f"{type(error).__name__}: {words}", where=format) from error
    return {name: said[name] for name in TOLD if name in (said or {})}
