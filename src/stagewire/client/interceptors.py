"""What the SDK adds to every call: namespace, request_id, min_revision, deadline, token, errors.

The caller's request is never changed: what is added goes on a copy, so a request sent twice is
two requests. `Outgoing` holds the rules; the interceptors below only move messages.
"""

from __future__ import annotations

import functools
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import grpc
import grpc.aio
from google.protobuf.descriptor import FieldDescriptor

from stagewire import pb
from stagewire.client import errors, statuses

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from google.protobuf.descriptor import Descriptor
    from google.protobuf.message import Message

    from stagewire.client.history import History, Mark
    from stagewire.client.tokens import Metadata, Token

_Request = TypeVar("_Request")


@dataclass(frozen=True, slots=True)
class _Fields:
    """Which of the contract's common fields a message has."""

    namespace: bool
    request_id: bool
    min_revision: bool


@functools.cache
def _fields_of(descriptor: Descriptor) -> _Fields:
    namespace = descriptor.fields_by_name.get("namespace")
    return _Fields(
        # CreateNamespace has a field of this name that is the namespace itself.
        namespace=namespace is not None and namespace.type == FieldDescriptor.TYPE_STRING,
        request_id="request_id" in descriptor.fields_by_name,
        min_revision="min_revision" in descriptor.fields_by_name,
    )


@dataclass(frozen=True, slots=True)
class Sent:
    """A request as it goes out, and the mark that was put on it, if one was."""

    request: Any
    mark: Mark | None
    era: int


class Outgoing:
    """The rules: what is put on a request, what is learnt from its answer or refusal."""

    def __init__(
        self,
        history: History,
        *,
        namespace: str,
        on_history_lost: Callable[[errors.HistoryLost], object] | None,
    ) -> None:
        """Keep whose registry is meant and whom to tell of lost history."""
        self._history = history
        self._namespace = namespace
        self._on_history_lost = on_history_lost

    def prepare(self, request: Any) -> Sent:
        """Fill in what the caller left out."""
        fields = _fields_of(request.DESCRIPTOR)
        mark = self._history.mark
        filled = type(request)()
        filled.CopyFrom(request)
        if fields.namespace and not request.namespace:
            filled.namespace = self._namespace
        if fields.request_id and not request.request_id:
            filled.request_id = uuid.uuid4().hex
        if isinstance(filled, pb.LogMetricsRequest):
            _date(filled)
        if not fields.min_revision or request.min_revision or not mark.revision:
            return Sent(filled, None, mark.era)
        filled.min_revision = mark.revision
        return Sent(filled, mark, mark.era)

    def learn(self, sent: Sent, answer: Message) -> None:
        """Raise the mark to the revision that an answer names."""
        revision = getattr(answer, "revision", 0)
        log_id = answer.log_id if isinstance(answer, pb.GetHeadResponse) else ""
        self._history.learn(revision, era=sent.era, log_id=log_id)

    def again(self, sent: Sent, error: grpc.RpcError) -> Sent:
        """Return the read to repeat without a mark after history was lost.

        Raises everything else translated; also the lost history itself, once, when nobody
        asked to be told of it by `on_history_lost`.
        """
        refusal = statuses.of(error)
        if sent.mark is None or not isinstance(refusal, errors.RevisionAhead):
            raise refusal from None
        lost = _history_lost(refusal, sent.mark)
        if self._history.lose(sent.mark, log_id=lost.log_id):
            if self._on_history_lost is None:
                raise lost from None
            self._on_history_lost(lost)
        sent.request.min_revision = 0
        return Sent(sent.request, None, self._history.mark.era)


def _date(request: pb.LogMetricsRequest) -> None:
    # A point without a time is new each time it arrives: a retry would count it twice.
    for metric in request.metrics:
        if not metric.HasField("time"):
            metric.time.GetCurrentTime()
            metric.time.nanos -= metric.time.nanos % 1000


def _history_lost(refusal: errors.RevisionAhead, mark: Mark) -> errors.HistoryLost:
    head = int(refusal.metadata.get("head") or 0)
    lost = errors.HistoryLost(
        f"the registry lost history: this client has seen revision {mark.revision}, and its log"
        f" ends at {head}; what was read before may be undone, so read again",
        code=refusal.code,
        reason=refusal.reason,
        metadata=refusal.metadata,
        grpc_error=refusal.grpc_error,
    )
    lost.last_seen_revision = mark.revision
    lost.head_revision = head
    lost.log_id = refusal.metadata.get("log_id", "")
    return lost


class _CallDetails(NamedTuple):
    method: str
    timeout: float | None
    metadata: Any
    credentials: grpc.CallCredentials | None
    wait_for_ready: bool | None
    compression: grpc.Compression | None


class _Answer:
    """The call's future, with the answer learnt from and the refusal translated."""

    def __init__(
        self, outgoing: Outgoing, sent: Sent, begin: Callable[[Any], grpc.Future[Any]]
    ) -> None:
        self._outgoing = outgoing
        self._sent = sent
        self._begin = begin
        self._call = begin(sent.request)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)

    def result(self, timeout: float | None = None) -> Any:
        while True:
            try:
                answer = self._call.result(timeout)
            except grpc.RpcError as error:
                self._sent = self._outgoing.again(self._sent, error)
                self._call = self._begin(self._sent.request)
            else:
                self._outgoing.learn(self._sent, answer)
                return answer

    def exception(self, timeout: float | None = None) -> Exception | None:
        try:
            self.result(timeout)
        except errors.StagewireError as error:
            return error
        return None

    def add_done_callback(self, fn: Callable[[Any], object]) -> None:
        def tell(_: object) -> None:
            fn(self)

        self._call.add_done_callback(tell)


class UnaryCalls(grpc.UnaryUnaryClientInterceptor):
    """Sends unary calls of the synchronous client."""

    def __init__(self, outgoing: Outgoing, *, timeout_seconds: float, token: Token) -> None:
        """Keep the rules, the default deadline and who calls."""
        self._outgoing = outgoing
        self._timeout_seconds = timeout_seconds
        self._token = token

    def intercept_unary_unary(
        self,
        continuation: Callable[[grpc.ClientCallDetails, _Request], Any],
        client_call_details: grpc.ClientCallDetails,
        request: _Request,
    ) -> Any:
        """Send one call."""
        details = _details(client_call_details, self._timeout_seconds, self._token.metadata())
        return _Answer(
            self._outgoing,
            self._outgoing.prepare(request),
            lambda filled: continuation(details, filled),
        )


class AsyncUnaryCalls(grpc.aio.UnaryUnaryClientInterceptor):
    """Sends unary calls of the asynchronous client."""

    def __init__(self, outgoing: Outgoing, *, timeout_seconds: float, token: Token) -> None:
        """Keep the rules, the default deadline and who calls."""
        self._outgoing = outgoing
        self._timeout_seconds = timeout_seconds
        self._token = token

    async def intercept_unary_unary(
        self,
        continuation: Callable[[grpc.aio.ClientCallDetails, _Request], Awaitable[Any]],
        client_call_details: grpc.aio.ClientCallDetails,
        request: _Request,
    ) -> Any:
        """Send one call."""
        details = _async_details(client_call_details, self._timeout_seconds, self._token.metadata())
        sent = self._outgoing.prepare(request)
        while True:
            call = await continuation(details, sent.request)
            try:
                answer = await call
            except grpc.RpcError as error:
                sent = self._outgoing.again(sent, error)
            else:
                self._outgoing.learn(sent, answer)
                return call


class Streams(grpc.UnaryStreamClientInterceptor):
    """Begins streams of the synchronous client."""

    def __init__(self, token: Token) -> None:
        """Keep who calls."""
        self._token = token

    def intercept_unary_stream(
        self,
        continuation: Callable[[grpc.ClientCallDetails, _Request], Any],
        client_call_details: grpc.ClientCallDetails,
        request: _Request,
    ) -> Any:
        """Begin one stream."""
        details = _details(client_call_details, None, self._token.metadata())
        return continuation(details, request)


class AsyncStreams(grpc.aio.UnaryStreamClientInterceptor):
    """Begins streams of the asynchronous client."""

    def __init__(self, token: Token) -> None:
        """Keep who calls."""
        self._token = token

    async def intercept_unary_stream(
        self,
        continuation: Callable[[grpc.aio.ClientCallDetails, _Request], Any],
        client_call_details: grpc.aio.ClientCallDetails,
        request: _Request,
    ) -> Any:
        """Begin one stream."""
        details = _async_details(client_call_details, None, self._token.metadata())
        return await continuation(details, request)


def _details(
    given: grpc.ClientCallDetails, timeout_seconds: float | None, added: Metadata
) -> grpc.ClientCallDetails:
    metadata = (*(given.metadata or ()), *added)
    # grpc reads these attributes only; its own class for them is private.
    return _CallDetails(  # type: ignore[return-value]
        given.method,
        timeout_seconds if given.timeout is None else given.timeout,
        metadata,
        given.credentials,
        given.wait_for_ready,
        given.compression,
    )


def _async_details(
    given: grpc.aio.ClientCallDetails, timeout_seconds: float | None, added: Metadata
) -> grpc.aio.ClientCallDetails:
    metadata = grpc.aio.Metadata(*(given.metadata or ()))
    for key, value in added:
        metadata.add(key, value)
    return grpc.aio.ClientCallDetails(
        given.method,
        timeout_seconds if given.timeout is None else given.timeout,
        metadata,
        given.credentials,
        given.wait_for_ready,
    )
