"""The clock that leases are judged by: the database's, where servers share one."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import sqlalchemy as sa

if TYPE_CHECKING:
    from stagewire.store.transactions import Tx

_NOW = sa.text("SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)")


def now(tx: Tx) -> int:
    """Read the time in microseconds since 1970; the same clock for every server."""
    # A SQLite file has one server, so that its clock is everybody's.
    return int(tx.scalar(_NOW)) if tx.postgresql else time.time_ns() // 1000
