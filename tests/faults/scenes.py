"""A registry under load with twenty watchers, and its history when all is over."""

from __future__ import annotations

import itertools
import random
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import grpc
import tenacity

from stagewire import pb
from stagewire.client import Client, channels
from tests.faults.load import NAMES, SPACES, Writer
from tests.faults.processes import CHANNEL_OPTIONS
from tests.faults.recordings import History, Recorder, WatcherRecord, take_stock

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CATCH_UP_SECONDS = 60.0
AT_ONCE = tenacity.wait_random(0, 0.1)
ALL = ["*"]
#: Writers go to every server of an address that names several.
TO_ALL = ("grpc.service_config", '{"loadBalancingConfig": [{"round_robin": {}}]}')

#: Name, filter, start, and how the watcher behaves.
Watching = tuple[str, dict[str, Any], str, dict[str, Any]]

WATCHERS: tuple[Watching, ...] = (
    ("everything", {"namespaces": ALL}, "snapshot", {}),
    ("everything-from-1", {"namespaces": ALL}, "beginning", {}),
    ("everything-slowly", {"namespaces": ALL}, "beginning", {"dawdle_seconds": 0.02}),
    ("everything-in-pieces", {"namespaces": ALL}, "snapshot", {"reconnect_after": 40}),
    ("default", {}, "snapshot", {}),
    ("default-from-now", {}, "now", {"reconnect_after": 25}),
    ("risk", {"namespaces": ["risk"]}, "beginning", {}),
    ("production", {"namespaces": ALL, "stages": ["PRODUCTION"]}, "snapshot", {}),
    ("production-in-pieces", {"stages": ["Production"]}, "snapshot", {"reconnect_after": 10}),
    ("production-slowly", {"stages": ["Production"]}, "beginning", {"dawdle_seconds": 0.05}),
    ("staging", {"stages": ["Staging"]}, "beginning", {}),
    ("two-stages", {"stages": ["Staging", "production"]}, "snapshot", {"reconnect_after": 30}),
    ("archived", {"namespaces": ALL, "stages": ["archived"]}, "snapshot", {}),
    ("one-model", {"models": ["risk-1"]}, "snapshot", {}),
    ("one-model-in-production", {"models": ["churn-2"], "stages": ["Production"]}, "snapshot", {}),
    ("three-models", {"models": ["risk-1", "risk-2", "churn-3"]}, "beginning", {}),
    ("prefix", {"model_prefix": "risk-"}, "snapshot", {"reconnect_after": 15}),
    ("prefix-everywhere", {"namespaces": ALL, "model_prefix": "churn-"}, "snapshot", {}),
    ("new-versions", {"kinds": [pb.CHANGE_KIND_VERSION_CREATED]}, "beginning", {}),
    (
        "moves",
        {
            "namespaces": ALL,
            "kinds": [pb.CHANGE_KIND_STAGES_CHANGED, pb.CHANGE_KIND_STAGE_PRIMARY_CHANGED],
        },
        "now",
        {"reconnect_after": 20},
    ),
)


@contextmanager
def impatient() -> Iterator[None]:
    """Have clients made here reconnect at once."""
    before = channels.OPTIONS
    channels.OPTIONS = (*before, *CHANNEL_OPTIONS, ("grpc.use_local_subchannel_pool", 1))
    try:
        yield
    finally:
        channels.OPTIONS = before


class Scene:
    """Writers and watchers on one address, recorded."""

    def __init__(
        self,
        address: str,
        *,
        seed: int,
        bookmark_seconds: float,
        writers: int = 4,
        watchers: Sequence[Watching] = WATCHERS,
    ) -> None:
        self.history = History(bookmark_seconds=bookmark_seconds)
        with impatient():
            self.clients = [Client(address) for _ in range(4)]
        self._channels = [
            grpc.insecure_channel(
                address, options=[*CHANNEL_OPTIONS, ("grpc.use_local_subchannel_pool", 1), TO_ALL]
            )
            for _ in range(writers)
        ]
        self.writers = self._writers(seed)
        self.recorders: list[Recorder] = []
        for watcher in watchers:
            self._add(*watcher)

    def _writers(self, seed: int) -> list[Writer]:
        return [Writer(c, seed * 100 + n) for n, c in enumerate(self._channels)]

    def admit(self, watcher: Watching) -> None:
        """Have one more watch, from now on."""
        self._add(*watcher).start()

    def _add(self, name: str, fields: dict[str, Any], start: str, ways: dict[str, Any]) -> Recorder:
        record = WatcherRecord(name, pb.WatchFilter(**fields), dawdles="dawdle_seconds" in ways)
        self.history.watchers.append(record)
        client = self.clients[len(self.recorders) % len(self.clients)]
        recorder = Recorder(client, record, start=start, backoff=AT_ONCE, **ways)
        self.recorders.append(recorder)
        return recorder

    @contextmanager
    def playing(self) -> Iterator[None]:
        """Run everybody; afterwards let the watchers catch up, and take stock."""
        self._furnish()
        try:
            for thread in (*self.writers, *self.recorders):
                thread.start()
            yield
            self.rest()
            for recorder in self.recorders:
                recorder.stop()
            with Client(self.clients[0].address) as client:
                take_stock(client, self.history)
        finally:
            for writer in self.writers:
                writer.abandon()
            for recorder in self.recorders:
                recorder.abandon()
            for client in self.clients:
                client.close()
            for channel in self._channels:
                channel.close()

    def rest(self) -> None:
        """Have the writers stop, and the watchers catch up with what was written."""
        for writer in self.writers:
            writer.stop()
            self.history.writes += writer.records
        self.writers = []
        for recorder in self.recorders:
            recorder.hurry.set()
        self._wait_until_caught_up()

    def written_since(self, moment: float, count: int = 30) -> None:
        """Wait until so many writes have been acknowledged after a moment."""
        deadline = time.monotonic() + CATCH_UP_SECONDS
        while True:
            records = [record for writer in self.writers for record in list(writer.records)]
            if sum((record.acknowledged or 0) > moment for record in records) >= count:
                return
            assert time.monotonic() < deadline, "nothing more is written"
            threading.Event().wait(0.02)

    def go_on(self, seed: int) -> None:
        """Have others write."""
        self.writers = self._writers(seed)
        for writer in self.writers:
            writer.start()

    def _furnish(self) -> None:
        furnish(self.clients[0])

    def _wait_until_caught_up(self) -> None:
        # The watchers' own channels may still be waiting before they connect again.
        with Client(self.clients[0].address) as client:
            head = client.watches.GetHead(pb.GetHeadRequest()).revision
        deadline = time.monotonic() + CATCH_UP_SECONDS
        behind = [r.record for r in self.recorders if not r.away.is_set()]
        while behind:
            assert time.monotonic() < deadline, [(r.name, r.position, head) for r in behind]
            assert not any(recorder.failure for recorder in self.recorders)
            behind = [r for r in behind if r.position < head]
            threading.Event().wait(0.02)


def furnish(client: Client) -> None:
    """Put something there, or most of the first writes would be refused."""
    for space in SPACES[1:]:
        client.namespaces.CreateNamespace(
            pb.CreateNamespaceRequest(namespace=pb.Namespace(name=space))
        )
    for space, name in itertools.product(SPACES, NAMES):
        client.registry.CreateModel(
            pb.CreateModelRequest(namespace=space, model=pb.Model(name=name))
        )
        for _ in range(3):
            client.registry.CreateModelVersion(
                pb.CreateModelVersionRequest(namespace=space, model=name)
            )


def moments(count: int, *, seed: int, most: float) -> Iterator[float]:
    """Give random times to wait between faults."""
    chance = random.Random(seed)
    for _ in range(count):
        yield chance.uniform(0.05, most)
