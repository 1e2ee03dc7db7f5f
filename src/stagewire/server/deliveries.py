"""The deliverer: for each webhook that this server holds, one task that goes through the log.

A task sends one letter at a time and writes down what became of it before the next, so that
order holds; a receiver that hangs keeps its own task waiting and no other.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import structlog

from stagewire import errors, pb
from stagewire.server.interceptors import shutting_down

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

    from stagewire.server.posting import Post
    from stagewire.service.deliveries import Agenda, Book, Lease, Letter, Outcome
    from stagewire.service.tail import Entry

T = TypeVar("T")
log = structlog.get_logger("stagewire.webhooks")

_HOOKS_CHANGED = {
    pb.CHANGE_KIND_WEBHOOK_CREATED,
    pb.CHANGE_KIND_WEBHOOK_UPDATED,
    pb.CHANGE_KIND_WEBHOOK_DELETED,
}
# A receiver may ask for patience, but not for more than this.
_LONGEST_RETRY_AFTER = 3600.0
# The history is cut to its length after so many deliveries, not after each.
_PRUNE_EVERY = 100
_AFTER_FAULT_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class DeliveryPace:
    """How patient deliveries are, in seconds."""

    timeout: float = 10.0
    retry: float = 1.0
    retry_most: float = 600.0
    give_up: float = 3 * 24 * 3600.0
    lease: float = 30.0
    poll: float = 5.0


class Deliverer:
    """Delivers for the webhooks whose leases this server holds."""

    def __init__(self, book: Book, post: Post, executor: Executor, *, pace: DeliveryPace) -> None:
        """Prepare; `run` does the work, with the book's writing on threads of `executor`."""
        self._book = book
        self._post = post
        self._executor = executor
        self._pace = pace
        self._tasks: dict[Lease, asyncio.Task[None]] = {}
        self._ending: list[asyncio.Task[None]] = []
        self._wakes: dict[Lease, asyncio.Event] = {}
        self._positions: dict[Lease, int] = {}
        self._written: dict[Lease, int] = {}
        self._leases_changed = asyncio.Event()
        self._renewed = asyncio.Event()
        self._held_until = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        #: Attempts by what became of them.
        self.counts: Counter[str] = Counter()

    def wake(self, entry: Entry) -> None:
        """Hear of a new revision from the tail."""
        for event in self._wakes.values():
            event.set()
        if any(change.kind in _HOOKS_CHANGED for change in entry.slices):
            self._leases_changed.set()

    async def run(self) -> None:
        """Hold leases and deliver, for ever."""
        self._loop = asyncio.get_running_loop()
        while True:
            self._leases_changed.clear()
            began = time.monotonic()
            try:
                news = dict(self._positions.items() - self._written.items())
                held = await self._on_thread(self._book.take, news)
                self._written.update(news)
            except Exception as error:
                log.exception("leases can't be taken", reason=getattr(error, "reason", "INTERNAL"))
                await asyncio.sleep(min(_AFTER_FAULT_SECONDS, self._pace.lease / 3))
                continue
            self._held_until = began + self._pace.lease
            # Whoever waits now is woken by this, and who comes later looks at the time first.
            self._renewed.set()
            self._renewed.clear()
            self._follow(held)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._pace.lease / 3):
                    await self._leases_changed.wait()

    async def stop(self) -> None:
        """End every task and let others take over at once."""
        self._follow(set())
        await asyncio.gather(*self._ending, return_exceptions=True)
        with suppress(errors.RegistryError):
            await self._on_thread(self._book.release)
        await self._post.close()

    def deliver_once(self, letter: Letter) -> Outcome:
        """Make one attempt for somebody on another thread, who waits."""
        if self._loop is None or self._loop.is_closed():
            raise shutting_down()
        return asyncio.run_coroutine_threadsafe(self._post.deliver(letter), self._loop).result()

    def _follow(self, held: set[Lease]) -> None:
        """Begin a task for each new lease and end those of lost ones."""
        self._ending = [task for lease, task in self._tasks.items() if lease not in held]
        for lease in [lease for lease in self._tasks if lease not in held]:
            self._tasks.pop(lease).cancel()
            self._wakes.pop(lease, None)
            self._positions.pop(lease, None)
            self._written.pop(lease, None)
        for lease in held - self._tasks.keys():
            self._wakes[lease] = asyncio.Event()
            self._tasks[lease] = asyncio.create_task(self._serve(lease, self._wakes[lease]))

    async def _serve(self, lease: Lease, wake: asyncio.Event) -> None:
        sent = 0
        while True:
            wake.clear()
            try:
                agenda = await self._on_thread(
                    self._book.look, lease, self._positions.get(lease, 0)
                )
                if agenda is None:
                    break
                before = sent
                sent = await self._work_off(lease, agenda, sent)
                if sent // _PRUNE_EVERY > before // _PRUNE_EVERY:
                    await self._on_thread(self._book.prune, lease.webhook_id)
            except _LeaseLost:
                break
            except Exception as error:
                # Whatever it was, the log is still there: it is gone through again from the place
                # that was written down last.
                reason = getattr(error, "reason", "INTERNAL")
                log.exception("deliveries stopped", webhook=lease.webhook_id, reason=reason)
                await asyncio.sleep(_AFTER_FAULT_SECONDS * (1 + random.random()))
                continue
            await self._rest(lease, agenda, wake)
        self._leases_changed.set()

    async def _work_off(self, lease: Lease, agenda: Agenda, sent: int) -> int:
        """Send what the agenda holds until one fails; answers how many were sent in all."""
        if agenda.missed is not None:
            log.warning(
                "the log was compacted before it could be sent",
                webhook=lease.webhook_id,
                first=agenda.missed.first,
                last=agenda.missed.last,
            )
            await self._write(self._book.miss, lease, agenda.missed)
        if agenda.gone:
            await self._write(self._book.give_up, lease, agenda.gone)
        for letter in agenda.again:
            outcome = await self._attempt(letter)
            await self._write(self._book.settle_again, lease, letter, outcome)
            sent += 1
        if agenda.wait_seconds > 0 or agenda.missed is not None:
            return sent
        attempts = agenda.attempts
        for letter in agenda.letters:
            outcome = await self._attempt(letter)
            sent += 1
            retry = self._retry_seconds(outcome, attempts, agenda.failing_seconds)
            await self._write(self._settle, lease, letter, outcome, retry)
            if not outcome.delivered:
                # The book knows how long it waits now, or that it was given up.
                return sent
            attempts = 0
        self._positions[lease] = agenda.scanned
        return sent

    def _settle(self, lease: Lease, letter: Letter, outcome: Outcome, retry: float | None) -> bool:
        return self._book.settle(lease, letter, outcome, retry_seconds=retry)

    async def _attempt(self, letter: Letter) -> Outcome:
        """Make one attempt, while the lease is sure to outlast it."""
        while time.monotonic() + self._pace.timeout > self._held_until:
            await self._renewed.wait()
        outcome = await self._post.deliver(letter)
        self.counts["delivered" if outcome.delivered else outcome.error] += 1
        log.info(
            "delivery",
            webhook=letter.webhook_id,
            delivery=letter.id,
            event_name=letter.happening.event,
            revision=letter.revision,
            status=outcome.status,
            error=outcome.error,
        )
        return outcome

    def _retry_seconds(self, outcome: Outcome, attempts: int, failing: float) -> float | None:
        """Say how long to wait before the next attempt; None gives up."""
        pace = self._pace
        if outcome.delivered or failing > pace.give_up:
            return None
        # Full jitter: receivers that come back are not met by all of their senders at once.
        longest = min(pace.retry_most, pace.retry * 2 ** min(attempts, 30))
        wait = random.uniform(0, longest)
        return max(wait, min(outcome.retry_after_seconds or 0.0, _LONGEST_RETRY_AFTER))

    async def _write(self, work: Callable[..., bool], *values: object) -> None:
        """Write into the book, trying until the lease is over: what was sent was sent."""
        while True:
            try:
                held = await self._on_thread(work, *values)
            except errors.RegistryError as error:
                if time.monotonic() > self._held_until:
                    raise _LeaseLost from error
                await asyncio.sleep(_AFTER_FAULT_SECONDS / 4)
                continue
            if not held:
                raise _LeaseLost
            return

    async def _rest(self, lease: Lease, agenda: Agenda, wake: asyncio.Event) -> None:
        """Wait until there may be something to do."""
        if agenda.missed is not None or agenda.again or agenda.gone:
            return
        if agenda.wait_seconds > 0:
            # New events wait behind this one: only a redelivery is worth a look.
            await asyncio.sleep(min(agenda.wait_seconds, self._pace.poll))
            return
        if agenda.more or self._positions.get(lease) != agenda.scanned:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(self._pace.poll):
                await wake.wait()

    async def _on_thread(self, work: Callable[..., T], *values: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work, *values)


class _LeaseLost(Exception):
    """Another server delivers for this webhook now, or nobody."""
