"""Secrets from a JSON file, as daprd's `secretstores.local.file` reads them."""

from __future__ import annotations

import json
import logging
import stat
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_log = logging.getLogger(__name__)


class SecretsFileError(Exception):
    """The file of a secret store cannot be used; the message says why."""


class SecretStore:
    """The secrets of one file, read again when it is replaced.

    Args:
        path: A JSON object. Nested objects and lists become names joined by the separator.
        separator: Between the parts of a nested name.

    Raises:
        SecretsFileError: It is not there, or not a JSON object.
    """

    def __init__(self, path: Path, separator: str = ":") -> None:
        self._path = path
        self._separator = separator
        self._version = _version(path)
        self._all = _read(path, separator)

    @property
    def all(self) -> Mapping[str, str]:
        """Every secret, by name; those before, where the file cannot be used any more."""
        try:
            version = _version(self._path)
            if version != self._version:
                self._version = version
                self._all = _read(self._path, self._separator)
        except SecretsFileError as error:
            _log.warning("the secrets' file cannot be read again", extra={"detail": str(error)})
        return self._all


def _version(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError as error:
        raise SecretsFileError(f"{path}: {error.strerror}") from error
    return found.st_ino, found.st_mtime_ns, found.st_size


def _read(path: Path, separator: str) -> Mapping[str, str]:
    try:
        content = json.loads(path.read_bytes())
        mode = path.stat().st_mode
    except OSError as error:
        raise SecretsFileError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise SecretsFileError(f"{path}: not JSON") from error
    if not isinstance(content, dict):
        raise SecretsFileError(f"{path}: not a JSON object")
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        _log.warning("others can read the secrets' file", extra={"path": str(path)})
    return dict(_flat(content, "", separator))


def _flat(value: Any, name: str, separator: str) -> Iterator[tuple[str, str]]:
    parts: Iterator[tuple[Any, Any]]
    if isinstance(value, dict):
        parts = iter(value.items())
    elif isinstance(value, list):
        parts = iter(enumerate(value))
    else:
        yield name, value if isinstance(value, str) else json.dumps(value)
        return
    for key, part in parts:
        yield from _flat(part, f"{name}{separator}{key}" if name else str(key), separator)
