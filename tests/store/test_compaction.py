"""Compaction: what is old goes, what it leaves is a whole log, and what outlives it stays."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import sqlalchemy as sa

from stagewire import pb
from stagewire.callers import ANONYMOUS
from stagewire.service.registry import Registry
from stagewire.store import compaction, schema
from stagewire.store.opening import open_database
from tests.factories import (
    alias,
    found,
    head,
    model,
    promote,
    refused,
    rollback,
    sql,
    version,
    versions,
)

if TYPE_CHECKING:
    from stagewire.store.database import Database

DEADLINE_SECONDS = 30.0
HOUR = 3600


def old(database: Database, seconds: float) -> compaction.Stretch:
    return database.read(lambda tx: compaction.older_than(tx, seconds))


def compact(database: Database, until: int, *, batch: int = compaction.BATCH) -> list[int]:
    return list(compaction.compact(database, until, batch=batch))


def verified(registry: Registry) -> pb.VerifyLogResponse:
    return registry.VerifyLog(pb.VerifyLogRequest(), ANONYMOUS)


def listed(registry: Registry) -> list[int]:
    answer = registry.ListEvents(pb.ListEventsRequest(namespace="*"), ANONYMOUS)
    return [event.revision for event in answer.events]


def mark(registry: Registry) -> int:
    return registry.GetHead(pb.GetHeadRequest(), ANONYMOUS).compacted_revision


def test_what_is_as_old_as_that_goes_and_what_is_younger_stays(
    registry: Registry, database: Database
) -> None:
    versions(registry, 3)
    border = head(registry)
    ahead = time.time_ns() // 1000 + HOUR * 1_000_000
    database.write(lambda tx: tx.run(sa.update(schema.LogHead).values(commit_time=ahead), {}))
    version(registry)

    assert old(database, HOUR).count == 0
    assert old(database, -2 * HOUR).until == border + 1
    stretch = old(database, 0)
    compact(database, stretch.until)

    assert (stretch.after, stretch.until, stretch.head) == (0, border, border + 1)
    assert 0 < time.time_ns() // 1000 - stretch.until_time < HOUR * 1_000_000
    assert listed(registry) == [border + 1]
    assert old(database, 0).count == 0


def test_what_is_left_verifies_from_the_mark(registry: Registry, database: Database) -> None:
    versions(registry, 3)

    compact(database, 3)

    answer = verified(registry)
    assert (answer.intact, answer.first_revision, answer.last_revision) == (True, 4, 5)
    assert (mark(registry), listed(registry)) == (3, [5, 4])


def test_a_whole_log_may_go_and_go_on(registry: Registry, database: Database) -> None:
    versions(registry, 3)
    top = registry.GetHead(pb.GetHeadRequest(), ANONYMOUS)

    compact(database, top.revision)

    kept = registry.GetHead(pb.GetHeadRequest(), ANONYMOUS)
    assert (kept.revision, kept.head_hash) == (top.revision, top.head_hash)
    assert verified(registry).intact
    assert verified(registry).last_hash == top.head_hash
    assert listed(registry) == []
    version(registry)
    answer = verified(registry)
    assert (answer.intact, answer.first_revision, answer.last_revision) == (True, 6, 6)


def test_a_whole_log_gone_whose_mark_was_altered_is_found(
    registry: Registry, database: Database, database_url: str
) -> None:
    versions(registry, 3)
    compact(database, head(registry))

    sql(database_url, "UPDATE log_head SET compacted_hash = :other", other=b"other")

    assert verified(registry).bad_revision == head(registry)


def test_each_batch_is_durable_by_itself_and_the_next_run_goes_on(
    registry: Registry, database: Database
) -> None:
    versions(registry, 5)
    under_way = compaction.compact(database, 6, batch=2)

    first = next(under_way)
    under_way.close()

    assert (first, mark(registry), listed(registry)) == (2, 2, [7, 6, 5, 4, 3])
    assert verified(registry).first_revision == 3
    assert compact(database, 6, batch=2) == [4, 6]
    assert compact(database, 6, batch=2) == [6]
    assert listed(registry) == [7]


def test_what_models_the_log_is_about_goes_with_it(
    registry: Registry, database: Database, database_url: str
) -> None:
    versions(registry, 3)

    compact(database, 4)

    assert sql(database_url, "SELECT DISTINCT revision FROM log_models") == [(5,)]


def test_history_answers_and_texts_outlive_their_revisions(
    registry: Registry, database: Database, database_url: str
) -> None:
    long = "é" * 2000
    model(registry, description=long)
    request = pb.CreateModelVersionRequest(model="churn", request_id="once")
    answer = registry.CreateModelVersion(request, ANONYMOUS)
    version(registry, description=long)
    promote(registry, 1, reason="better")
    promote(registry, 2)
    between = head(registry)
    alias(registry, 1)
    alias(registry, 2, reassign=True)
    asked = [
        pb.GetStageHistoryRequest(model="churn"),
        pb.GetStageHistoryRequest(model="churn", stage="Production", at_revision=between),
    ]
    before = [registry.GetStageHistory(one, ANONYMOUS).tenures for one in asked]
    kept = ("alias_holders", "stage_moves", "requests", "texts")
    counts = [sql(database_url, f"SELECT count(*) FROM {table}") for table in kept]  # noqa: S608  # own names

    compact(database, head(registry))

    assert [registry.GetStageHistory(one, ANONYMOUS).tenures for one in asked] == before
    assert all(before)
    assert [sql(database_url, f"SELECT count(*) FROM {table}") for table in kept] == counts  # noqa: S608  # as above
    assert registry.CreateModelVersion(request, ANONYMOUS) == answer
    assert found(registry).model.description == long
    assert [state.version for state in rollback(registry).restored] == [1]


def test_compactions_at_once_take_turns(registry: Registry, database: Database) -> None:
    versions(registry, 30)
    until = head(registry) - 1

    with ThreadPoolExecutor(3) as pool:
        runs = [pool.submit(compact, database, until, batch=2) for _ in range(3)]
        marks = [run.result(DEADLINE_SECONDS) for run in runs]

    assert all(run == sorted(run) and run[-1] == until for run in marks)
    assert verified(registry).intact
    assert listed(registry) == [until + 1]


def test_writers_go_on_beside_a_compaction_of_another_process(postgres_url: str) -> None:
    serving, beside = open_database(postgres_url), open_database(postgres_url, readers=1)
    registry = Registry(serving)
    registry.bootstrap()
    model(registry)
    done = threading.Event()

    def write() -> int:
        count = 0
        while not done.is_set() or not count:
            version(registry)
            count += 1
        return count

    with ThreadPoolExecutor(4) as pool:
        writers = [pool.submit(write) for _ in range(4)]
        runs = 0
        while mark(registry) < 200:
            runs += bool(compact(beside, old(beside, 0).until, batch=10))
        done.set()
        written = sum(writer.result(DEADLINE_SECONDS) for writer in writers)

    assert runs > 1
    assert head(registry) == 2 + written
    assert verified(registry).intact
    assert compact(beside, old(beside, 0).until)[-1] == head(registry)
    for database in (serving, beside):
        database.close()


def test_a_log_with_a_hole_is_left_alone(
    registry: Registry, database: Database, database_url: str
) -> None:
    versions(registry, 3)
    sql(database_url, "DELETE FROM log WHERE revision = 4")

    with refused("INTERNAL") as caught:
        compact(database, 4)

    assert "verify-log" in str(caught.error)
    assert (mark(registry), listed(registry)) == (0, [5, 3, 2, 1])
