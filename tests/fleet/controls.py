"""The parent's side of a fleet: starts its processes, splits the members, sums the answers."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_ROOT = Path(__file__).parent.parent.parent
STREAMS_A_CONNECTION = 100
_POLL_SECONDS = 0.1
_SUMMED = ("members", "served", "reached", "messages", "revisions", "repeated", "streams")


@dataclass(slots=True)
class State:
    """How a fleet fares, over all its processes."""

    members: int = 0
    #: Members whose present stream was greeted after the time asked about.
    served: int = 0
    #: By the clock that all processes of a machine share.
    last_served: float = 0.0
    #: Members that have received what was asked about.
    reached: int = 0
    messages: int = 0
    revisions: int = 0
    repeated: int = 0
    streams: int = 0
    resets: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    goodbyes: Counter[str] = field(default_factory=Counter)

    def add(self, answer: Mapping[str, Any]) -> None:
        """Add one process's answer."""
        self.last_served = max(self.last_served, answer["last_served"])
        for name in (
            "members",
            "served",
            "reached",
            "messages",
            "revisions",
            "repeated",
            "streams",
        ):
            setattr(self, name, getattr(self, name) + answer[name])
        for name in ("resets", "refusals", "goodbyes"):
            getattr(self, name).update(answer[name])


class Fleet:
    """Some processes full of members, on one or several servers."""

    def __init__(
        self,
        *addresses: str,
        processes: int = 2,
        streams_a_connection: int = STREAMS_A_CONNECTION,
    ) -> None:
        """Start the processes; `open` gives them members."""
        self.cpu_seconds = 0.0
        self._processes = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.fleet"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=_ROOT,
            )
            for _ in range(processes)
        ]
        first = {"addresses": addresses, "streams_a_connection": streams_a_connection}
        for process in self._processes:
            self._send(process, first)

    def __enter__(self) -> Self:
        """Nothing more to do."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Let the processes end, and wait for it."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.close()
        for process in self._processes:
            process.wait(10)
            assert process.stdout is not None
            process.stdout.close()

    def open(self, members: int, models: Sequence[str]) -> None:
        """Add members; the models are watched in turn, and "" stands for all of them."""
        chosen = list(itertools.islice(itertools.cycle(models), members))
        count = len(self._processes)
        self._ask(*({"command": "open", "models": chosen[n::count]} for n in range(count)))

    def state(self, *, since: float = 0.0, reached: Mapping[str, int] | None = None) -> State:
        """Sum up how the members fare."""
        found = State()
        for answer in self._ask_all("state", since=since, reached=reached or {}):
            found.add(answer)
        return found

    def cut(self) -> int:
        """Cut every connection at once; answers how many there were."""
        return sum(self._ask_all("cut"))

    def told(self) -> dict[str, list[tuple[list[int], int]]]:
        """Give, by model, the different sequences of revisions received, and how many got them."""
        found: dict[str, Counter[tuple[int, ...]]] = {}
        for model, revisions, count in itertools.chain(*self._ask_all("told")):
            found.setdefault(model, Counter())[tuple(revisions)] += count
        return {
            model: [(list(revisions), count) for revisions, count in sequences.items()]
            for model, sequences in found.items()
        }

    def wait(
        self, met: Callable[[State], bool], *, seconds: float, **asked: Any
    ) -> tuple[State, float]:
        """Ask until an answer will do; answers it and when it came. Fails after `seconds`."""
        deadline = time.monotonic() + seconds
        while True:
            state = self.state(**asked)
            now = time.monotonic()
            if met(state):
                return state, now
            if now > deadline:
                raise TimeoutError(f"not within {seconds} s: {state}")
            threading.Event().wait(_POLL_SECONDS)

    def wait_until_served(self, *, seconds: float, since: float = 0.0) -> State:
        """Wait until every member has a stream that was greeted after `since`."""
        return self.wait(lambda s: s.served == s.members, seconds=seconds, since=since)[0]

    def _ask_all(self, command: str, **arguments: Any) -> list[Any]:
        return self._ask(*({"command": command, **arguments} for _ in self._processes))

    def _ask(self, *orders: dict[str, Any]) -> list[Any]:
        """Give each process its order before waiting for the first answer."""
        for process, order in zip(self._processes, orders, strict=True):
            self._send(process, order)
        replies = [self._receive(process) for process in self._processes]
        self.cpu_seconds = sum(reply["cpu"] for reply in replies)
        return [reply["answer"] for reply in replies]

    def _send(self, process: subprocess.Popen[str], order: dict[str, Any]) -> None:
        assert process.stdin is not None
        process.stdin.write(json.dumps(order) + "\n")
        process.stdin.flush()

    def _receive(self, process: subprocess.Popen[str]) -> Any:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"a process of the fleet died: exit code {process.wait()}")
        return json.loads(line)
