"""What the directory knows while it reads everything anew."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import sqlalchemy as sa

from stagewire import pb
from stagewire.access.directory import Directory
from stagewire.callers import ANONYMOUS
from stagewire.service import tail
from stagewire.store import events, schema

if TYPE_CHECKING:
    from stagewire.service.registry import Registry
    from stagewire.store.transactions import Tx


def grant(registry: Registry, subject: str) -> str:
    wanted = pb.Grant(subject=subject, scope=pb.Scope(role=pb.ROLE_VIEWER))
    return registry.CreateGrant(pb.CreateGrantRequest(grant=wanted), ANONYMOUS).grant.id


def last_entry(registry: Registry) -> tail.Entry:
    def work(tx: Tx) -> tail.Entry:
        statement = sa.select(schema.Log).where(schema.Log.revision == tx.head)
        return tail.entry(tx.rows(statement)[0], events.hash_at(tx, tx.head - 1) or b"")

    return registry.database.read(work)


async def test_what_is_heard_while_everything_is_read_anew_is_not_lost(registry: Registry) -> None:
    doomed = grant(registry, "ann")
    with ThreadPoolExecutor(1) as pool:
        directory = Directory(registry.database, pool)
        await directory.load()

        directory.start_over()
        await asyncio.sleep(0)
        # Without giving way: it was read by now, and what was read is not taken in yet.
        pool.submit(lambda: None).result()
        registry.DeleteGrant(pb.DeleteGrantRequest(id=doomed), ANONYMOUS)
        directory.hear(last_entry(registry))
        grant(registry, "bob")
        newest = last_entry(registry)
        directory.hear(newest)
        async with asyncio.timeout(10):
            await directory.reach(newest.revision)

        assert directory.whole
        assert not directory.scopes_of(["ann"])
        assert directory.scopes_of(["bob"])
