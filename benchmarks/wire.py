"""A gRPC caller that costs next to nothing: HTTP/2 frames, written and read by hand.

grpc.aio's own client costs as much CPU a call as the server that is measured, and on two cores
would be the bottleneck. This one sends a header block made beforehand and looks only at the
frames' types: an answer that brought data is a good one, a refusal has trailers and no data.
What it sends and takes is checked with a real client before anything is measured.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, cast

from benchmarks.guarded import SECRET

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import grpc

_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _END_HEADERS, _ACK = 0x1, 0x4, 0x1
_FRAME_HEAD = 9
_LARGEST_WINDOW = 2**31 - 1
_FIRST_WINDOW = 65_535
# Credit is given back in bulk: one frame for a quarter of a gigabyte taken.
_REFILL = 2**28


class Listener(Protocol):
    """Who made a call."""

    def data(self, payload: bytes) -> None:
        """Take what a DATA frame brought."""

    def end(self) -> None:
        """Hear that the call is over."""


def header_block(authority: str, path: str) -> bytes:
    """Encode a call's headers once: literals without an index, so that no state is kept."""
    return b"".join(
        (
            b"\x83\x86",  # :method POST, :scheme http
            b"\x04" + _text(path),
            b"\x01" + _text(authority),
            b"\x0f\x10" + _text("application/grpc"),
            b"\x00" + _text("te") + _text("trailers"),
            b"\x00" + _text("grpc-timeout") + _text("20S"),
            b"\x00" + _text("authorization") + _text(f"Bearer {SECRET}"),
        )
    )


def _text(value: str) -> bytes:
    data = value.encode()
    if len(data) > 126:
        raise ValueError(value)
    return bytes([len(data)]) + data


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    head = len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big")
    return head + payload


class Wire(asyncio.Protocol):
    """One HTTP/2 connection."""

    def __init__(self) -> None:
        """Start without calls."""
        self._transport: asyncio.Transport | None = None
        self._rest = b""
        self._next = 1
        self._credit = _FIRST_WINDOW
        self._taken = 0
        self._calls: dict[int, Listener] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say hello, and give the server all the window there is."""
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        window = (4).to_bytes(2, "big") + _LARGEST_WINDOW.to_bytes(4, "big")
        more = (_LARGEST_WINDOW - _FIRST_WINDOW).to_bytes(4, "big")
        self._write(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
            + _frame(_SETTINGS, 0, 0, window)
            + _frame(_WINDOW_UPDATE, 0, 0, more)
        )

    def call(self, headers: bytes, message: bytes, listener: Listener) -> None:
        """Send one message as a whole call; the listener hears what comes back."""
        stream, self._next = self._next, self._next + 2
        self._calls[stream] = listener
        body = b"\0" + len(message).to_bytes(4, "big") + message
        self._credit -= len(body)
        if self._credit < 0:
            raise RuntimeError("the connection's window is used up; spread the load over more")
        self._write(
            _frame(_HEADERS, _END_HEADERS, stream, headers)
            + _frame(_DATA, _END_STREAM, stream, body)
        )

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        """Take the frames that are whole."""
        buffer = self._rest + data if self._rest else data
        at, size = 0, len(buffer)
        while size - at >= _FRAME_HEAD:
            start = at + _FRAME_HEAD
            end = start + int.from_bytes(buffer[at : at + 3], "big")
            if end > size:
                break
            stream = int.from_bytes(buffer[at + 5 : start], "big")
            self._take(buffer[at + 3], buffer[at + 4], stream, buffer[start:end])
            at = end
        self._rest = buffer[at:]

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _DATA:
            self._taken += len(payload)
            if payload and stream in self._calls:
                self._calls[stream].data(payload)
            if self._taken > _REFILL:
                self._write(_frame(_WINDOW_UPDATE, 0, 0, self._taken.to_bytes(4, "big")))
                self._taken = 0
        elif kind in (_HEADERS, _RST_STREAM):
            if kind == _RST_STREAM or flags & _END_STREAM:
                listener = self._calls.pop(stream, None)
                if listener is not None:
                    listener.end()
        elif kind == _WINDOW_UPDATE and stream == 0:
            self._credit += int.from_bytes(payload, "big")
        elif kind in (_SETTINGS, _PING) and not flags & _ACK:
            self._write(_frame(kind, _ACK, 0, payload if kind == _PING else b""))
        elif kind == _GOAWAY:
            # Whoever still waits hears that nothing more comes, and makes a failure of it.
            while self._calls:
                self._calls.popitem()[1].end()

    def _write(self, data: bytes) -> None:
        assert self._transport is not None
        self._transport.write(data)


async def connect(address: str, count: int) -> list[Wire]:
    """Open connections to a server."""
    host, _, port = address.rpartition(":")
    loop = asyncio.get_running_loop()
    return [(await loop.create_connection(Wire, host, int(port)))[1] for _ in range(count)]


def raw_call(channel: grpc.aio.Channel, path: str) -> Callable[[bytes], Awaitable[bytes]]:
    """Call by the real client, for what is not measured; messages are bytes on both sides."""
    call: Any = channel.unary_unary(path)
    shown = (("authorization", f"Bearer {SECRET}"),)
    return cast("Callable[[bytes], Awaitable[bytes]]", partial(call, metadata=shown))
