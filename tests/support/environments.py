"""A fresh Python environment with packhouse from a wheel, as a user has it after `pip install 'packhouse[EXTRA]'`.

Fetching torch and the rest takes minutes. So the packages that pip would install are linked here from the environment
of the tests: those that the wheel requires with these extras, what they require, and no other. Then pip installs the
wheel itself, and `pip check` finds what is missing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import Distribution, PathDistribution, distribution
from pathlib import Path
from zipfile import Path as ZipPath

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
BUILDS = ("pip", "setuptools")
"""Packages that install others."""
OFFLINE = {"PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_BUILD_ISOLATION": "0"}
"""0 means that builds are not isolated: they take the setuptools that is there."""

SYSTEM_PATH = f"{Path(sys.base_prefix, 'bin')}:/usr/local/bin:/usr/bin:/bin"


def wheel_of(folder: Path) -> Path:
    """A wheel of this clone's files that git knows, or would add, built in `folder`."""
    source = folder / "source"
    copy_clone(source)
    pip("wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder / "dist"), str(source))
    (wheel,) = (folder / "dist").glob("*.whl")
    return wheel


def copy_clone(target: Path) -> None:
    """A clone's files at `target`, without .git."""
    for name in tracked():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target / name)


def tracked(*below: str) -> list[str]:
    """The files of the clone, ignored ones left out."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *below]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return sorted(name for name in listed.split("\0") if name and (ROOT / name).is_file())


def pip(*arguments: str) -> None:
    """Of the environment of the tests, without an index."""
    command = [sys.executable, "-m", "pip", *arguments]
    done = subprocess.run(command, env=os.environ | OFFLINE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@dataclass(frozen=True)
class Environment:
    """folder: of the virtual environment. home: HOME of what runs in it. wheels: where pip finds packhouse."""

    @property
    def packages(self) -> Path:
        """Where its packages lie."""
        (found,) = self.folder.glob("lib/python3.*/site-packages")
        return found

    folder: Path
    home: Path
    wheels: Path

    def variables(self, **more: str) -> dict[str, str]:
        """Nothing of the tests' own environment but where programs and temporary files lie."""
        kept = {name: os.environ[name] for name in ("LANG", "TMPDIR") if name in os.environ}
        own = {"HOME": str(self.home), "USER": "ann", "PATH": f"{self.folder / 'bin'}:{SYSTEM_PATH}"}
        own |= {"PIP_FIND_LINKS": str(self.wheels), "DO_NOT_TRACK": "1", "PACKHOUSE_LATENCY_S": "0.02"}
        return kept | own | OFFLINE | more

    def run(self, *command: str, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
        """Runs a program to its end.

        Args:
            command: A program of the environment or of the system, and its arguments.
            cwd: The current folder.
            more: Variables besides those of `variables`.
        """
        environment = self.variables(**more)
        program = shutil.which(command[0], path=environment["PATH"])
        assert program, command[0]
        return subprocess.run(
            [program, *command[1:]], cwd=cwd, env=environment, capture_output=True, text=True, check=False
        )


def make(folder: Path, wheel: Path, *extras: str) -> Environment:
    """An environment in `folder`, with the wheel and what it requires with these extras."""
    made = Environment(link(folder / ".venv", wheel, *extras), folder / "home", wheel.parent)
    made.home.mkdir()
    for command in (["install", "--quiet", f"{wheel}[{','.join(extras)}]" if extras else str(wheel)], ["check"]):
        done = made.run("pip", *command, cwd=folder)
        assert done.returncode == 0, done.stdout + done.stderr
    return made


def metadata(wheel: Path) -> Distribution:
    """What a wheel says of itself."""
    (found,) = (path for path in ZipPath(wheel).iterdir() if path.name.endswith(".dist-info"))
    return PathDistribution(found)


def required(package: Distribution, extras: tuple[str, ...] = ()) -> dict[str, Distribution]:
    """What a distribution requires with these extras, and what that requires, as it is installed here."""
    found: dict[tuple[str, str], Distribution] = {}
    waiting = [(package, extra) for extra in ("", *extras)]
    while waiting:
        asked, extra = waiting.pop()
        for requirement in map(Requirement, asked.requires or []):
            if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
                continue
            for key in ((requirement.name, each) for each in ("", *requirement.extras)):
                if key not in found:
                    found[key] = distribution(requirement.name)
                    waiting.append((found[key], key[1]))
    return {name: each for (name, _), each in found.items()}


def link(folder: Path, wheel: Path, *extras: str) -> Path:
    """A virtual environment at `folder` with all that the wheel requires with these extras, but not the wheel."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    for each in ({name: distribution(name) for name in BUILDS} | required(metadata(wheel), extras)).values():
        _link(each, Path(sys.prefix), folder)
    return folder


def _link(package: Distribution, prefix: Path, venv: Path) -> None:
    """Hard links where the file system has them. Programs of it get the new interpreter."""
    for file in package.files or []:
        source = Path(os.path.normpath(str(package.locate_file(file))))
        if not (source.is_relative_to(prefix) and source.is_file()):
            continue
        target = venv / source.relative_to(prefix)
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.parent == prefix / "bin":
            target.write_bytes(source.read_bytes().replace(str(prefix).encode(), str(venv).encode()))
            target.chmod(0o755)
        elif not target.exists():
            _linked(source, target)


def _linked(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError:  # another file system
        shutil.copy2(source, target)
