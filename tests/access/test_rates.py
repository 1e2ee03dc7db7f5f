"""How often callers are let call: each for itself, in memory that many callers do not grow."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Any

import grpc
import httpx
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from stagewire import pb
from stagewire.access import rates
from stagewire.access.rates import Rates
from stagewire.callers import Caller
from stagewire.errors import RegistryError
from tests.factories import eventually
from tests.guarded import Door, GuardedServer, grant, make_token
from tests.servers import RunningServer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LIST = pb.ListModelsRequest()
ANN = Caller(name="ann", method=pb.AUTHENTICATION_METHOD_TOKEN)


class Limits:
    """Quotas that are what a test says."""

    def __init__(self, **quotas: pb.Quota) -> None:
        self.quotas = quotas

    def quota(self, space: str) -> pb.Quota:
        return self.quotas.get(space, pb.Quota())


def made(*, per_caller: int = 0, refused: int = 0, **quotas: pb.Quota) -> Rates:
    spaces: Any = Limits(**quotas)
    return Rates(spaces, per_caller=per_caller, refused_per_address=refused)


def taken(call: Any, most: int) -> int:
    """Count how many calls in a row are taken, of at most so many."""
    for count in range(most):
        try:
            call()
        except RegistryError as error:
            if error.reason == "RATE_LIMITED":
                return count
            raise
    return most


def repeat(call: Callable[[], object]) -> None:
    """Call until it is too often."""
    for _ in range(100):
        call()


def test_a_caller_has_two_seconds_worth_at_once_and_others_their_own() -> None:
    found = made(per_caller=5)
    bob = Caller(name="bob", method=pb.AUTHENTICATION_METHOD_TOKEN)

    assert taken(lambda: found.check(ANN, "default"), 20) == 10
    assert taken(lambda: found.check(bob, "default"), 20) == 10


def test_who_waits_as_long_as_told_is_let_call_again() -> None:
    found = made(per_caller=50)
    taken(lambda: found.check(ANN, "default"), 1000)
    with pytest.raises(RegistryError) as caught:
        repeat(lambda: found.check(ANN, "default"))

    wait = caught.value.retry_after_seconds
    assert wait is not None
    assert 0 < wait <= 1 / 50
    threading.Event().wait(wait)
    found.check(ANN, "default")


def test_callers_who_are_not_known_are_not_told_apart_and_not_limited() -> None:
    found = made(per_caller=1)

    assert taken(lambda: found.check(Caller(), "default"), 100) == 100


def test_a_namespace_has_its_quota_and_a_new_one_as_soon_as_it_is_known() -> None:
    limits = Limits(risk=pb.Quota(requests_per_second=3))
    spaces: Any = limits
    found = Rates(spaces, per_caller=0, refused_per_address=0)

    assert taken(lambda: found.check(ANN, "risk"), 20) == 6
    assert taken(lambda: found.check(ANN, "default"), 20) == 20
    limits.quotas["risk"] = pb.Quota(requests_per_second=1000)
    assert taken(lambda: found.check(ANN, "risk"), 20) == 20
    limits.quotas.clear()
    assert taken(lambda: found.check(ANN, "risk"), 5000) == 5000


def test_many_callers_take_no_more_memory_than_some() -> None:
    found = made(per_caller=5)
    limit: Any = found._caller_limit
    memory = limit._store._backend

    for number in range(30_000):
        found.check(Caller(name=f"c{number}", method=ANN.method), "default")

    assert len(memory.get_client()) == len(memory.expire_info) == 10_000
    assert sys.getsizeof(memory.get_client()) < 2 * 1024 * 1024


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "10.0.0.2", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("fe80::1%eth0", "fe80::2%eth1", True),
    ],
)
def test_a_network_of_ipv6_counts_as_one_address(
    one: str,
    other: str,
    same: bool,  # a row of a table
) -> None:
    found = made(refused=1)
    taken(lambda: found.note_guess(one), 20)

    assert (taken(lambda: found.note_guess(other), 20) == 0) is same
    if same:
        with pytest.raises(RegistryError):
            found.meet(other)
    else:
        found.meet("10.0.0.3")


def test_every_request_says_which_namespace_it_is_about() -> None:
    assert rates.space_of(pb.ListModelsRequest()) == "default"
    assert rates.space_of(pb.ListModelsRequest(namespace="risk")) == "risk"
    assert rates.space_of(pb.UpdateNamespaceRequest(name="risk")) == "risk"
    watch = pb.WatchRequest(filter=pb.WatchFilter(namespaces=["risk", "other"]))
    assert rates.space_of(watch) == "risk"
    assert rates.space_of(pb.CreateTokenRequest()) == ""


def test_a_caller_is_slowed_down_over_grpc_and_http_together_and_others_are_not(
    sqlite_url: str, tmp_path: Path
) -> None:
    with (
        GuardedServer(sqlite_url, tmp_path, caller_requests_per_second=4) as server,
        server.door() as admin,
    ):
        _, secret = make_token(admin, "ann")
        grant(admin, "ann", "viewer")
        with pytest.raises(grpc.RpcError) as caught:
            repeat(lambda: admin("ListModels", LIST, token=secret))
        path = f"{server.http_url}/api/2.0/mlflow/registered-models/search"
        over_http = httpx.get(path, headers={"authorization": f"Bearer {secret}"})
        admin("ListModels", LIST)
        stub = health_pb2_grpc.HealthStub(admin.channel)
        health = [stub.Check(health_pb2.HealthCheckRequest(), timeout=10) for _ in range(50)]

    details = {d.TypeName(): d.value for d in rpc_status.from_call(caught.value).details}
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    info = error_details_pb2.ErrorInfo.FromString(details["google.rpc.ErrorInfo"])
    assert info.reason == "RATE_LIMITED"
    assert dict(info.metadata) == {
        "quota": "caller_requests_per_second",
        "limit": "4",
        "subject": "ann",
    }
    delay = error_details_pb2.RetryInfo.FromString(details["google.rpc.RetryInfo"]).retry_delay
    assert 0 < delay.ToTimedelta().total_seconds() <= 0.26
    quota = error_details_pb2.QuotaFailure.FromString(details["google.rpc.QuotaFailure"])
    assert quota.violations[0].subject == "ann"
    assert over_http.status_code == 429
    assert over_http.json()["error_code"] == "REQUEST_LIMIT_EXCEEDED"
    assert over_http.headers["retry-after"] == "1"
    assert {answer.status for answer in health} == {health_pb2.HealthCheckResponse.SERVING}


def test_guessing_is_slowed_down_and_who_is_known_gets_through(
    sqlite_url: str, tmp_path: Path
) -> None:
    with (
        GuardedServer(sqlite_url, tmp_path, refused_calls_per_second=2) as server,
        server.door() as admin,
    ):
        _, secret = make_token(admin, "ann")
        grant(admin, "ann", "viewer")
        guesses = [admin.refusal("ListModels", token=f"sw_{n:016x}_x") for n in range(40)]
        missing = admin.refusal("ListModels", header="")
        admin("ListModels", LIST, token=secret)
        # Who is known stays so when others' rights change.
        grant(admin, "bob", "viewer")
        admin("ListModels", LIST, token=secret)
        over_http = httpx.get(f"{server.http_url}/version")

    assert guesses[:20] == ["CREDENTIALS_INVALID"] * 20
    assert "RATE_LIMITED" in guesses
    assert guesses.count("CREDENTIALS_INVALID") < 30
    assert missing in ("RATE_LIMITED", "CREDENTIALS_MISSING")
    assert over_http.status_code in (401, 429)


def test_a_namespaces_quota_of_calls_holds_at_once_and_for_everybody(sqlite_url: str) -> None:
    with RunningServer(sqlite_url) as server, Door(server.address) as door:
        door("CreateNamespace", pb.CreateNamespaceRequest(namespace=pb.Namespace(name="risk")))
        request = pb.UpdateNamespaceRequest(
            name="risk",
            update=pb.NamespaceUpdate(quota=pb.Quota(requests_per_second=2, max_watches=1)),
        )
        request.update_mask.paths.append("quota")
        door("UpdateNamespace", request)
        asked = pb.ListModelsRequest(namespace="risk")

        def refused() -> bool:
            return "RATE_LIMITED" in [reason(door, asked) for _ in range(10)]

        eventually(refused)
        path = f"{server.http_url}/api/2.0/mlflow/registered-models/search"
        over_http = httpx.get(path, headers={"X-MLFLOW-WORKSPACE": "risk"})
        elsewhere = httpx.get(path)
        door("ListModels", LIST)
        request.update.quota.requests_per_second = 0
        eventually(lambda: allowed(door, request))
        eventually(lambda: not refused())

    assert (over_http.status_code, elsewhere.status_code) == (429, 200)


def test_a_quota_set_on_one_server_holds_on_the_others(postgres_url: str) -> None:
    with (
        RunningServer(postgres_url) as here,
        RunningServer(postgres_url) as there,
        Door(here.address) as door,
        Door(there.address) as other,
    ):
        quota = pb.Quota(requests_per_second=1, max_models=1)
        request = pb.UpdateNamespaceRequest(name="default", update=pb.NamespaceUpdate(quota=quota))
        request.update_mask.paths.append("quota")
        door("UpdateNamespace", request)

        eventually(lambda: "RATE_LIMITED" in [reason(other, LIST) for _ in range(5)], seconds=20)


def test_mlflows_clients_do_not_repeat_for_minutes_what_a_quota_refuses(sqlite_url: str) -> None:
    with RunningServer(sqlite_url) as server, Door(server.address) as door:
        request = pb.UpdateNamespaceRequest(
            name="default", update=pb.NamespaceUpdate(quota=pb.Quota(max_models=1))
        )
        request.update_mask.paths.append("quota")
        door("UpdateNamespace", request)
        path = f"{server.http_url}/api/2.0/mlflow/registered-models/create"

        answers = [httpx.post(path, json={"name": name}) for name in ("a", "b")]

    assert [answer.status_code for answer in answers] == [200, 400]
    assert "--max-models 2" in answers[1].json()["message"]


def reason(door: Door, request: Any) -> str:
    try:
        door("ListModels", request)
    except grpc.RpcError as error:
        info = error_details_pb2.ErrorInfo()
        rpc_status.from_call(error).details[0].Unpack(info)
        return str(info.reason)
    return ""


def allowed(door: Door, request: pb.UpdateNamespaceRequest) -> bool:
    try:
        door("UpdateNamespace", request)
    except grpc.RpcError:
        return False
    return True


def test_watches_have_shares_by_namespace_and_by_caller(sqlite_url: str, tmp_path: Path) -> None:
    with (
        GuardedServer(sqlite_url, tmp_path, max_watches_per_caller=3) as server,
        server.door() as admin,
    ):
        quota = pb.Quota(max_watches=1)
        space = pb.Namespace(name="risk", quota=quota)
        admin("CreateNamespace", pb.CreateNamespaceRequest(namespace=space))
        here = pb.WatchRequest(start=pb.WATCH_START_NOW)
        there = pb.WatchRequest(start=pb.WATCH_START_NOW)
        there.filter.namespaces.append("risk")
        eventually(lambda: server.server.spaces.quota("risk").max_watches == 1)

        first = admin.stream("Watch", there)
        next(first)
        second = refusal_of(admin.stream("Watch", there))
        others = [admin.stream("Watch", here) for _ in range(2)]
        for stream in others:
            next(stream)
        fourth = refusal_of(admin.stream("Watch", here))
        first.cancel()
        eventually(lambda: begins(admin, there))

    assert (second.metadata["quota"], second.metadata["namespace"]) == ("max_watches", "risk")
    assert fourth.metadata["quota"] == "max_watches_per_caller"
    assert second.reason == fourth.reason == "QUOTA_EXCEEDED"


def refusal_of(stream: Any) -> error_details_pb2.ErrorInfo:
    with pytest.raises(grpc.RpcError) as caught:
        next(stream)
    details = rpc_status.from_call(caught.value).details
    assert any(detail.TypeName() == "google.rpc.RetryInfo" for detail in details)
    info = error_details_pb2.ErrorInfo()
    details[0].Unpack(info)
    return info


def begins(door: Door, request: pb.WatchRequest) -> bool:
    stream = door.stream("Watch", request)
    try:
        next(stream)
    except grpc.RpcError:
        return False
    stream.cancel()
    return True
