"""A watch as it comes over the wire, and the few writes that tests of watches make."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, Any, Self

import grpc

from stagewire import pb
from stagewire.client import statuses

if TYPE_CHECKING:
    from types import TracebackType

    from stagewire.client import Client

DEADLINE_SECONDS = 15.0


class Stream:
    """One raw stream: messages as they come, each waited for with a deadline."""

    def __init__(self, client: Client, request: pb.WatchRequest | None = None) -> None:
        self._call: Any = client.watches.Watch(request or pb.WatchRequest(), timeout=120)
        self._found: queue.SimpleQueue[pb.WatchResponse | grpc.RpcError | None] = (
            queue.SimpleQueue()
        )
        self._thread = threading.Thread(target=self._read, name="test-stream")
        self._thread.start()

    def _read(self) -> None:
        try:
            for message in self._call:
                self._found.put(message)
            self._found.put(None)
        except grpc.RpcError as error:
            self._found.put(error)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.cancel()
        self._thread.join()

    def cancel(self) -> None:
        self._call.cancel()

    def next(self) -> pb.WatchResponse:
        """Give the next message; raises EOFError at OK, and what a refused stream was told."""
        found = self._found.get(timeout=DEADLINE_SECONDS)
        if found is None:
            raise EOFError
        if isinstance(found, pb.WatchResponse):
            return found
        raise statuses.of(found)

    def until(self, kind: str) -> list[pb.WatchResponse]:
        """Give everything up to and with the next message of a kind."""
        messages = [self.next()]
        while messages[-1].WhichOneof("message") != kind:
            messages.append(self.next())
        return messages

    def hello(self) -> pb.Hello:
        message = self.next()
        assert message.HasField("hello"), message
        return message.hello

    def transaction(self) -> pb.Transaction:
        """Give the next transaction, stepping over bookmarks."""
        message = self.next()
        while message.HasField("bookmark"):
            message = self.next()
        assert message.HasField("transaction"), message
        return message.transaction

    def snapshot(self) -> tuple[pb.SnapshotBegin, list[pb.SnapshotItem], pb.SnapshotEnd]:
        """Give the snapshot that comes next, stepping over bookmarks."""
        messages = self.until("snapshot_end")
        while messages[0].HasField("bookmark"):
            del messages[0]
        begin, *chunks, end = messages
        assert begin.HasField("snapshot_begin"), begin
        items = [item for chunk in chunks for item in chunk.snapshot_chunk.items]
        return begin.snapshot_begin, items, end.snapshot_end

    def bookmark(self, at_least: int = 0) -> pb.Bookmark:
        """Give the next bookmark that has come so far, and nothing but bookmarks before it."""
        while True:
            message = self.next()
            assert message.HasField("bookmark"), message
            if message.bookmark.revision >= at_least:
                return message.bookmark


def watch(
    start: pb.WatchStart.ValueType = pb.WATCH_START_NOW,
    *,
    cursor: bytes = b"",
    snapshot_on_reset: bool = False,
    **fields: Any,
) -> pb.WatchRequest:
    """Ask for what matches the filter's fields, from `cursor` or from `start`."""
    return pb.WatchRequest(
        cursor=cursor,
        start=pb.WATCH_START_UNSPECIFIED if cursor else start,
        filter=pb.WatchFilter(**fields),
        snapshot_on_reset=snapshot_on_reset,
    )


def model(client: Client, name: str = "churn", **fields: Any) -> pb.CreateModelResponse:
    return client.registry.CreateModel(pb.CreateModelRequest(model=pb.Model(name=name), **fields))


def version(client: Client, name: str = "churn", **fields: Any) -> pb.CreateModelVersionResponse:
    return client.registry.CreateModelVersion(pb.CreateModelVersionRequest(model=name, **fields))


def versions(client: Client, count: int, name: str = "churn") -> int:
    """Register a model with so many versions; answers the log's revision after it."""
    revision = model(client, name).revision
    for _ in range(count):
        revision = version(client, name).revision
    return revision


def promote(
    client: Client, number: int, stage: str = "Production", name: str = "churn", **fields: Any
) -> pb.TransitionStageResponse:
    return client.stages.TransitionStage(
        pb.TransitionStageRequest(model=name, version=number, stage=stage, **fields)
    )


def remove(
    client: Client, number: int, stage: str = "Production", name: str = "churn"
) -> pb.RemoveFromStageResponse:
    return client.stages.RemoveFromStage(
        pb.RemoveFromStageRequest(model=name, version=number, stage=stage)
    )


def rename(client: Client, old: str, new: str) -> pb.RenameModelResponse:
    return client.registry.RenameModel(pb.RenameModelRequest(model=old, new_name=new))


def tag(client: Client, name: str = "churn", **tags: str) -> pb.SetModelTagsResponse:
    return client.registry.SetModelTags(pb.SetModelTagsRequest(model=name, tags=tags))


def namespace(client: Client, name: str) -> pb.CreateNamespaceResponse:
    return client.namespaces.CreateNamespace(
        pb.CreateNamespaceRequest(namespace=pb.Namespace(name=name))
    )
