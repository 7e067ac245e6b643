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
    """The secrets of one file, read once at start.

    Args:
        path: A JSON object. Nested objects and lists become names joined by the separator.
        separator: Between the parts of a nested name.

    Raises:
        SecretsFileError: It is not there, or not a JSON object.
    """

    def __init__(self, path: Path, separator: str = ":") -> None:
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
        self.all: Mapping[str, str] = dict(_flat(content, "", separator))
        """Every secret, by name."""


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
