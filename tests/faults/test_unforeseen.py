"""An exception nobody foresaw, or a CancelledError of our own: the client always gets a status."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from modelregistry.v1.registry_service_pb2_grpc import RegistryServiceStub

from stagewire import pb
from tests.faults import checkers
from tests.faults.processes import CHANNEL_OPTIONS, ServerProcess
from tests.faults.scenes import Scene

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Record = Callable[[str, object], None]

CALLERS = 8
CALLS = 200
FAULT = "an exception, or a CancelledError of our own, inside a handler"
BOOKMARK_SECONDS = 0.5


def outcome(registry: Any, number: int) -> tuple[grpc.StatusCode, str, float]:
    """Make a call, and give its status, what it says, and how long it took."""
    began = time.monotonic()
    request = pb.ListModelsRequest(page_size=number % 100 + 1)
    try:
        registry.ListModels(request, timeout=15, wait_for_ready=True)
    except grpc.RpcError as error:
        return error.code(), error.details() or "", time.monotonic() - began
    return grpc.StatusCode.OK, "", time.monotonic() - began


@pytest.mark.fault
@pytest.mark.timeout(120)
@pytest.mark.parametrize("action", ["raise", "cancel"])
def test_a_call_that_fails_unforeseen_ends_with_internal_and_nothing_of_why(
    sqlite_url: str, action: str, tmp_path: Path, at_length: bool, record_property: Record
) -> None:
    record_property("fault", FAULT)
    places = [5, 17, 60, 111, 170, 199] if at_length else [50]
    server = ServerProcess(sqlite_url, tmp_path / "server.log")
    failed = []
    try:
        for place in places:
            server.start(failpoints=f"handler={action}@{place}")
            with (
                grpc.insecure_channel(server.address, options=CHANNEL_OPTIONS) as channel,
                ThreadPoolExecutor(CALLERS) as pool,
            ):
                registry = RegistryServiceStub(channel)
                found = list(pool.map(partial(outcome, registry), range(CALLS)))
            failed += [one for one in found if one[0] is not grpc.StatusCode.OK]
            server.kill()
    finally:
        server.kill()

    assert [code for code, _, _ in failed] == [grpc.StatusCode.INTERNAL] * len(places)
    for _, told, seconds in failed:
        assert seconds < 5
        # Neither the exception's name nor its text.
        assert not any(word in told for word in ("Failure", action, "Cancelled", "Traceback"))
    record_property("runs", len(places))


@pytest.mark.fault
@pytest.mark.timeout(120)
def test_streams_and_calls_that_fail_unforeseen_under_load_lose_nothing(
    database_url: str, tmp_path: Path, at_length: bool, record_property: Record
) -> None:
    record_property("fault", FAULT)
    actions = ["raise", "cancel"] * (5 if at_length else 1)
    server = ServerProcess(
        database_url,
        tmp_path / "server.log",
        bookmark_interval_seconds=BOOKMARK_SECONDS,
        poll_interval_seconds=0.2,
    )
    with server:
        scene = Scene(server.address, seed=2, bookmark_seconds=BOOKMARK_SECONDS)
        with scene.playing():
            for number, action in enumerate(actions, start=1):
                server.kill()
                passages = {"handler": 50 + 10 * number, "stream": 100 + 50 * number}
                places = [f"{place}={action}@{count}" for place, count in passages.items()]
                # Not waited for: the call that asks whether it answers might be the one to fail.
                server.launch(failpoints="; ".join(places))
                failed = "unforeseen error" if action == "raise" else "cancelled itself"
                wait_until_said(server, failed, times=(number + 1) // 2 * len(places))

    counts = checkers.check(scene.history)
    record_property("runs", 2 * len(actions))
    record_property("checked", dict(counts))
    assert all(counts[name] > 0 for name in checkers.CHECKERS), counts


def wait_until_said(server: ServerProcess, text: str, *, times: int) -> None:
    """Wait until the server's log has said something so often."""
    deadline = time.monotonic() + 40
    while server.said().count(text) < times:
        assert time.monotonic() < deadline, f"{text}: {server.said()[-2000:]}"
        threading.Event().wait(0.05)
