"""A Docker engine of our own on private paths, beside whatever engine the machine has; and a base image for it.

It has no network of its own: containers have none or the host's, and the host's firewall stays as it is.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.servers.chroot import mirror
from tests.servers.place import CannotRunError, Server, installed, must_run, running, wait_until

PROGRAMS = ("dockerd", "docker", "nsenter", "unshare", "iptables")
START_S = 120
BASE_PACKAGES = ("python3-minimal", "libpython3-stdlib", "python3-venv", "ca-certificates", "tini")
USELESS = (
    "var/cache/apt", "var/lib/apt/lists", "var/log", "var/cache/ldconfig/aux-cache", "etc/machine-id", "etc/hostname",
    "etc/resolv.conf", "usr/share/doc", "usr/share/man", "usr/share/info", "usr/share/locale",
)  # fmt: skip


@dataclass(frozen=True)
class Engine:
    """url: for DOCKER_HOST. folder: where all of it lies."""

    url: str
    folder: Path
    server: Server

    def docker(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["docker", *words], env=os.environ | {"DOCKER_HOST": self.url}, capture_output=True, text=True, check=check
        )


@contextmanager
def engine(folder: Path, *, isolated: bool = False) -> Iterator[Engine]:
    """isolated: the engine itself has an empty network, so that it reaches no registry, on loopback neither. Its mounts
    are its own too, and vanish with it.

    Raises CannotRunError: no root, not installed, or this kernel does not let it."""
    if os.geteuid() != 0:
        raise CannotRunError("a Docker engine needs root")
    if missing := [name for name in PROGRAMS if shutil.which(name) is None]:
        raise CannotRunError(f"no {missing[0]}: apt-get install docker.io iptables")
    socket = folder / "docker.sock"
    command = [
        "dockerd", "--data-root", folder / "root", "--exec-root", folder / "exec", "--pidfile", folder / "docker.pid",
        "--host", f"unix://{socket}", "--bridge=none", "--iptables=false", "--ip-forward=false", "--ip-masq=false",
        "--insecure-registry", "127.0.0.0/8",
    ]  # fmt: skip
    if isolated:
        command = ["unshare", "--net", "--mount", *command]
    with running(command, log=folder / "dockerd.log", grace_s=30) as server:
        found = Engine(f"unix://{socket}", folder, server)
        ready = lambda: socket.exists() and found.docker("version", check=False).returncode == 0  # noqa: E731
        wait_until(ready, what="dockerd", server=server, timeout_s=START_S)
        yield found


def base_tar() -> Path:
    """A Debian with Python, as a tar of the root file system; cached. What a user takes from a public registry."""
    if os.geteuid() != 0 or shutil.which("debootstrap") is None:
        raise CannotRunError("a base image needs root and debootstrap: apt-get install debootstrap")
    return installed("base", _make_base) / "rootfs.tar"


def _make_base(folder: Path) -> None:
    tree = folder / "tree"
    include = f"--include={','.join(BASE_PACKAGES)}"
    must_run(
        ["debootstrap", "--variant=minbase", include, "bookworm", tree, mirror()], why="debootstrap", timeout_s=900
    )
    for name in USELESS:
        _remove(tree / name)
    for cache in list(tree.rglob("__pycache__")):
        shutil.rmtree(cache)
    for empty in ("run", "tmp", "dev"):
        for path in (tree / empty).iterdir():
            _remove(path)
    pack = ["tar", "--sort=name", "--mtime=@1735689600", "--numeric-owner", "--format=gnu", "-C", tree]
    must_run([*pack, "-cf", folder / "rootfs.tar", "."], why="tar of the base", timeout_s=300)
    shutil.rmtree(tree)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def as_image(found: Engine, name: str) -> str:
    """The base, imported: its id."""
    return found.docker("import", str(base_tar()), name).stdout.strip()
