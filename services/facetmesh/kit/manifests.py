"""The YAML files of a folder of Dapr's resources."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class ManifestError(Exception):
    """A file that cannot be used; the message names it."""


def documents(folder: Path) -> Iterator[tuple[Path, dict[Any, Any]]]:
    """Each resource in the .yaml and .yml files of folder, with its file.

    Raises:
        ManifestError: There is none, or a file cannot be read, or it holds something else.
    """
    files = sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")])
    if not files:
        raise ManifestError(f"{folder}: no component files")
    for file in files:
        try:
            found = list(filter(None, yaml.safe_load_all(file.read_text(encoding="utf-8"))))
        except yaml.YAMLError as error:
            raise ManifestError(f"{file}: {error}") from error
        except (OSError, UnicodeDecodeError) as error:
            raise ManifestError(f"{file}: cannot be read: {error}") from error
        for document in found:
            yield file, document if isinstance(document, dict) else {}
