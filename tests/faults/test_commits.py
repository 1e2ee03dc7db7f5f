"""A server killed around a commit: a write is whole or absent, and its retry settles which."""

from __future__ import annotations

import random
import signal
import statistics
import time
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from modelregistry.v1.registry_service_pb2_grpc import RegistryServiceStub

from stagewire import pb
from stagewire.client import Client
from tests.faults import checkers
from tests.faults.processes import CHANNEL_OPTIONS, ServerProcess
from tests.faults.recordings import History, WriteRecord, read_log, take_stock
from tests.faults.scenes import Scene
from tests.wire import streams
from tests.wire.streams import Stream, watch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Record = Callable[[str, object], None]

#: Each place of a commit, and whether what was killed there had been committed.
PLACES = {"work.done": False, "head.taken": False, "commit.returned": True, "wake.sent": True}
BOOKMARK_SECONDS = 0.5
POLL_SECONDS = 0.5
#: What a busy machine may add to a poll.
SLACK_SECONDS = 5.0


@contextmanager
def stub(address: str) -> Iterator[Any]:
    """Give the registry's bare stub, which repeats nothing by itself."""
    options = [*CHANNEL_OPTIONS, ("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(address, options=options) as channel:
        yield RegistryServiceStub(channel)


def write(registry: Any, history: History, request: pb.CreateModelVersionRequest) -> WriteRecord:
    """Make one write of a version; its record has no answer when it was cut off."""
    record = WriteRecord(request.request_id, time.monotonic(), attempts=1)
    try:
        record.answers.append(registry.CreateModelVersion(request, timeout=20, wait_for_ready=True))
        record.acknowledged = time.monotonic()
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.UNAVAILABLE:
            raise
    history.writes.append(record)
    return record


def write_until_cut_off(
    registry: Any, history: History
) -> tuple[pb.CreateModelVersionRequest, WriteRecord]:
    """Write versions until the server dies over one; give that one."""
    while True:
        request = pb.CreateModelVersionRequest(model="churn", request_id=uuid.uuid4().hex)
        record = write(registry, history, request)
        if not record.answers:
            return request, record
        assert len(history.writes) < 10_000


@pytest.mark.fault
@pytest.mark.timeout(120)
def test_a_write_cut_off_is_whole_or_absent_and_its_retry_settles_which(
    database_url: str, tmp_path: Path, at_length: bool, record_property: Record
) -> None:
    record_property("fault", "kill -9 inside the transaction, and after commit before the reply")
    rounds = 8 if at_length else 1
    chance = random.Random(rounds)
    history = History()
    server = ServerProcess(database_url, tmp_path / "server.log")
    with server, stub(server.address) as registry:
        registry.CreateModel(pb.CreateModelRequest(model=pb.Model(name="churn")), timeout=20)
        server.kill()
        for place, committed in list(PLACES.items()) * rounds:
            server.start(failpoints=f"{place}=kill@{chance.randint(2, 30)}")
            request, record = write_until_cut_off(registry, history)
            assert server.process.wait(20) == -signal.SIGKILL
            server.start()
            with Client(server.address) as client:
                found = [e for e in read_log(client) if e.payload.request_id == request.request_id]
                head = client.watches.GetHead(pb.GetHeadRequest()).revision
            answers = [registry.CreateModelVersion(request, timeout=20) for _ in range(3)]
            record.answers += answers
            record.acknowledged = time.monotonic()
            server.kill()

            assert len(found) == committed, place
            # What was committed is answered as it stands; what was not is made now.
            assert answers[0].revision == (found[0].revision if committed else head + 1), place
        server.start()
        with Client(server.address) as client:
            take_stock(client, history)

    numbers = sorted(version.version for version in history.versions)
    assert numbers == list(range(1, len(history.writes) + 1))
    counts = {name: checkers.CHECKERS[name](history) for name in ("W9", "W10", "W11", "W16")}
    record_property("runs", rounds * len(PLACES))
    record_property("checked", counts)


@pytest.mark.fault
@pytest.mark.timeout(240)
def test_nothing_is_lost_or_told_twice_when_killed_around_commits_under_load(
    database_url: str, tmp_path: Path, at_length: bool, record_property: Record
) -> None:
    record_property("fault", "kill -9 around the commit, under load")
    rounds = 6 if at_length else 1
    chance = random.Random(rounds)
    server = ServerProcess(
        database_url,
        tmp_path / "server.log",
        bookmark_interval_seconds=BOOKMARK_SECONDS,
        stream_lifetime_seconds=4,
        poll_interval_seconds=0.2,
        ring_bytes=200_000,
    )
    with server:
        scene = Scene(server.address, seed=rounds, bookmark_seconds=BOOKMARK_SECONDS)
        with scene.playing():
            server.kill()
            for place in list(PLACES) * rounds:
                server.launch(failpoints=f"{place}=kill@{chance.randint(20, 100)}")
                assert server.process.wait(60) == -signal.SIGKILL
            server.start()

    counts = checkers.check(scene.history)
    record_property("runs", rounds * len(PLACES))
    record_property("checked", dict(counts))
    assert all(counts[name] > 0 for name in checkers.CHECKERS), counts


@pytest.mark.fault
@pytest.mark.timeout(60)
def test_what_wakes_nobody_is_delivered_within_a_poll(
    database_url: str, tmp_path: Path, at_length: bool, record_property: Record
) -> None:
    record_property("fault", "the wake after a commit is lost")
    count = 100 if at_length else 10
    server = ServerProcess(
        database_url, tmp_path / "server.log", poll_interval_seconds=POLL_SECONDS
    )
    waited = []
    try:
        server.start(failpoints="wake=skip")
        with Client(server.address) as client, Stream(client, watch()) as stream:
            stream.hello()
            streams.model(client)
            stream.transaction()
            for _ in range(count):
                created = streams.version(client).revision
                answered = time.monotonic()
                assert stream.transaction().revision == created
                waited.append(time.monotonic() - answered)
    finally:
        server.kill()

    record_property("runs", count)
    assert max(waited) < POLL_SECONDS + SLACK_SECONDS, waited
    assert statistics.median(waited) < POLL_SECONDS * 1.5, waited
    # Nothing woke the tail, or this would show nothing.
    assert max(waited) > POLL_SECONDS / 4, waited


@pytest.mark.fault
@pytest.mark.timeout(120)
def test_what_a_replica_committed_and_died_over_is_delivered_by_the_others_within_a_poll(
    postgres_url: str, tmp_path: Path, at_length: bool, record_property: Record
) -> None:
    record_property("fault", "kill -9 after commit before the wake: others deliver within one poll")
    rounds = 20 if at_length else 3
    history = History()
    dying, other = (
        ServerProcess(postgres_url, tmp_path / f"{name}.log", poll_interval_seconds=POLL_SECONDS)
        for name in ("dying", "other")
    )
    with (
        dying,
        other,
        stub(dying.address) as registry,
        Client(other.address) as client,
        Stream(client, watch()) as stream,
    ):
        stream.hello()
        streams.model(client)
        found = [stream.transaction()]
        for number in range(rounds):
            dying.kill()
            dying.start(failpoints=f"commit.returned=kill@{number + 1}")
            before = len(history.writes)
            _, cut = write_until_cut_off(registry, history)
            died = time.monotonic()
            found += [stream.transaction() for _ in history.writes[before:]]
            waited = time.monotonic() - died

            assert found[-1].request_id == cut.request_id
            assert waited < POLL_SECONDS + SLACK_SECONDS
        take_stock(client, history)

    assert [t.revision for t in found] == [event.revision for event in history.log[1:]]
    record_property("runs", rounds)
    counts = {name: checkers.CHECKERS[name](history) for name in ("W9", "W11", "W16")}
    record_property("checked", counts)
