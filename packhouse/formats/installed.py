"""Formats that installed packages add: the entry point group `packhouse.formats`.

An entry point names a dictionary of literals in a module: `openvino = "packhouse_openvino:FORMAT"`. The dictionary is
read from the source. The package's code is imported only where it makes or opens a file: in the sandbox, in the process
that verifies, and in a consumer's own process.
"""

from __future__ import annotations

import ast
import importlib.metadata
import sys
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pydantic import ValidationError

from packhouse.errors import FormatUnknown
from packhouse.formats.row import Row
from packhouse.formats.source import parsed, source_of

GROUP = "packhouse.formats"
KEYS = frozenset(
    {"files", "media_type", "job", "runtime", "session", "requires", "base", "made_from", "text", "threads", "way"}
)
"""What a package says of its format. The other facts are packhouse's own: only ONNX is served and checked on a GPU."""
RESERVED = frozenset({"model.sig"})
"""Other files of a release that begin like a model's."""


@dataclass(frozen=True)
class Added:
    """A format that an installed package adds.

    Attributes:
        row: Of the table.
        point: What registers it.
        distribution: The package.
        version: Of the package.
    """

    row: Row
    point: importlib.metadata.EntryPoint
    distribution: str
    version: str


def names() -> tuple[str, ...]:
    """Of all formats that installed packages add, whether their rows can be read or not."""
    return tuple(sorted({point.name for point in _points(tuple(sys.path))}))


def find(name: str) -> Added | None:
    """The format that an installed package adds under this name.

    Args:
        name: Of the format.

    Returns:
        The format. None: no package adds it.

    Raises:
        FormatUnknown: Two packages add it, or what the package says of it is no row.
    """
    return _find(name, tuple(sys.path))


@lru_cache(maxsize=4)
def _points(path: tuple[str, ...]) -> tuple[importlib.metadata.EntryPoint, ...]:
    """path: where packages lie; it is looked at once. Who installs a package restarts the worker."""
    return tuple(importlib.metadata.entry_points(group=GROUP))


@lru_cache(maxsize=64)
def _find(name: str, path: tuple[str, ...]) -> Added | None:
    points = [point for point in _points(path) if point.name == name]
    if not points:
        return None
    where = f"format {name!r}"
    if len(points) > 1:
        packages = ", ".join(sorted({point.dist.name for point in points if point.dist}))
        raise FormatUnknown("PH-0671 is added by two packages", where=where, got=packages, next="uninstall one")
    (point,) = points
    package = point.dist.name if point.dist else ""
    said = _literal(point, where)
    if strange := sorted(map(str, said.keys() - KEYS)):
        raise _no_row(strange[0], "unknown key", f"{where} of {package}")
    try:
        row = Row.model_validate({"threads": "session", **said, "name": name, "package": package})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise _no_row(key, first["msg"], f"{where} of {package}") from error
    _check(row, point, where)
    return Added(row, point, package, point.dist.version if point.dist else "")


def _no_row(key: str, why: str, where: str) -> FormatUnknown:
    return FormatUnknown(f"PH-0672 is no row: {key}: {why}", where=where)


def _literal(point: importlib.metadata.EntryPoint, where: str) -> dict[str, Any]:
    """The dictionary that the entry point names, as it is written in the module."""
    file = source_of(point.module)
    try:
        tree = parsed(file.read_bytes()) if file else ast.Module([], [])
        for statement in tree.body:
            targets = statement.targets if isinstance(statement, ast.Assign) else []
            if any(isinstance(target, ast.Name) and target.id == point.attr for target in targets):
                said = ast.literal_eval(statement.value)  # type: ignore[attr-defined]  # of an assignment
                if isinstance(said, dict):
                    return said
    except (ValueError, SyntaxError) as error:
        raise FormatUnknown(f"{_NO_DICTIONARY}: {error}", where=where, got=point.value, want=_DICTIONARY) from error
    raise FormatUnknown(_NO_DICTIONARY, where=where, got=point.value, want=_DICTIONARY)


_NO_DICTIONARY = "PH-0673 its entry point names no dictionary that can be read"
_DICTIONARY = "a dictionary of literals at the top of a module"


def _check(row: Row, point: importlib.metadata.EntryPoint, where: str) -> None:
    top = point.module.split(".")[0]
    named = [each for each in (row.job, row.runtime, row.session) if each]
    if other := [each for each in named if each.partition(":")[0].split(".")[0] != top]:
        # The release's id follows the files of this one package.
        raise FormatUnknown("PH-0674 names code of another package", where=where, got=other[0], want=f"{top}...")
    if bad := [name for name in row.files if not name.startswith("model.") or name in RESERVED]:
        raise FormatUnknown("PH-0675 a file's name does not fit", where=where, got=bad[0], want="model.<ending>")
