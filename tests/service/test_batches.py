"""Batches: who waits at the same time is written together, and answered for itself alone."""

from __future__ import annotations

import contextlib
import itertools
import random
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from stagewire import errors, pb
from stagewire.callers import ANONYMOUS, Caller
from stagewire.rights import REPORT
from stagewire.service import batches, reports
from stagewire.service.registry import Registry
from stagewire.store.opening import open_database
from tests.factories import eventually, hand_out_sessions, refused, sql

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from stagewire.store.database import Database
    from stagewire.store.transactions import Tx


class Intake:
    """A use case whose batches wait for the test, and which fails over a bad request."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.seconds: list[float] = []
        self.proceed = threading.Event()

    def prepare(self, request: pb.ReportStatusRequest, _caller: Caller) -> str:
        return request.agent

    def weigh(self, item: str) -> int:
        return 1000 if item.startswith("heavy") else 1

    def write(
        self, _tx: Tx, items: Sequence[str]
    ) -> list[pb.ReportStatusResponse | errors.RegistryError]:
        self.batches.append(list(items))
        assert self.proceed.wait(20)
        if "bad" in items:
            raise ZeroDivisionError
        if "contended" in items:
            raise errors.RegistryError("CONTENTION", "nobody is to blame")
        return [
            errors.invalid("agent", "wrong") if item == "wrong" else pb.ReportStatusResponse()
            for item in items
        ]

    def spent(self, _items: int, seconds: float) -> None:
        self.seconds.append(seconds)


class Waiting:
    """Callers of one batched operation on a real database, the first of whom holds up the rest."""

    def __init__(self, database: Database, pool: ThreadPoolExecutor) -> None:
        self.intake = Intake()
        self.batch: batches.Batch[Any, str, Any] = batches.Batch(lambda: self.intake)
        self.registry = Registry(database)
        self._pool = pool

    def call(self, agent: str, caller: Caller = ANONYMOUS) -> Future[Any]:
        return self._pool.submit(
            self.batch.run, self.registry, pb.ReportStatusRequest(agent=agent), caller, REPORT
        )

    def call_behind(self, *agents: str) -> list[Future[Any]]:
        """Have these wait in line behind a batch that is being written."""
        first = self.call("first")
        eventually(lambda: self.intake.batches)
        (queue,) = self.batch._queues.values()
        futures = [first]
        for agent in agents:
            futures.append(self.call(agent))
            eventually(lambda: len(queue._waiting) == len(futures) - 1)
        return futures

    def proceed(self) -> None:
        self.intake.proceed.set()


@pytest.fixture
def registry_on() -> Iterator[Callable[[str], Registry]]:
    """Open registries that have handed out sessions."""
    with contextlib.ExitStack() as opened:

        def make(url: str) -> Registry:
            database = open_database(url, readers=16)
            opened.callback(database.close)
            registry = Registry(database)
            registry.bootstrap()
            hand_out_sessions(registry)
            return registry

        yield make


@pytest.fixture
def waiting(database: Database) -> Iterator[Waiting]:
    with ThreadPoolExecutor(600) as pool:
        made = Waiting(database, pool)
        yield made
        made.proceed()


def test_those_who_wait_together_are_written_together(waiting: Waiting) -> None:
    agents = [f"a{number}" for number in range(20)]
    futures = waiting.call_behind(*agents)

    waiting.proceed()
    answers = [future.result(20) for future in futures]

    assert waiting.intake.batches == [["first"], agents]
    assert answers == [pb.ReportStatusResponse()] * 21
    assert len(waiting.intake.seconds) == 2


def test_a_batch_has_a_most(waiting: Waiting) -> None:
    agents = [f"a{number}" for number in range(batches.MOST_TOGETHER + 1)]
    futures = waiting.call_behind(*agents)

    waiting.proceed()
    for future in futures:
        future.result(20)

    assert [len(batch) for batch in waiting.intake.batches] == [1, batches.MOST_TOGETHER, 1]


def test_heavy_ones_fill_a_batch_sooner(waiting: Waiting) -> None:
    futures = waiting.call_behind(*(f"heavy-{number}" for number in range(7)))

    waiting.proceed()
    for future in futures:
        future.result(20)

    assert [len(batch) for batch in waiting.intake.batches] == [1, 5, 2]


def test_one_that_is_refused_is_refused_alone(waiting: Waiting) -> None:
    _, *futures = waiting.call_behind("a", "wrong", "b")

    waiting.proceed()

    assert [future.exception(20) is None for future in futures] == [True, False, True]
    assert len(waiting.intake.batches) == 2


def test_one_over_which_the_batch_fails_fails_alone(waiting: Waiting) -> None:
    _, *futures = waiting.call_behind("a", "bad", "b")

    waiting.proceed()

    assert [future.exception(20) is None for future in futures] == [True, False, True]
    assert isinstance(futures[1].exception(20), ZeroDivisionError)
    assert waiting.intake.batches[1:] == [["a", "bad", "b"], ["a"], ["bad"], ["b"]]


def test_what_nobody_is_to_blame_for_is_told_to_all_and_not_tried_again(waiting: Waiting) -> None:
    _, *futures = waiting.call_behind("a", "contended")

    waiting.proceed()

    for future in futures:
        assert isinstance(error := future.exception(20), errors.RegistryError)
        assert error.reason == "CONTENTION"
    assert len(waiting.intake.batches) == 2


def test_one_whose_deadline_passed_in_line_is_not_written(waiting: Waiting) -> None:
    waiting.call("first")
    eventually(lambda: waiting.intake.batches)
    late = waiting.call("late", Caller(deadline=time.monotonic() + 0.05))
    (queue,) = waiting.batch._queues.values()
    eventually(lambda: queue._waiting)
    in_time = waiting.call("in time", Caller(deadline=time.monotonic() + 60))
    threading.Event().wait(0.1)

    waiting.proceed()

    with refused("DEADLINE_PASSED"):
        late.result(20)
    assert in_time.result(20) == pb.ReportStatusResponse()
    assert waiting.intake.batches == [["first"], ["in time"]]


def test_nobody_waits_for_ever_on_a_file_that_closes(sqlite_url: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        waiting = Waiting(open_database(sqlite_url), pool)
        futures = waiting.call_behind(*(f"a{number}" for number in range(5)))
        closing = threading.Thread(target=waiting.registry.database.close)
        closing.start()

        waiting.proceed()

        for future in futures:
            error = future.exception(20)
            assert error is None or getattr(error, "reason", "") == "DATABASE_UNAVAILABLE"
        closing.join(20)


def test_nobody_waits_for_ever_on_a_database_that_drops_its_connections(
    postgres_url: str, registry_on: Callable[[str], Registry]
) -> None:
    registry = registry_on(postgres_url)
    killed = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
    killed += " AND datname = current_database()"
    over = threading.Event()

    def work(agent: int) -> int:
        seq = 0
        while not over.is_set():
            request = pb.ReportStatusRequest(agent=f"a{agent}", session=1, seq=seq + 1)
            with contextlib.suppress(errors.RegistryError):
                registry.ReportStatus(request, ANONYMOUS)
                seq += 1
        return seq

    with ThreadPoolExecutor(16) as pool:
        working = [pool.submit(work, agent) for agent in range(16)]
        for _ in range(10):
            sql(postgres_url, killed)
            threading.Event().wait(0.05)
        over.set()
        told = [future.result(30) for future in working]

    stored = {row.agent: row.seq for row in sql(postgres_url, "SELECT agent, seq FROM agents")}
    # A commit whose answer was lost may have happened: then the next one is stored already.
    assert all(stored[f"a{agent}"] - seq in {0, 1} for agent, seq in enumerate(told))


def test_reports_that_wait_together_cost_one_transaction(
    postgres_url: str, registry_on: Callable[[str], Registry]
) -> None:
    registry = registry_on(postgres_url)
    # Each row names the transaction that wrote it.
    writers = "SELECT count(*), count(DISTINCT xmin::text) FROM agents"
    engine = sa.create_engine(postgres_url, poolclass=sa.pool.NullPool)

    with ThreadPoolExecutor(30) as pool, engine.connect() as operator:
        operator.exec_driver_sql("LOCK TABLE agents IN SHARE MODE")
        queues = Registry.__dict__["ReportStatus"]._queues
        asked = []
        for number in range(30):
            request = pb.ReportStatusRequest(agent=f"a{number}", session=1, seq=1)
            asked.append(pool.submit(registry.ReportStatus, request, ANONYMOUS))
            # The first is on its way before the others come.
            eventually(lambda: registry.database in queues and queues[registry.database]._is_led)
            eventually(lambda: len(queues[registry.database]._waiting) == len(asked) - 1)
        operator.rollback()
        for future in asked:
            future.result(20)

    assert list(sql(postgres_url, writers)[0]) == [30, 2]


def write(registry: Registry, *requests: pb.ReportStatusRequest) -> list[Any]:
    """Write reports as one batch."""
    intake = reports.Intake()
    items = [intake.prepare(request, ANONYMOUS) for request in requests]
    return registry.database.write(lambda tx: intake.write(tx, items))


def told(
    agent: str, session: int, seq: int, *targets: str, **fields: Any
) -> pb.ReportStatusRequest:
    """Make a report whose number of what runs says which one it is."""
    return pb.ReportStatusRequest(
        agent=agent,
        session=session,
        seq=seq,
        targets=[
            pb.TargetStatus(
                target=target,
                model="churn",
                stage="Production",
                running_version=session * 1000 + seq,
                state=pb.DEPLOYMENT_STATE_SERVING,
            )
            for target in targets
        ],
        **fields,
    )


def stored(registry: Registry) -> dict[tuple[str, str], tuple[int, int, int]]:
    page = registry.ListDeployments(pb.ListDeploymentsRequest(page_size=1000), ANONYMOUS)
    return {(d.agent, d.target): (d.session, d.seq, d.running_version) for d in page.deployments}


def test_in_one_batch_the_newest_report_of_an_agent_wins(registry: Registry) -> None:
    hand_out_sessions(registry)

    answers = write(
        registry,
        told("a", 2, 1, "eu"),
        told("a", 1, 7, "eu", "us"),
        told("a", 2, 2, "eu"),
        told("a", 2, 1, "eu"),
    )

    assert stored(registry) == {("a", "eu"): (2, 2, 2002)}
    assert [answer.superseded for answer in answers] == [False, True, False, False]


def test_in_one_batch_a_wrong_report_is_refused_beside_others(registry: Registry) -> None:
    hand_out_sessions(registry)

    answers = write(
        registry,
        told("a", 1, 1, "eu"),
        told("b", 1, 1, "eu", namespace="nowhere"),
        told("c", 1_000_000, 1, "eu"),
        told("d", 1, 1, "eu"),
    )

    assert [getattr(answer, "reason", "") for answer in answers] == [
        "",
        "NAMESPACE_NOT_FOUND",
        "INVALID_FIELD",
        "",
    ]
    assert {agent for agent, _ in stored(registry)} == {"a", "d"}


def test_one_place_named_twice_in_a_report_is_what_was_said_last(registry: Registry) -> None:
    hand_out_sessions(registry)
    twice = told("a", 1, 1, "eu", "eu")
    twice.targets[1].running_version = 9

    write(registry, twice)

    assert stored(registry) == {("a", "eu"): (1, 1, 9)}


def rounds(agent: str, chance: random.Random) -> list[list[pb.ReportStatusRequest]]:
    """Make an agent's whole reports over three sessions, each in up to three parts."""
    made = []
    for session in (1, 2, 3):
        seq = 0
        for _ in range(chance.randint(1, 4)):
            parts = []
            for part in range(chance.randint(1, 3)):
                seq += 1
                places = [f"{part}-{n}" for n in range(4) if chance.random() < 0.7]
                parts.append(told(agent, session, seq, *places))
            parts[-1].complete_from_seq = parts[0].seq
            made.append(parts)
    return made


@pytest.mark.parametrize("seed", range(10))
def test_reports_in_any_order_and_number_end_as_the_newest_whole_one(
    registry: Registry, seed: int
) -> None:
    hand_out_sessions(registry)
    chance = random.Random(seed)
    whole = {agent: rounds(agent, chance) for agent in ("a", "b", "c")}
    every = [report for made in whole.values() for parts in made for report in parts]
    sent = every + chance.choices(every, k=len(every) // 2)
    chance.shuffle(sent)
    seen: dict[tuple[str, str], tuple[int, int, int]] = {}

    while sent:
        size = chance.randint(1, 8)
        write(registry, *sent[:size])
        del sent[:size]
        now = stored(registry)
        for place in seen.keys() & now.keys():
            assert now[place][:2] >= seen[place][:2], place
        seen.update(now)

    assert stored(registry) == {
        (agent, target.target): (report.session, report.seq, target.running_version)
        for agent, made in whole.items()
        for report in made[-1]
        for target in report.targets
    }


def test_agents_are_asked_for_a_slower_pace_while_they_are_a_burden() -> None:
    pace = reports.Pace(now=0)
    asked = []

    for second in range(0, 400, 5):
        # Half of the time until then goes into reports; later nearly none.
        pace.note(10, 2.5 if second < 200 else 0.01, now=float(second))
        asked.append(pace.seconds)

    assert asked[0] == 10
    assert max(asked) == 60
    assert asked[-1] == 10
    assert all(0.5 <= after / before <= 2 for before, after in itertools.pairwise(asked))


def test_agents_are_asked_for_a_slower_pace_when_there_are_very_many() -> None:
    pace = reports.Pace(now=0)

    for second in range(1, 200):
        # 10,000 agents, each at the pace that is asked for.
        pace.note(round(10_000 / pace.seconds), 0.001, now=float(second))

    assert 18 <= pace.seconds <= 22
