"""Which sessions were handed out, by `Database.next_sessions`, as far as this history knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from stagewire.store import schema

if TYPE_CHECKING:
    from stagewire.store.transactions import Tx

_SEQUENCE = sa.text("SELECT last_value FROM watch_sessions")
_COUNTER = sa.select(schema.Counter.value).where(schema.Counter.name == "sessions")


def newest(tx: Tx) -> int:
    """Read a number that no session handed out so far is above."""
    return int(tx.scalar(_SEQUENCE if tx.postgresql else _COUNTER) or 0)
