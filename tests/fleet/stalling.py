"""A reader that stops taking anything, and the backlog that piles up before it."""

from __future__ import annotations

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Self

import grpc
from modelregistry.v1.registry_service_pb2_grpc import RegistryServiceStub
from modelregistry.v1.watch_service_pb2_grpc import WatchServiceStub

from stagewire import pb
from tests.fleet.storms import OWN_CONNECTION, resident_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Texts of a change that stand in it whole: longer ones are named by their digest.
_TEXT = "x" * 1000
_TEXTS_A_CHANGE = 100
CHANGE_BYTES = _TEXTS_A_CHANGE * len(_TEXT)
_WRITERS = 4


class Reader:
    """A real client's stream on a connection of its own that reads when it is told to.

    gRPC takes a message off the wire only when it is asked for, so one that is not asked closes
    the window of HTTP/2's flow control after 64 KiB, and the server can't write any more.
    """

    def __init__(self, address: str, models: Sequence[str], *, cursor: bytes = b"") -> None:
        """Watch these models from now on, or from a cursor; the stream is greeted already."""
        self._channel = grpc.insecure_channel(address, options=OWN_CONNECTION)
        request = pb.WatchRequest(filter=pb.WatchFilter(models=models), cursor=cursor)
        if not cursor:
            request.start = pb.WATCH_START_NOW
        self._call: Any = WatchServiceStub(self._channel).Watch(request, timeout=600)
        self.cursor = cursor
        self.told: list[int] = []
        self.read()
        if not cursor:
            # The bookmark from which a stream that hears nothing can be resumed.
            self.read()

    def __enter__(self) -> Self:
        """Nothing more to do."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Hang up."""
        self._call.cancel()
        self._channel.close()

    def read(self) -> None:
        """Take one message; raises what ended the stream."""
        message = next(self._call)
        if message.HasField("transaction"):
            self.told.append(message.transaction.revision)
            self.cursor = message.transaction.cursor
        elif message.HasField("bookmark"):
            self.cursor = message.bookmark.cursor

    def read_until(self, revision: int) -> None:
        """Take messages until a revision has come."""
        while not self.told or self.told[-1] < revision:
            self.read()


class Ballast:
    """A model of which large changes are made."""

    def __init__(self, address: str, model: str) -> None:
        """Create it."""
        self._channel = grpc.insecure_channel(address, options=OWN_CONNECTION)
        self._stub = RegistryServiceStub(self._channel)
        self.model = model
        self._stub.CreateModel(pb.CreateModelRequest(model=pb.Model(name=model)), timeout=30)

    def __enter__(self) -> Self:
        """Nothing more to do."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Hang up."""
        self._channel.close()

    def change(self, count: int) -> list[int]:
        """Make so many changes of some 100 KB each; answers their revisions in order."""
        with ThreadPoolExecutor(_WRITERS) as pool:
            return sorted(pool.map(self._change, range(count)))

    def _change(self, _number: int) -> int:
        texts = {f"t{n}": uuid.uuid4().hex + _TEXT[32:] for n in range(_TEXTS_A_CHANGE)}
        request = pb.SetModelTagsRequest(model=self.model, tags=texts, request_id=uuid.uuid4().hex)
        while True:
            try:
                return int(self._stub.SetModelTags(request, timeout=30).revision)
            except grpc.RpcError as error:
                # The others kept the model too long; the same request may be made again.
                if error.code() != grpc.StatusCode.ABORTED:
                    raise


def grow_by_backlog(
    pid: int, address: str, ballast: Ballast, changes: int, *, stalled: bool
) -> int:
    """Have one reader more, which reads or is stalled; answers by how much a server grew."""
    before = resident_bytes(pid)
    with Reader(address, [ballast.model]) as reader:
        if not stalled:
            threading.Thread(target=_read_to_the_end, args=(reader,), daemon=True).start()
        ballast.change(changes)
        return resident_bytes(pid) - before


def _read_to_the_end(reader: Reader) -> None:
    try:
        reader.read_until(2**62)
    except (grpc.RpcError, StopIteration):
        return
