"""How many connections there are, in all and from each address, and how one too many is refused.

Who is refused is told so in HTTP and hung up on, so that a client waits instead of wondering, and
whoever opens connections without end takes them from nobody but its own address.
"""

from __future__ import annotations

from collections import Counter

from stagewire.gateway import wire

_RETRY_SECONDS = 5


class Crowd:
    """The connections of one listener. For the event loop's thread only."""

    def __init__(self, *, most: int, most_per_address: int) -> None:
        """Let in `most`, and of those so many from one address; 0 means any number."""
        self._most = most
        self._most_per_address = most_per_address
        self._inside: Counter[str] = Counter()
        self._count = 0

    def enter(self, address: str) -> bytes | None:
        """Let one more in, who has to leave; or give the answer with which it is refused."""
        if self._most and self._count >= self._most:
            return _refusal(
                "503 Service Unavailable",
                "TEMPORARILY_UNAVAILABLE",
                f"This server has {self._most:,} connections already. Try again.",
            )
        if self._most_per_address and self._inside[address] >= self._most_per_address:
            return _refusal(
                "429 Too Many Requests",
                "REQUEST_LIMIT_EXCEEDED",
                f"Your address has {self._most_per_address:,} connections to this server already. "
                "Close some, or use those again.",
            )
        self._count += 1
        self._inside[address] += 1
        return None

    def leave(self, address: str) -> None:
        """Let one out."""
        self._count -= 1
        self._inside[address] -= 1
        if not self._inside[address]:
            del self._inside[address]


def _refusal(status: str, code: str, text: str) -> bytes:
    body = wire.dumped({"error_code": code, "message": text})
    head = (
        f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
        f"retry-after: {_RETRY_SECONDS}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + body
