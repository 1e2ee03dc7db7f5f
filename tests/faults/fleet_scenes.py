"""Three servers on one PostgreSQL, a fleet and writers on all of them, and the history of it."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
from modelregistry.v1.watch_service_pb2_grpc import WatchServiceStub

from stagewire import pb
from stagewire.client import Client, channels, errors
from tests.faults.fleets import Fleet
from tests.faults.load import SPACES, Writer
from tests.faults.processes import CHANNEL_OPTIONS, ServerProcess
from tests.faults.recordings import (
    Heard,
    History,
    MemorySample,
    Poll,
    StreamRecord,
    WatcherRecord,
    pages,
    take_stock,
)
from tests.faults.scenes import furnish, impatient

if TYPE_CHECKING:
    from collections.abc import Iterator

REPLICAS = 3
WRITERS = 16
#: Cursors from which every server is asked for the rest, when all is over.
PROBES = 12


class FleetScene:
    """Servers, writers and a fleet; what they did is in `history` when `playing` is over."""

    def __init__(
        self,
        database_url: str,
        folder: Path,
        *,
        watchers: int,
        agents: int,
        bookmark_seconds: float,
        pause_seconds: float,
        at_once: bool = True,
        **settings: Any,
    ) -> None:
        """Prepare; nothing is started yet.

        Writers pause so long after each write. Clients reconnect at once, or as the SDK has it.
        """
        self.history = History(
            bookmark_seconds=bookmark_seconds, ring_bytes=settings.get("ring_bytes", 32 << 20)
        )
        # Three servers share the hundred connections of a PostgreSQL as it comes.
        chosen = {"pool_threads": 8, "bookmark_interval_seconds": bookmark_seconds, **settings}
        self.servers = [
            ServerProcess(database_url, folder / f"server-{number}.log", **chosen)
            for number in range(REPLICAS)
        ]
        self.address = "ipv4:" + ",".join(server.address for server in self.servers)
        self._folder = folder
        self._watchers, self._agents, self._at_once = watchers, agents, at_once
        self._pause_seconds = pause_seconds
        self._over = threading.Event()

    @contextmanager
    def playing(self) -> Iterator[None]:
        """Run everybody; afterwards let all come to the head, and take stock."""
        with ExitStack() as stack:
            for server in self.servers:
                stack.enter_context(server)
            with impatient():
                client = stack.enter_context(Client(self.address))
            furnish(client)
            fleet = stack.enter_context(self._start_fleet())
            writers = self._writers(stack)
            witnesses = [
                threading.Thread(target=witness, args=arguments)
                for witness, arguments in ((self._poll, (client,)), (self._sample, ()))
            ]
            stack.callback(self._dismiss, witnesses, writers)
            for thread in (*writers, *witnesses):
                thread.start()
            yield
            for writer in writers:
                writer.stop()
                self.history.writes += writer.records
            head = client.watches.GetHead(pb.GetHeadRequest()).revision
            fleet.finish(head, self.history)
            self._look(client)
            self._probe(head)
            take_stock(client, self.history)

    def _start_fleet(self) -> Fleet:
        return Fleet(
            self.address,
            self._folder / "fleet",
            watchers=self._watchers,
            agents=self._agents,
            impatient=self._at_once,
        )

    def _writers(self, stack: ExitStack) -> list[Writer]:
        options = [
            *channels.OPTIONS,
            *CHANNEL_OPTIONS,
            ("grpc.use_local_subchannel_pool", 1),
        ]
        wires = [grpc.insecure_channel(self.address, options=options) for _ in range(WRITERS)]
        for wire in wires:
            stack.callback(wire.close)
        return [
            Writer(wire, number, pause_seconds=self._pause_seconds)
            for number, wire in enumerate(wires)
        ]

    def _dismiss(self, witnesses: list[threading.Thread], writers: list[Writer]) -> None:
        self._over.set()
        for writer in writers:
            writer.abandon()
        for witness in witnesses:
            if witness.ident is not None:
                witness.join(20)

    def _poll(self, client: Client) -> None:
        while not self._over.wait(0.5):
            # Some are asked of a server that is just being killed.
            with contextlib.suppress(errors.StagewireError):
                self._look(client)

    def _look(self, client: Client) -> None:
        poll = Poll(time.monotonic(), [])
        for space in SPACES:
            poll.deployments += pages(
                client.deployments.ListDeployments,
                pb.ListDeploymentsRequest,
                "deployments",
                {"namespace": space, "page_size": 1000},
            )
        self.history.polls.append(poll)

    def _sample(self) -> None:
        begun: dict[tuple[str, int], float] = {}
        while not self._over.wait(0.5):
            for server in self.servers:
                life = (server.address, server.lives)
                now = time.monotonic()
                # While it starts it loads its code: how long that takes is the machine's affair.
                if not server.serving:
                    continue
                # It may be killed while it is looked at.
                with contextlib.suppress(OSError, StopIteration):
                    rss = _resident(server.process.pid)
                    seconds = now - begun.setdefault(life, now)
                    self.history.memory.append(MemorySample(*life, seconds, now, rss))

    def _probe(self, head: int) -> None:
        """Ask every server for what follows some of the cursors that it or another gave."""
        chosen = list(_cursors(self.history, random.Random(head), PROBES))
        for server in self.servers:
            with grpc.insecure_channel(server.address) as channel:
                stub = WatchServiceStub(channel)
                calls = []
                for number, request in enumerate(chosen):
                    record = WatcherRecord(f"probe-{number}-at-{server.address}", request.filter)
                    record.dawdles = True
                    record.streams.append(StreamRecord(request, opened=time.monotonic()))
                    self.history.watchers.append(record)
                    calls.append((stub.Watch(request, timeout=60), record.streams[0]))
                for call, stream in calls:
                    for message in call:
                        stream.heard.append(Heard(time.monotonic(), message))
                        if _is_enough(message, head):
                            break
                    call.cancel()


def _resident(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


def _cursors(history: History, chance: random.Random, count: int) -> Iterator[pb.WatchRequest]:
    found = 0
    while found < count:
        watcher = chance.choice(history.watchers)
        stream = chance.choice(watcher.streams)
        message = chance.choice(stream.heard).message if stream.heard else pb.WatchResponse()
        cursor = message.transaction.cursor or message.bookmark.cursor
        if cursor:
            found += 1
            yield pb.WatchRequest(cursor=cursor, filter=watcher.filter, snapshot_on_reset=True)


def _is_enough(message: pb.WatchResponse, head: int) -> bool:
    return (
        message.HasField("snapshot_end")
        or message.bookmark.revision >= head
        or message.transaction.revision >= head
    )
