"""The measures that confine a job child, each best effort; what is in force is returned, so that a report can say it.

Order matters: the network goes in the server, once, while it still may; in the child no_new_privs first (Landlock and
seccomp need it), then files, then capabilities, and the system call filter last because it forbids the earlier steps.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Collection, Iterable
from enum import StrEnum
from pathlib import Path

from infra.sandbox import landlock, seccomp
from infra.sandbox.landlock import NODES, READ, WRITE, Access, Rule
from infra.sandbox.seccomp import Group

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
PR_SET_NO_NEW_PRIVS, PR_CAPBSET_DROP, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 38, 24, 47, 4
LINUX_CAPABILITY_VERSION_3, CAPABILITY_BITS = 0x20080522, 64


class Measure(StrEnum):
    """In the order in which reports name them."""

    NO_NEW_PRIVILEGES = "no new privileges"
    NO_NETWORK = "no network"
    NO_CAPABILITIES = "no capabilities"
    READS_CONFINED = "reads confined"
    WRITES_CONFINED = "writes confined"
    NO_EXEC = "no exec"
    NO_PROCESSES = "no processes"
    SIGNALS_CONFINED = "signals confined"
    CALLS_FILTERED = "system calls filtered"


SYSTEM_FOLDERS = ("/usr", "/lib", "/lib64", "/sys/devices/system", "/sys/fs/cgroup", "/proc/sys/vm", "/proc/self")
SYSTEM_FILES = (
    "/etc/ld.so.cache", "/etc/localtime", "/etc/timezone", "/etc/passwd", "/etc/group", "/etc/nsswitch.conf",
    "/etc/os-release", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/filesystems", "/proc/version",
    "/dev/zero", "/dev/random", "/dev/urandom",
)  # fmt: skip
BY_FILTER = {
    Measure.NO_EXEC: (Group.PROGRAMS,),
    Measure.NO_PROCESSES: (Group.PROCESSES,),
    Measure.NO_NETWORK: (Group.SOCKETS,),
    Measure.SIGNALS_CONFINED: (Group.SIGNALS,),
    Measure.WRITES_CONFINED: (Group.ATTRIBUTES, Group.MODES),
    Measure.CALLS_FILTERED: (Group.KERNEL,),
}
ACCELERATOR = ("/proc/driver/nvidia", "/proc/devices", "/sys/bus/pci", "/sys/module/nvidia", "/sys/class/drm")


def cut_network() -> bool:
    """An own, empty network for this process and all its children. As root directly, else through a user namespace."""
    if _libc().unshare(CLONE_NEWNET) == 0:
        return True
    user, group = os.getuid(), os.getgid()
    if _libc().unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0:
        return False
    for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        try:
            Path(f"/proc/self/{name}").write_text(text)
        except OSError as error:  # AppArmor may forbid it; files keep their owner, only the displayed user changes
            print(f"lockdown: {name}: {error}", file=sys.stderr)  # noqa: T201 - the server's log
    return True


def confine(
    workdir: Path, *, readable: Iterable[Path], code: Collection[Path], omit: Collection[Measure], cuda: bool
) -> set[Measure]:
    """Lock this process down for good; returns the measures now in force.

    workdir: the one folder it may write to. readable: files and folders it may read besides the system's and
    Python's own. code: folders whose packages are being imported. omit: measures to leave out.
    """
    rules = [*_reading(readable, code, cuda), *_writing(workdir, cuda)]
    inside = _attempt(_no_new_privileges) | _attempt(lambda: _confine_files(rules, omit))
    inside |= _attempt(lambda: _drop_capabilities(omit))
    return inside | _attempt(lambda: _filter_calls(omit))


def _attempt(step: Callable[[], set[Measure]]) -> set[Measure]:
    """Best effort: a host without the means leaves the measure out of the list, where `require` sees it missing."""
    try:
        return step()
    except OSError as error:
        print(f"lockdown: {error}", file=sys.stderr)  # noqa: T201 - the job's log
        return set()


def _no_new_privileges() -> set[Measure]:
    if _libc().prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "no_new_privs")
    return {Measure.NO_NEW_PRIVILEGES}


def _confine_files(rules: Iterable[Rule], omit: Collection[Measure]) -> set[Measure]:
    abi = landlock.version()
    if not abi:
        return set()
    handled = Access(0)
    wanted = {Measure.READS_CONFINED: READ, Measure.WRITES_CONFINED: WRITE | NODES, Measure.NO_EXEC: Access.EXECUTE}
    for measure in wanted.keys() - set(omit):
        handled |= wanted[measure]
    if not handled:
        return set()
    scoped = abi >= 6 and Measure.SIGNALS_CONFINED not in omit
    landlock.restrict(handled, rules, scoped=scoped, tcp=Measure.NO_NETWORK in omit)
    return (wanted.keys() - set(omit)) | ({Measure.SIGNALS_CONFINED} if scoped else set())


def _drop_capabilities(omit: Collection[Measure]) -> set[Measure]:
    if Measure.NO_CAPABILITIES in omit:
        return set()
    libc = _libc()
    for capability in range(CAPABILITY_BITS):
        # refused past the kernel's last one, and without CAP_SETPCAP, where there is nothing to drop
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    header, nothing = (ctypes.c_uint32 * 2)(LINUX_CAPABILITY_VERSION_3, 0), (ctypes.c_uint32 * 6)()
    if libc.capset(header, nothing) != 0:
        raise OSError(ctypes.get_errno(), "capset")
    return {Measure.NO_CAPABILITIES}


def _filter_calls(omit: Collection[Measure]) -> set[Measure]:
    wanted = {measure: groups for measure, groups in BY_FILTER.items() if measure not in omit}
    if not wanted or not seccomp.supported():
        return set()
    seccomp.install({group for groups in wanted.values() for group in groups})
    return wanted.keys() - {Measure.WRITES_CONFINED}  # the filter only completes what Landlock does


def _reading(readable: Iterable[Path], code: Collection[Path], cuda: bool) -> Iterable[Rule]:
    path = [Path(entry) for entry in sys.path if entry]
    # what is installed is readable; the repository is on the path too, and of that only the job's own packages are
    installed = [entry for entry in path if not any(package.is_relative_to(entry) for package in code)]
    python = [Path(sys.prefix), Path(sys.base_prefix), *installed]
    system = [Path(name) for name in (*SYSTEM_FOLDERS, *SYSTEM_FILES, *(ACCELERATOR if cuda else ()))]
    yield from (Rule(place, READ) for place in (*system, *python, *code, *readable))
    # the import system lists every folder on the path; names are harmless where contents stay closed
    yield from (Rule(entry, Access.READ_DIR) for entry in path)


def _writing(workdir: Path, cuda: bool) -> Iterable[Rule]:
    yield Rule(workdir, READ | WRITE)
    yield Rule(Path("/dev/null"), Access.READ_FILE | Access.WRITE_FILE | Access.TRUNCATE)
    if cuda:
        yield from (Rule(node, Access.READ_FILE | Access.WRITE_FILE) for node in Path("/dev").glob("nvidia*"))


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
