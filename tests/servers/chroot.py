"""A Debian sid tree that holds Ceph, made by debootstrap, and a way to run its programs.

Programs run in a mount namespace of their own: /dev and /proc are mounted for them alone and vanish with the last of
them, so that nothing has to be unmounted, whatever was killed when.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tests.servers.place import CannotRunError, installed, must_run

PACKAGES = ("radosgw", "ceph-mon", "ceph-osd")
_MOUNT_AND_ENTER = 'mount --bind /dev "$0/dev" && mount -t proc proc "$0/proc" && exec chroot "$0" "$@"'


def ceph_tree() -> Path:
    """The tree, cached. Raises CannotRunError: not root, no debootstrap, no network."""
    if os.geteuid() != 0:
        raise CannotRunError("Ceph needs root: its Debian packages are started in a chroot")
    if shutil.which("debootstrap") is None:
        raise CannotRunError("Ceph needs debootstrap: apt-get install debootstrap")
    return installed("ceph", _install)


def inside(tree: Path, *command: str) -> list[str]:
    """The command line that runs `command` inside the tree."""
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", _MOUNT_AND_ENTER, str(tree), *command]


def _install(tree: Path) -> None:
    must_run(
        ["debootstrap", "--variant=minbase", "sid", tree, mirror()],
        why="debootstrap of Debian sid",
        timeout_s=600,
    )
    shutil.copy("/etc/resolv.conf", tree / "etc/resolv.conf")
    no_services = tree / "usr/sbin/policy-rc.d"
    no_services.write_text("#!/bin/sh\nexit 101\n")
    no_services.chmod(0o755)
    # A torn installation is thrown away whole, so dpkg need not wait for the disk after each file.
    (tree / "etc/dpkg/dpkg.cfg.d/fast").write_text("force-unsafe-io\n")
    install = ["apt-get", "install", "-y", "--no-install-recommends", *PACKAGES]
    must_run(
        inside(tree, "env", "DEBIAN_FRONTEND=noninteractive", *install),
        why="installing Ceph in the sid tree",
        timeout_s=600,
    )
    shutil.rmtree(tree / "var/cache/apt/archives", ignore_errors=True)


def mirror() -> str:
    """The Debian mirror that this machine's apt uses."""
    command = ["apt-get", "indextargets", "--format", "$(ORIGIN) $(LABEL) $(REPO_URI)", "Created-By: Packages"]
    lines = must_run(command, why="asking apt for its mirror", timeout_s=30).splitlines()
    found = [line.split()[-1] for line in lines if line.startswith("Debian Debian ")]
    if not found:
        raise CannotRunError("apt knows no Debian mirror: run apt-get update first")
    return found[0]
