"""Each checker of a fleet's history passes a true one and fails a doctored one."""

from __future__ import annotations

import copy
import threading
import time
from typing import TYPE_CHECKING

import pytest

from stagewire import pb
from stagewire.client import Client
from stagewire.service import cursors
from tests.faults import fleet_checkers
from tests.faults.checkers import Violation
from tests.faults.fleet_checkers import CHECKERS, GROWTH_BYTES
from tests.faults.fleets import Fleet
from tests.faults.recordings import History, MemorySample, Poll, StreamRecord, take_stock
from tests.faults.scenes import furnish
from tests.servers import RunningServer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

WATCHERS, AGENTS = 150, 6


@pytest.fixture(scope="module")
def recorded(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> History:
    """Record a small fleet while versions move through stages."""
    folder = tmp_path_factory.mktemp("fleet")
    path = folder / "stagewire.db"
    path.write_bytes(sqlite_template.read_bytes())
    history = History(bookmark_seconds=0.2, ring_bytes=1 << 20, settled_seconds=1.0)
    with (
        RunningServer(f"sqlite:///{path}", bookmark_interval_seconds=0.2) as server,
        Client(server.address) as client,
    ):
        furnish(client)
        with Fleet(server.address, folder / "fleet", watchers=WATCHERS, agents=AGENTS) as fleet:
            for number in (1, 2, 3, 2):
                for model in ("risk-0", "risk-1", "churn-1"):
                    for stage in ("Production", "Staging"):
                        last = client.promote(model, number, stage).revision
                _poll(client, history, least=1)
            fleet.finish(last, history)
        _poll(client, history)
        take_stock(client, history)
    for second in range(4):
        history.memory.append(MemorySample("one", 1, float(second), time.monotonic(), 100 << 20))
    return history


def _poll(client: Client, history: History, *, least: int = 0) -> None:
    """Write down what is listed, once it is so much."""
    deadline = time.monotonic() + 20
    while True:
        began = time.monotonic()
        answer = client.deployments.ListDeployments(pb.ListDeploymentsRequest(page_size=1000))
        if len(answer.deployments) >= least:
            history.polls.append(Poll(began, list(answer.deployments)))
            return
        assert time.monotonic() < deadline
        threading.Event().wait(0.02)


@pytest.fixture
def history(recorded: History) -> History:
    """Give a copy of the true history, to be doctored."""
    return copy.deepcopy(recorded)


def twins(history: History) -> tuple[StreamRecord, StreamRecord]:
    """Find two streams from the beginning under one filter, each with transactions."""
    found: dict[bytes, StreamRecord] = {}
    for watcher in history.watchers:
        stream = watcher.streams[0]
        told = any(heard.message.HasField("transaction") for heard in stream.heard)
        if stream.request.start == pb.WATCH_START_BEGINNING and told:
            twin = found.setdefault(watcher.filter.SerializeToString(), stream)
            if twin is not stream:
                return twin, stream
    raise AssertionError(found)


def one_hears_less(history: History) -> None:
    stream, _ = twins(history)
    told = next(h for h in stream.heard if h.message.HasField("transaction"))
    stream.heard.remove(told)


def one_hears_another_story(history: History) -> None:
    stream, _ = twins(history)
    for heard in stream.heard:
        if heard.message.HasField("transaction"):
            # A copy: twins share what they heard.
            heard.message = copy.deepcopy(heard.message)
            heard.message.transaction.reason = "another"


def one_gets_another_cursor(history: History) -> None:
    stream, _ = twins(history)
    heard = next(h for h in stream.heard if h.message.HasField("transaction"))
    heard.message = copy.deepcopy(heard.message)
    cursor = cursors.decode(heard.message.transaction.cursor)
    other = cursors.Cursor(cursor.log_id, cursor.revision, b"otherone", cursor.filter_digest)
    heard.message.transaction.cursor = other.encode()


def an_older_report_wins(history: History) -> None:
    history.polls.append(history.polls[0])


def a_report_nobody_sent(history: History) -> None:
    history.polls[-1].deployments[0].agent_time.nanos += 1000


def a_report_of_another_session(history: History) -> None:
    history.polls[-1].deployments[0].session += 1


def an_acknowledged_report_is_lost(history: History) -> None:
    history.polls[:] = history.polls[:1]
    history.polls[0].began = time.monotonic()


def an_agent_runs_an_old_version(history: History) -> None:
    agent = next(agent for agent in history.agents if agent.running)
    agent.running[next(iter(agent.running))] = 1


def an_agent_runs_what_nobody_wants(history: History) -> None:
    history.agents[0].running["churn-9"] = 1


def an_agent_only_says_so(history: History) -> None:
    for agent in history.agents:
        agent.carried_out = dict.fromkeys(agent.carried_out, 1)


def a_server_grows(history: History) -> None:
    history.memory[-1].rss_bytes += GROWTH_BYTES + WATCHERS * fleet_checkers.STREAM_BYTES + 1


def a_server_is_huge(history: History) -> None:
    for sample in history.memory:
        sample.rss_bytes = 1 << 30


def test_a_true_history_passes_every_checker(history: History) -> None:
    counts = fleet_checkers.check(history)

    assert all(counts[name] > 0 for name in CHECKERS), counts


@pytest.mark.parametrize(
    ("invariant", "doctor"),
    [
        ("W15", one_hears_less),
        ("W15", one_hears_another_story),
        ("W15", one_gets_another_cursor),
        ("W17", an_older_report_wins),
        ("W17", a_report_nobody_sent),
        ("W17", a_report_of_another_session),
        ("W17", an_acknowledged_report_is_lost),
        ("W19", an_agent_runs_an_old_version),
        ("W19", an_agent_runs_what_nobody_wants),
        ("W19", an_agent_only_says_so),
        ("W20", a_server_grows),
        ("W20", a_server_is_huge),
    ],
)
def test_a_doctored_history_fails_its_checker(
    history: History, invariant: str, doctor: Callable[[History], None]
) -> None:
    doctor(history)

    with pytest.raises(Violation, match=f"^{invariant}: "):
        CHECKERS[invariant](history)


def test_every_checker_has_a_history_that_fails_it() -> None:
    marks = test_a_doctored_history_fails_its_checker.pytestmark  # type: ignore[attr-defined]
    doctored = {invariant for invariant, _ in marks[0].args[1]}

    assert doctored == set(CHECKERS)
