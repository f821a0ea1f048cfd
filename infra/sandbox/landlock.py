"""Landlock: the kernel's own file rules for an unprivileged process (Linux 5.13 and newer).

Once `restrict` has returned, this process and all it starts can open only what the rules name. Symbolic links,
device nodes, pipes and sockets can not be made at all, so that whoever reads the folder afterwards meets plain files.
Landlock does not cover chmod, chown, extended attributes, times and connect() to a socket's path: seccomp.py does.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntFlag
from pathlib import Path

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # the same numbers on every architecture
RULE_PATH_BENEATH, GET_VERSION = 1, 1
NET_TCP = 0b11  # bind, connect
SCOPE_ABSTRACT_SOCKETS_AND_SIGNALS = 0b11


class Access(IntFlag):
    """LANDLOCK_ACCESS_FS_*; the comment is the first version of the interface that has it."""

    EXECUTE = 1 << 0  # 1
    WRITE_FILE = 1 << 1
    READ_FILE = 1 << 2
    READ_DIR = 1 << 3
    REMOVE_DIR = 1 << 4
    REMOVE_FILE = 1 << 5
    MAKE_CHAR = 1 << 6
    MAKE_DIR = 1 << 7
    MAKE_REG = 1 << 8
    MAKE_SOCK = 1 << 9
    MAKE_FIFO = 1 << 10
    MAKE_BLOCK = 1 << 11
    MAKE_SYM = 1 << 12
    REFER = 1 << 13  # 2: rename and link across folders
    TRUNCATE = 1 << 14  # 3
    IOCTL_DEV = 1 << 15  # 5


READ = Access.READ_FILE | Access.READ_DIR
WRITE = (
    Access.WRITE_FILE | Access.REMOVE_DIR | Access.REMOVE_FILE | Access.MAKE_DIR | Access.MAKE_REG
    | Access.REFER | Access.TRUNCATE
)  # fmt: skip
NODES = Access.MAKE_CHAR | Access.MAKE_SOCK | Access.MAKE_FIFO | Access.MAKE_BLOCK | Access.MAKE_SYM
ON_A_FILE = Access.EXECUTE | Access.WRITE_FILE | Access.READ_FILE | Access.TRUNCATE | Access.IOCTL_DEV


@dataclass(frozen=True)
class Rule:
    """What may be done at `path` and, for a folder, below it."""

    path: Path
    access: Access


def version() -> int:
    """The kernel's Landlock interface, 0 where there is none (not built in, not switched on, or filtered away)."""
    return max(0, int(_libc().syscall(CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint(GET_VERSION))))


def restrict(handled: Access, rules: Iterable[Rule], *, tcp: bool, scoped: bool) -> None:
    """From here on each access in `handled` needs a rule. Needs no_new_privs. Rules on missing paths are left out.

    tcp: leave TCP open, else it is cut where the kernel can (version 4). scoped: cut signals to and abstract sockets
    of processes outside (version 6). Raises OSError where the kernel refuses.
    """
    abi = version()
    handled &= _known(abi)
    ruleset = _call(CREATE_RULESET, *_attribute(handled, abi, tcp=tcp, scoped=scoped), 0)
    try:
        for rule in rules:
            _add(ruleset, rule, handled)
        _call(RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _add(ruleset: int, rule: Rule, handled: Access) -> None:
    try:
        handle = os.open(rule.path, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, PermissionError, NotADirectoryError):
        return  # what is not there, or can not be reached, needs no permission
    try:
        allowed = rule.access & handled
        if not rule.path.is_dir():
            allowed &= ON_A_FILE
        if allowed:
            attribute = struct.pack("=Qi", allowed, handle)
            _call(ADD_RULE, ruleset, RULE_PATH_BENEATH, attribute, 0)
    finally:
        os.close(handle)


def _known(abi: int) -> Access:
    """The rights that interface `abi` knows; it refuses a ruleset that names others."""
    newer = {1: Access(0), 2: Access.REFER, 3: Access.TRUNCATE, 5: Access.IOCTL_DEV}
    first = ~(Access.REFER | Access.TRUNCATE | Access.IOCTL_DEV)
    return first | Access(sum(right for since, right in newer.items() if since <= abi))


def _attribute(handled: Access, abi: int, *, tcp: bool, scoped: bool) -> tuple[bytes, int]:
    """struct landlock_ruleset_attr and its size, which grew with the versions."""
    size = 8 if abi < 4 else 16 if abi < 6 else 24
    net, scope = 0 if tcp else NET_TCP, SCOPE_ABSTRACT_SOCKETS_AND_SIGNALS if scoped else 0
    return struct.pack("=QQQ", handled, net, scope)[:size], size


def _call(number: int, *arguments: int | bytes) -> int:
    values = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result = int(_libc().syscall(ctypes.c_long(number), *values))
    if result < 0:
        raise OSError(ctypes.get_errno(), f"landlock call {number}: {os.strerror(ctypes.get_errno())}")
    return result


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
