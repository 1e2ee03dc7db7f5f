"""Tapes: what the processes of a fleet record, on disk, and read back as one history.

A tape is two files. `.blobs` holds every distinct message once, length before bytes; `.records`
says when each was heard, or handed out, on which stream. Watchers of one filter hear the same
bytes, so a message is kept, read and judged once, however many heard it.
"""

from __future__ import annotations

import enum
import struct
import threading
import time
from typing import TYPE_CHECKING, Any, TypeVar

import grpc.aio

from stagewire import pb
from stagewire.client import Snapshot
from tests.faults.recordings import Heard, StreamRecord, WatcherRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from stagewire.client import Event

_Read = TypeVar("_Read")

#: Kind, monotonic time, who (a watcher or a stream), and the number of a blob.
_RECORD = struct.Struct("<BdII")
_LENGTH = struct.Struct("<I")
#: Reason, revision and length of the cursor; the cursor and a SnapshotChunk follow.
_SNAPSHOT = struct.Struct("<iqI")

#: How a stream ended whose client had no more use for it.
CLOSED = "CLOSED"


class Kind(enum.IntEnum):
    """What a record tells."""

    WATCHER = 1
    OPENED = 2
    HEARD = 3
    ENDED = 4
    TRANSACTION = 5
    BOOKMARK = 6
    SNAPSHOT = 7


class Tape:
    """Writes one process's recording."""

    def __init__(self, path: Path) -> None:
        """Begin a tape of this name, without a suffix."""
        self._blobs = path.with_suffix(".blobs").open("wb", buffering=1 << 20)
        self._records = path.with_suffix(".records").open("wb", buffering=1 << 20)
        self._numbers: dict[bytes, int] = {}
        self._watchers = 0
        self._streams = 0
        self._lock = threading.Lock()

    def close(self) -> None:
        """Have everything on disk."""
        with self._lock:
            self._blobs.close()
            self._records.close()

    def watcher(self, name: str, filter_: pb.WatchFilter, *, dawdles: bool = False) -> int:
        """Number a watcher."""
        with self._lock:
            self._put(Kind.WATCHER, dawdles, name.encode() + b"\0" + filter_.SerializeToString())
            self._watchers += 1
            return self._watchers - 1

    def opened(self, watcher: int, request: pb.WatchRequest) -> int:
        """Number a watcher's next stream."""
        with self._lock:
            self._put(Kind.OPENED, watcher, request.SerializeToString())
            self._streams += 1
            return self._streams - 1

    def heard(self, stream: int, message: bytes) -> None:
        """Note a message as it came off the wire."""
        with self._lock:
            self._put(Kind.HEARD, stream, message)

    def ended(self, stream: int, how: str) -> None:
        """Note a stream's status."""
        with self._lock:
            self._put(Kind.ENDED, stream, how.encode())

    def handed(self, watcher: int, event: Event) -> None:
        """Note what the SDK handed out."""
        with self._lock:
            if isinstance(event, pb.Transaction):
                self._put(Kind.TRANSACTION, watcher, event.SerializeToString())
            elif isinstance(event, pb.Bookmark):
                self._put(Kind.BOOKMARK, watcher, event.SerializeToString())
            else:
                head = _SNAPSHOT.pack(event.reason, event.revision, len(event.cursor))
                items = pb.SnapshotChunk(items=event.items).SerializeToString()
                self._put(Kind.SNAPSHOT, watcher, head + event.cursor + items)

    def _put(self, kind: Kind, who: int, blob: bytes) -> None:
        number = self._numbers.get(blob)
        if number is None:
            number = self._numbers[blob] = len(self._numbers)
            self._blobs.write(_LENGTH.pack(len(blob)) + blob)
        self._records.write(_RECORD.pack(kind, time.monotonic(), who, number))


class TapedCall:
    """A call of a watch, of either kind, whose messages go onto a tape as they are taken."""

    def __init__(self, call: Any, tape: Tape, stream: int) -> None:
        """Take a call whose messages were deserialized by `with_bytes`."""
        self._call = call
        self._tape = tape
        self._stream = stream
        self._over = False

    async def read(self) -> Any:
        """Read as an asynchronous call does."""
        try:
            found = await self._call.read()
        except grpc.aio.AioRpcError as error:
            self._end(f"{error.code().name}: {error.details()}")
            raise
        if found is grpc.aio.EOF:
            self._end((await self._call.code()).name)
            return found
        return self._heard(found)

    def __next__(self) -> pb.WatchResponse:
        """Take the next message as a synchronous call does."""
        try:
            found = next(self._call)
        except StopIteration:
            self._end(self._call.code().name)
            raise
        except grpc.RpcError as error:
            self._end(f"{error.code().name}: {error.details()}")
            raise
        return self._heard(found)

    def cancel(self) -> None:
        """Cancel as the call does."""
        self._end(CLOSED)
        self._call.cancel()

    def _heard(self, found: tuple[bytes, pb.WatchResponse]) -> pb.WatchResponse:
        raw, message = found
        self._tape.heard(self._stream, raw)
        return message

    def _end(self, how: str) -> None:
        if not self._over:
            self._over = True
            self._tape.ended(self._stream, how)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)


def taped(channel: Any, tape: Tape, watcher: int) -> Callable[..., TapedCall]:
    """Make the call that begins a stream, as the stub's, with every stream of it on a tape."""
    begin = channel.unary_stream(
        "/modelregistry.v1.WatchService/Watch",
        request_serializer=pb.WatchRequest.SerializeToString,
        response_deserializer=with_bytes,
    )

    def opened(request: pb.WatchRequest, **options: Any) -> TapedCall:
        return TapedCall(begin(request, **options), tape, tape.opened(watcher, request))

    return opened


def with_bytes(data: bytes) -> tuple[bytes, pb.WatchResponse]:
    """Deserialize a message, and keep what it was made of."""
    return data, pb.WatchResponse.FromString(data)


class Library:
    """Reads tapes; equal bytes of all of them become one message."""

    def __init__(self) -> None:
        """Begin empty."""
        self._known: dict[tuple[Kind, bytes], Any] = {}

    def watchers(self, path: Path) -> list[WatcherRecord]:
        """Read one process's watchers with their streams."""
        blobs = list(_blobs(path.with_suffix(".blobs").read_bytes()))
        found: list[WatcherRecord] = []
        streams: list[StreamRecord] = []
        records = path.with_suffix(".records").read_bytes()
        for kind, moment, who, number in _RECORD.iter_unpack(records):
            blob = blobs[number]
            match kind:
                case Kind.HEARD:
                    message = self._read(Kind.HEARD, blob, pb.WatchResponse.FromString)
                    streams[who].heard.append(Heard(moment, message))
                case Kind.TRANSACTION:
                    told = self._read(Kind.TRANSACTION, blob, pb.Transaction.FromString)
                    found[who].events.append(told)
                case Kind.BOOKMARK:
                    found[who].events.append(
                        self._read(Kind.BOOKMARK, blob, pb.Bookmark.FromString)
                    )
                case Kind.SNAPSHOT:
                    found[who].events.append(self._read(Kind.SNAPSHOT, blob, _snapshot))
                case Kind.OPENED:
                    streams.append(StreamRecord(pb.WatchRequest.FromString(blob), opened=moment))
                    found[who].streams.append(streams[-1])
                case Kind.ENDED:
                    streams[who].ended, streams[who].end = moment, blob.decode()
                case Kind.WATCHER:
                    name, _, filter_ = blob.partition(b"\0")
                    asked = pb.WatchFilter.FromString(filter_)
                    found.append(WatcherRecord(name.decode(), asked, dawdles=bool(who)))
        return found

    def _read(self, kind: Kind, blob: bytes, read: Callable[[bytes], _Read]) -> _Read:
        found: _Read | None = self._known.get((kind, blob))
        if found is None:
            found = self._known[kind, blob] = read(blob)
        return found


def _blobs(data: bytes) -> Iterator[bytes]:
    place = 0
    while place < len(data):
        (length,) = _LENGTH.unpack_from(data, place)
        place += _LENGTH.size
        yield data[place : place + length]
        place += length


def _snapshot(blob: bytes) -> Snapshot:
    reason, revision, length = _SNAPSHOT.unpack_from(blob)
    items = _SNAPSHOT.size + length
    return Snapshot(
        reason,
        revision,
        tuple(pb.SnapshotChunk.FromString(blob[items:]).items),
        blob[_SNAPSHOT.size : items],
    )
