"""A real MLflow tracking server behind the registry: what is not the registry's goes on to it.

Bytes pass as they come, in both directions, no faster than they are taken: nothing is collected,
decoded, followed or tried again, and who hangs up on one side is hung up on at the other.
"""

from __future__ import annotations

import asyncio
import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx
from starlette.requests import ClientDisconnect

from stagewire.mlflow.calls import LoggedModel
from stagewire.mlflow.errors import MlflowError, invalid

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping

    from starlette.types import Message, Receive, Scope, Send

#: What our own questions and everything else end in while it does not answer.
UNAVAILABLE = "TEMPORARILY_UNAVAILABLE"
SETTING = "upstream_tracking_uri"
OPTION = "--upstream-tracking-uri"

_CONNECT_SECONDS = 10.0
#: How long a caller's body, or the tracking server, may stand still.
_IDLE_SECONDS = 300.0
#: For one of our own questions, asked while a client waits for its answer.
_ASK_SECONDS = 30.0
_MOST_CONNECTIONS = 500
#: Less than servers keep idle connections for, so that none is used just as it is closed.
_KEEP_SECONDS = 1.0
_MOST_ANSWER_BYTES = 1024 * 1024

#: Headers of one connection, not of what is said over it.
_HOP_BY_HOP = frozenset(
    {
        *(b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"upgrade"),
        *(b"proxy-authenticate", b"proxy-authorization", b"transfer-encoding"),
    }
)
#: Said anew on the way out; expectations are met here.
_REPLACED = frozenset({b"host", b"expect", b"content-length", b"x-forwarded-for"})
#: Of a request's headers, those that say nothing of a question of our own.
_OF_CONTENT = frozenset({"host", "expect", "range", "accept", "accept-encoding"})
_REGISTRYS = re.compile(
    r"/(?:ajax-)?api/+\d\.\d/+(?:preview/+)?mlflow/+(?:registered-models|model-versions|webhooks)"
    r"(?:/|$)"
)
_TRANSIENT = frozenset({408, 429})


def forwards(path: str) -> bool:
    """Tell whether a path that is none of our routes may be another server's.

    Never one among the registry's: there is one registry, and it is ours.
    """
    return path.startswith("/") and not _REGISTRYS.search(re.sub("/{2,}", "/", path))


class Upstream:
    """The tracking server at one URI."""

    def __init__(self, uri: str) -> None:
        """Prepare; connections are made when they are needed."""
        self._uri = uri.rstrip("/")
        url = httpx.URL(self._uri)
        self._url = url
        self._prefix = url.raw_path.rstrip(b"/")
        limits = httpx.Limits(max_connections=_MOST_CONNECTIONS, keepalive_expiry=_KEEP_SECONDS)
        # Transports, not clients: those would keep cookies of one caller for the next one.
        self._streams = httpx.AsyncHTTPTransport(limits=limits)
        self._questions = httpx.HTTPTransport(limits=limits)

    @property
    def authority(self) -> str:
        """The host and port that are asked, as they stand in a URI."""
        return self._url.netloc.decode("ascii")

    async def close(self) -> None:
        """Close every connection."""
        await self._streams.aclose()
        self._questions.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the tracking server answer a request."""
        raw_path: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
        query: bytes = scope["query_string"]
        target = raw_path + (b"?" + query if query else b"")
        await self._forward(target, scope, _Body(receive, scope["headers"]), send)

    async def fetch(self, target: bytes, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request that is read to its end with what is at `target`, a path and query."""
        await self._forward(target, scope, _Body(receive, ()), send)

    async def _forward(self, target: bytes, scope: Scope, body: _Body, send: Send) -> None:
        exchange = asyncio.create_task(self._exchange(target, scope, body, send))
        hang_up = asyncio.create_task(body.hang_up())
        try:
            await asyncio.wait({exchange, hang_up}, return_when=asyncio.FIRST_COMPLETED)
            if not exchange.done():
                raise ClientDisconnect
            await exchange
        finally:
            for task in (exchange, hang_up):
                task.cancel()
            await asyncio.gather(exchange, hang_up, return_exceptions=True)

    async def _exchange(self, target: bytes, scope: Scope, body: _Body, send: Send) -> None:
        request = httpx.Request(
            scope["method"],
            self._url,
            headers=[*_passing(scope["headers"]), *body.headers, *_forwarded(scope)],
            content=None if body.ended.is_set() else body.chunks(),
            extensions=_extensions(self._prefix + target, _IDLE_SECONDS),
        )
        try:
            response = await self._streams.handle_async_request(request)
        except httpx.TransportError as error:
            raise self._unreachable(error) from None
        # What is left of the body is nobody's now, and hanging up can be noticed.
        body.ended.set()
        try:
            await self._answer(response, send)
        finally:
            await response.aclose()

    async def _answer(self, response: httpx.Response, send: Send) -> None:
        started: Message = {
            "type": "http.response.start",
            "status": response.status_code,
            # The date is the listener's to say.
            "headers": [h for h in _of_all(response.headers.raw) if h[0] != b"date"],
        }
        await send(started)
        try:
            async for chunk in _stream(response):
                part: Message = {"type": "http.response.body", "body": chunk, "more_body": True}
                await send(part)
        except httpx.TransportError as error:
            raise self._unreachable(error) from None
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def logged_model(self, model_id: str, headers: Mapping[str, str]) -> LoggedModel:
        """Ask where a logged model's files are and which run logged it, as the caller."""
        source = f"models:/{model_id}"
        try:
            answer = self.ask(f"/api/2.0/mlflow/logged-models/{quote(model_id, safe='')}", headers)
        except MlflowError as error:
            raise MlflowError(error.code, _unfetched(source, error.message)) from None
        match answer:
            case {"model": {"info": {"artifact_uri": str(uri), **more}}} if uri:
                return LoggedModel(uri, str(more.get("source_run_id") or ""))
        raise invalid(_unfetched(source, f"{SETTING} does not say where it is."))

    def ask(self, path: str, headers: Mapping[str, str]) -> Any:
        """Get a document of the tracking server's, with the caller's credentials.

        What it refuses is refused; where it can't answer now, neither can we.
        """
        asked = httpx.Request(
            "GET",
            self._url,
            headers=[
                # As they came: bytes, whatever their letters.
                (name.encode("latin-1"), value.encode("latin-1"))
                for name, value in headers.items()
                if name.encode() not in _HOP_BY_HOP
                and name not in _OF_CONTENT
                and not name.startswith(("content-", "if-"))
            ]
            + [(b"accept-encoding", b"identity")],
            extensions=_extensions(self._prefix + path.encode(), _ASK_SECONDS),
        )
        try:
            response = self._questions.handle_request(asked)
            try:
                body = _bounded(response)
            finally:
                response.close()
        except httpx.TransportError as error:
            raise self._unreachable(error) from None
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):
            answer = None
        if response.status_code == httpx.codes.OK and answer is not None:
            return answer
        told = answer.get("message") if isinstance(answer, dict) else None
        text = told if isinstance(told, str) else f"{SETTING} answered {response.status_code}."
        transient = response.status_code in _TRANSIENT or response.is_server_error
        raise MlflowError(UNAVAILABLE, text) if transient else invalid(text)

    def _unreachable(self, error: httpx.TransportError) -> MlflowError:
        why = "took too long" if isinstance(error, httpx.TimeoutException) else "can't be reached"
        return MlflowError(
            UNAVAILABLE,
            f"The tracking server {self._uri} {why} ({type(error).__name__}). The registry itself "
            f"is well; if this lasts, have its operator look at the server and at {SETTING} "
            f"({OPTION}).",
        )


class _Body:
    """A request's body on its way, and then the silence until its sender hangs up."""

    def __init__(self, receive: Receive, headers: Iterable[tuple[bytes, bytes]]) -> None:
        self._receive = receive
        lengths = {n: v for n, v in headers if n in (b"content-length", b"transfer-encoding")}
        #: Its length, where that was said.
        self.headers = [(n, v) for n, v in lengths.items() if n == b"content-length"]
        #: Nobody waits for more of the body.
        self.ended = asyncio.Event()
        if not lengths or lengths == {b"content-length": b"0"}:
            self.ended.set()

    async def chunks(self) -> AsyncIterator[bytes]:
        """Give the body as it arrives."""
        while not self.ended.is_set():
            try:
                async with asyncio.timeout(_IDLE_SECONDS):
                    message = await self._receive()
            except TimeoutError:
                raise ClientDisconnect from None
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            if not message.get("more_body", False):
                self.ended.set()
            if message.get("body"):
                yield message["body"]

    async def hang_up(self) -> None:
        """Wait until the sender is gone."""
        await self.ended.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass


async def _stream(response: httpx.Response) -> AsyncIterator[bytes]:
    """Give the bytes of a response as they came, whatever their encoding."""
    stream = response.stream
    assert isinstance(stream, httpx.AsyncByteStream)  # noqa: S101  # an asynchronous transport's
    async for chunk in stream:
        yield chunk


def _bounded(response: httpx.Response) -> bytes:
    stream = response.stream
    assert isinstance(stream, httpx.SyncByteStream)  # noqa: S101  # a synchronous transport's
    body = bytearray()
    for chunk in stream:
        body += chunk
        if len(body) > _MOST_ANSWER_BYTES:
            break
    return bytes(body)


def _passing(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Give what is said to the tracking server, but for what we say of the request ourselves."""
    return [(name, value) for name, value in _of_all(headers) if name not in _REPLACED]


def _of_all(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Leave out what is said to the next hop alone."""
    headers = [(name.lower(), value) for name, value in headers]
    named = {
        word.strip().lower()
        for name, value in headers
        if name == b"connection"
        for word in value.split(b",")
    }
    return [
        (name, value) for name, value in headers if name not in _HOP_BY_HOP and name not in named
    ]


def _forwarded(scope: Scope) -> list[tuple[bytes, bytes]]:
    """Say for whom it is asked, and what they called us; what is said already is kept."""
    given = dict(scope["headers"])
    hops = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
    if scope.get("client"):
        hops.append(scope["client"][0].encode())
    said = [(b"x-forwarded-for", b", ".join(hops))] if hops else []
    if b"x-forwarded-proto" not in given:
        said.append((b"x-forwarded-proto", scope["scheme"].encode()))
    if b"x-forwarded-host" not in given and b"host" in given:
        said.append((b"x-forwarded-host", given[b"host"]))
    return said


def _extensions(target: bytes, seconds: float) -> dict[str, Any]:
    timeout = httpx.Timeout(seconds, connect=_CONNECT_SECONDS, pool=_CONNECT_SECONDS)
    # The target as it came: a URL would be written anew, letter by letter.
    return {"target": target, "timeout": timeout.as_dict()}


def _unfetched(source: str, why: str) -> str:
    return f"Unable to fetch model from model URI source artifact location '{source}'.Error: {why}"
