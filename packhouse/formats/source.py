"""Python source that is read and not run."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path
from threading import Lock

_PARSES = Lock()
"""Python 3.11 counts the depth of trees for all threads together, and fails where two make one at the same time."""


def parsed(source: bytes) -> ast.Module:
    """Type comments count: TorchScript reads them."""
    with _PARSES:
        return ast.parse(source, type_comments=True)


def source_of(module: str) -> Path | None:
    """The file of an installed module, found without importing the packages that it lies in.

    Args:
        module: Its dotted name.

    Returns:
        The file. None: there is none, or it is no Python source.
    """
    top, *parts = module.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None:
        return None
    places = [Path(place).joinpath(*parts) for place in spec.submodule_search_locations or ()]
    files = [path for place in places for path in (place / "__init__.py", place.with_suffix(".py"))]
    if not parts and spec.origin:
        files.insert(0, Path(spec.origin))
    return next((path for path in files if path.suffix == ".py" and path.is_file()), None)
