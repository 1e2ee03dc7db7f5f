"""Callers: SDK clients as published that read and write all the time, and forgive nothing."""

from __future__ import annotations

import random
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stagewire import pb
from stagewire.client import Client, errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CLIENTS = 4
CALLERS_A_CLIENT = 4
SPACE = "callers"


@dataclass
class Account:
    """What became of the calls: how long each took, and every failure that reached its caller."""

    seconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


class Caller(threading.Thread):
    """One caller on a model of its own: whatever is refused or fails is no fault of the load's."""

    def __init__(self, client: Client, number: int, account: Account, pause_seconds: float) -> None:
        super().__init__(name=f"caller-{number}")
        self._client = client
        self._model = f"called-{number}"
        self._account = account
        self._pause_seconds = pause_seconds
        self._random = random.Random(number)
        self._halted = threading.Event()

    def run(self) -> None:
        calls: dict[str, Callable[[], object]] = {
            "resolve": lambda: self._client.resolve(self._model),
            "get": lambda: self._client.registry.GetModel(pb.GetModelRequest(model=self._model)),
            "list": lambda: self._client.registry.ListModelVersions(
                pb.ListModelVersionsRequest(model=self._model, page_size=5)
            ),
            "tag": lambda: self._client.registry.SetModelTags(
                pb.SetModelTagsRequest(
                    model=self._model, tags={"n": str(self._random.randint(1, 1000))}
                )
            ),
            "create": lambda: self._client.create_version(self._model),
        }
        while not self._halted.wait(self._pause_seconds):
            (name,) = self._random.choices(tuple(calls), (6, 3, 2, 3, 1))
            began = time.monotonic()
            try:
                calls[name]()
            except errors.StagewireError as error:
                waited = time.monotonic() - began
                self._account.failures.append(f"{name} after {waited:.3f} s: {error!r}")
            self._account.seconds.append(time.monotonic() - began)

    def stop(self) -> None:
        """End it after the call at hand."""
        self._halted.set()
        self.join(60)
        assert not self.is_alive(), self.name


@contextmanager
def calling(address: str, *, pause_seconds: float) -> Iterator[Account]:
    """Have callers at work, and give their account."""
    account = Account()
    clients = [Client(address, namespace=SPACE) for _ in range(CLIENTS)]
    callers = [
        Caller(client, number * CLIENTS + place, account, pause_seconds)
        for place, client in enumerate(clients)
        for number in range(CALLERS_A_CLIENT)
    ]
    space = pb.CreateNamespaceRequest(namespace=pb.Namespace(name=SPACE))
    clients[0].namespaces.CreateNamespace(space)
    for caller in callers:
        clients[0].create_version(caller._model)
    for caller in callers:
        caller.start()
    try:
        yield account
    finally:
        for caller in callers:
            caller.stop()
        for client in clients:
            client.close()
