"""What pyproject.toml can not say: the wheel carries the worker's code, as data below `packhouse/_worker`.

`flows`, `tasks` and `infra` are too common as names for site-packages. An editable install finds them in the clone.
"""

from __future__ import annotations

import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

FILES = ("prefect.yaml", "examples/demo.py", "examples/pyproject.toml", "examples/train.py")
FOLDERS = ("flows", "tasks", "infra", "examples/packhouse_examples")
SUFFIXES = frozenset({".py", ".json", ".toml", ".yaml"})
NAMES = frozenset({".env.example", "Dockerfile"})
"""By allow-list: no `.env` of a developer's, and no bytecode."""
WORKER = Path("packhouse", "_worker")
EXAMPLES = Path("examples", "pyproject.toml")


def worker_files() -> Iterator[Path]:
    """The worker's files, relative to this folder."""
    yield from map(Path, FILES)
    for folder in FOLDERS:
        for path in sorted(Path(folder).rglob("*")):
            if path.suffix in SUFFIXES or path.name in NAMES:
                yield path


def examples_metadata() -> dict[str, str]:
    """The metadata of the demo's package, as an installation would write them: file name -> text.

    It registers the demo's architectures once its folder is on the path, which `packhouse demo` sees to."""
    project = tomllib.loads(EXAMPLES.read_text())["project"]
    required = "".join(f"Requires-Dist: {each}\n" for each in project["dependencies"])
    points = project["entry-points"]["packhouse.architectures"]
    return {
        "PKG-INFO": f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n{required}",
        "entry_points.txt": "[packhouse.architectures]\n" + "".join(f"{name} = {at}\n" for name, at in points.items()),
    }


class BuildWithWorker(build_py):
    """Adds the worker's files to what is built, and to a source distribution."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            self._add_worker(Path(self.build_lib) / WORKER)

    def get_source_files(self) -> list[str]:
        return [*super().get_source_files(), *map(str, worker_files())]

    def _add_worker(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)  # what an earlier build left there, and is gone
        for path in worker_files():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            self.copy_file(str(path), str(folder / path))
        metadata = folder / "examples" / "packhouse_examples.egg-info"
        metadata.mkdir()
        for name, text in examples_metadata().items():
            (metadata / name).write_text(text)


setup(cmdclass={"build_py": BuildWithWorker})
