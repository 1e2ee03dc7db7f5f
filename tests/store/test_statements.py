"""No statement takes longer than it may, on either database, and none holds up others."""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from stagewire.errors import RegistryError
from stagewire.store import sqlite
from stagewire.store.opening import open_database

if TYPE_CHECKING:
    from stagewire.service.registry import Registry
    from stagewire.store.database import Database
    from stagewire.store.transactions import Tx

#: Counts for minutes, on either.
ENDLESS = sa.text(
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000000000) "
    "SELECT count(*) FROM n"
)


def count(tx: Tx) -> object:
    return tx.scalar(ENDLESS)


def test_a_read_that_takes_too_long_is_broken_off(database: Database) -> None:
    began = time.monotonic()

    with pytest.raises(RegistryError) as refused:
        database.read(count)

    assert refused.value.reason == "CONTENTION"
    assert time.monotonic() - began < 30
    assert database.read(lambda tx: tx.scalar(sa.text("SELECT 1"))) == 1


def test_a_change_that_takes_too_long_is_broken_off_whole(registry: Registry) -> None:
    def work(tx: Tx) -> object:
        tx.run(sa.text("UPDATE namespaces SET description = 'changed'"), {})
        return count(tx)

    with pytest.raises(RegistryError) as refused:
        registry.database.write(work)

    assert refused.value.reason == "CONTENTION"
    kept = registry.database.read(
        lambda tx: tx.scalar(sa.text("SELECT description FROM namespaces"))
    )
    assert kept == ""


def insert(tx: Tx, *, name: str) -> None:
    tx.run(sa.text("INSERT INTO counters (name, value) VALUES (:name, 1)"), {"name": name})


def test_what_others_ask_meanwhile_is_done(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "WRITE_STATEMENT_SECONDS", 0.5)
    database = open_database(sqlite_url, readers=4)
    slow = sa.text(
        "INSERT INTO counters (name, value) SELECT 'c' || i, i FROM (WITH RECURSIVE n(i) AS "
        "(SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000000000) SELECT i FROM n)"
    )
    reasons: list[str] = []

    def insert_without_end() -> None:
        try:
            database.write(lambda tx: tx.run(slow, {}))
        except RegistryError as error:
            reasons.append(error.reason)

    endless = threading.Thread(target=insert_without_end)
    endless.start()
    try:
        for number in range(5):
            database.write(partial(insert, name=f"mine {number}"))
    finally:
        endless.join()
        rows = database.read(lambda tx: tx.rows(sa.text("SELECT name FROM counters")))
        database.close()

    assert reasons == ["CONTENTION"]
    assert sorted(row.name for row in rows) == [f"mine {n}" for n in range(5)]
