"""A small disk of a test's own, to be filled and freed. Making one takes root on Linux."""

from __future__ import annotations

import errno
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_BLOCK = b"\0" * 4096


class Disk:
    """A mounted disk, and the ballast that fills it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        """Leave not a block free."""
        with self._ballast.open("ab", buffering=0) as file:
            while True:
                try:
                    file.write(_BLOCK)
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    return

    def free(self) -> None:
        """Give the space back."""
        self._ballast.unlink()


@contextmanager
def mounted(folder: Path, *, size_bytes: int) -> Iterator[Disk]:
    """Mount a disk in memory for a while; fail, saying what that needs, when it can't be done."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"a disk to fill is mounted by root alone: {done.stderr.strip()}"
    try:
        yield Disk(folder)
    finally:
        # Lazily: a process that was killed a moment ago may not have let go of it yet.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
