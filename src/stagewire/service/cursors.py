"""A watch's place in the log, as opaque bytes that the client keeps.

Layout: format (1), log id (16), revision (8), start of the revision's chain hash (8), digest of
the filter (8), digest of what the caller may see (8), checksum (4). The chain hash is what tells
a log that lost history, and then wrote over its numbers, from the one the cursor was made on.
"""

from __future__ import annotations

import hashlib
import struct
import uuid
from dataclasses import dataclass

from stagewire import errors
from stagewire.rights import EVERYTHING

_FORMAT = 1
_LAYOUT = struct.Struct(">B16sq8s8s8s")
_CHECKSUM_BYTES = 4


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in one log, under one filter and one view of it."""

    log_id: str
    revision: int
    chain: bytes
    filter_digest: bytes
    epoch: bytes = EVERYTHING.epoch

    def encode(self) -> bytes:
        """Make the bytes that a client keeps."""
        body = _LAYOUT.pack(
            _FORMAT,
            uuid.UUID(self.log_id).bytes,
            self.revision,
            self.chain[:8],
            self.filter_digest[:8],
            self.epoch[:8],
        )
        return body + hashlib.sha256(body).digest()[:_CHECKSUM_BYTES]


def decode(data: bytes, field: str = "cursor") -> Cursor:
    """Read a client's bytes. Refuses INVALID_CURSOR for what no server of ours wrote."""
    body, checksum = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
    if (
        len(body) != _LAYOUT.size
        or hashlib.sha256(body).digest()[:_CHECKSUM_BYTES] != checksum
        or body[0] != _FORMAT
    ):
        raise errors.invalid(
            field,
            "is damaged or from a newer release; start again with a snapshot",
            reason="INVALID_CURSOR",
        )
    _, log_id, revision, chain, filter_digest, epoch = _LAYOUT.unpack(body)
    return Cursor(str(uuid.UUID(bytes=log_id)), revision, chain, filter_digest, epoch)
