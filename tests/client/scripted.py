"""A registry that answers as a test says: a real gRPC server without anything behind it."""

from __future__ import annotations

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from stagewire import pb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

LOG_ID = "log-a"


@dataclass
class Refusal:
    """A refusal as the server makes it."""

    code: str
    reason: str = ""
    message: str = "no"
    metadata: dict[str, str] = field(default_factory=dict)
    details: list[Any] = field(default_factory=list)

    def status(self) -> Any:
        said = list(self.details)
        if self.reason:
            said.insert(
                0,
                error_details_pb2.ErrorInfo(
                    reason=self.reason, domain="stagewire", metadata=self.metadata
                ),
            )
        packed = []
        for one in said:
            any_message = any_pb2.Any()
            any_message.Pack(one)
            packed.append(any_message)
        return rpc_status.to_status(
            status_pb2.Status(
                code=code_pb2.Code.Value(self.code), message=self.message, details=packed
            )
        )


@dataclass
class Call:
    """One call as it arrived."""

    method: str
    request: Any
    metadata: dict[str, str]
    seconds_left: float | None


class Hang:
    """In a stream: say nothing more until the client leaves."""


class Registry(grpc.GenericRpcHandler):
    """Answers unary calls by `on`, and each watch with the next of `streams`."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.streams: list[Iterable[Any]] = []
        self.ended_watches = threading.Semaphore(0)
        self._answers: dict[str, Callable[[Any], Any]] = {}
        self._server = grpc.server(ThreadPoolExecutor(16))
        self._server.add_generic_rpc_handlers((self,))
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def stop(self) -> None:
        self._server.stop(0).wait()

    def on(self, method: str, *answers: Any) -> None:
        """Answer a method with these, in order; the last one for ever."""
        left = list(answers)

        def answer(request: Any) -> Any:
            said = left.pop(0) if len(left) > 1 else left[0]
            return said(request) if callable(said) else said

        self._answers[method] = answer

    def requests(self, method: str) -> list[Any]:
        return [call.request for call in self.calls if call.method == method]

    def service(self, handler_call_details: Any) -> Any:
        method = handler_call_details.method.rpartition("/")[2]
        metadata = dict(handler_call_details.invocation_metadata)
        read = getattr(pb, f"{method}Request").FromString
        write = getattr(pb, f"{method}Response").SerializeToString

        def noted(behaviour: Callable[[str, Any, Any], Any]) -> Callable[[Any, Any], Any]:
            def note(request: Any, context: Any) -> Any:
                self.calls.append(Call(method, request, metadata, context.time_remaining()))
                return behaviour(method, request, context)

            return note

        if method == "Watch":
            return grpc.unary_stream_rpc_method_handler(noted(self._stream), read, write)
        return grpc.unary_unary_rpc_method_handler(noted(self._answer), read, write)

    def _answer(self, method: str, request: Any, context: Any) -> Any:
        answer = self._answers[method](request)
        if isinstance(answer, Refusal):
            context.abort_with_status(answer.status())
        return answer

    def _stream(self, method: str, request: Any, context: Any) -> Iterator[Any]:
        gone = threading.Event()
        context.add_callback(gone.set)
        context.add_callback(self.ended_watches.release)
        for said in self.streams.pop(0) if self.streams else [Hang()]:
            if isinstance(said, Hang):
                gone.wait(30)
                return
            if isinstance(said, Refusal):
                context.abort_with_status(said.status())
            elif callable(said):
                said()
            else:
                yield said


def hello(
    *, log_id: str = LOG_ID, session: int = 1, interval_seconds: float = 15, head: int = 0
) -> pb.WatchResponse:
    said = pb.Hello(log_id=log_id, session=session, head_revision=head)
    said.bookmark_interval.FromNanoseconds(int(interval_seconds * 1e9))
    return pb.WatchResponse(hello=said)


def transaction(revision: int, *changes: pb.Change) -> pb.WatchResponse:
    said = pb.Transaction(revision=revision, cursor=b"c%d" % revision, changes=changes)
    said.commit_time.FromSeconds(1_700_000_000 + revision)
    return pb.WatchResponse(transaction=said)


def bookmark(revision: int) -> pb.WatchResponse:
    return pb.WatchResponse(bookmark=pb.Bookmark(revision=revision, cursor=b"c%d" % revision))


def goodbye(
    revision: int,
    *,
    reconnect_after_seconds: float = 0,
    reason: pb.GoodbyeReason.ValueType = pb.GOODBYE_REASON_LIFETIME,
) -> pb.WatchResponse:
    said = pb.Goodbye(cursor=b"c%d" % revision, reason=reason)
    said.reconnect_after.FromNanoseconds(int(reconnect_after_seconds * 1e9))
    return pb.WatchResponse(goodbye=said)


def snapshot(
    revision: int,
    *items: pb.SnapshotItem,
    reason: pb.SnapshotReason.ValueType = pb.SNAPSHOT_REASON_REQUESTED,
    digest: bytes | None = None,
    count: int | None = None,
) -> list[pb.WatchResponse]:
    """A snapshot in chunks of one item."""
    whole = hashlib.sha256()
    for item in items:
        whole.update(item.SerializeToString(deterministic=True))
    return [
        pb.WatchResponse(snapshot_begin=pb.SnapshotBegin(reason=reason, revision=revision)),
        *(pb.WatchResponse(snapshot_chunk=pb.SnapshotChunk(items=[item])) for item in items),
        pb.WatchResponse(
            snapshot_end=pb.SnapshotEnd(
                count=len(items) if count is None else count,
                digest=whole.digest() if digest is None else digest,
                cursor=b"c%d" % revision,
            )
        ),
    ]
