"""The system call filter, run in a small interpreter of its own: what it refuses, for each machine it knows."""

from __future__ import annotations

import struct

import pytest

from infra.sandbox import seccomp
from infra.sandbox.landlock import Access, _attribute, _known
from infra.sandbox.seccomp import ABSENT, ALLOW, DENIED, KILL, PRETEND, REFUSE, Group, program

PID = 4242
MACHINES = {"x86_64": 0, "aarch64": 1}


def decide(code, arch, number, first_argument=0):
    """Run the BPF program as the kernel would; its answer."""
    data = {seccomp.AT_NUMBER: number, seccomp.AT_ARCH: arch, seccomp.AT_FIRST_ARGUMENT: first_argument & 0xFFFFFFFF}
    tests = {
        seccomp.EQUAL: lambda a, k: a == k,
        seccomp.ABOVE: lambda a, k: a > k,
        seccomp.ANY_BIT: lambda a, k: bool(a & k),
    }
    at, accumulator = 0, 0
    while True:
        operation, true, false, value = struct.unpack_from("HBBI", code, at * 8)
        at += 1
        if operation == seccomp.RETURN:
            return value
        if operation == seccomp.LOAD:
            accumulator = data[value]
        else:
            at += true if tests[operation](accumulator, value) else false


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("group", Group)
def test_each_group_refuses_its_calls_and_leaves_the_others_open(machine, group):
    column, arch = seccomp.ARCHITECTURES[machine]
    code = program([group], PID, machine)
    for other, calls in DENIED.items():
        want = ALLOW if other is not group else PRETEND if group is Group.MODES else REFUSE
        for name, numbers in calls.items():
            if numbers[column] is not None:
                assert decide(code, arch, numbers[column]) == want, name


@pytest.mark.parametrize("machine", MACHINES)
def test_threads_may_start_and_processes_may_not(machine):
    column, arch = seccomp.ARCHITECTURES[machine]
    code, clone, clone3 = program(list(Group), PID, machine), (56, 220)[column], 435
    assert decide(code, arch, clone, 0x3D0F00) == ALLOW  # what the C library passes for a thread
    assert decide(code, arch, clone, 0x1200011) == REFUSE  # and for fork
    assert decide(code, arch, clone3) == ABSENT


@pytest.mark.parametrize("machine", MACHINES)
def test_a_process_may_signal_itself_and_nobody_else(machine):
    column, arch = seccomp.ARCHITECTURES[machine]
    code, kill, tgkill = program(list(Group), PID, machine), (62, 129)[column], (234, 131)[column]
    assert [decide(code, arch, kill, pid) for pid in (PID, 0, 1, -1)] == [ALLOW, ALLOW, REFUSE, REFUSE]
    assert [decide(code, arch, tgkill, pid) for pid in (PID, 0, 1)] == [ALLOW, REFUSE, REFUSE]


@pytest.mark.parametrize("machine", MACHINES)
def test_a_process_may_not_take_back_that_it_dies_with_the_server(machine):
    column, arch = seccomp.ARCHITECTURES[machine]
    code, prctl = program([], PID, machine), (157, 167)[column]
    assert [decide(code, arch, prctl, option) for option in (1, 36, 15)] == [REFUSE, REFUSE, ALLOW]


@pytest.mark.parametrize("machine", MACHINES)
def test_another_calling_convention_ends_the_process_and_unknown_calls_are_absent(machine):
    _, arch = seccomp.ARCHITECTURES[machine]
    code = program(list(Group), PID, machine)
    assert decide(code, 0x40000003, 11) == KILL  # 32-bit x86
    assert decide(code, arch, 0x40000000 + 59) == ABSENT  # x32 execve
    assert decide(code, arch, 463) == ABSENT
    assert decide(code, arch, 0) == ALLOW


def test_a_kernel_is_asked_only_for_what_its_landlock_knows():
    newer = Access.REFER | Access.TRUNCATE | Access.IOCTL_DEV
    assert [_known(abi) & newer for abi in (1, 2, 3, 4, 5, 7)] == [
        0, Access.REFER, Access.REFER | Access.TRUNCATE, Access.REFER | Access.TRUNCATE, newer, newer,
    ]  # fmt: skip
    assert [_attribute(Access(1), abi, tcp=False, scoped=True)[1] for abi in (1, 3, 4, 5, 6, 7)] == [
        8, 8, 16, 16, 24, 24,
    ]  # fmt: skip
