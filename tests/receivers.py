"""A receiver of webhooks: a real HTTP server on a free port, which answers as it is told to."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

from tests.factories import eventually

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from types import TracebackType


@dataclass
class Reply:
    """How to answer: with a status and headers, after so long."""

    status: int = 204
    headers: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    body: bytes = b""


@dataclass(frozen=True)
class Post:
    """What came in."""

    path: str
    headers: dict[str, str]
    body: bytes
    began: float
    ended: float
    status: int

    @property
    def json(self) -> dict[str, Any]:
        """The body, parsed."""
        found: dict[str, Any] = json.loads(self.body)
        return found

    @property
    def id(self) -> str:
        """The delivery's id, in either format."""
        return self.headers.get("x-mlflow-delivery-id") or self.headers["webhook-id"]

    @property
    def event(self) -> str:
        """What happened, in either format."""
        said = self.json
        if "entity" in said:
            return f"{said['entity']}.{said['action']}"
        return str(said["type"]).removeprefix("stagewire.")


class Receiver:
    """Listens while entered; `answer(post)` says how each post is answered."""

    def __init__(self, *, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        """Listen on 127.0.0.1, on a free port unless told one."""
        self.posts: list[Post] = []
        self.answer: Callable[[Post], Reply] = lambda _post: Reply()
        self.gate = threading.Event()
        self._tls = tls
        self._port = port

    def __enter__(self) -> Self:
        """Begin to listen."""
        receiver = self

        class Listener(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:  # http.server's own name
                receiver.take(self)

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), Listener)
        self._server.daemon_threads = True
        if self._tls is not None:
            self._server.socket = self._tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        """Stop listening; whoever is kept waiting is let go."""
        self.gate.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """Where to post to."""
        return f"http://127.0.0.1:{self.port}/in"

    def take(self, listener: BaseHTTPRequestHandler) -> None:
        """Answer one post, and keep it."""
        began = time.monotonic()
        body = listener.rfile.read(int(listener.headers["Content-Length"]))
        headers = {name.lower(): value for name, value in listener.headers.items()}
        post = Post(listener.path, headers, body, began, began, 0)
        reply = self.answer(post)
        if reply.seconds:
            self.gate.wait(reply.seconds)
        # Kept before the answer, so that whoever heard of the answer finds it.
        done = Post(listener.path, headers, body, began, time.monotonic(), reply.status)
        self.posts.append(done)
        try:
            listener.send_response(reply.status)
            for name, value in reply.headers.items():
                listener.send_header(name, value)
            listener.send_header("Content-Length", str(len(reply.body)))
            listener.end_headers()
            listener.wfile.write(reply.body)
        except OSError:
            listener.close_connection = True

    @property
    def taken(self) -> list[Post]:
        """What was answered with success."""
        return [post for post in self.posts if 200 <= post.status < 300]

    @property
    def events(self) -> list[str]:
        """What happened, as far as it was taken, in order."""
        return [post.event for post in self.taken]

    def expect(self, count: int, *, seconds: float = 15) -> list[Post]:
        """Wait until so many posts were taken."""
        eventually(lambda: len(self.taken) >= count, seconds=seconds)
        return self.taken
