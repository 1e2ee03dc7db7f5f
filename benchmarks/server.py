"""The server under test, in a process of its own: the product's, and what it is compared with.

Echoes go the product's way, through its interceptors, validation, logging, admission and pool,
and do nothing at the end of it. The bare ones are plain grpc.aio handlers on the same server.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import time
from collections import defaultdict, deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import grpc
import uvloop

from benchmarks.guarded import furnish, make_gate
from stagewire import pb
from stagewire.server import interceptors, logging, servicers
from stagewire.server.serve import Server, share_interpreter
from stagewire.service import limits, rules
from stagewire.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from stagewire.callers import Caller
    from stagewire.service.registry import Registry

POOL_ECHO = "/benchmarks.Pool/GetModelVersion"
LOOP_ECHO = "/benchmarks.Loop/GetModelVersion"
GUARDED_ECHO = "/benchmarks.Guarded/GetModelVersion"
BARE_ECHO = "/benchmarks.Bare/Echo"
STREAM = "/benchmarks.Bare/Stream"
PUBLISH = "/benchmarks.Bare/Publish"
CPU = "/benchmarks.Probe/Cpu"
COMMITS = "/benchmarks.Probe/Commits"

#: A stream's request and the start of a Publish name their topic in so many bytes.
TOPIC_BYTES = 4
_REGISTRY_SERVICE = "modelregistry.v1.RegistryService"
_KEPT_COMMITS = 1000


class EchoRegistry:
    """Answers GetModelVersion like a registry that need not look; has no other operation."""

    def __init__(self, answer: pb.GetModelVersionResponse) -> None:
        """Answer so, always."""
        self._answer = answer

    def __getattr__(self, _name: str) -> Callable[[Any, Caller], pb.GetModelVersionResponse]:
        """Give the one operation under every name that the table of contents asks for."""
        return self._echo

    def _echo(self, request: Any, caller: Caller) -> pb.GetModelVersionResponse:
        limits.check(request)
        if caller.deadline is not None and time.monotonic() > caller.deadline:
            raise TimeoutError
        return self._answer


class Hub:
    """A bare fan-out: what is published is written to every stream of its topic."""

    def __init__(self) -> None:
        """Start empty."""
        self._streams: defaultdict[bytes, dict[asyncio.Event, None]] = defaultdict(dict)
        self._message: dict[bytes, bytes] = {}

    async def stream(self, topic: bytes, context: Any) -> None:
        """Write what is published, for as long as the client listens."""
        woken = asyncio.Event()
        self._streams[topic][woken] = None
        try:
            await context.write(b"hello")
            while True:
                await woken.wait()
                woken.clear()
                await context.write(self._message[topic])
        finally:
            del self._streams[topic][woken]

    async def publish(self, request: bytes, _context: Any) -> bytes:
        """Wake every stream of the topic; answers when that began."""
        topic, message = request[:TOPIC_BYTES], request[TOPIC_BYTES:]
        now = time.monotonic_ns()
        self._message[topic] = message
        for woken in self._streams[topic]:
            woken.set()
        return now.to_bytes(8, "big")


class MeasuredServer(Server):
    """The product's server with what it is compared with beside it."""

    def __init__(self, settings: Settings, answer: bytes) -> None:
        """Have the echoes answer with `answer`."""
        super().__init__(settings)
        self._bytes = answer
        self._answer = pb.GetModelVersionResponse.FromString(answer)
        self._commits: deque[tuple[int, int]] = deque(maxlen=_KEPT_COMMITS)
        self._hub = Hub()

    async def start(self) -> None:
        """Start, and note when each commit returned."""
        await super().start()
        await asyncio.to_thread(furnish, self.registry)
        self.tail.listeners.append(self._gate.directory.hear)
        await self._gate.directory.load()
        assert self.database is not None
        tail = self.database._committed  # noqa: SLF001  # the tail's; it has no reader but us

        def note(revision: int) -> None:
            self._commits.append((revision, time.monotonic_ns()))
            tail(revision)

        self.database.on_commit(note)

    def _add_services(self) -> None:
        super()._add_services()
        service = next(s for s in servicers.SERVICES if s.full_name == _REGISTRY_SERVICE)
        registry = cast("Registry", EchoRegistry(self._answer))
        on_pool = interceptors.handlers(
            service, registry, self.pool, self.admission, gate=self.gate, rates=self.rates
        )
        raw = grpc.unary_unary_rpc_method_handler
        self.server.add_generic_rpc_handlers(
            (
                _service("Pool", GetModelVersion=on_pool["GetModelVersion"]),
                _service("Loop", GetModelVersion=self._on_loop()),
                _service("Guarded", GetModelVersion=self._guarded()),
                _service(
                    "Bare",
                    Echo=raw(self._bare),
                    Publish=raw(self._hub.publish),
                    Stream=grpc.unary_stream_rpc_method_handler(self._hub.stream),
                ),
                _service("Probe", Cpu=raw(_cpu), Commits=raw(self._since)),
            )
        )

    def _on_loop(self) -> grpc.RpcMethodHandler[Any, Any]:
        async def work(request: pb.GetModelVersionRequest, _context: Any) -> Any:
            self.admission.enter()
            try:
                limits.check(request)
                return self._answer
            finally:
                self.admission.leave()

        return grpc.unary_unary_rpc_method_handler(
            interceptors.answered("benchmarks.Loop.GetModelVersion", work, self.gate),
            request_deserializer=pb.GetModelVersionRequest.FromString,
            response_serializer=pb.GetModelVersionResponse.SerializeToString,
        )

    def _guarded(self) -> grpc.RpcMethodHandler[Any, Any]:
        """Make the echo on the loop once more, with the product's way to judge a call."""
        self._gate = make_gate(self.registry, self.tail, self.access_pool)

        async def work(request: pb.GetModelVersionRequest, _context: Any) -> Any:
            caller = servicers.CALLER.get()
            self.admission.enter()
            try:
                limits.check(request)
                rules.authorise("GetModelVersion", caller, request)
                version = self._answer.version
                if not caller.rights.sees(version.namespace, version.model):
                    raise PermissionError
                return self._answer
            finally:
                self.admission.leave()

        return grpc.unary_unary_rpc_method_handler(
            interceptors.answered("benchmarks.Guarded.GetModelVersion", work, self._gate),
            request_deserializer=pb.GetModelVersionRequest.FromString,
            response_serializer=pb.GetModelVersionResponse.SerializeToString,
        )

    async def _bare(self, _request: bytes, _context: Any) -> bytes:
        return self._bytes

    async def _since(self, _request: bytes, _context: Any) -> bytes:
        return json.dumps(list(self._commits)).encode()


async def _cpu(_request: bytes, _context: Any) -> bytes:
    return repr(time.process_time()).encode()


def _service(name: str, **handlers: grpc.RpcMethodHandler[Any, Any]) -> grpc.GenericRpcHandler:
    return grpc.method_handlers_generic_handler(f"benchmarks.{name}", handlers)


async def _serve(settings: Settings, answer: bytes) -> None:
    server = MeasuredServer(settings, answer)
    await server.start()
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    print(server.address, flush=True)
    await stopping.wait()
    await server.stop()


def main() -> None:
    """Serve until SIGTERM; the first line printed is the address."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database-url", required=True)
    parser.add_argument("--answer", type=Path, required=True, help="what the echoes answer")
    given = parser.parse_args()
    # Nothing of a stream's own clockwork may fall into a round.
    settings = Settings(
        database_url=given.database_url,
        auth="off",
        caller_requests_per_second=0,
        grpc_address="127.0.0.1:0",
        http_address="",
        bookmark_interval_seconds=3600,
        stream_lifetime_seconds=3600,
        drain_seconds=0,
        goodbye_seconds=0,
        stop_seconds=1,
    )
    logging.configure(settings.log_level)
    share_interpreter()
    uvloop.run(_serve(settings, given.answer.read_bytes()))


if __name__ == "__main__":
    main()
