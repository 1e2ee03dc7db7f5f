"""Hostile requests over HTTP, written byte by byte: no client of ours would send them."""

from __future__ import annotations

import http.client
import json
import socket
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from stagewire.gateway.paths import SERVED
from stagewire.gateway.reading import IDEMPOTENCY_KEY
from stagewire.mlflow import shapes, workspaces
from tests.hostile.barrages import Answer, Gun, Kind
from tests.hostile.texts import CLIMBING, Text, as_bytes, climbing_to

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stagewire.mlflow.routes import Route
    from tests.hostile.targets import Target

SILENT_SECONDS = 20.0
_PLACEHOLDER = "\x7f"
_PREFIX = "/api/2.0/mlflow"
#: How a request may be answered; never with a fault of the server's.
REFUSALS = frozenset({"400", "401", "403", "404", "405", "408", "409", "411", "413", "414", "415"})

#: Headers that somebody on the way may act upon.
_HEADERS = (
    *("x-request-id", IDEMPOTENCY_KEY, workspaces.HEADER, "content-type", "accept", "host"),
    *("authorization", "cookie", "origin", "referer", "user-agent", "range", "if-match"),
    *("if-none-match", "accept-encoding", "content-encoding", "forwarded", "x-forwarded-for"),
    *("x-forwarded-host", "x-forwarded-proto", "x-forwarded-prefix", "x-original-url"),
    *("x-rewrite-url", "x-http-method-override", "upgrade", "expect", "te", "connection", "via"),
)
#: What a path may begin with before it climbs.
_BEGINNINGS = (
    *("/", "//", "/health/", f"{_PREFIX}/", f"{_PREFIX}/registered-models/", "/get-artifact?path="),
    *(
        f"{_PREFIX}/model-versions/get?name=",
        "/model-versions/get-artifact?name=churn&version=1&path=",
    ),
    *("/ajax-api/2.0/mlflow/", "/static-files/", "/api/2.0/mlflow-artifacts/artifacts/", ""),
)

#: What the fields of these names hold unless the text stands there.
_USUAL: dict[str, Any] = {
    "alias": "champion",
    "events": [{"entity": "REGISTERED_MODEL", "action": "CREATED"}],
    "event": {"entity": "REGISTERED_MODEL", "action": "CREATED"},
    "key": "team",
    "name": "churn",
    "new_name": "spare",
    "path": "MLmodel",
    "source": "s3://models/churn/1",
    "stage": "Production",
    "url": "https://127.0.0.1:1/hook",
    "value": "risk",
    "version": "1",
}
#: What a first request would take away from the others is done to this model.
_SPARE = {"name": "spare", "webhook_id": "none"}


class Place(NamedTuple):
    """Where a text stands in a request, of a route's if it has one: `of` says in which part."""

    of: str
    name: str
    route: Route | None = None

    def __str__(self) -> str:
        """Name it."""
        return f"{self.of} {self.name} {self.route.method + self.route.path if self.route else ''}"


def places() -> list[Place]:
    """List every field, header, path and query where a text can stand."""
    found = [Place("header", name) for name in _HEADERS]
    found += [Place("path", beginning) for beginning in _BEGINNINGS]
    for route in SERVED:
        found += [Place("query", "", route), Place("word", "", route)]
        for name, field in route.endpoint.shape.items():
            found.append(Place("field", name, route))
            if field in (shapes.TAGS, shapes.OBJECTS, shapes.OBJECT):
                found += [Place(f"{part} of", name, route) for part in ("key", "value", "odd key")]
        if "{" in route.path:
            found += [Place("part", "", route), Place("encoded part", "", route)]
    return found


class Writer:
    """Writes requests to a registry in which these objects are."""

    def __init__(self, target: Target) -> None:
        """Write for a target, with its credentials."""
        self._ids = {"webhook_id": target.ids.get("id", ""), "workspace_name": "default"}
        self.host = target.http_address
        self.credentials = target.credentials

    def usual(self, route: Route) -> bytes:
        """Write a request in which nothing is hostile."""
        return self.with_text(Place("", "", route), "")

    def with_text(self, place: Place, text: Text) -> bytes:
        """Write a request with a text at one place."""
        octets = as_bytes(text)
        stands_in = _PLACEHOLDER * len(octets) if isinstance(text, bytes) else text
        headers: list[tuple[str, bytes]] = []
        fields: dict[str, Any] = {}
        if place.route is None:
            method, path = "GET", f"{_PREFIX}/registered-models/get?name=churn".encode()
            if place.of == "path":
                path = place.name.encode() + octets
            else:
                headers = [(place.name, octets)]
        else:
            method, path, fields = self._of_route(place, stands_in, octets)
        body = json.dumps(fields, ensure_ascii=False).encode() if fields else b""
        if isinstance(text, bytes):
            body = body.replace(stands_in.encode(), octets)
        return self.written(method, path, headers, body)

    def _of_route(
        self, place: Place, text: str, octets: bytes
    ) -> tuple[str, bytes, dict[str, Any]]:
        route = place.route
        assert route is not None
        fields = self._fields(route)
        path = route.bases[0] + route.path
        hostile = place.of in ("part", "encoded part")
        for name, value in self._ids.items():
            path = path.replace(f"{{{name}}}", "\0" if hostile else value)
        raw = path.encode()
        if place.of == "part":
            raw = raw.replace(b"\0", octets)
        elif place.of == "encoded part":
            raw = raw.replace(b"\0", quote(octets, safe="").encode())
        elif place.of == "word":
            fields[text] = "value"
        elif place.of == "field":
            repeated = route.endpoint.shape[place.name].repeated
            fields[place.name] = [text] if repeated else text
        elif place.of.endswith(" of"):
            fields[place.name] = _structured(place, text)
        if route.method == "GET" or place.of == "query":
            query = [_pair(name, value, octets, text) for name, value in fields.items()]
            if place.of == "query":
                query.append(octets)
            raw += b"?" + b"&".join(query)
            fields = {} if route.method == "GET" else fields
        return route.method, raw, fields

    def _fields(self, route: Route) -> dict[str, Any]:
        takes_away = route.method == "DELETE" or route.path.endswith(("rename", "update"))
        usual = {**_USUAL, **(_SPARE if takes_away else {})}
        if route.path == "/registered-models/create":
            usual["name"] = "made"
        return {
            name: usual[name]
            for name, field in route.endpoint.shape.items()
            if name in usual and (field.required or name in ("name", "source", "version"))
        }

    def written(
        self, method: str, path: bytes, headers: list[tuple[str, bytes]], body: bytes
    ) -> bytes:
        """Write a request."""
        mine = {name.lower() for name, _ in headers}
        usual: Mapping[str, bytes] = {
            "host": self.host.encode(),
            "content-type": b"application/json",
            "content-length": str(len(body)).encode(),
            **{name: value.encode() for name, value in self.credentials},
        }
        lines = [f"{method} ".encode() + path + b" HTTP/1.1"]
        lines += [n.encode() + b": " + v for n, v in usual.items() if n not in mine]
        lines += [n.encode() + b": " + v for n, v in headers]
        return b"\r\n".join(lines) + b"\r\n\r\n" + body


def _structured(place: Place, text: str) -> Any:
    """Put a text into a tag or an event."""
    inner: dict[str, Any]
    if place.of == "odd key of":
        inner = {text: {text: [text]}}
    elif place.name == "tags":
        inner = {"key": text, "value": "v"} if place.of == "key of" else {"key": "k", "value": text}
    elif place.of == "key of":
        inner = {"entity": text, "action": "CREATED"}
    else:
        inner = {"entity": "REGISTERED_MODEL", "action": text}
    return inner if place.name == "event" else [inner]


def _pair(name: str, value: Any, octets: bytes, text: str) -> bytes:
    value = value[0] if isinstance(value, list) else value
    parts = (octets if part == text else str(part).encode() for part in (name, value))
    return b"=".join(quote(part, safe="").encode() for part in parts)


class Connection:
    """A connection, made anew when the other side has ended it."""

    def __init__(self, address: str, *, seconds: float = 0) -> None:
        """Prepare; `seconds` are how long an answer is waited for."""
        self._seconds = seconds or SILENT_SECONDS
        host, _, port = address.rpartition(":")
        self._address = (host, int(port))
        self._socket: socket.socket | None = None

    def ask(self, request: bytes) -> Answer:
        """Send bytes, and read one answer to them."""
        connected = self._connected()
        try:
            # It may answer, and hang up, before it has read all.
            with suppress(BrokenPipeError, ConnectionResetError):
                connected.sendall(request)
            method = request.partition(b" ")[0].decode("latin-1")
            response = http.client.HTTPResponse(connected, method=method)
            response.begin()
            said = bytes(response.headers) + b"\n" + response.read()
            code = str(response.status)
            if response.will_close:
                self.close()
        except TimeoutError:
            self.close()
            return Answer("silence")
        except (http.client.HTTPException, OSError) as error:
            self.close()
            return Answer("closed", type(error).__name__.encode())
        return Answer(code, said)

    def tell(self, octets: bytes) -> None:
        """Send bytes, and read nothing."""
        self._connected().sendall(octets)

    def _connected(self) -> socket.socket:
        if self._socket is None:
            self._socket = socket.create_connection(self._address, timeout=self._seconds)
        return self._socket

    def close(self) -> None:
        """End it."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


@contextmanager
def connection(target: Target, *, seconds: float = 0) -> Iterator[Connection]:
    """Connect."""
    made = Connection(target.http_address, seconds=seconds)
    try:
        yield made
    finally:
        made.close()


@contextmanager
def _texts(target: Target) -> Iterator[Gun]:
    texts, everywhere = climbing_to(target.secret), places()
    writer = Writer(target)
    with connection(target) as asks:

        def shoot(number: int) -> Answer:
            place = everywhere[number % len(everywhere)]
            text = texts[(number + number // len(everywhere)) % len(texts)]
            answer = asks.ask(writer.with_text(place, text))
            if place.route is None:
                # Where a request ends is the text's to say here: what follows is another one's.
                asks.close()
            return answer

        yield shoot


def usual(target: Target) -> dict[str, Answer]:
    """Send every route a request with nothing hostile in it."""
    writer = Writer(target)
    with connection(target) as asks:
        return {f"{route.method} {route.path}": asks.ask(writer.usual(route)) for route in SERVED}


@contextmanager
def _texts_of_nobody(target: Target) -> Iterator[Gun]:
    with _texts(target.from_nobody()) as gun:
        yield gun


def kinds() -> list[Kind]:
    """List the kinds of hostile requests."""
    count = len(places())
    return [
        Kind(
            "HTTP: climbing texts in every field, header and path",
            REFUSALS | {"200"},
            _texts,
            few=6 * count,
            many=len(CLIMBING) * count,
        ),
        # What is no HTTP is refused before anybody asks who sent it.
        Kind("HTTP: the same from nobody", frozenset({"400", "401"}), _texts_of_nobody, few=count),
    ]
