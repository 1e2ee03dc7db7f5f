"""The composition root: open the database, build the floors, listen, and stop in order."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import structlog
import uvloop
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from stagewire import pb
from stagewire.access.gate import Gate
from stagewire.access.provider import MOST_WAITING
from stagewire.access.rates import Rates
from stagewire.access.spaces import Spaces
from stagewire.gateway.app import Gateway
from stagewire.gateway.crowds import Crowd
from stagewire.gateway.listener import Listener
from stagewire.gateway.upstream import Upstream
from stagewire.hooks import HookRules, Vault
from stagewire.server import (
    certificates,
    exposure,
    gates,
    interceptors,
    logging,
    reflections,
    servicers,
)
from stagewire.server.addresses import CheckedNetwork, refuse_host
from stagewire.server.certificates import BadCertificate, Certificates
from stagewire.server.deliveries import Deliverer, DeliveryPace
from stagewire.server.exports import Exports
from stagewire.server.exposure import Exposed
from stagewire.server.posting import Post
from stagewire.server.watches import Pace, Watches
from stagewire.service.deliveries import Book
from stagewire.service.hot import HotReads
from stagewire.service.registry import Registry
from stagewire.service.snapshots import Snapshots
from stagewire.service.tail import Tail, TailPace
from stagewire.sources import Sources
from stagewire.store import upgrades
from stagewire.store.database import Database, StartRefusal, parse_url
from stagewire.store.opening import open_database

if TYPE_CHECKING:
    from collections.abc import Callable

    from stagewire.access.gate import OpenGate
    from stagewire.settings import Settings

log = structlog.get_logger("stagewire.server")

TIDY_SECONDS = 3600
_WATCH_SERVICE = "modelregistry.v1.WatchService"
_CONFIGURATION_SERVICE = "modelregistry.v1.ConfigurationService"

#: Keepalive finds dead peers; ages end connections in order, so that load spreads over replicas.
#: Without a grace, open streams would keep a connection for ever.
GRPC_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 20_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 20_000),
    ("grpc.max_connection_age_ms", 15 * 60_000),
    ("grpc.max_connection_age_grace_ms", 12 * 60_000),
    ("grpc.max_receive_message_length", 4 * 1024 * 1024),
    # An identity provider's token may have 16 KiB. Between the two some are refused by chance.
    ("grpc.max_metadata_size", 20 * 1024),
    ("grpc.absolute_max_metadata_size", 24 * 1024),
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.server.max_pending_requests", 20_000),
    ("grpc.server.max_pending_requests_hard_limit", 50_000),
    # Clients keep what is more until others end. A client of ours has a handful, a proxy that
    # has more callers opens another connection.
    ("grpc.max_concurrent_streams", 1_000),
    # The default lets a second server bind the same port without a word.
    ("grpc.so_reuseport", 0),
)


class Server:
    """One registry server: started, serving, stopped."""

    def __init__(self, settings: Settings) -> None:
        """Prepare; `start` does the work."""
        self.settings = settings
        self.port = 0
        self.database: Database | None = None
        self.http: Listener | None = None
        self._stack = contextlib.AsyncExitStack()

    async def start(self) -> None:
        """Open everything and listen. Raises StartRefusal with the remedy."""
        settings = self.settings
        self.certificates = prepare_certificates(settings)
        loop = asyncio.get_running_loop()
        self.database = await loop.run_in_executor(None, open_for_serving, settings)
        self._stack.callback(self.database.close)
        self.pool = ThreadPoolExecutor(settings.pool_threads, thread_name_prefix="unary")
        self._stack.callback(self.pool.shutdown, wait=True)
        # Streams read on threads of their own: a reconnect storm must not starve unary calls.
        self.stream_pool = ThreadPoolExecutor(8, thread_name_prefix="streams")
        self._stack.callback(self.stream_pool.shutdown, wait=True)
        sources = Sources(settings.source_policy, tuple(settings.source_roots))
        self.registry = Registry(self.database, sources=sources, hooks=hook_rules(settings))
        await loop.run_in_executor(self.pool, self.registry.bootstrap)
        self.tail = Tail(
            self.database,
            self.stream_pool,
            pace=TailPace(
                poll=settings.poll_interval_seconds,
                poll_unheard=min(
                    settings.poll_interval_seconds, settings.poll_interval_unheard_seconds
                ),
                freshness=settings.freshness_seconds,
            ),
            ring_bytes=settings.ring_bytes,
        )
        self._stack.callback(self.tail.close)
        self.hot = HotReads(self.tail, most_bytes=settings.hot_bytes)
        self._prepare_deliveries()
        await self.tail.start()
        self.access_pool = ThreadPoolExecutor(4, thread_name_prefix="access")
        self._stack.callback(self.access_pool.shutdown, wait=True)
        # Verifying may wait for an identity provider; whoever has a token of ours must not.
        self.verifying_pool = ThreadPoolExecutor(MOST_WAITING + 2, thread_name_prefix="verifying")
        self._stack.callback(self.verifying_pool.shutdown, wait=True)
        self.spaces = Spaces(self.database, self.access_pool)
        self.spaces.follow(self.tail)
        await self.spaces.load()
        self.rates = Rates(
            self.spaces,
            per_caller=settings.caller_requests_per_second,
            refused_per_address=settings.refused_calls_per_second,
        )
        self.gate = await gates.open_gate(
            settings,
            self.database,
            self.tail,
            self.access_pool,
            self.verifying_pool,
            rates=self.rates,
        )
        self.watches = Watches(
            self.tail,
            Snapshots(self.database, self.stream_pool),
            self.stream_pool,
            pace=Pace(
                bookmark=settings.bookmark_interval_seconds,
                lifetime=settings.stream_lifetime_seconds,
                slow=settings.slow_consumer_seconds,
            ),
            most=settings.max_watches,
            most_starting=settings.max_starting_watches,
            most_per_caller=settings.max_watches_per_caller,
            gate=self.gate,
            spaces=self.spaces,
        )
        self.exports = Exports(self.registry, self.stream_pool, self.gate, self.rates)
        self.admission = interceptors.Admission(settings.max_pending_calls)
        self.health = health.aio.HealthServicer()
        self.server = grpc.aio.server(
            options=(
                *GRPC_OPTIONS,
                ("grpc.max_allowed_incoming_connections", settings.max_grpc_connections),
            )
        )
        self._add_services()
        upstream = Upstream(uri) if (uri := settings.upstream_tracking_uri) else None
        if upstream is not None:
            self._stack.push_async_callback(upstream.close)
        self.gateway = Gateway(
            self.registry,
            self.pool,
            self.admission,
            self.gate,
            self.rates,
            slow_seconds=settings.slow_consumer_seconds,
            upstream=upstream,
        )
        self._listen()
        self._listen_http()
        await self.server.start()
        if self.http is not None:
            await self.http.start()
        await self._set_health(serving=True)
        self.tail.on_health = self._on_tail_health
        self._tasks = [
            asyncio.create_task(self.tail.run()),
            asyncio.create_task(self.tail.guard()),
            asyncio.create_task(self._tidy()),
            asyncio.create_task(self.deliverer.run()),
        ]
        if isinstance(self.gate, Gate):
            self._tasks.append(asyncio.create_task(self.gate.ledger.run()))
        if self.certificates is not None:
            self._tasks.append(asyncio.create_task(self.certificates.run()))

    def _prepare_deliveries(self) -> None:
        settings = self.settings
        pool = ThreadPoolExecutor(4, thread_name_prefix="webhooks")
        self._stack.callback(pool.shutdown, wait=True)
        lease = max(settings.webhook_lease_seconds, 3 * settings.webhook_timeout_seconds)
        network = CheckedNetwork(allows_private=settings.webhook_allow_private_addresses)
        self.deliverer = Deliverer(
            Book(
                self.registry.database,
                uuid.uuid4().hex,
                lease_seconds=lease,
                kept=settings.webhook_history,
            ),
            Post(
                self.registry.hooks.vault,
                timeout_seconds=settings.webhook_timeout_seconds,
                most=settings.webhook_senders,
                network=network,
            ),
            pool,
            pace=DeliveryPace(
                timeout=settings.webhook_timeout_seconds,
                retry=settings.webhook_retry_seconds,
                retry_most=settings.webhook_retry_most_seconds,
                give_up=settings.webhook_give_up_seconds,
                lease=lease,
                poll=settings.webhook_poll_seconds,
            ),
        )
        self.registry.post = self.deliverer.deliver_once
        self.tail.listeners.append(self.deliverer.wake)

    def _add_services(self) -> None:
        names = [reflections.SERVICE_NAME, health.SERVICE_NAME]
        for service in servicers.SERVICES:
            handlers = interceptors.handlers(
                service,
                self.registry,
                self.pool,
                self.admission,
                gate=self.gate,
                rates=self.rates,
                hot=self.hot,
            )
            if service.full_name == _WATCH_SERVICE:
                handlers["Watch"] = watch_handler(self.watches, self.gate, self.rates)
            if service.full_name == _CONFIGURATION_SERVICE:
                handlers["ExportRegistry"] = self.exports.handler()
            generic = grpc.method_handlers_generic_handler(service.full_name, handlers)
            self.server.add_generic_rpc_handlers((generic,))
            names.append(service.full_name)
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self.server)
        reflections.Reflection(names, self.gate).add_to(self.server)

    def _listen(self) -> None:
        address = self.settings.grpc_address
        try:
            self.port = (
                self.server.add_insecure_port(address)
                if self.certificates is None
                else self.server.add_secure_port(address, self.certificates.for_grpc())
            )
        except RuntimeError as error:
            text = f"can't listen on {address}: is the port taken, or the address not this host's?"
            raise StartRefusal(text) from error
        self.address = f"{address.rpartition(':')[0]}:{self.port}"

    def _listen_http(self) -> None:
        address = self.settings.http_address
        if not address:
            return
        try:
            self.http = Listener(
                self.gateway,
                address,
                stop_seconds=self.settings.stop_seconds,
                tls=None if self.certificates is None else self.certificates.for_http(),
                crowd=Crowd(
                    most=self.settings.max_http_connections,
                    most_per_address=self.settings.max_http_connections_per_address,
                ),
            )
        except (OSError, ValueError) as error:
            text = (
                f"can't listen on {address}: is the port taken, or the address not this host's? "
                "choose another --http-address, or an empty one for gRPC alone"
            )
            raise StartRefusal(text) from error
        self._stack.push_async_callback(self.http.stop)

    @property
    def http_address(self) -> str:
        """Where HTTP listens, empty where it doesn't."""
        return self.http.address if self.http is not None else ""

    @property
    def http_url(self) -> str:
        """Where HTTP listens, as a URL; empty where it doesn't."""
        scheme = "http" if self.certificates is None else "https"
        return f"{scheme}://{self.http_address}" if self.http is not None else ""

    async def _set_health(self, *, serving: bool) -> None:
        self.gateway.healthy = serving
        status = health_pb2.HealthCheckResponse
        for name in ("", *(service.full_name for service in servicers.SERVICES)):
            await self.health.set(name, status.SERVING if serving else status.NOT_SERVING)

    def _on_tail_health(self, healthy: bool) -> None:  # noqa: FBT001  # a callback's one fact
        if not self.admission.closing:
            self._health_task = asyncio.ensure_future(self._set_health(serving=healthy))

    async def _tidy(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                await loop.run_in_executor(self.pool, self.registry.tidy)
            except Exception:
                log.exception("tidying failed; it is tried again in an hour")
            await asyncio.sleep(TIDY_SECONDS)

    async def abandon(self) -> None:
        """Let go of what a failed start had opened."""
        await self._stack.aclose()

    async def stop(self) -> None:
        """Stop in the order that loses no call: unhealthy, drain, Goodbyes, then the server."""
        settings = self.settings
        await self._set_health(serving=False)
        await asyncio.sleep(settings.drain_seconds)
        await self.watches.end(settings.goodbye_seconds)
        self.admission.closing = True
        await asyncio.gather(self.server.stop(settings.stop_seconds), self._stop_http())
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if isinstance(self.gate, Gate):
            await self.gate.ledger.write()
        await self.deliverer.stop()
        await self._stack.aclose()

    async def _stop_http(self) -> None:
        if self.http is not None:
            await self.http.stop()


def open_for_serving(settings: Settings) -> Database:
    """Open the database, upgrading an embedded one; an old PostgreSQL schema is refused."""
    if parse_url(settings.database_url).get_backend_name() == "sqlite":
        upgrades.upgrade(settings.database_url)
    else:
        upgrades.require(settings.database_url)
    return open_database(
        settings.database_url,
        readers=settings.pool_threads + 8,
        listens=settings.listen,
        trusts_storage=settings.trust_storage,
    )


def prepare_certificates(settings: Settings) -> Certificates | None:
    """Read the certificate, None without one. Raises StartRefusal, also for what lacks one."""
    addresses = exposure.listening(settings)
    try:
        files = certificates.files(settings)
        exposure.refuse_plaintext(
            addresses, encrypted=files is not None, allowed=settings.allow_plaintext
        )
        found = None if files is None else Certificates(files)
    except (BadCertificate, Exposed) as error:
        raise StartRefusal(str(error)) from error
    exposed = exposure.reachable(addresses)
    if settings.allow_plaintext and found is None:
        text = "PLAINTEXT: without TLS whoever is on the way reads and changes all, tokens too"
        log.warning(text, allowed_by="--allow-plaintext", reachable=exposed)
    if settings.allow_anonymous:
        text = "ANONYMOUS: without access control whoever reaches this server may do all"
        log.warning(text, allowed_by="--allow-anonymous", reachable=exposed)
    return found


def hook_rules(settings: Settings) -> HookRules:
    """Say what webhooks are held to. Raises StartRefusal for a file of keys that is none."""
    url = parse_url(settings.database_url)
    path = Path(settings.secrets_key_file) if settings.secrets_key_file else None
    embedded = path is None and url.get_backend_name() == "sqlite"
    vault = Vault(Path(f"{url.database}.key") if embedded else path, makes=embedded)
    try:
        vault.check()
    except (OSError, ValueError) as error:
        raise StartRefusal(str(error)) from error
    schemes = tuple(scheme.lower() for scheme in settings.webhook_allowed_schemes)
    if settings.webhook_allow_private_addresses:
        return HookRules(vault, schemes)
    return HookRules(vault, schemes, refuse_host)


def watch_handler(
    watches: Watches, gate: Gate | OpenGate, rates: Rates
) -> grpc.RpcMethodHandler[Any, Any]:
    """Make Watch's handler: it writes serialised messages itself."""
    return grpc.unary_stream_rpc_method_handler(
        interceptors.answered(
            f"{_WATCH_SERVICE}.Watch",
            interceptors.parsed(pb.WatchRequest, interceptors.limited(watches.watch, rates)),
            gate,
        ),
        request_deserializer=None,
        response_serializer=None,
    )


def share_interpreter() -> None:
    """Let threads take turns more often, and garbage be looked for less often, than Python does.

    The writer gives up the interpreter at each statement and waits for it afterwards: at the
    default of 5 ms behind every busy thread, writes of 16 callers ran at 0.7 of this rate. Ten
    thousand streams are some hundred thousand objects that live on: looking whenever 700 more had
    come took up to a tenth of the time in which streams begin. Ten times as seldom as this kept
    170 MiB of large requests waiting to be found.
    """
    sys.setswitchinterval(0.0005)
    gc.set_threshold(5_000, 10, 10)


def run(settings: Settings, *, announce: Callable[[Server], None] | None = None) -> None:
    """Serve until SIGTERM or SIGINT. Raises StartRefusal with the remedy."""
    logging.configure(settings.log_level)
    share_interpreter()

    async def main() -> None:
        server = Server(settings)
        try:
            await server.start()
        except BaseException:
            await server.abandon()
            raise
        stopping = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopping.set)
        log.info("serving", grpc=server.address, http=server.http_address)
        if announce is not None:
            announce(server)
        await stopping.wait()
        log.info("stopping")
        await server.stop()

    uvloop.run(main())
