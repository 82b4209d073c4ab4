"""What a child that parses may do: read files, compute within limits, and nothing else.

Linux on x86-64 and arm64; elsewhere only the limits of the C library hold. Numbers are those of the kernel's system
call tables, the filter is a classic BPF program (man 2 seccomp).
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import resource
import signal
import struct
import sys
from pathlib import Path

_ALLOW, _KILL = 0x7FFF0000, 0x80000000
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ARGUMENT = (16, 24, 32)  # offsets of the low halves of the arguments in struct seccomp_data
_CLONE_THREAD = 0x10000
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
# network, other programs, other processes, limits, io_uring and bpf, and every change of a file system
_X86_64 = (
    41, 42, 44, 46, 49, 50, 53, 57, 58, 59, 62, 76, 77, 82, 83, 84, 85, 86, 87, 88, 90, 91, 92, 93, 94, 101, 133, 160,
    165, 200, 234, 258, 259, 260, 263, 264, 265, 266, 268, 272, 302, 307, 310, 311, 316, 321, 322, 424, 425, 437, 438,
)  # fmt: skip
_ARM64 = (
    198, 199, 200, 201, 203, 206, 211, 269, 221, 129, 130, 131, 45, 46, 33, 34, 35, 36, 37, 38, 40, 52, 53, 54, 55, 97,
    117, 164, 261, 270, 271, 276, 280, 281, 424, 425, 437, 438,
)  # fmt: skip
_CLONE3 = 435
# architecture, calls that are refused, clone, and the calls that open a file with the argument that says how
_MACHINES: dict[str, tuple[int, tuple[int, ...], int, tuple[tuple[int, int], ...]]] = {
    "x86_64": (0xC000003E, _X86_64, 56, ((257, 2), (2, 1))),
    "aarch64": (0xC00000B7, _ARM64, 220, ((56, 2),)),
}


def enter(memory_bytes: int, cpu_s: int) -> None:
    """Give up everything but reading and computing; ``memory_bytes`` more than this process has mapped now."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
    limit(resource.RLIMIT_AS, _mapped_bytes() + memory_bytes)
    limit(resource.RLIMIT_CPU, cpu_s)
    limit(resource.RLIMIT_FSIZE, 0)
    limit(resource.RLIMIT_CORE, 0)
    limit(resource.RLIMIT_NOFILE, 64)
    if (program := filter_for(platform.machine())) is not None and sys.platform == "linux":
        _install(program)


def limit(what: int, value: int) -> None:
    """Lower a limit for good."""
    hard = resource.getrlimit(what)[1]
    most = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(what, (most, most))


def filter_for(machine: str) -> bytes | None:
    """The BPF program; None where the machine's system calls are not known."""
    if machine not in _MACHINES:
        return None
    arch, denied, clone, opens = _MACHINES[machine]
    refuse = 0x00050000 | errno.EPERM
    code = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, arch), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, 0)]
    code += [(_AT_LEAST, 0, 1, 0x40000000), (_RETURN, 0, 0, refuse)]  # the x32 names of the same calls
    for number in denied:
        code += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, refuse)]
    code += [(_EQUAL, 0, 1, _CLONE3), (_RETURN, 0, 0, 0x00050000 | errno.ENOSYS)]  # the C library falls back to clone
    code += [(_EQUAL, 0, 4, clone), (_LOAD, 0, 0, _ARGUMENT[0]), (_ANY_BIT, 1, 0, _CLONE_THREAD)]
    code += [(_RETURN, 0, 0, refuse), (_RETURN, 0, 0, _ALLOW)]
    for number, argument in opens:
        code += [(_EQUAL, 0, 4, number), (_LOAD, 0, 0, _ARGUMENT[argument]), (_ANY_BIT, 0, 1, _WRITES)]
        code += [(_RETURN, 0, 0, refuse), (_RETURN, 0, 0, _ALLOW)]
    code.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("HBBI", *instruction) for instruction in code)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def _install(program: bytes) -> None:
    buffer = ctypes.create_string_buffer(program, len(program))
    given = _Program(len(program) // 8, ctypes.cast(buffer, ctypes.c_void_p))
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in ((38, 1, 0, 0, 0), (22, 2, ctypes.byref(given), 0, 0)):  # no new privileges, then the filter
        if libc.prctl(*arguments) != 0:
            raise OSError(ctypes.get_errno(), "the system call filter cannot be installed")


def _mapped_bytes() -> int:
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except OSError:
        return 1 << 30
