"""A system call filter for job children: what an export never needs is refused (Linux, x86-64 and aarch64).

A deny-list by number, because the allow-list of torch, its BLAS and the C library moves with each of their releases.
It takes away: starting programs and processes, sockets, looking into or signalling other processes, mounts and
namespaces, kernel interfaces with a history of holes (bpf, io_uring, userfaultfd, keyctl, perf), and changing owners,
modes and times of files, which Landlock does not cover. The answer is EPERM; a change of mode or time is answered
with success and not carried out. Calls that are newer than the list answer ENOSYS, which every C library expects and
handles; that also refuses the x32 numbers.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Collection
from enum import StrEnum

PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_SET_CHILD_SUBREAPER = 1, 22, 36
SECCOMP_MODE_FILTER = 2
CLONE_THREAD = 0x00010000
NEWEST_KNOWN_CALL = 462
INSTRUCTION_BYTES = 8

ALLOW, KILL = 0x7FFF0000, 0x80000000
REFUSE, ABSENT, PRETEND = 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS, 0x00050000
LOAD, EQUAL, ABOVE, ANY_BIT, RETURN = 0x20, 0x15, 0x25, 0x45, 0x06
AT_NUMBER, AT_ARCH, AT_FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data; the low half of the argument


class Group(StrEnum):
    """What belongs together, so that one purpose can be left out without the others."""

    PROGRAMS = "start programs"
    PROCESSES = "start processes"
    SOCKETS = "open sockets"
    SIGNALS = "signal other processes"
    ATTRIBUTES = "change owners and extended attributes, make symbolic links and nodes"
    MODES = "change modes and times"
    KERNEL = "look into other processes, mount, change the system, use interfaces with a history of holes"


# name: (x86-64, aarch64), None where the machine has no such call
DENIED: dict[Group, dict[str, tuple[int | None, int | None]]] = {
    Group.PROGRAMS: {"execve": (59, 221), "execveat": (322, 281), "uselib": (134, None)},
    Group.PROCESSES: {"fork": (57, None), "vfork": (58, None)},
    Group.SOCKETS: {
        "socket": (41, 198), "connect": (42, 203), "bind": (49, 200), "listen": (50, 201),
        "accept": (43, 202), "accept4": (288, 242),
    },
    Group.SIGNALS: {
        "tkill": (200, 130), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240),
        "pidfd_open": (434, 434), "pidfd_send_signal": (424, 424),
    },
    Group.ATTRIBUTES: {
        "chown": (92, None), "lchown": (94, None), "fchown": (93, 55), "fchownat": (260, 54),
        "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7),
        "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16),
        "mknod": (133, None), "mknodat": (259, 33), "symlink": (88, None), "symlinkat": (266, 36),
    },
    Group.MODES: {
        "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452),
        "utime": (132, None), "utimes": (235, None), "futimesat": (261, None), "utimensat": (280, 88),
    },
    Group.KERNEL: {
        "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
        "process_madvise": (440, 440), "kcmp": (312, 272), "pidfd_getfd": (438, 438),
        "mount": (165, 40), "umount2": (166, 39), "move_mount": (429, 429), "open_tree": (428, 428),
        "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433),
        "mount_setattr": (442, 442), "statmount": (457, 457), "listmount": (458, 458),
        "pivot_root": (155, 41), "chroot": (161, 51), "unshare": (272, 97), "setns": (308, 268),
        "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "fanotify_init": (300, 262),
        "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
        "keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218),
        "kexec_load": (246, 104), "kexec_file_load": (320, 294), "init_module": (175, 105),
        "finit_module": (313, 273), "delete_module": (176, 106), "reboot": (169, 142),
        "swapon": (167, 224), "swapoff": (168, 225), "acct": (163, 89), "syslog": (103, 116),
        "settimeofday": (164, 170), "clock_settime": (227, 112), "clock_adjtime": (305, 266), "adjtimex": (159, 171),
        "sethostname": (170, 161), "setdomainname": (171, 162), "quotactl": (179, 60), "quotactl_fd": (443, 443),
        "personality": (135, 92), "vhangup": (153, 58), "iopl": (172, None), "ioperm": (173, None),
        "modify_ldt": (154, None), "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265),
        "shmget": (29, 194), "shmat": (30, 196), "msgget": (68, 186), "semget": (64, 190), "mq_open": (240, 180),
    },
}  # fmt: skip
CLONE, CLONE3, KILL_CALL, TGKILL, PRCTL = (56, 220), (435, 435), (62, 129), (234, 131), (157, 167)
ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}


def supported() -> bool:
    return platform.machine() in ARCHITECTURES


def install(groups: Collection[Group]) -> None:
    """Refuse `groups` to this process and all it starts, for good. no_new_privs must be set before.

    Raises OSError where the kernel takes no filter.
    """
    code = program(groups, os.getpid(), platform.machine())
    buffer = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("HxxxxxxP", len(code) // INSTRUCTION_BYTES, ctypes.addressof(buffer))  # struct sock_fprog
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, header, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "the kernel takes no system call filter")


def program(groups: Collection[Group], pid: int, machine: str) -> bytes:
    """The filter as BPF code for the process `pid`, which stays free to signal itself."""
    column, arch = ARCHITECTURES[machine]
    code = _ops((LOAD, AT_ARCH), (EQUAL, arch, 1, 0), (RETURN, KILL), (LOAD, AT_NUMBER))
    code += _ops((ABOVE, NEWEST_KNOWN_CALL, 0, 1), (RETURN, ABSENT))
    for group in Group:
        if group in groups:
            numbers = (numbers[column] for numbers in DENIED[group].values())
            # libraries copy the mode of the file that they replace, and give up where they can not: let them think so
            end = PRETEND if group is Group.MODES else REFUSE
            code += b"".join(_ops((EQUAL, n, 0, 1), (RETURN, end)) for n in numbers if n is not None)
    if Group.PROCESSES in groups:
        # clone3 hides its flags in memory, where a filter can not look: C libraries fall back to clone
        code += _ops((EQUAL, CLONE3[column], 0, 1), (RETURN, ABSENT))
        code += _by_argument(CLONE[column], (ANY_BIT, CLONE_THREAD, 1, 0), (RETURN, REFUSE), (RETURN, ALLOW))
    if Group.SIGNALS in groups:
        itself = ((EQUAL, pid, 1, 0), (RETURN, REFUSE), (RETURN, ALLOW))
        code += _by_argument(TGKILL[column], *itself)
        code += _by_argument(KILL_CALL[column], (EQUAL, 0, 2, 0), *itself)
    dying = ((EQUAL, PR_SET_PDEATHSIG, 1, 0), (EQUAL, PR_SET_CHILD_SUBREAPER, 0, 1), (RETURN, REFUSE), (RETURN, ALLOW))
    return code + _by_argument(PRCTL[column], *dying) + _ops((RETURN, ALLOW))


def _by_argument(number: int, *rule: tuple[int, ...]) -> bytes:
    """`rule` decides on the first argument of call `number`; every path through it returns."""
    body = _ops((LOAD, AT_FIRST_ARGUMENT), *rule)
    return _ops((EQUAL, number, 0, len(body) // INSTRUCTION_BYTES)) + body


def _ops(*ops: tuple[int, ...]) -> bytes:
    """(code, constant[, jump if true, jump if false]) as struct sock_filter."""
    return b"".join(struct.pack("HBBI", code, *(jumps or (0, 0)), value) for code, value, *jumps in ops)
