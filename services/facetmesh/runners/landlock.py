"""Which files a child may still see, by Landlock: what it runs on, and its models.

Source: landlock(7). The wheels that bind it are young and unmaintained; it is
three system calls, with the same numbers on every machine.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION = 1
_PATH_BENEATH = 1
_WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 1, 1 << 2, 1 << 3
# How many rights on files each version of the interface knows.
_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}
_LATEST_RIGHTS = 16
_NETWORK_SINCE, _SCOPES_SINCE = 4, 6
_TCP = 0b11
_SCOPES = 0b11
"""Abstract Unix sockets and signals, to any process outside."""


def version() -> int:
    """The version of the kernel's interface; 0 where there is none, or it is switched off."""
    return max(0, int(ctypes.CDLL(None).syscall(_CREATE_RULESET, None, 0, _VERSION)))


def restrict(*, trees: Iterable[Path], files: Iterable[Path], devices: Iterable[Path] = ()) -> None:
    """Lets this thread and all that it starts see these paths only, and change none.

    `no_new_privs` must be set. What does not exist is passed over.

    Args:
        trees: Folders and files that may be read and listed, with all below.
        files: Folders whose files may be read by those who know their names.
        devices: Files that may be read and written.

    Raises:
        OSError: The kernel refused.
    """
    rights = (1 << _RIGHTS.get(version(), _LATEST_RIGHTS)) - 1
    attributes = struct.pack("=Q", rights)
    if version() >= _NETWORK_SINCE:
        attributes += struct.pack("=Q", _TCP)
    if version() >= _SCOPES_SINCE:
        attributes += struct.pack("=Q", _SCOPES)
    ruleset = _call(_CREATE_RULESET, attributes, len(attributes), 0)
    try:
        for paths, allowed in (
            (trees, _READ_FILE | _READ_DIR),
            (files, _READ_FILE),
            (devices, _READ_FILE | _WRITE_FILE | (rights & 1 << (_LATEST_RIGHTS - 1))),
        ):
            for path in paths:
                _allow(ruleset, path, allowed)
        _call(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: Path, rights: int) -> None:
    with contextlib.suppress(FileNotFoundError, PermissionError, NotADirectoryError):
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            if not path.is_dir():
                rights &= ~_READ_DIR
            _call(_ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("=Qi", rights, descriptor), 0)
        finally:
            os.close(descriptor)


def _call(number: int, *arguments: object) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    result = int(libc.syscall(number, *arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), "Landlock refused")
    return result
