"""The file that names the first admin's token: written on the server's machine, adopted once."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from stagewire.service import tokens

if TYPE_CHECKING:
    from pathlib import Path

_NAMED = re.compile(r"([0-9a-f]{16}) sha256:([0-9a-f]{64})")
_PLAIN = re.compile(rf"{tokens.PREFIX}_([0-9a-f]{{16}})_[\w-]{{43,128}}")


def read(path: Path) -> tuple[str, bytes]:
    """Read the id of a token and the hash of its secret. Raises ValueError with the remedy."""
    text = path.read_text(encoding="utf-8", errors="replace").strip()
    if (named := _NAMED.fullmatch(text)) is not None:
        return named[1], bytes.fromhex(named[2])
    if (plain := _PLAIN.fullmatch(text)) is not None:
        return plain[1], tokens.hashed(text)
    raise ValueError(f"{path} holds no token; make it with `stagewire admin bootstrap`")
