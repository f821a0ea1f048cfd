"""What the images are built from: a base, wheels and a build context. Base and wheels are kept between runs."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from infra.deploy import wheels
from tests.servers.engine import base_tar
from tests.servers.place import cache

ROOT = Path(__file__).resolve().parents[2]
DOCKERIGNORE = ROOT / ".dockerignore"
PROGRAMS = {
    "dockerd": "docker.io",
    "docker": "docker.io",
    "iptables": "iptables",
    "debootstrap": "debootstrap",
    "apt-get": "apt",
    "setpriv": "util-linux",
    "unshare": "util-linux",
}
"""The Debian package of each program that a check needs."""
BASE_PYTHON = (3, 11)
"""Debian 12's. Wheels are for one minor version of Python, so the environment that fetches them needs the same."""
PACKAGES: Mapping[wheels.Kind, Sequence[str]] = {
    # The architectures of the model that is released, and what Python 3.11.2 of Debian 12 lacks.
    wheels.Kind.CPU: (str(ROOT / "examples"), "async-timeout"),
    wheels.Kind.SERVING_CPU: (),
}
INPUTS = ("pyproject.toml", "constraints.txt", "infra/deploy/wheels.py", "examples")
"""What decides which wheels are fetched: a change of one of these fetches them anew."""


def lacking(
    *,
    user: int | None = None,
    which: Callable[[str], str | None] = shutil.which,
    python: tuple[int, int] = sys.version_info[:2],
) -> list[str]:
    """What this machine lacks, and for each the next step."""
    user = os.geteuid() if user is None else user
    found = [] if user == 0 else ["root rights: debootstrap and the engine need them; run it as root, such as by sudo"]
    packages = {PROGRAMS[name] for name in PROGRAMS if which(name) is None}
    if packages:
        names = ", ".join(name for name in PROGRAMS if which(name) is None)
        found.append(f"{names}: apt-get install {' '.join(sorted(packages))}")
    if python != BASE_PYTHON:
        want = ".".join(map(str, BASE_PYTHON))
        found.append(f"Python {want} in .venv, as Debian 12 has it: rm -r .venv; make images-check PYTHON=python{want}")
    return found


def wheelhouse(kind: wheels.Kind) -> Path:
    """The folder of the wheels, fetched unless it is of today's inputs. Raises Unavailable: pip could not get them."""
    place, key = _place(kind), inputs_digest()
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _is_of(place, key):
            shutil.rmtree(place, ignore_errors=True)
            wheels.fetch(kind, place, PACKAGES[kind])
            (place / "inputs").write_text(key)
    return place


def kept() -> bool:
    """Whether base and wheels are here already, so that no network is needed."""
    key = inputs_digest()
    return (cache() / "base" / "rootfs.tar").is_file() and all(_is_of(_place(kind), key) for kind in PACKAGES)


def _place(kind: wheels.Kind) -> Path:
    return cache() / "images" / str(kind)


def _is_of(place: Path, key: str) -> bool:
    stamp = place / "inputs"
    return stamp.is_file() and stamp.read_text() == key


def inputs_digest(root: Path = ROOT) -> str:
    digest = hashlib.sha256()
    for name in INPUTS:
        path = root / name
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            if file.is_file() and file.suffix in (".py", ".toml", ".txt"):
                digest.update(f"{file.relative_to(root)}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()


def taken() -> list[str]:
    """What .dockerignore lets into a build."""
    lines = DOCKERIGNORE.read_text().splitlines()
    return [line.removeprefix("!") for line in lines if line.startswith("!")]


def context(folder: Path, wheelhouses: Mapping[wheels.Kind, Path]) -> Path:
    """A folder to build in, as a fresh clone after `make wheels` and `make serving-wheels`: it has these wheels only,
    whatever else lies in the repository's own `wheels`."""
    folder.mkdir()
    for name in (".dockerignore", "Dockerfile.worker", *taken()):
        if (ROOT / name).is_dir() and name != "wheels":
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif name != "wheels":
            shutil.copy(ROOT / name, folder / name)
    for kind, place in wheelhouses.items():
        shutil.copytree(place, folder / "wheels" / kind, copy_function=_link)
    return folder


def _link(source: str, target: str) -> str:
    """Half a gigabyte of wheels is not copied where one file system holds both."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy(source, target)
    return target


__all__ = ["base_tar", "context", "inputs_digest", "kept", "lacking", "taken", "wheelhouse"]
