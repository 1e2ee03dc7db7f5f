"""The token that every call carries: a text for good, or a file's, which others renew.

A file is looked at before each call, so a renewed token goes with the next one. One that can't
be read any more, or holds nothing, leaves the token as it was: whoever writes it is not done.
"""

from __future__ import annotations

import os
from pathlib import Path

#: What goes beside a request, as gRPC takes it.
Metadata = tuple[tuple[str, str], ...]


class Token:
    """Who the client is; nobody without a text and a file."""

    def __init__(self, text: str = "", *, file: str | Path | None = None) -> None:
        """Read the file. Raises OSError where it can't be, ValueError for what is no token."""
        self._metadata = _metadata(text.strip(), "the token")
        self._file = None if file is None else Path(file)
        self._seen: tuple[int, int, int] | None = None
        if self._file is not None:
            self._seen = _stamp(self._file)
            self._metadata = _metadata(self._file.read_text().strip(), str(self._file))
            if not self._metadata:
                raise ValueError(f"{self._file} is empty; write the token there")

    def __bool__(self) -> bool:
        """Tell whether there is one."""
        return bool(self._metadata)

    @property
    def is_renewed(self) -> bool:
        """Tell whether somebody may renew it."""
        return self._file is not None

    def metadata(self) -> Metadata:
        """Return what carries the token in its present state; empty without one."""
        if self._file is not None:
            self._look(self._file)
        return self._metadata

    def _look(self, file: Path) -> None:
        try:
            seen = _stamp(file)
            if seen == self._seen:
                return
            found = _metadata(file.read_text().strip(), str(file))
        except (OSError, ValueError):
            return
        if found:
            self._seen, self._metadata = seen, found


def _stamp(file: Path) -> tuple[int, int, int]:
    found = os.stat(file)  # noqa: PTH116  # half as long as Path's, before every call
    return found.st_mtime_ns, found.st_size, found.st_ino


def _metadata(token: str, where: str) -> Metadata:
    if not token:
        return ()
    if not token.isascii() or not token.isprintable() or " " in token:
        # Never the text itself: what reads it is not meant to have it.
        raise ValueError(f"{where} is no token: a token is one word of ASCII characters")
    return (("authorization", f"Bearer {token}"),)
