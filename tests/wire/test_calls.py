"""What surrounds every call: ids, deadlines, sizes, health, reflection, stopping."""

from __future__ import annotations

import asyncio
import gc
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from modelregistry.v1.registry_service_pb2_grpc import RegistryServiceStub

from stagewire import pb
from stagewire.client import Client, errors
from stagewire.server import servicers
from stagewire.service.registry import Registry
from tests.factories import eventually, without_looking_for_garbage
from tests.servers import RunningServer, held

if TYPE_CHECKING:
    from collections.abc import Iterator

CHURN = pb.CreateModelRequest(model=pb.Model(name="churn"))
GHOST = pb.GetModelRequest(model="ghost")


@pytest.fixture
def server(sqlite_url: str) -> Iterator[RunningServer]:
    """What is told here is told above the database: one kind is enough."""
    with RunningServer(sqlite_url) as running:
        yield running


@pytest.fixture
def channel(server: RunningServer) -> Iterator[grpc.Channel]:
    """A channel as any language has it, without what the SDK adds."""
    with grpc.insecure_channel(server.address) as made:
        yield made


@pytest.fixture
def stub(channel: grpc.Channel) -> RegistryServiceStub:
    return RegistryServiceStub(channel)


def trailer(call: Any) -> dict[str, Any]:
    return dict(call.trailing_metadata() or ())


def refused(call: Any) -> Any:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value


def test_a_refusal_has_details_that_any_client_can_read(stub: RegistryServiceStub) -> None:
    error = refused(lambda: stub.GetModel(GHOST))

    status = status_pb2.Status.FromString(trailer(error)["grpc-status-details-bin"])
    info, resource = error_details_pb2.ErrorInfo(), error_details_pb2.ResourceInfo()
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(resource)
    assert (error.code(), status.code) == (grpc.StatusCode.NOT_FOUND, 5)
    assert error.details() == status.message == "model 'ghost' does not exist"
    assert (info.reason, info.domain) == ("MODEL_NOT_FOUND", "stagewire")
    assert (resource.resource_type, resource.resource_name) == ("model", "ghost")


def test_a_refusal_names_every_field_that_is_wrong(client: Client) -> None:
    wanted = pb.Model(name="a/b", description="x" * 5001)

    with pytest.raises(errors.InvalidField) as caught:
        client.registry.CreateModel(pb.CreateModelRequest(model=wanted))

    assert [v.field for v in caught.value.field_violations] == ["model.name", "model.description"]


def test_a_refused_call_is_known_by_the_id_it_came_with(stub: RegistryServiceStub) -> None:
    error = refused(lambda: stub.GetModel(GHOST, metadata=(("x-request-id", "mine"),)))

    assert trailer(error)["x-request-id"] == "mine"


def test_a_refused_call_without_an_id_is_given_one(stub: RegistryServiceStub) -> None:
    first, second = (refused(lambda: stub.GetModel(GHOST)) for _ in range(2))

    assert len(trailer(first)["x-request-id"]) == 32
    assert trailer(first) != trailer(second)


def test_an_overlong_id_is_cut(stub: RegistryServiceStub) -> None:
    error = refused(lambda: stub.GetModel(GHOST, metadata=(("x-request-id", "x" * 1000),)))

    assert trailer(error)["x-request-id"] == "x" * 128


def test_a_refusal_with_much_to_say_still_arrives(client: Client) -> None:
    # Metadata may have 8 KiB at every client; names of other scripts take thrice their length.
    name = "離" * 256
    client.registry.CreateModel(pb.CreateModelRequest(model=pb.Model(name=name)))
    client.registry.CreateModelVersion(pb.CreateModelVersionRequest(model=name))
    for number in range(25):
        alias = f"{number:0255}"
        client.registry.SetAlias(pb.SetAliasRequest(model=name, alias=alias, version=1))

    with pytest.raises(errors.ModelInUse) as in_use:
        client.registry.DeleteModel(pb.DeleteModelRequest(model=name))
    with pytest.raises(errors.ModelNotFound) as missing:
        client.registry.GetModel(pb.GetModelRequest(model="反" * 256))

    assert in_use.value.preconditions
    assert missing.value.resource is not None


def test_a_refusal_of_many_fields_still_arrives(client: Client) -> None:
    tags = {f"{number}{'離' * 240}": "x" * 100_001 for number in range(20)}

    with pytest.raises(errors.InvalidField) as caught:
        client.registry.CreateModel(pb.CreateModelRequest(model=pb.Model(name="churn", tags=tags)))

    assert caught.value.field_violations


def test_a_request_above_four_mebibytes_is_refused_and_the_channel_lives_on(
    stub: RegistryServiceStub,
) -> None:
    model = pb.Model(name="churn", description="x" * (4 * 1024 * 1024))

    error = refused(lambda: stub.CreateModel(pb.CreateModelRequest(model=model)))

    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert stub.CreateModel(CHURN).revision == 2


def test_a_large_answer_arrives_at_the_sdk(client: Client) -> None:
    client.registry.CreateModel(CHURN)
    params = {f"p{number}": "x" * 6000 for number in range(160)}
    for _ in range(6):
        request = pb.CreateModelVersionRequest(
            model="churn", version=pb.ModelVersion(params=params)
        )
        client.registry.CreateModelVersion(request)

    page = client.registry.ListModelVersions(pb.ListModelVersionsRequest(model="churn"))

    assert page.ByteSize() > 4 * 1024 * 1024
    assert len(page.versions) == 6


@pytest.mark.parametrize("data", [b"\xff\xff\xff", b"\x12\x02\xff\xfe", b"\x12\x03\xed\xa0\x80"])
@pytest.mark.parametrize("path", ["RegistryService/GetModel", "WatchService/Watch"])
def test_bytes_that_are_no_message_are_refused(
    channel: grpc.Channel, path: str, data: bytes
) -> None:
    kind = channel.unary_stream if path.endswith("Watch") else channel.unary_unary
    call: Any = kind(
        f"/modelregistry.v1.{path}",
        request_serializer=lambda octets: octets,
        response_deserializer=lambda octets: octets,
    )
    # A filter of a watch is where a model's name is in the other request: the bytes fit both.
    sent = data if not path.endswith("Watch") or data[0] == 0xFF else b"\x1a\x04" + data

    error = refused(lambda: list(call(sent, timeout=10)))

    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_nul_character_is_refused_by_field(client: Client) -> None:
    with pytest.raises(errors.InvalidField) as caught:
        client.registry.CreateModel(
            pb.CreateModelRequest(model=pb.Model(name="churn", tags={"a": "b\0"}))
        )

    assert [v.field for v in caught.value.field_violations] == ['model.tags["a"]']


def test_an_unknown_call_is_unimplemented(channel: grpc.Channel) -> None:
    call: Any = channel.unary_unary("/modelregistry.v1.RegistryService/MakeTea")

    assert refused(lambda: call(b"")).code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_call_that_waits_past_its_deadline_is_not_made(
    server: RunningServer, stub: RegistryServiceStub
) -> None:
    with held(server):
        error = refused(lambda: stub.CreateModel(CHURN, timeout=0.2))
    eventually(lambda: server.server.admission.now == 0)

    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert (
        refused(lambda: stub.GetModel(pb.GetModelRequest(model="churn"))).code()
        is grpc.StatusCode.NOT_FOUND
    )


def test_a_caller_who_hangs_up_keeps_his_place_until_his_call_has_ended(
    server: RunningServer, stub: RegistryServiceStub
) -> None:
    with held(server):
        call: Any = stub.CreateModel.future(CHURN)
        eventually(lambda: server.server.admission.now == 1)
        call.cancel()
        eventually(call.done)
        kept = server.server.admission.now
    eventually(lambda: server.server.admission.now == 0)

    assert kept == 1
    assert stub.GetModel(pb.GetModelRequest(model="churn")).model.name == "churn"


def test_the_refusal_of_a_caller_who_hung_up_is_no_error_of_the_servers(
    server: RunningServer, stub: RegistryServiceStub
) -> None:
    complaints: list[dict[str, Any]] = []
    server._loop.set_exception_handler(lambda _loop, context: complaints.append(context))

    with held(server):
        call: Any = stub.DeleteModel.future(pb.DeleteModelRequest(model="ghost"))
        eventually(lambda: server.server.admission.now == 1)
        call.cancel()
        eventually(call.done)
    eventually(lambda: server.server.admission.now == 0)
    # A later call on the loop, so that the future of the first is gone.
    refused(lambda: stub.GetModel(GHOST))
    gc.collect()

    assert complaints == []


def test_an_unforeseen_error_tells_nothing_but_the_calls_id(
    stub: RegistryServiceStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_tx: object, _request: object) -> None:
        raise ZeroDivisionError("the secret is 42")

    monkeypatch.setattr(Registry.GetModel, "work", fail)

    error = refused(lambda: stub.GetModel(GHOST, metadata=(("x-request-id", "mine"),)))

    assert error.code() is grpc.StatusCode.INTERNAL
    assert "42" not in str(trailer(error)) + error.details()
    assert trailer(error)["x-request-id"] == "mine"


def test_a_handler_that_cancels_itself_ends_in_a_status(
    stub: RegistryServiceStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cancel(_tx: object, _request: object) -> None:
        raise asyncio.CancelledError

    monkeypatch.setattr(Registry.GetModel, "work", cancel)

    error = refused(lambda: stub.GetModel(GHOST, timeout=10))

    assert error.code() is grpc.StatusCode.INTERNAL


def test_reflection_shows_every_service_of_the_contract(channel: grpc.Channel) -> None:
    services = set(ProtoReflectionDescriptorDatabase(channel).get_services())

    assert services == {
        *(service.full_name for service in servicers.SERVICES),
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }


def test_health_is_serving_as_a_whole_and_for_each_service(channel: grpc.Channel) -> None:
    stub = health_pb2_grpc.HealthStub(channel)

    for name in ("", *(service.full_name for service in servicers.SERVICES)):
        answer = stub.Check(health_pb2.HealthCheckRequest(service=name))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_health_turns_first_when_a_server_stops_and_calls_still_work(sqlite_url: str) -> None:
    server = RunningServer(sqlite_url, drain_seconds=1.0)
    server.__enter__()
    with grpc.insecure_channel(server.address) as channel, ThreadPoolExecutor(1) as pool:
        health = health_pb2_grpc.HealthStub(channel)
        changes = health.Watch(health_pb2.HealthCheckRequest())
        first = next(changes).status
        stopping = pool.submit(server.__exit__, None, None, None)
        second = next(changes).status

        made = RegistryServiceStub(channel).CreateModel(CHURN)
        changes.cancel()
        stopping.result()

    serving = health_pb2.HealthCheckResponse
    assert (first, second) == (serving.SERVING, serving.NOT_SERVING)
    assert made.revision == 2


def test_a_call_in_flight_is_finished_while_the_server_stops(sqlite_url: str) -> None:
    server = RunningServer(sqlite_url, stop_seconds=10.0)
    server.__enter__()
    with grpc.insecure_channel(server.address) as channel, ThreadPoolExecutor(1) as pool:
        stub = RegistryServiceStub(channel)
        with held(server):
            call: Any = stub.CreateModel.future(CHURN)
            eventually(lambda: server.server.admission.now == 1)
            stopping = pool.submit(server.__exit__, None, None, None)
            eventually(lambda: server.server.admission.closing)
        made = call.result(timeout=10)
        stopping.result()

    assert made.revision == 2


def test_a_stopped_server_starts_again_with_all_it_had(database_url: str) -> None:
    with RunningServer(database_url) as server, Client(server.address) as client:
        made = client.registry.CreateModel(CHURN).model

    with RunningServer(database_url) as server, Client(server.address) as client:
        found = client.registry.GetModel(pb.GetModelRequest(model="churn")).model
        newer = client.create_version("churn")

    assert found == made
    assert newer.revision == made.revision + 1


def test_two_servers_on_one_postgresql_read_each_others_writes(postgres_url: str) -> None:
    with (
        RunningServer(postgres_url) as one,
        RunningServer(postgres_url) as other,
        Client(one.address) as writer,
        Client(other.address) as reader,
    ):
        for number in range(1, 6):
            made = writer.create_version("churn")
            request = pb.GetModelVersionRequest(
                model="churn", version=number, min_revision=made.revision
            )
            assert reader.registry.GetModelVersion(request).version == made


def test_a_second_server_on_one_file_is_refused(server: RunningServer, sqlite_url: str) -> None:
    with pytest.raises(ValueError, match="another process is serving"):
        RunningServer(sqlite_url).__enter__()


def test_a_taken_port_is_refused(server: RunningServer, tmp_path: Any) -> None:
    port = server.address.rpartition(":")[2]

    with pytest.raises(ValueError, match="is the port taken"):
        RunningServer(f"sqlite:///{tmp_path}/x.db", grpc_address=f"127.0.0.1:{port}").__enter__()


def test_a_refused_request_is_let_go_without_looking_for_garbage(sqlite_url: str) -> None:
    request = pb.GetModelRequest(model="x" * 3_000_000)
    with RunningServer(sqlite_url) as server, grpc.insecure_channel(server.address) as channel:
        registry = RegistryServiceStub(channel)

        def refused() -> None:
            with pytest.raises(grpc.RpcError) as refusal:
                registry.GetModel(request)
            assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT

        kept = without_looking_for_garbage(refused, times=10)

    assert kept < 10_000_000
