"""What is noted of calls beside the log: when tokens were used, and who was refused.

Neither is worth a write a call: both wait in memory and are written together, bounded, so that a
flood of either costs the database nothing.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import structlog

from stagewire.service import refusals, tokens

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from stagewire.service.refusals import Attempt
    from stagewire.store.database import Database
    from stagewire.store.transactions import Tx

log = structlog.get_logger("stagewire.access")

#: A token's last use is written at most this often.
USES_SECONDS = 60.0
#: Equal refusals within this are one.
REFUSALS_SECONDS = 5.0
#: More kinds of refusal than this within that time are left out, and counted.
MOST_REFUSALS = 100


class Ledger:
    """Notes of one process. For the event loop's thread only."""

    def __init__(self, database: Database, executor: Executor) -> None:
        """Note nothing yet."""
        self._database = database
        self._executor = executor
        self._uses: dict[str, int] = {}
        self._refusals: dict[Attempt, tuple[int, int]] = {}
        self._left_out = 0
        self._uses_written = time.monotonic()

    def note_use(self, token_id: str) -> None:
        """Note that a token is being used."""
        self._uses[token_id] = time.time_ns() // 1000

    def note_refusal(self, attempt: Attempt) -> None:
        """Note a refusal, unless there are too many kinds of them."""
        known = self._refusals.get(attempt)
        if known is not None:
            self._refusals[attempt] = (known[0], known[1] + 1)
        elif len(self._refusals) < MOST_REFUSALS:
            self._refusals[attempt] = (time.time_ns() // 1000, 1)
        else:
            self._left_out += 1

    async def run(self) -> None:
        """Write what was noted, for ever."""
        while True:
            await asyncio.sleep(REFUSALS_SECONDS)
            due = time.monotonic() - self._uses_written >= USES_SECONDS
            await self.write(uses=due)

    async def write(self, *, uses: bool = True) -> None:
        """Write what was noted; what can't be written is let go, and said."""
        used, self._uses = (self._uses, {}) if uses else ({}, self._uses)
        refused, self._refusals = self._refusals, {}
        left_out, self._left_out = self._left_out, 0
        if uses:
            self._uses_written = time.monotonic()
        if left_out:
            log.warning("refusals not recorded: there are too many", count=left_out)
        if not used and not refused:
            return

        def work(tx: Tx) -> None:
            tokens.note_uses(tx, used)
            refusals.note(tx, refused)

        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._executor, self._database.write, work)
        except Exception:
            log.exception("uses of tokens and refusals can't be written", refusals=len(refused))
