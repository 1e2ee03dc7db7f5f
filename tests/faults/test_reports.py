"""Reports of a fleet, twice, late and out of order, at two servers of which one is killed."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from modelregistry.v1.deployment_service_pb2_grpc import DeploymentServiceStub
from modelregistry.v1.watch_service_pb2_grpc import WatchServiceStub

from stagewire import pb
from tests.faults.checkers import Violation, require
from tests.faults.processes import CHANNEL_OPTIONS, ServerProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

SENDERS = 24
SESSIONS = 3
ROUNDS = 2
#: How far a report may be overtaken, in reports for each agent.
DELAY = 4
DUPLICATED = 0.3
SECONDS = 200.0
AGAIN = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.ABORTED,
}

Place = tuple[str, str]
Order = tuple[int, int]


@dataclass
class Sent:
    """A report and when it was answered, if it was."""

    request: pb.ReportStatusRequest
    began: float = 0.0
    ended: float = 0.0
    superseded: bool = False


@dataclass
class Poll:
    """What one page of ListDeployments said, and between when and when that was read."""

    began: float
    ended: float
    rows: dict[Place, tuple[Order, int]]


@dataclass
class Told:
    """Everything the checker looks at."""

    sent: list[Sent] = field(default_factory=list)
    polls: list[Poll] = field(default_factory=list)
    final: dict[Place, tuple[Order, int]] = field(default_factory=dict)
    expected: dict[Place, tuple[Order, int]] = field(default_factory=dict)


def w17_reports_never_go_back(told: Told) -> int:
    """Check that what is stored of a place only ever gets newer, and is what one report said."""
    count = 0
    newest: dict[Place, Order] = {}
    read = sorted(told.polls, key=lambda poll: poll.ended)
    done = 0
    for poll in sorted(told.polls, key=lambda poll: poll.began):
        # Polls that overlap may tell of either state; those that were over before may not.
        while done < len(read) and read[done].ended <= poll.began:
            for place, (order, _) in read[done].rows.items():
                newest[place] = max(newest.get(place, order), order)
            done += 1
        for place, (order, runs) in poll.rows.items():
            require(newest.get(place, order) <= order, "W17", place, newest.get(place), order)
            require(runs == number(*order), "W17", place, order, "runs", runs)
            count += 1
    acknowledged: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for sent in told.sent:
        if not sent.superseded:
            acknowledged[sent.request.agent].append((sent.ended, sent.request.session))
    for sent in told.sent:
        session = sent.request.session
        above = [s for ended, s in acknowledged[sent.request.agent] if ended <= sent.began]
        require(sent.superseded or session >= max(above, default=session), "W17", "not told", sent)
        count += 1
    require(
        told.final == told.expected, "W17", "in the end", told.final.items() ^ told.expected.items()
    )
    return count + len(told.final)


def number(session: int, seq: int) -> int:
    """Give the version that a report says is running: it tells which report a row is of."""
    return session * 1000 + seq


def whole(agent: str, session: int, first: int, chance: random.Random) -> list[Any]:
    """Make one whole report of an agent, in one or two parts."""
    parts = []
    for part in range(chance.randint(1, 2)):
        seq = first + part
        parts.append(
            pb.ReportStatusRequest(
                agent=agent,
                session=session,
                seq=seq,
                targets=[
                    pb.TargetStatus(
                        target=f"{part}/{place}",
                        model="churn",
                        stage="Production",
                        running_version=number(session, seq),
                        state=pb.DEPLOYMENT_STATE_SERVING,
                    )
                    for place in range(3)
                    if chance.random() < 0.8
                ],
            )
        )
    parts[-1].complete_from_seq = first
    return parts


def fleet(agents: int, sessions: Sequence[int], chance: random.Random, told: Told) -> None:
    """Make what all agents report, in the order of a network that repeats and delays."""
    made: list[Any] = []
    for session, turn in itertools.product(sessions, range(ROUNDS)):
        made += [whole(f"agent-{one}", session, 1 + 2 * turn, chance) for one in range(agents)]
    for parts in made[-agents:]:
        told.expected |= {
            (one.agent, target.target): ((one.session, one.seq), target.running_version)
            for one in parts
            for target in one.targets
        }
    reports = list(itertools.chain.from_iterable(made))
    late = [(at + chance.random() * DELAY * agents, one) for at, one in enumerate(reports)]
    late += [
        (at + chance.random() * 2 * DELAY * agents, one)
        for at, one in enumerate(reports)
        if chance.random() < DUPLICATED
    ]
    told.sent = [Sent(one) for _, one in sorted(late, key=lambda pair: pair[0])]


class Network:
    """Stubs of every server; a call that one of them drops goes to the next."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self.channels = [grpc.insecure_channel(a, options=CHANNEL_OPTIONS) for a in addresses]
        self.stubs = [DeploymentServiceStub(channel) for channel in self.channels]

    def call(self, method: str, request: Any, first: int) -> Any:
        deadline = time.monotonic() + SECONDS
        for server in itertools.cycle([first % 2, (first + 1) % 2]):
            try:
                return getattr(self.stubs[server], method)(request, timeout=10)
            except grpc.RpcError as error:
                # Whether it was done nobody knows; a report says the same again.
                if error.code() not in AGAIN or time.monotonic() > deadline:
                    raise
        raise AssertionError

    def sessions(self, count: int) -> list[int]:
        """Open so many streams, and give their sessions."""
        found = []
        for server in range(count):
            stream = WatchServiceStub(self.channels[server % 2]).Watch(
                pb.WatchRequest(start=pb.WATCH_START_NOW)
            )
            found.append(next(stream).hello.session)
            stream.cancel()
        return sorted(found)

    def pages(self, server: int) -> Iterator[Poll]:
        token = ""
        while True:
            began = time.monotonic()
            request = pb.ListDeploymentsRequest(page_size=1000, page_token=token)
            page = self.call("ListDeployments", request, server)
            rows = {
                (d.agent, d.target): ((d.session, d.seq), d.running_version)
                for d in page.deployments
            }
            yield Poll(began, time.monotonic(), rows)
            token = page.next_page_token
            if not token:
                return

    def close(self) -> None:
        for channel in self.channels:
            channel.close()


def send(network: Network, told: Told, halfway: threading.Event, over: threading.Event) -> None:
    """Send everything in its order, from many threads; poll at both servers meanwhile."""
    places = iter(range(len(told.sent)))
    failures: list[BaseException] = []

    def sending(server: int) -> None:
        # `next` of one iterator is atomic: each report is sent once.
        for at in places:
            sent = told.sent[at]
            sent.began = time.monotonic()
            answer = network.call("ReportStatus", sent.request, server + at)
            sent.superseded, sent.ended = answer.superseded, time.monotonic()
            if at * 2 >= len(told.sent):
                halfway.set()

    def polling(server: int) -> None:
        while not over.is_set():
            told.polls.extend(network.pages(server))
            over.wait(0.1)

    def noted(work: Callable[[int], None], server: int) -> None:
        try:
            work(server)
        except BaseException as error:  # noqa: BLE001  # told below
            failures.append(error)
            halfway.set()

    senders = [threading.Thread(target=noted, args=(sending, n)) for n in range(SENDERS)]
    pollers = [threading.Thread(target=noted, args=(polling, n)) for n in range(2)]
    for thread in (*senders, *pollers):
        thread.start()
    for thread in senders:
        thread.join(SECONDS)
    over.set()
    for thread in pollers:
        thread.join(SECONDS)
    assert not failures, failures


@pytest.mark.fault
@pytest.mark.timeout(300)
def test_stored_reports_never_go_back(
    make_postgres_url: Callable[[], str],
    tmp_path: Path,
    record_property: Callable[[str, object], None],
    at_length: bool,
) -> None:
    url = make_postgres_url()
    told = Told()
    chance = random.Random(17)
    with (
        ServerProcess(url, tmp_path / "one.log") as one,
        ServerProcess(url, tmp_path / "other.log") as other,
    ):
        network = Network([one.address, other.address])
        fleet(900 if at_length else 300, network.sessions(SESSIONS), chance, told)
        halfway, over = threading.Event(), threading.Event()
        sending = threading.Thread(target=send, args=(network, told, halfway, over))
        sending.start()
        halfway.wait(SECONDS)
        # Its answers of that moment are lost: those reports are sent again, to the other one.
        other.kill()
        sending.join(SECONDS)
        for page in network.pages(0):
            told.final |= page.rows
        network.close()

    count = w17_reports_never_go_back(told)
    superseded = sum(sent.superseded for sent in told.sent)
    assert superseded > 0
    assert len(told.polls) > 2
    record_property("fault", "duplicated and delayed reports")
    record_property("runs", 1)
    record_property("checked", {"W17": count, "reports": len(told.sent), "superseded": superseded})


def doctored() -> Told:
    """Give a history that is right."""
    told = Told()
    fleet(3, [1, 2], random.Random(1), told)
    for at, sent in enumerate(told.sent):
        sent.began, sent.ended = float(at), at + 0.5
    newest: dict[str, int] = {}
    for sent in told.sent:
        agent, session = sent.request.agent, sent.request.session
        newest[agent] = max(newest.get(agent, session), session)
        sent.superseded = session < newest[agent]
    told.polls = [Poll(0, 1, {}), Poll(1, 2, {("a", "t"): ((1, 1), number(1, 1))})]
    told.polls.append(Poll(2, 3, {("a", "t"): ((1, 2), number(1, 2))}))
    told.final = dict(told.expected)
    return told


def test_the_checker_accepts_a_right_history() -> None:
    assert w17_reports_never_go_back(doctored()) > 3


@pytest.mark.parametrize(
    "doctor",
    [
        lambda told: told.polls.append(Poll(3, 4, {("a", "t"): ((1, 1), number(1, 1))})),
        lambda told: told.polls.append(Poll(3, 4, {("a", "t"): ((1, 3), number(1, 2))})),
        lambda told: told.final.popitem(),
        lambda told: told.final.update({("ghost", "t"): ((1, 1), 1)}),
        lambda told: setattr(next(s for s in told.sent if s.superseded), "superseded", False),
    ],
    ids=["goes back", "mixed", "lost", "ghost", "not told"],
)
def test_a_doctored_history_fails_the_checker(doctor: Callable[[Told], object]) -> None:
    told = doctored()
    doctor(told)

    with pytest.raises(Violation, match=r"^W17: "):
        w17_reports_never_go_back(told)
