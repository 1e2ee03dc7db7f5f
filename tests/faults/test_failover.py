"""A primary dies and its standby is promoted: what was lost is told to all who had heard of it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from stagewire import pb
from stagewire.client import Client, HistoryLost, Snapshot
from tests.agent.test_against_server import Following
from tests.faults import checkers, divergence
from tests.faults.clusters import Cluster, folder
from tests.faults.recordings import take_stock
from tests.faults.replicas import BOOKMARK_SECONDS, replicas, until
from tests.faults.scenes import Scene

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.faults.recordings import History, Recorder

#: These leave before anything is lost, and come back when it has been.
EARLY = {"everything-in-pieces", "default", "production-in-pieces", "prefix", "new-versions"}
#: These leave having heard of what is lost.
LATE = {"everything-from-1", "two-stages", "one-model", "moves"}


@contextmanager
def pair(*, synchronous: bool) -> Iterator[tuple[Cluster, Cluster]]:
    """Run a primary with an empty registry, and a standby that follows it."""
    settings: dict[str, object] = (
        {"synchronous_standby_names": "*", "synchronous_commit": "remote_apply"}
        if synchronous
        else {}
    )
    with folder() as made, Cluster(made / "one") as one:
        one.create_registry()
        with one.standby(made / "two") as two:
            one.streaming()
            if synchronous:
                # Only now: without its standby it would not have taken a single write.
                one.stop()
                one.settings.update(settings)
                one.start()
                one.streaming(state="sync")
            yield one, two


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

    def lose(self, one: Cluster, seconds: float) -> History:
        """Have a tail written that the standby does not get; give the history that had it."""
        scene, seer = self.scene, self.seer
        self.agent.until_runs(iris=1)
        threading.Event().wait(1.0)
        scene.rest()
        leave(named(scene, EARLY))
        one.hold_back_replication()
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


def fail_over(tmp_path: Path, *, seed: int, reused: bool) -> tuple[History, History]:
    """Lose a tail by a failover; give the lost history and the one that goes on.

    With `reused`, others write as soon as anybody can, and write over the lost numbers before the
    watchers are back; otherwise the log is shorter than what they know of.
    """
    with (
        pair(synchronous=False) as (one, two),
        replicas(one.url(two), tmp_path) as (servers, address),
        Client(address) as seer,
    ):
        for number in (1, 2):
            seer.create_version("iris", source=f"s3://iris/{number}")
        seer.promote("iris", 1, "Production")
        scene = Scene(address, seed=seed, bookmark_seconds=BOOKMARK_SECONDS)
        agent = Following(address, model="iris", name="agent")
        loss = Loss(address, scene, seer, agent, seed)
        try:
            with scene.playing():
                before = loss.lose(one, 0.1 if reused else 1.0)
                one.kill()
                if reused:
                    scene.go_on(seed + 2)
                two.promote()
                loss.reset_those_who_stayed()
                if not reused:
                    loss.see_that_it_is_lost(before)
                    scene.go_on(seed + 2)
                loss.write_over(before)
        finally:
            agent.stop()
        for server in servers:
            assert "the log's history changed under the tail" in server.said()
    assert [order.version for order in agent.orders] == [1, 2, 1]
    return before, scene.history


@pytest.mark.fault
@pytest.mark.timeout(300)
@pytest.mark.parametrize("reused", [True, False], ids=["written-over", "shorter"])
def test_who_held_a_lost_revision_is_told_so_when_an_asynchronous_standby_is_promoted(
    reused: bool,
    tmp_path: Path,
    at_length: bool,
    record_property: Callable[[str, object], None],
) -> None:
    rounds = 5 if at_length else 1
    total: Counter[str] = Counter()

    for number in range(rounds):
        before, after = fail_over(tmp_path, seed=number * 10, reused=reused)
        between = divergence.check(before, after)
        between["lost"] = len(before.log) - divergence.common(before, after)
        old, new = checkers.check(before), checkers.check(divergence.since(after))
        assert all((old + new)[name] > 0 for name in checkers.CHECKERS), (old, new)
        assert between["went on"] >= len(EARLY) * 0.8, between
        assert between["LOG_DIVERGED"] >= len(LATE), between
        if not reused:
            assert between["CURSOR_AHEAD"] >= 20 - len(EARLY) - len(LATE), between
        total.update(old + new + between)

    record_property("fault", "an asynchronous standby promoted with a lost tail")
    record_property("runs", rounds)
    record_property("checked", dict(total))


def fail_over_without_loss(tmp_path: Path, *, seed: int) -> History:
    """Kill the primary under load and promote its synchronous standby."""
    with (
        pair(synchronous=True) as (one, two),
        replicas(one.url(two), tmp_path) as (_servers, address),
    ):
        scene = Scene(address, seed=seed, bookmark_seconds=BOOKMARK_SECONDS)
        with scene.playing():
            threading.Event().wait(1.5)
            one.kill()
            two.promote()
            promoted = time.monotonic()
            scene.written_since(promoted)
    return scene.history


@pytest.mark.fault
@pytest.mark.timeout(300)
def test_nothing_acknowledged_is_lost_and_nobody_reset_when_a_synchronous_standby_is_promoted(
    tmp_path: Path, at_length: bool, record_property: Callable[[str, object], None]
) -> None:
    rounds = 5 if at_length else 1
    total: Counter[str] = Counter()

    for number in range(rounds):
        history = fail_over_without_loss(tmp_path, seed=number + 70)
        total.update(checkers.check(history))
        total["creations kept"] += creations_kept(history)

    record_property("fault", "a synchronous standby promoted")
    record_property("runs", rounds)
    record_property("checked", dict(total))
    assert all(total[name] > 0 for name in checkers.CHECKERS), total


@pytest.mark.fault
@pytest.mark.timeout(300)
def test_nothing_is_acknowledged_that_a_synchronous_standby_has_not_got(
    tmp_path: Path, at_length: bool, record_property: Callable[[str, object], None]
) -> None:
    # Longer than any timeout of a write: none of them may turn the wait into an answer.
    seconds = 30.0 if at_length else 7.0
    with (
        pair(synchronous=True) as (one, two),
        replicas(one.url(two), tmp_path) as (_servers, address),
    ):
        scene = Scene(address, seed=90, bookmark_seconds=BOOKMARK_SECONDS)
        with scene.playing():
            threading.Event().wait(1.0)
            one.hold_back_replication()
            # What was on its way is acknowledged first.
            threading.Event().wait(0.5)
            held = time.monotonic()
            threading.Event().wait(seconds)
            one.kill()
            killed = time.monotonic()
            two.promote()
            scene.written_since(killed)

    counts = checkers.check(scene.history)
    counts["creations kept"] = creations_kept(scene.history)
    while_held = [w for w in scene.history.writes if held < (w.acknowledged or 0) < killed]
    assert not any(w.request_id in written(scene.history) for w in while_held), while_held
    record_property("fault", "a synchronous standby promoted after it was cut off")
    record_property("runs", 1)
    record_property("checked", dict(counts))


def written(history: History) -> set[str]:
    return {event.payload.request_id for event in history.log}


def creations_kept(history: History) -> int:
    """Require that what was acknowledged as made is in the log; answer how many there were."""
    made = [
        write.request_id
        for write in history.writes
        if write.answers and isinstance(write.answers[0], pb.CreateModelVersionResponse)
    ]
    missing = set(made) - written(history)
    assert not missing, missing
    return len(made)
