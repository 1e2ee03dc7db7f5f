"""Many hostile requests of one kind at one server, and what came of them.

A kind says which codes its requests may end in. Whatever they are, the server must live on, give
nothing away, open nothing, log nothing unforeseen and grow no larger.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.hostile.pulse import Beat, Pulse

if TYPE_CHECKING:
    from tests.hostile.targets import Target

MEBIBYTE = 1 << 20
#: What caches and pools fill up with once, before growth is looked for.
WARMING = 0.3
#: In short much of it is still what fills up once; at length there is no excuse.
MOST_GROWTH_BYTES = {"few": 96 * MEBIBYTE, "many": 48 * MEBIBYTE}
#: Held to at length alone: in short a hundredth is one or two.
MOST_HEALTH_MILLISECONDS = 100
#: So long a server may take for one request without being told of.
LONG_SECONDS = 0.2
_MOST_TOLD = 10
_UNFORESEEN = ("Traceback", "unforeseen", "cancelled itself", "Exception", "never retrieved")


class Answer(NamedTuple):
    """What one request ended in: a code, and every byte that came with it."""

    code: str
    said: bytes = b""


#: Sends the request of a number, and waits for how it ends.
Gun = Callable[[int], Answer]


@dataclass(frozen=True)
class Kind:
    """One way to be hostile."""

    name: str
    #: The codes that its requests may end in.
    codes: frozenset[str]
    #: Connects to a target; what it gives sends one request after the other.
    aim: Callable[[Target], AbstractContextManager[Gun]]
    #: How many are sent in short, and at length.
    few: int = 200
    many: int = 10_000
    #: How many are under way at once.
    at_once: int = 1

    def __str__(self) -> str:
        """Name it."""
        return self.name


@dataclass
class Tally:
    """What came of the requests of one kind."""

    kind: Kind
    codes: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    grown_bytes: int = 0
    cpu_seconds: float = 0.0
    #: Requests that took long, by number: seconds of the server's CPU.
    slow: dict[int, float] = field(default_factory=dict)
    #: How its health answered meanwhile, over gRPC and over HTTP.
    beats: dict[str, Beat] = field(default_factory=dict)

    def row(self) -> dict[str, Any]:
        """Give what is told of it in a table."""
        return {
            "kind": self.kind.name,
            "requests": self.codes.total(),
            "codes": dict(self.codes.most_common()),
            "beats": {name: list(beat) for name, beat in self.beats.items()},
            "grown_mib": round(self.grown_bytes / MEBIBYTE, 1),
            "slow": len(self.slow),
        }

    def object_to(self, problem: str) -> None:
        """Note a problem, if there are not too many already."""
        if len(self.problems) < _MOST_TOLD:
            self.problems.append(problem)


def fire(target: Target, kind: Kind, *, many: bool) -> Tally:
    """Send the requests of a kind, and judge what came of them."""
    count = kind.many if many else kind.few
    tally = Tally(kind)
    logged = len(target.process.said())
    warm = max(1, int(count * WARMING))
    with Pulse(target) as pulse:
        _send(target, tally, range(warm))
        resident, used = target.resident_bytes(), target.cpu_seconds()
        _send(target, tally, range(warm, count))
    tally.beats = pulse.beats
    for name, beat in tally.beats.items():
        if beat.failed:
            tally.object_to(f"its health did not answer {beat.failed} times over {name}")
        if many and beat.p99 > MOST_HEALTH_MILLISECONDS:
            tally.object_to(f"its health took {beat.p99:.0f} ms over {name}")
    if not (target.alive and target.process.healthy()):
        tally.object_to(f"it is ill: {target.process.said()[-2000:]}")
        return tally
    tally.grown_bytes = target.resident_bytes() - resident
    tally.cpu_seconds = target.cpu_seconds() - used
    if tally.grown_bytes > MOST_GROWTH_BYTES["many" if many else "few"]:
        tally.object_to(f"it grew by {tally.grown_bytes / MEBIBYTE:.0f} MiB")
    for line in target.reached():
        tally.object_to(f"it reached for {line}")
    said = target.process.said()[logged:]
    if any(word in said for word in _UNFORESEEN):
        tally.object_to(f"it logged {said[-4000:]}")
    return tally


def _send(target: Target, tally: Tally, numbers: range) -> None:
    lock = threading.Lock()
    waiting = iter(numbers)

    def work(_: int) -> None:
        with tally.kind.aim(target) as gun:
            while True:
                with lock:
                    number = next(waiting, None)
                if number is None:
                    return
                used, began = target.cpu_seconds(), time.monotonic()
                answer = gun(number)
                took = time.monotonic() - began
                used = target.cpu_seconds() - used
                with lock:
                    _judge(target, tally, number, answer)
                    if min(took, used) > LONG_SECONDS:
                        tally.slow[number] = round(used, 2)

    with ThreadPoolExecutor(tally.kind.at_once) as pool:
        list(pool.map(work, range(tally.kind.at_once)))


def _judge(target: Target, tally: Tally, number: int, answer: Answer) -> None:
    tally.codes[answer.code] += 1
    if answer.code not in tally.kind.codes:
        tally.object_to(f"{number} ended in {answer.code}: {answer.said[:300]!r}")
    for word in target.leaks(answer.said):
        tally.object_to(f"{number} gave away {word!r}: {answer.said[:600]!r}")
