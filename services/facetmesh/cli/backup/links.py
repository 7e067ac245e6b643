"""The blobs at one moment: hard links to them, which stay when the blobs are deleted."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self

from facetmesh.cli.backup import manifest
from facetmesh.cli.backup.manifest import Entry, Manifest
from facetmesh.kit import holds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import TracebackType

_SCRATCH = ".backup-"
_UPLOADING = "#"
"""What obstore has in the name of a file that is not whole yet."""


class Links:
    """The blobs as they are when `make` is called, while the context lasts.

    A blob never changes: it is written beside its place and moved there. So a link is as good as a copy,
    and costs next to nothing.

    Args:
        folders: Where they lie, by what a backup calls them.
        scratch: A folder on the same file system: where the links lie meanwhile.
    """

    def __init__(self, folders: Mapping[str, Path], scratch: Path) -> None:
        self._folders = {name: folder for name, folder in folders.items() if folder.is_dir()}
        self._home = scratch
        self._scratch = scratch

    def __enter__(self) -> Self:
        """Makes room for the links, and removes those of a backup that was killed."""
        for left in self._home.glob(f"{_SCRATCH}*"):
            shutil.rmtree(left, ignore_errors=True)
        self._scratch = Path(tempfile.mkdtemp(dir=self._home, prefix=_SCRATCH))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None,
    ) -> None:
        """Removes the links."""
        shutil.rmtree(self._scratch, ignore_errors=True)

    @contextmanager
    def held(self) -> Iterator[None]:
        """No blob is deleted meanwhile."""
        with ExitStack() as stack:
            for folder in self._folders.values():
                stack.enter_context(holds.held(folder))
            yield

    def make(self) -> None:
        """Links all blobs that are there."""
        for source, path in self._whole():
            target = self._scratch / path
            target.parent.mkdir(parents=True, exist_ok=True)
            _link(source, target)

    def copy(
        self, folder: Path, before: Path | None, progress: Callable[[str, int, int], None],
    ) -> Mapping[str, Entry]:
        """Copies what was linked.

        Args:
            folder: Where to.
            before: An earlier backup beside it: what it has is linked instead, with the digest that it knows.
            progress: Is told how many bytes of how many are done.

        Returns:
            What was copied, by path.
        """
        known = Manifest.load((before / manifest.NAME).read_bytes()).files if before else {}
        found = [(path, path.stat()) for path in sorted(self._scratch.rglob("*")) if path.is_file()]
        total = sum(stat.st_size for _, stat in found)
        done = 0
        entries = {}
        for source, stat in found:
            name = source.relative_to(self._scratch).as_posix()
            target = folder / name
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if before and name in known and _same(before / name, stat):
                _link(before / name, target)
                entries[name] = known[name]
            else:
                shutil.copy2(source, target)
                entries[name] = Entry.of(target)
            done += stat.st_size
            progress("blobs", done, total)
        return entries

    def _whole(self) -> Iterator[tuple[Path, Path]]:
        """Each blob that is whole, and its place in a backup."""
        for top, root in self._folders.items():
            for folder, _, names in os.walk(root):
                for name in names:
                    if _UPLOADING not in name:
                        source = Path(folder) / name
                        yield source, Path(top) / source.relative_to(root)


def _link(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)


def _same(earlier: Path, stat: os.stat_result) -> bool:
    try:
        had = earlier.stat()
    except FileNotFoundError:
        return False
    return (had.st_size, had.st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)
