"""A primary dies and its standby is promoted: what was lost is told to all who had heard of it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from stagewire import pb
from tests.faults import checkers, losses
from tests.faults.clusters import Cluster, folder
from tests.faults.losses import EARLY, LATE, losing
from tests.faults.replicas import BOOKMARK_SECONDS, STALE_SECONDS, replicas
from tests.faults.scenes import Scene

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.faults.recordings import History


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


def fail_over(tmp_path: Path, *, seed: int, reused: bool) -> tuple[History, History]:
    """Lose a tail by a failover; give the lost history and the one that goes on.

    With `reused`, others write as soon as anybody can, and write over the lost numbers before the
    watchers are back; otherwise the log is shorter than what they know of.
    """
    with (
        pair(synchronous=False) as (one, two),
        replicas(one.url(two), tmp_path) as (servers, address),
    ):
        with losing(address, seed=seed) as loss:
            before = loss.lose(one.hold_back_replication, 0.1 if reused else 1.0)
            one.kill()
            if reused:
                loss.scene.go_on(seed + 2)
            two.promote()
            loss.reset_those_who_stayed()
            if not reused:
                loss.see_that_it_is_lost(before)
                loss.scene.go_on(seed + 2)
            loss.write_over(before)
        for server in servers:
            assert "the log's history changed under the tail" in server.said()
    return before, loss.scene.history


@pytest.mark.fault
@pytest.mark.timeout(900)
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
        counts = losses.check(*fail_over(tmp_path, seed=number * 10, reused=reused))
        assert counts["went on"] >= len(EARLY) * 0.8, counts
        assert counts["LOG_DIVERGED"] >= len(LATE), counts
        if not reused:
            assert counts["CURSOR_AHEAD"] >= 20 - len(EARLY) - len(LATE), counts
        total.update(counts)

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
        scene.history.slack_seconds += STALE_SECONDS
        with scene.playing():
            threading.Event().wait(1.5)
            one.kill()
            two.promote()
            promoted = time.monotonic()
            scene.written_since(promoted)
    return scene.history


@pytest.mark.fault
@pytest.mark.timeout(900)
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
@pytest.mark.timeout(900)
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
        scene.history.slack_seconds += STALE_SECONDS
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


@pytest.mark.fault
@pytest.mark.timeout(900)
def test_servers_go_over_to_the_new_primary_when_the_old_one_is_silent(
    tmp_path: Path, at_length: bool, record_property: Callable[[str, object], None]
) -> None:
    limit = 5.0 if at_length else 2.0
    with (
        pair(synchronous=True) as (one, two),
        replicas(one.url(two), tmp_path, freshness_seconds=limit) as (_servers, address),
    ):
        scene = Scene(address, seed=170, bookmark_seconds=BOOKMARK_SECONDS)
        scene.history.slack_seconds += STALE_SECONDS
        with scene.playing():
            threading.Event().wait(1.0)
            # Its sockets stay open: nothing tells the servers that nobody is there any more.
            one.freeze()
            frozen = time.monotonic()
            two.promote()
            scene.written_since(frozen + 1.0, 1)
            moved = time.monotonic() - frozen
            scene.written_since(frozen + 1.0)
            one.kill()

    counts = checkers.check(scene.history)
    counts["creations kept"] = creations_kept(scene.history)
    assert moved < 30.0, moved
    record_property("fault", "a synchronous standby promoted while the old primary is silent")
    record_property("runs", 1)
    record_property("checked", {**counts, "until the next write, ms": round(moved * 1000)})


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
