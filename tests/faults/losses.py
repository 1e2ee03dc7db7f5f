"""A registry that loses its last revisions, told by those who knew of them and those who did not.

Twenty watchers and an agent: some have left before what will be lost is written, some leave
knowing it, the others are there all the time.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from stagewire import pb
from stagewire.client import Client, HistoryLost, Snapshot
from tests.agent.test_against_server import Following
from tests.faults import checkers, divergence
from tests.faults.recordings import take_stock
from tests.faults.replicas import BOOKMARK_SECONDS, STALE_SECONDS, until
from tests.faults.scenes import Scene

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Iterator

    from tests.faults.recordings import History, Recorder

#: These leave before anything is lost, and come back when it has been.
EARLY = {"everything-in-pieces", "default", "production-in-pieces", "prefix", "new-versions"}
#: These leave having heard of what is lost.
LATE = {"everything-from-1", "two-stages", "one-model", "moves"}


def named(scene: Scene, names: set[str]) -> list[Recorder]:
    return [r for r in scene.recorders if r.record.name in names]


def leave(recorders: list[Recorder]) -> None:
    for recorder in recorders:
        recorder.leave()
    until(lambda: all(r.away.is_set() for r in recorders), "watchers leave")


def was_reset(recorder: Recorder) -> bool:
    events = list(recorder.record.events)
    return any(isinstance(e, Snapshot) and e.reason in divergence.LOST for e in events)


@dataclass
class Loss:
    """A registry that loses its last revisions, and who knew of them."""

    address: str
    scene: Scene
    seer: Client
    agent: Following
    seed: int

    def lose(self, keep: Callable[[], object], seconds: float) -> History:
        """Have more written after `keep`, which will be lost; give the history that had it."""
        scene, seer = self.scene, self.seer
        self.agent.until_runs(iris=1)
        threading.Event().wait(1.0)
        scene.rest()
        leave(named(scene, EARLY))
        keep()
        scene.go_on(self.seed + 1)
        threading.Event().wait(seconds)
        scene.rest()
        seer.promote("iris", 2, "Production")
        self.agent.until_runs(iris=2)
        scene.rest()
        before = divergence.at_this_moment(scene.history, EARLY)
        take_stock(seer, before)
        leave(named(scene, LATE))
        scene.history.writes = []
        return before

    def see_that_it_is_lost(self, before: History) -> None:
        """Read as one who has seen what is lost: told so once, and answered from then on."""
        get = pb.GetModelRequest(model="iris")
        with pytest.raises(HistoryLost) as lost:
            self.seer.registry.GetModel(get)
        assert lost.value.last_seen_revision == before.head.revision
        assert self.seer.registry.GetModel(get).model.name == "iris"

    def reset_those_who_stayed(self) -> None:
        stayed = [r for r in self.scene.recorders if not r.away.is_set()]
        until(lambda: all(map(was_reset, stayed)), "watchers are reset")

    def write_over(self, before: History) -> None:
        """Wait until the lost numbers are used again, and have the others come back to that."""
        head = pb.GetHeadRequest()
        with Client(self.address) as client:
            until(
                lambda: client.watches.GetHead(head).revision > before.head.revision + 20,
                "the lost numbers are used again",
            )
        for recorder in named(self.scene, EARLY | LATE):
            recorder.come_back()
        late = named(self.scene, LATE)
        until(lambda: all(map(was_reset, late)), "watchers are reset")
        self.agent.until_runs(iris=1)


@contextmanager
def losing(address: str, *, seed: int) -> Iterator[Loss]:
    """Play on a registry that is about to lose something; take stock when all is over."""
    with Client(address) as seer:
        for number in (1, 2):
            seer.create_version("iris", source=f"s3://iris/{number}")
        seer.promote("iris", 1, "Production")
        scene = Scene(address, seed=seed, bookmark_seconds=BOOKMARK_SECONDS)
        scene.history.slack_seconds += STALE_SECONDS
        agent = Following(address, model="iris", name="agent")
        try:
            with scene.playing():
                yield Loss(address, scene, seer, agent, seed)
        finally:
            agent.stop()
    # It went back with the registry, though nobody has promoted anything since.
    assert [order.version for order in agent.orders] == [1, 2, 1]


def check(before: History, after: History) -> Counter[str]:
    """Hold everything that was recorded against both histories; answer how much was checked."""
    counts = divergence.check(before, after)
    counts["lost"] = len(before.log) - divergence.common(before, after)
    checked = checkers.check(before) + checkers.check(divergence.since(after))
    assert all(checked[name] > 0 for name in checkers.CHECKERS), checked
    return counts + checked
