"""One process of watchers: `python -m tests.faults.watching SPEC`, with everything on a tape.

It says `ready` when every watcher has heard something. Told a revision on its standard input, it
says `done` when every watcher has got there, and ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tenacity
import uvloop

from stagewire import pb
from stagewire.client.aio import AsyncClient
from tests.faults.load import NAMES, SPACES
from tests.faults.scenes import impatient
from tests.faults.tapes import Tape, taped

if TYPE_CHECKING:
    from stagewire.client.watch import AsyncWatch

STREAMS_A_CHANNEL = 100
CATCH_UP_SECONDS = 90.0
BACKOFF = tenacity.wait_random(0, 0.5)

_EVERYWHERE = ["*"]
#: What few watch: it matches much, and every event of it goes to each of them.
BROAD: tuple[dict[str, Any], ...] = (
    {"namespaces": _EVERYWHERE},
    {},
    {"namespaces": ["risk"]},
    {"namespaces": _EVERYWHERE, "stages": ["PRODUCTION"]},
    {"stages": ["Production"]},
    {"stages": ["Staging", "production"]},
    {"namespaces": _EVERYWHERE, "stages": ["archived"]},
    {"model_prefix": "risk-"},
    {"namespaces": _EVERYWHERE, "model_prefix": "churn-"},
    {"models": ["risk-1", "risk-2", "churn-3"]},
    {"namespaces": _EVERYWHERE, "models": ["churn-0"]},
    {"kinds": [pb.CHANGE_KIND_VERSION_CREATED]},
    {
        "namespaces": _EVERYWHERE,
        "kinds": [pb.CHANGE_KIND_STAGES_CHANGED, pb.CHANGE_KIND_STAGE_PRIMARY_CHANGED],
    },
)
#: What most watch: one model in one stage.
NARROW: tuple[dict[str, Any], ...] = tuple(
    {"namespaces": [space], "models": [name], "stages": [stage]}
    for space in SPACES
    for name in NAMES
    for stage in ("Production", "Staging")
)
_STARTS = ("snapshot", "beginning", "now", "snapshot")
_ONE_IN_IS_BROAD = 13


class Follower:
    """One watcher: it follows with the SDK, dawdles or reconnects, and is on the tape."""

    def __init__(self, client: AsyncClient, tape: Tape, number: int) -> None:
        """Be the watcher of this number, whose ways follow from it."""
        kind, turn = divmod(number, _ONE_IN_IS_BROAD)
        fields = BROAD[kind % len(BROAD)] if turn == 0 else NARROW[number % len(NARROW)]
        chance = random.Random(number)
        self.position = -1
        self.name = f"watcher-{number}"
        self._filter = pb.WatchFilter(**fields)
        self._start = chance.choice(_STARTS)
        self._reconnect_after = chance.randint(5, 60) if chance.random() < 0.15 else 0
        self._dawdle_seconds = chance.uniform(0.01, 0.05) if chance.random() < 0.08 else 0.0
        self._client = client
        self._tape = tape
        self._number = tape.watcher(self.name, self._filter, dawdles=self._dawdle_seconds > 0)
        self._begin = taped(client._channel, tape, self._number)
        self._watch: AsyncWatch | None = None
        self._halted = False

    async def run(self, hurry: asyncio.Event) -> None:
        """Follow until halted."""
        cursor = b""
        while not self._halted:
            watch = self._client.watch(
                self._filter, cursor=cursor, start=self._start, backoff=BACKOFF
            )
            watch._begin = self._begin
            self._watch = watch
            count = 0
            async with watch:
                async for event in watch:
                    count += 1
                    self._tape.handed(self._number, event)
                    self.position = event.revision
                    if self._dawdle_seconds and not hurry.is_set():
                        with contextlib.suppress(TimeoutError):
                            await asyncio.wait_for(hurry.wait(), self._dawdle_seconds)
                    if self._reconnect_after and count >= self._reconnect_after:
                        break
            cursor = watch.cursor

    def halt(self) -> None:
        """Have it end."""
        self._halted = True
        if self._watch is not None:
            self._watch.close()


async def until(followers: list[Follower], running: list[asyncio.Task[None]], least: int) -> None:
    """Wait until every watcher is so far; raise what one of them stumbled over."""
    async with asyncio.timeout(CATCH_UP_SECONDS):
        while any(follower.position < least for follower in followers):
            done, _ = await asyncio.wait(running, timeout=0.05, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()


async def main(spec: dict[str, Any]) -> None:
    """Play the watchers that the spec numbers."""
    tape = Tape(Path(spec["tape"]))
    numbers = range(spec["first"], spec["first"] + spec["count"])
    with impatient() if spec["impatient"] else contextlib.nullcontext():
        clients = [AsyncClient(spec["address"]) for _ in range(0, len(numbers), STREAMS_A_CHANNEL)]
    followers = [
        Follower(clients[place // STREAMS_A_CHANNEL], tape, number)
        for place, number in enumerate(numbers)
    ]
    hurry = asyncio.Event()
    running = [asyncio.create_task(follower.run(hurry)) for follower in followers]
    try:
        await until(followers, running, 0)
        print("ready", flush=True)  # noqa: T201  # the parent waits for it
        head = await asyncio.to_thread(sys.stdin.readline)
        hurry.set()
        await until(followers, running, int(head))
    finally:
        for follower in followers:
            follower.halt()
        await asyncio.wait(running, timeout=10)
        for client in clients:
            await client.close()
        tape.close()
    print("done", flush=True)  # noqa: T201  # as above


if __name__ == "__main__":
    uvloop.run(main(json.loads(sys.argv[1])))
