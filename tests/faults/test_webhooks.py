"""Webhooks when everything fails at once: every event arrives, in order, and none is lost.

An hour of service is told in seconds: every pause of the deliveries is shortened by one factor,
by the settings that set them, and so is the hour.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Self

import pytest
from cryptography.fernet import Fernet

from stagewire import pb
from stagewire.client import Client, errors
from tests.factories import eventually, sql
from tests.faults.processes import ServerProcess, free_port
from tests.receivers import Receiver, Reply

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from tests.receivers import Post

HOUR = 3600.0
HOOKS = 6


def settings(tmp_path: Path, factor: float) -> dict[str, Any]:
    """Shorten the product's own pauses by a factor."""
    keys = tmp_path / "keys"
    keys.write_bytes(Fernet.generate_key())
    return {
        "webhook_allowed_schemes": '["http"]',
        "webhook_allow_private_addresses": True,
        "webhook_timeout_seconds": 0.5,
        "webhook_lease_seconds": 1.5,
        "webhook_poll_seconds": 0.2,
        "webhook_retry_seconds": 1 / factor,
        "webhook_retry_most_seconds": 600 / factor,
        "webhook_give_up_seconds": 3 * 24 * HOUR / factor,
        "secrets_key_file": keys,
    }


def hook(client: Client, url: str, **fields: Any) -> str:
    wanted = pb.Webhook(name="ci", url=url, events=["registered_model.created"], **fields)
    return client.webhooks.CreateWebhook(pb.CreateWebhookRequest(webhook=wanted)).webhook.id


class Writer:
    """Registers models one after another, and goes on whatever becomes of the server."""

    def __init__(self, *addresses: str) -> None:
        self.written: list[str] = []
        self._addresses = addresses
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _write(self) -> None:
        clients = [Client(address, timeout_seconds=10) for address in self._addresses]
        number = 0
        while not self._stop.wait(0.03):
            name = f"m{number:05}"
            # The same request again: what was committed before a kill is not written twice.
            request = pb.CreateModelRequest(model=pb.Model(name=name), request_id=name)
            try:
                clients[number % len(clients)].registry.CreateModel(request)
            except errors.StagewireError:
                clients.append(clients.pop(0))
                continue
            self.written.append(name)
            number += 1
        for client in clients:
            client.close()


def names(posts: Sequence[Post]) -> list[str]:
    return [post.json["data"]["name"] for post in posts]


def assert_told_in_order(told: Sequence[str], written: Sequence[str]) -> int:
    """Each at least once, none before its turn; answers how many came more than once."""
    assert list(dict.fromkeys(told)) == list(written)
    # Again only what came just before: nothing goes back behind what came after it.
    assert all(before <= after for before, after in pairwise(told))
    return len(told) - len(written)


@pytest.mark.fault
@pytest.mark.timeout(300)
def test_nothing_is_lost_while_the_receiver_is_down_for_an_hour(
    database_url: str,
    tmp_path: Path,
    at_length: bool,
    record_property: Callable[[str, object], None],
) -> None:
    record_property("fault", "a webhook's receiver down for an hour, its server killed twice")
    factor = 60.0 if at_length else 450.0
    hour = HOUR / factor
    port = free_port()
    with ServerProcess(
        database_url, tmp_path / "server.log", **settings(tmp_path, factor)
    ) as server:
        with Client(server.address) as client:
            id_ = hook(client, f"http://127.0.0.1:{port}/in", secret="hidden")
        with Writer(server.address) as writer:
            for _ in range(2):
                threading.Event().wait(hour / 3)
                server.kill()
                server.start()
            threading.Event().wait(hour / 3)
            during = len(writer.written)
            with Receiver(port=port) as receiver:
                # Some of what comes now fails, too.
                failures = iter([500, 503, 429, 301] * 5)
                receiver.answer = lambda _post: Reply(next(failures, 200))
                eventually(lambda: len(receiver.taken) > during, seconds=60)
                server.kill()
                server.start()
                writer.__exit__()
                written = list(writer.written)
                eventually(lambda: set(written) <= set(names(receiver.taken)), seconds=60)
                with Client(server.address) as client:
                    got = client.webhooks.GetWebhook(pb.GetWebhookRequest(id=id_)).webhook
        repeated = assert_told_in_order(names(receiver.taken), written)

    by_name: dict[str, set[str]] = defaultdict(set)
    for post in receiver.posts:
        by_name[post.json["data"]["name"]].add(post.id)
    assert all(len(ids) == 1 for ids in by_name.values())
    assert got.progress.dead_letters == got.progress.missed_revisions == 0
    assert during > 20
    record_property("runs", server.lives - 1)
    record_property("checked", {"events": len(written), "repeated": repeated})


class Replicas:
    """Two servers over one PostgreSQL, and a receiver of several webhooks of theirs."""

    def __init__(self, url: str, tmp_path: Path) -> None:
        shared = settings(tmp_path, 450.0)
        self.one, self.two = (
            ServerProcess(url, tmp_path / f"{name}.log", **shared) for name in ("one", "two")
        )
        self.receiver = Receiver()
        # Long enough for two that deliver for one webhook to be caught at it.
        self.receiver.answer = lambda _post: Reply(200, seconds=0.01)

    def by_hook(self) -> dict[str, list[Post]]:
        found: dict[str, list[Post]] = defaultdict(list)
        for post in self.receiver.taken:
            found[post.path].append(post)
        return found

    def told_all(self, written: Sequence[str]) -> bool:
        told = self.by_hook()
        wanted = set(written)
        return len(told) == HOOKS and all(wanted <= set(names(p)) for p in told.values())


@pytest.fixture
def replicas(postgres_url: str, tmp_path: Path) -> Iterator[Replicas]:
    made = Replicas(postgres_url, tmp_path)
    with made.receiver, made.one, made.two:
        with Client(made.one.address) as client:
            for number in range(HOOKS):
                hook(client, f"{made.receiver.url}/{number}")
        yield made


@pytest.mark.fault
@pytest.mark.timeout(300)
def test_no_two_servers_deliver_for_one_webhook_and_one_takes_over_from_a_killed_one(
    replicas: Replicas, record_property: Callable[[str, object], None]
) -> None:
    record_property("fault", "a server killed that delivers for webhooks")
    with Writer(replicas.one.address, replicas.two.address) as writer:
        for server in (replicas.one, replicas.two, replicas.one):
            threading.Event().wait(2)
            server.kill()
            before = len(replicas.receiver.taken)
            # What the killed one held is taken over, not only what the other held anyway.
            eventually(partial(_all_hooks_since, replicas, before), seconds=20)
            server.start()
    eventually(lambda: replicas.told_all(writer.written), seconds=60)

    overlaps = 0
    repeated = 0
    for posts in replicas.by_hook().values():
        repeated += assert_told_in_order(names(posts), writer.written)
        overlaps += sum(later.began < earlier.ended for earlier, later in pairwise(posts))
    assert overlaps == 0
    record_property("runs", 3)
    record_property("checked", {"events": len(writer.written) * HOOKS, "repeated": repeated})


def held_by(url: str) -> list[str]:
    """List the webhooks of the server that holds most, under leases that last."""
    rows = sql(
        url,
        "SELECT holder, webhook_id FROM webhook_cursors WHERE lease_end_time > "
        "extract(epoch FROM clock_timestamp()) * 1000000",
    )
    holders = [holder for holder, _ in rows]
    most = max(holders, key=holders.count, default="")
    return [id_ for holder, id_ in rows if holder == most]


def _all_hooks_since(replicas: Replicas, before: int) -> bool:
    return len({post.path for post in replicas.receiver.taken[before:]}) == HOOKS


@pytest.mark.fault
@pytest.mark.timeout(300)
def test_a_server_that_was_frozen_moves_nothing_that_another_has_taken_over(
    replicas: Replicas, postgres_url: str, record_property: Callable[[str, object], None]
) -> None:
    record_property("fault", "a server frozen that delivers for webhooks, and thawed")

    def fences() -> int:
        return int(sql(postgres_url, "SELECT sum(fence) FROM webhook_cursors")[0][0])

    # Whoever is left holds every webhook.
    replicas.two.kill()
    eventually(lambda: len(held_by(postgres_url)) == HOOKS, seconds=20)
    replicas.two.start()
    with Writer(replicas.two.address) as writer:
        threading.Event().wait(2)
        held = fences()
        replicas.one.freeze()
        try:
            eventually(lambda: fences() == held + HOOKS, seconds=20)
            before = len(replicas.receiver.taken)
            eventually(lambda: _all_hooks_since(replicas, before), seconds=20)
        finally:
            replicas.one.thaw()
        threading.Event().wait(2)
    eventually(lambda: replicas.told_all(writer.written), seconds=60)

    # A letter on its way when the server froze may come in once more; nothing is lost.
    for posts in replicas.by_hook().values():
        assert list(dict.fromkeys(names(posts))) == writer.written
    record_property("checked", {"events": len(writer.written) * HOOKS})
