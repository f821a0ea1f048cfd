"""Packages that add formats, as far as they are read and not run: a module and its metadata on the path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

ROW: dict[str, Any] = {
    "files": ("model.acme",),
    "media_type": "application/vnd.acme",
    "job": "acme_formats:run",
    "runtime": "acme_formats:open_model",
    "requires": ("json",),
}
IMPORTED = "raise AssertionError('this module was imported')\n"


def package(
    folder: Path, name: str = "acme", *, text: str | None = None, module: str = "acme_formats", **row: Any
) -> Path:
    """A package that adds the format `name`.

    Args:
        folder: Where it lies; the caller puts it on the path.
        name: Of the format.
        text: Of the module; default: a row that is complete, in a module that can not be imported.
        module: Its name.
        row: Keys of the row that differ; None: it lacks the key.

    Returns:
        The folder.
    """
    folder.mkdir(exist_ok=True)
    said = {key: value for key, value in (ROW | row).items() if value is not None}
    (folder / f"{module}.py").write_text(f"FORMAT = {said!r}\n{IMPORTED}" if text is None else text)
    metadata = folder / f"{module}-1.2.dist-info"
    metadata.mkdir()
    distribution = module.replace("_", "-")
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\nRequires-Dist: numpy\n"
    )
    (metadata / "entry_points.txt").write_text(f"[packhouse.formats]\n{name} = {module}:FORMAT\n")
    return folder
