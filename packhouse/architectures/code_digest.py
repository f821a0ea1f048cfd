"""A digest over what code does: its syntax trees, without comments, docstrings, positions and formatting.

Modules are found by following imports from one to the next in the source, and none of them is imported. The digest is
the same in every folder and on every Python that parses the code, so that it can name a release.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from packhouse.digest import canonical_json, digest_bytes
from packhouse.formats.source import parsed as parsed

_NOT_CODE = frozenset({"ctx", "type_ignores", "kind"})
"""Fields that follow from others, or say how something was written: `x` in `x = 1` is stored, `u"x"` is "x"."""


def code_digest(modules: Mapping[str, str]) -> str:
    """The digest over the names and digests of modules, whatever their order.

    Args:
        modules: What `module_digests` gives.
    """
    return digest_bytes(canonical_json(dict(modules)))


def module_digests(
    root: Path,
    starts: Iterable[str],
    *,
    packages: Collection[str],
    ends: Collection[str] = (),
    elsewhere: Mapping[str, Path] = MappingProxyType({}),
) -> Mapping[str, str]:
    """The digest of each module that is imported from `starts`, also inside functions, and through other modules.

    A module counts with the `__init__` of each package that it lies in, since Python runs that first. What is imported
    under `if TYPE_CHECKING` is not followed. Names that a program puts together while it runs can not be seen.

    Args:
        root: The folder that the packages lie in.
        starts: Dotted names of modules. A package stands for its own `__init__` alone.
        packages: Top-level packages that are followed into; other imports are libraries.
        ends: Modules that do not count, and whose imports are not followed.
        elsewhere: Top-level package -> the folder that it lies in, if that is not `root`.

    Returns:
        Dotted name of a module -> digest of its syntax tree, sorted by name.

    Raises:
        ModuleNotFoundError: One of `starts` is not there.
        SyntaxError: This Python does not parse a module.
    """
    paths: dict[str, Path | None] = {}

    def path_of(name: str) -> Path | None:
        if name not in paths:
            paths[name] = _path(elsewhere.get(name.partition(".")[0], root), name)
        return paths[name]

    found: dict[str, str] = {}
    waiting = list(starts)
    while waiting:
        name = waiting.pop()
        if name in found or name in ends:
            continue
        path = path_of(name)
        if path is None:
            raise ModuleNotFoundError(f"no module {name} under {root}", name=name)
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        found[name], imported = _read(path.read_bytes(), package)
        for dotted in (package, *imported):
            parts = dotted.split(".")
            if parts[0] in packages:
                named = (".".join(parts[:count]) for count in range(1, len(parts) + 1))
                waiting += [each for each in named if each not in found and path_of(each)]
    return MappingProxyType(dict(sorted(found.items())))


@lru_cache(maxsize=1024)
def _read(source: bytes, package: str) -> tuple[str, frozenset[str]]:
    """The digest of a module, and what it imports. Remembered, since a process asks for several sets of modules."""
    tree = parsed(source)
    return tree_digest(tree), frozenset(imported_names(tree, package))


def tree_digest(tree: ast.AST) -> str:
    parts: list[str] = []
    _write(tree, parts)
    return digest_bytes("".join(parts).encode())


def imported_names(tree: ast.AST, package: str) -> Iterator[str]:
    """Dotted names of all that is imported anywhere in the tree: `from a import b` gives `a` and `a.b`.

    Args:
        tree: A module's, or a part of it.
        package: The package that the module lies in, for relative imports.
    """
    if isinstance(tree, ast.If) and _is_type_checking(tree.test):
        for other in tree.orelse:
            yield from imported_names(other, package)
        return
    if isinstance(tree, ast.Import):
        yield from (alias.name for alias in tree.names)
    elif isinstance(tree, ast.ImportFrom):
        parents = package.split(".")
        above = parents[: len(parents) - tree.level + 1] if tree.level else []
        origin = ".".join([*above, *filter(None, [tree.module])])
        yield origin
        yield from (f"{origin}.{alias.name}" for alias in tree.names)
    elif not isinstance(tree, ast.expr):  # an expression holds no statement
        for child in ast.iter_child_nodes(tree):
            yield from imported_names(child, package)


def _is_type_checking(test: ast.expr) -> bool:
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def _path(root: Path, name: str) -> Path | None:
    place = root.joinpath(*name.split("."))
    return next((path for path in (place / "__init__.py", place.with_suffix(".py")) if path.is_file()), None)


def _write(node: ast.AST, parts: list[str]) -> None:
    """The tree as text. A field that is empty is left out: newer versions of Python have more fields."""
    parts.append(f"{type(node).__name__}(")
    for field in node._fields:
        inside = getattr(node, field, None)
        if inside is None or field in _NOT_CODE:
            continue
        if isinstance(inside, list):
            inside = _merged(inside) if isinstance(node, ast.JoinedStr) else _working(inside)
            if inside:
                parts.append(f"{field}=[")
                for each in inside:
                    _write_value(each, parts)
                parts.append("]")
        else:
            parts.append(f"{field}=")
            _write_value(inside, parts)
    parts.append(")")


def _write_value(value: Any, parts: list[str]) -> None:
    if isinstance(value, ast.AST):
        _write(value, parts)
    else:
        parts.append(f"{value!a},")  # not !r: which letters that escapes changes with Unicode's versions


def _working(parts: list[Any]) -> list[Any]:
    """Without statements that do nothing: docstrings, what is written like one below a constant, `...` and `pass`."""
    return [part for part in parts if not isinstance(part, ast.Pass | ast.Expr) or not _does_nothing(part)]


def _does_nothing(statement: ast.Pass | ast.Expr) -> bool:
    return isinstance(statement, ast.Pass) or isinstance(statement.value, ast.Constant)


def _merged(parts: list[ast.expr]) -> list[ast.expr]:
    """The parts of an f-string, with neighbouring text as one: versions of Python split it in different ways."""
    merged: list[ast.expr] = []
    for part in parts:
        before = merged[-1] if merged else None
        if isinstance(part, ast.Constant) and isinstance(before, ast.Constant):
            merged[-1] = ast.Constant(str(before.value) + str(part.value))
        else:
            merged.append(part)
    return merged
