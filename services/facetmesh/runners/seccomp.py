"""A filter of system calls that a child installs for good: no network, no processes, no writing, no kernel toys.

What it denies is a list, because what native libraries need is not ours to say;
what the list cannot see, such as which file is read, is Landlock's (landlock.py).
Denied calls fail with EPERM, so that code which can do without goes on.

Source: seccomp(2), filter.rst of the kernel's documentation. libseccomp has no
maintained Python binding on PyPI; what is needed of it is a table and 60 lines.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# linux/prctl.h, linux/seccomp.h, linux/audit.h, linux/bpf_common.h
_PR_SET_SECCOMP, _PR_GET_SECCOMP, _MODE_FILTER = 22, 21, 2
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_LOAD, _JUMP_EQUAL, _JUMP_GREATER_EQUAL, _JUMP_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
# struct seccomp_data: nr, arch, instruction pointer, six arguments of 64 bits
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16
_X32 = 0x40000000
_CLONE_THREAD = 0x00010000
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

_ARCHES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
# Name: numbers on x86_64 and on aarch64, from the kernel's unistd headers; None where there is no such call.
_DENIED: Mapping[str, tuple[int | None, int | None]] = {
    # the network, and anything that another process listens on
    "socket": (41, 198), "socketpair": (53, 199), "connect": (42, 203), "bind": (49, 200), "listen": (50, 201),
    "accept": (43, 202), "accept4": (288, 242), "mq_open": (240, 180), "shmget": (29, 194), "msgget": (68, 186),
    "semget": (64, 190),
    # processes, their own or others'; threads are `clone`, below
    "fork": (57, None), "vfork": (58, None), "execve": (59, 221), "execveat": (322, 281), "ptrace": (101, 117),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "process_madvise": (440, 440),
    "process_mrelease": (448, 448), "pidfd_open": (434, 434), "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424), "tkill": (200, 130), "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240), "kcmp": (312, 272), "setpriority": (141, 140),
    # what Landlock leaves of writing, and all of it where there is no Landlock
    "creat": (85, None), "truncate": (76, 45), "mkdir": (83, None), "mkdirat": (258, 34), "mknod": (133, None),
    "mknodat": (259, 33), "rmdir": (84, None), "unlink": (87, None), "unlinkat": (263, 35), "rename": (82, None),
    "renameat": (264, 38), "renameat2": (316, 276), "link": (86, None), "linkat": (265, 37), "symlink": (88, None),
    "symlinkat": (266, 36), "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "chown": (92, None),
    "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54), "utime": (132, None), "utimes": (235, None),
    "utimensat": (280, 88), "futimesat": (261, None), "setxattr": (188, 5), "lsetxattr": (189, 6),
    "fsetxattr": (190, 7), "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16),
    # mounts and namespaces
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "unshare": (272, 97),
    "setns": (308, 268), "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433),
    "move_mount": (429, 429), "open_tree": (428, 428), "mount_setattr": (442, 442),
    "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265),
    # parts of the kernel with a history of holes, and the machine's administration
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "keyctl": (250, 219),
    "add_key": (248, 217), "request_key": (249, 218), "personality": (135, 92), "init_module": (175, 105),
    "finit_module": (313, 273), "delete_module": (176, 106), "kexec_load": (246, 104), "kexec_file_load": (320, 294),
    "reboot": (169, 142), "swapon": (167, 224), "swapoff": (168, 225), "quotactl": (179, 60), "syslog": (103, 116),
    "settimeofday": (164, 170), "clock_settime": (227, 112), "clock_adjtime": (305, 266), "adjtimex": (159, 171),
    "sethostname": (170, 161), "setdomainname": (171, 162), "ioperm": (173, None), "iopl": (172, None),
    "vhangup": (153, 58), "memfd_secret": (447, 447),
}  # fmt: skip
# Their arguments lie in memory, where a filter cannot look: C libraries fall back to the older calls.
_ABSENT: Mapping[str, tuple[int | None, int | None]] = {
    "clone3": (435, 435), "openat2": (437, 437), "fchmodat2": (452, 452), "setxattrat": (463, 463),
    "removexattrat": (466, 466), "io_uring_setup": (425, 425), "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
}  # fmt: skip
_CLONE, _OPEN, _OPENAT = (56, 220), (2, None), (257, 56)
# Whose first argument is a process: only oneself.
_ONESELF = {"kill": (62, 129), "tgkill": (234, 131)}
_PRLIMIT = (302, 261)


def available() -> bool:
    """Whether this kernel and machine have it."""
    return platform.machine() in _ARCHES and ctypes.CDLL(None).prctl(_PR_GET_SECCOMP, 0, 0, 0, 0) >= 0


def install(*, devices: bool = False) -> None:
    """Puts the filter over this thread and all that it starts; it stays.

    `no_new_privs` must be set. To be called while there is one thread.

    Args:
        devices: Allows files to be opened for writing, as a GPU's driver must:
            which ones is Landlock's to say.

    Raises:
        OSError: The kernel refused.
    """
    code = program(os.getpid(), platform.machine(), devices=devices)
    buffer = ctypes.create_string_buffer(code, len(code))

    class _Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))

    libc = ctypes.CDLL(None, use_errno=True)
    argument = _Program(len(code) // 8, ctypes.addressof(buffer))
    if libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(argument), 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "seccomp refused")


def program(pid: int, machine: str, *, devices: bool = False) -> bytes:
    """The filter in classic BPF.

    Args:
        pid: The only process that may be signalled.
        machine: x86_64 or aarch64.
        devices: As for `install`.
    """
    column = list(_ARCHES).index(machine)
    code = [_step(_LOAD, _ARCH), _step(_JUMP_EQUAL, _ARCHES[machine], 1, 0), _step(_RETURN, _KILL)]
    code += [_step(_LOAD, _NUMBER)]
    if machine == "x86_64":
        # Another numbering of the same calls.
        code += [_step(_JUMP_GREATER_EQUAL, _X32, 0, 1), _fail(errno.ENOSYS)]
    for number in _column(_DENIED.values(), column):
        code += [_step(_JUMP_EQUAL, number, 0, 1), _fail(errno.EPERM)]
    for number in _column(_ABSENT.values(), column):
        code += [_step(_JUMP_EQUAL, number, 0, 1), _fail(errno.ENOSYS)]
    for number in _column([_CLONE], column):
        code += _when(number, [_argument(0), _step(_JUMP_ANY_BIT, _CLONE_THREAD, 1, 0), _fail(errno.EPERM)])
    for number in _column(_ONESELF.values(), column):
        code += _when(number, [_argument(0), _step(_JUMP_EQUAL, pid, 1, 0), _fail(errno.EPERM)])
    for number in _column([_PRLIMIT], column):
        code += _when(
            number,
            [_argument(0), _step(_JUMP_EQUAL, 0, 2, 0), _step(_JUMP_EQUAL, pid, 1, 0), _fail(errno.EPERM)],
        )
    if not devices:
        for numbers, position in ((_OPEN, 1), (_OPENAT, 2)):
            for number in _column([numbers], column):
                code += _when(number, [_argument(position), _step(_JUMP_ANY_BIT, _WRITING, 0, 1), _fail(errno.EACCES)])
    code.append(_step(_RETURN, _ALLOW))
    return b"".join(code)


def _when(number: int, body: list[bytes]) -> list[bytes]:
    """The body for this call, which allows what it does not fail."""
    body = [*body, _step(_RETURN, _ALLOW)]
    return [_step(_JUMP_EQUAL, number, 0, len(body)), *body]


def _argument(position: int) -> bytes:
    # The lower half, on a little-endian machine: both are.
    return _step(_LOAD, _ARGUMENTS + 8 * position)


def _fail(number: int) -> bytes:
    return _step(_RETURN, _ERRNO | number)


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def _column(numbers: Iterable[tuple[int | None, int | None]], column: int) -> list[int]:
    return [number for pair in numbers if (number := pair[column]) is not None]
