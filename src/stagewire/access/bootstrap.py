"""The first admin's token, handed to the server in a file beside it.

What `stagewire admin bootstrap` writes there stands for the token and can't be turned back into
it; an orchestrator may mount the token itself instead.
"""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import structlog

from stagewire.service import tokens
from stagewire.store.database import parse_url

if TYPE_CHECKING:
    from collections.abc import Iterator

log = structlog.get_logger("stagewire.access")

_BY_HASH = re.compile(r"(?P<id>[0-9a-f]{16}) sha256:(?P<hash>[0-9a-f]{64})")
#: As `tokens.mint` makes them; less than 256 random bits is no secret to found a registry on.
_BY_SECRET = re.compile(r"sw_(?P<id>[0-9a-f]{16})_[A-Za-z0-9_-]{43,128}")
_MOST_BYTES = 1024
_OTHERS = 0o077


class FirstToken(NamedTuple):
    """What `tokens.ensure_admin` adopts."""

    id: str
    secret_hash: bytes


def place(file: str, database_url: str) -> Path | None:
    """Say where the file is: as set, else beside an SQLite file; None where neither says."""
    if file:
        return Path(file)
    url = parse_url(database_url)
    return Path(f"{url.database}.bootstrap") if url.get_backend_name() == "sqlite" else None


def read(path: Path) -> FirstToken:
    """Read a token's identity and hash. Raises ValueError, saying what is wrong with the file."""
    try:
        with path.open("rb") as opened:
            mode = os.fstat(opened.fileno()).st_mode
            text = opened.read(_MOST_BYTES).decode("ascii", "replace").strip()
    except OSError as error:
        raise ValueError(f"{path} can't be read ({error.strerror})") from error
    if mode & _OTHERS:
        log.warning("others may use the first admin's file; chmod 600 it", file=str(path))
    if found := _BY_HASH.fullmatch(text):
        return FirstToken(found["id"], bytes.fromhex(found["hash"]))
    if found := _BY_SECRET.fullmatch(text):
        return FirstToken(found["id"], tokens.hashed(text))
    # Never the text itself: it may be most of a secret.
    raise ValueError(
        f"{path} holds no token; delete it and run `stagewire admin bootstrap`, or put a token "
        "there: sw_, 16 hexadecimal digits, _, and 32 random bytes in URL-safe base64"
    )


def write(path: Path, id_: str, secret: str) -> None:
    """Write what the server needs for this user's eyes alone, and never over anything.

    Raises FileExistsError.
    """
    with _private():
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="ascii") as opened:
            opened.write(f"{id_} sha256:{tokens.hashed(secret).hex()}\n")
            opened.flush()
            os.fsync(handle)


@contextmanager
def _private() -> Iterator[None]:
    """Make folders and files for this user alone meanwhile."""
    before = os.umask(_OTHERS)
    try:
        yield
    finally:
        os.umask(before)
