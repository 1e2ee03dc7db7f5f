"""Places where a test can have this process die, stop or forget something, by environment variable.

`STAGEWIRE_FAILPOINTS="head.taken=stop; commit.returned=kill@5"` has the fifth commit's return kill
the process. `place=action` acts at every passage, `place=action@N` at the Nth alone. Read once, at
import; without the variable every place is one comparison.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time

VARIABLE = "STAGEWIRE_FAILPOINTS"

#: Every place, and what has and has not happened there.
PLACES = {
    "work.done": "a use case has run; the log's head is not taken",
    "head.taken": "the log's head is taken; COMMIT is not sent",
    "mark.moved": "a batch of a compaction is deleted and its mark moved; COMMIT is not sent",
    "commit.returned": "a transaction is durable; nobody has been woken or answered",
    "wake.sent": "the tail and other replicas were woken; the caller has no answer",
    "wake": "skipped, this process's own tail is not woken by its commits",
    "notify": "skipped, other replicas are not told of a commit",
    "tail.read": "the tail is about to read the log",
    "handler": "a unary call is about to be worked on",
    "stream": "a watch is about to look for what it has to say",
}
ACTIONS = ("kill", "stop", "skip", "raise", "cancel", "sleep:SECONDS")


class Failure(RuntimeError):
    """What `raise` raises: an error that nobody foresaw."""


class _Point:
    """What happens at one place."""

    def __init__(self, action: str, only: int) -> None:
        self._action, _, seconds = action.partition(":")
        self._seconds = float(seconds or 0)
        self._only = only
        self._passed = 0
        self._lock = threading.Lock()

    def passage(self) -> bool:
        with self._lock:
            self._passed += 1
            acts = self._only in (0, self._passed)
        if not acts:
            return False
        match self._action:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "stop":
                # This very thread: sent to the process, another one would take the signal, and
                # this one go on meanwhile, past what it was to be stopped before.
                signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
            case "sleep":
                time.sleep(self._seconds)
            case "raise":
                raise Failure(self._action)
            case "cancel":
                raise asyncio.CancelledError
        return self._action == "skip"


def parse(text: str) -> dict[str, _Point]:
    """Read the variable's value. Raises ValueError, naming what there is, for what is unknown."""
    points = {}
    for part in filter(None, (piece.strip() for piece in text.split(";"))):
        place, _, rest = part.partition("=")
        action, _, only = rest.partition("@")
        known = action.partition(":")[0] in {a.partition(":")[0] for a in ACTIONS}
        if place not in PLACES or not known or not (only.isdecimal() or not only):
            message = (
                f"{VARIABLE}: {part!r} is not PLACE=ACTION[@N] with a place of "
                f"{', '.join(PLACES)} and an action of {', '.join(ACTIONS)}"
            )
            raise ValueError(message)
        points[place] = _Point(action, int(only or 0))
    return points


_POINTS = parse(os.environ.get(VARIABLE, ""))


def hit(place: str) -> bool:
    """Pass a place; True when what follows is to be left out."""
    return bool(_POINTS) and place in _POINTS and _POINTS[place].passage()
