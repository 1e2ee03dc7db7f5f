"""Callers: SDK clients as published that read and write all the time, and forgive nothing.

Each has a model of its own, so it knows what a read must answer: not less than it has written or
read before, whichever server answers, from the database or from memory.
"""

from __future__ import annotations

import random
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stagewire import pb
from stagewire.client import AsyncClient, Client, errors
from tests.client.blocking import Blocking, Loop

if TYPE_CHECKING:
    from collections.abc import Iterator

#: As many are synchronous as asynchronous.
CLIENTS = 4
CALLERS_A_CLIENT = 4
SPACE = "callers"


@dataclass
class Account:
    """What became of the calls."""

    seconds: list[float] = field(default_factory=list)
    #: Every failure that reached its caller.
    failures: list[str] = field(default_factory=list)
    #: Reads that were held against what was known, and those that answered less, or too much.
    reads: int = 0
    wrong: list[str] = field(default_factory=list)


class Known:
    """What a caller knows of a number that it alone raises, by one at a time."""

    def __init__(self, account: Account, what: str) -> None:
        """Begin with nothing known."""
        self._account = account
        self._what = what
        self._least = 0
        self.most = 0

    def write(self) -> int:
        """Give the next number, which may be there from now on."""
        self.most += 1
        return self.most

    def written(self, number: int) -> None:
        """Note that it is there for certain."""
        self._least = max(self._least, number)

    def read(self, number: int) -> None:
        """Hold an answer against what is known."""
        self._account.reads += 1
        if not self._least <= number <= self.most:
            known = f"{self._least} to {self.most}"
            self._account.wrong.append(f"{self._what} reads {number}, not {known}")
        self._least = max(self._least, number)


class Caller(threading.Thread):
    """One caller at work: whatever is refused or fails is no fault of the load's."""

    def __init__(self, client: Any, number: int, account: Account, pause_seconds: float) -> None:
        super().__init__(name=f"caller-{number}")
        self.model = f"called-{number}"
        self._client = client
        self._account = account
        self._pause_seconds = pause_seconds
        self._random = random.Random(number)
        self._halted = threading.Event()
        self._tags = Known(account, f"the tag of {self.model}")
        self._versions = Known(account, f"the newest version of {self.model}")

    def prepare(self) -> None:
        """Make the model with a tag and a version."""
        self._client.registry.CreateModel(pb.CreateModelRequest(model=pb.Model(name=self.model)))
        self._tag()
        self._create()

    def run(self) -> None:
        calls = {
            self._resolve: 6,
            self._get: 3,
            self._list: 2,
            self._tag: 3,
            self._create: 1,
        }
        while not self._halted.wait(self._pause_seconds):
            (call,) = self._random.choices(tuple(calls), tuple(calls.values()))
            began = time.monotonic()
            try:
                call()
            except errors.StagewireError as error:
                waited = time.monotonic() - began
                self._account.failures.append(f"{call.__name__} after {waited:.3f} s: {error!r}")
            self._account.seconds.append(time.monotonic() - began)

    def stop(self) -> None:
        """End it after the call at hand."""
        self._halted.set()
        self.join(60)
        assert not self.is_alive(), self.name

    def _resolve(self) -> None:
        self._versions.read(self._client.resolve(self.model).version)

    def _get(self) -> None:
        answer = self._client.registry.GetModel(pb.GetModelRequest(model=self.model))
        self._tags.read(int(answer.model.tags["n"]))

    def _list(self) -> None:
        answer = self._client.registry.ListModelVersions(
            pb.ListModelVersionsRequest(model=self.model, page_size=1000)
        )
        self._versions.read(max(version.version for version in answer.versions))

    def _tag(self) -> None:
        number = self._tags.write()
        self._client.registry.SetModelTags(
            pb.SetModelTagsRequest(model=self.model, tags={"n": str(number)})
        )
        self._tags.written(number)

    def _create(self) -> None:
        self._versions.write()
        self._versions.written(self._client.create_version(self.model).version)


@contextmanager
def calling(address: str, *, pause_seconds: float) -> Iterator[Account]:
    """Have callers at work, and give their account."""
    account = Account()
    loop = Loop()
    clients: list[Any] = [Client(address, namespace=SPACE) for _ in range(CLIENTS // 2)]
    clients += [
        Blocking(loop, loop.run(lambda: AsyncClient(address, namespace=SPACE)))
        for _ in range(CLIENTS // 2)
    ]
    callers = [
        Caller(client, turn * CLIENTS + place, account, pause_seconds)
        for place, client in enumerate(clients)
        for turn in range(CALLERS_A_CLIENT)
    ]
    space = pb.CreateNamespaceRequest(namespace=pb.Namespace(name=SPACE))
    clients[0].namespaces.CreateNamespace(space)
    for caller in callers:
        caller.prepare()
        caller.start()
    try:
        yield account
    finally:
        for caller in callers:
            caller.stop()
        for client in clients:
            client.close()
        loop.stop()
