"""The SDK before the real server: what only both together can show."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tenacity

from stagewire import pb
from stagewire.client import AsyncClient, Client, Snapshot, errors
from tests.client.processes import ServerProcess
from tests.servers import RunningServer

SOON = tenacity.wait_random_exponential(multiplier=0.05, max=0.5)


@pytest.fixture
def real(server: RunningServer) -> Iterator[Client]:
    with Client(server.address) as client:
        yield client


@pytest.fixture
def restless(sqlite_url: str) -> Iterator[RunningServer]:
    """A server whose streams end after a fraction of a second, and bookmark often."""
    with RunningServer(
        sqlite_url, stream_lifetime_seconds=0.1, bookmark_interval_seconds=0.05
    ) as running:
        yield running


def test_a_version_is_registered_promoted_measured_and_rolled_back(real: Client) -> None:
    for accuracy in (0.9, 0.95):
        version = real.create_version(
            "iris", source="file:///iris", metrics={"accuracy": accuracy}, tags={"team": "botany"}
        )
        real.promote("iris", version.version, "production", reason="try it")
    logged = real.log_metrics("iris", 2, {"latency_ms": 3.5}, dataset="holdout")

    in_production = real.resolve("iris", stage="Production", include_metrics=True)
    rolled_back = real.rollback("iris", "Production", reason="worse")

    assert logged == 1
    assert in_production.version == 2
    assert {one.key: one.value for one in in_production.metrics} == {
        "accuracy": 0.95,
        "latency_ms": 3.5,
    }
    assert [one.version for one in rolled_back.restored] == [1]
    assert real.resolve("models:/iris/Production").version == 1


def test_a_refusal_arrives_as_its_own_class(real: Client) -> None:
    with pytest.raises(errors.ModelNotFound) as missing:
        real.resolve("ghost")
    with pytest.raises(errors.InvalidField) as invalid:
        real.registry.CreateModel(pb.CreateModelRequest(model=pb.Model(name="a/b")))

    assert missing.value.resource is not None
    assert missing.value.resource.name.endswith("ghost")
    assert invalid.value.field_violations[0].field == "model.name"


def test_pages_go_on_while_the_mark_moves(real: Client) -> None:
    for name in "abc":
        real.registry.CreateModel(pb.CreateModelRequest(model=pb.Model(name=name)))
    found = []
    token = ""
    while True:
        page = real.registry.ListModels(pb.ListModelsRequest(page_size=1, page_token=token))
        found += [model.name for model in page.models]
        token = page.next_page_token
        if not token:
            break
        real.registry.UpdateModel(
            pb.UpdateModelRequest(
                model="a",
                update=pb.ModelUpdate(description=f"{len(found)}"),
                update_mask={"paths": ["description"]},  # type: ignore[arg-type]
            )
        )

    assert found == ["a", "b", "c"]


def test_one_request_id_is_one_write(real: Client) -> None:
    request = pb.CreateModelRequest(model=pb.Model(name="iris"), request_id="once")

    first = real.registry.CreateModel(request)
    second = real.registry.CreateModel(request)

    assert first == second


def test_a_watch_over_many_streams_gets_each_change_once_and_in_order(
    restless: RunningServer,
) -> None:
    enough = threading.Event()
    created: list[int] = []

    def create() -> None:
        with Client(restless.address) as writer:
            while not enough.is_set():
                created.append(writer.create_version("iris").version)

    seen: list[pb.Transaction] = []
    sessions = set()
    with Client(restless.address) as client, client.watch(backoff=SOON) as watch:
        assert isinstance(next(watch), Snapshot)
        writer = threading.Thread(target=create)
        writer.start()
        for event in watch:
            sessions.add(watch.session)
            if isinstance(event, pb.Transaction):
                seen.append(event)
            if len(sessions) == 4 and not enough.is_set():
                enough.set()
                writer.join()
            if enough.is_set() and seen[-1].changes[0].version == created[-1]:
                break

    revisions = [transaction.revision for transaction in seen]
    versions = [one.version for transaction in seen for one in transaction.changes if one.version]
    assert revisions == list(range(revisions[0], revisions[0] + len(revisions)))
    assert versions == created


def test_an_asynchronous_watch_does_the_same(restless: RunningServer) -> None:
    async def follow() -> tuple[list[int], list[int]]:
        seen: list[int] = []
        created: list[int] = []
        sessions = set()
        enough = asyncio.Event()
        async with AsyncClient(restless.address) as client:

            async def create() -> None:
                while not enough.is_set():
                    created.append((await client.create_version("iris")).version)

            watch = client.watch(kinds=["VERSION_CREATED"], backoff=SOON)
            assert isinstance(await anext(watch), Snapshot)
            writer = asyncio.create_task(create())
            async for event in watch:
                sessions.add(watch.session)
                if isinstance(event, pb.Transaction):
                    seen += [change.version for change in event.changes]
                if len(sessions) == 4 and not enough.is_set():
                    enough.set()
                    await writer
                if enough.is_set() and seen[-1] == created[-1]:
                    break
            watch.close()
        return seen, created

    seen, created = asyncio.run(follow())

    assert seen == created == list(range(1, len(created) + 1))


def test_states_in_changes_carry_the_transactions_revision_and_time(real: Client) -> None:
    with real.watch(start="beginning") as watch:
        real.create_version("iris")
        transactions = [event for _, event in zip(range(3), watch, strict=False)]

    last = transactions[-1]
    assert isinstance(last, pb.Transaction)
    state = last.changes[0].version_state
    now = real.resolve("iris")
    assert (state.revision, state.create_time, state.update_time) == (
        now.revision,
        now.create_time,
        now.update_time,
    )


def test_a_watch_goes_on_after_the_server_was_killed(tmp_path: Path) -> None:
    with (
        ServerProcess(tmp_path / "registry.db") as server,
        Client(server.address) as client,
        client.watch(kinds=["version_created"], backoff=SOON) as watch,
    ):
        next(watch)
        client.create_version("iris")
        before = versions_of(watch, 1)
        server.kill()
        server.start()
        again(lambda: client.create_version("iris"))
        after = versions_of(watch, 1)

    assert before + after == [1, 2]


def test_lost_history_is_told_to_readers_and_to_watchers(tmp_path: Path) -> None:
    backup = tmp_path / "backup.db"
    with ServerProcess(tmp_path / "registry.db") as server, Client(server.address) as client:
        with client.watch(stages=["Production"], backoff=SOON) as watch:
            next(watch)
            client.create_version("iris")
            client.promote("iris", 1, "Production")
            versions_of(watch, 1)
            server.stop()
            shutil.copy(server.database, backup)
            server.start()
            again(lambda: client.create_version("iris"))
            client.promote("iris", 2, "Production")
            assert 2 in versions_of(watch, 1)

            server.stop()
            for one in tmp_path.glob("registry.db*"):
                one.unlink()
            shutil.copy(backup, server.database)
            server.start()
            with pytest.raises(errors.HistoryLost):
                again(lambda: client.resolve("iris", stage="Production"))
            reset = next(event for event in watch if isinstance(event, Snapshot))

        assert reset.reason == pb.SNAPSHOT_REASON_CURSOR_AHEAD
        assert [item.version.version for item in reset.items if item.HasField("version")] == [1]
        assert client.resolve("iris", stage="Production").version == 1


def versions_of(watch: Any, count: int) -> list[int]:
    """Wait for so many transactions; return the versions they tell of."""
    found: list[int] = []
    for event in watch:
        if isinstance(event, pb.Transaction):
            found += [change.version for change in event.changes]
            count -= 1
        if not count:
            return found
    raise AssertionError("the watch ended")


def again(call: Callable[[], Any]) -> Any:
    """Call until the server that was just started is reached."""
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(errors.Unavailable),
        stop=tenacity.stop_after_delay(20),
        wait=tenacity.wait_fixed(0.1),
        reraise=True,
    )
    return retrying(call)
