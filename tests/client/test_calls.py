"""What the SDK adds to every unary call, on either client."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from stagewire import pb
from stagewire.client import Client, errors
from tests.client.scripted import LOG_ID, Refusal, Registry

if TYPE_CHECKING:
    from collections.abc import Callable

UNAVAILABLE = Refusal("UNAVAILABLE", "SHUTTING_DOWN")
AHEAD = Refusal("OUT_OF_RANGE", "REVISION_AHEAD", metadata={"log_id": "log-b", "head": "3"})


def create(name: str = "churn", **fields: Any) -> pb.CreateModelRequest:
    return pb.CreateModelRequest(model=pb.Model(name=name), **fields)


def seen(registry: Registry, client: Any, revision: int) -> None:
    """Let the client see a revision."""
    registry.on("CreateModel", pb.CreateModelResponse(revision=revision))
    client.registry.CreateModel(create())


def test_the_callers_request_stays_as_it_was(
    registry: Registry, connect: Callable[..., Any]
) -> None:
    client = connect(namespace="risk")
    registry.on("CreateModel", pb.CreateModelResponse(revision=1))
    request = create()

    client.registry.CreateModel(request)

    assert request == create()


def test_one_request_object_sent_twice_is_two_requests(registry: Registry, client: Any) -> None:
    registry.on("CreateModel", pb.CreateModelResponse(revision=1))
    request = create()

    client.registry.CreateModel(request)
    client.registry.CreateModel(request)

    first, second = registry.requests("CreateModel")
    assert len(first.request_id) == 32
    assert first.request_id != second.request_id


def test_a_given_request_id_and_namespace_stand(
    registry: Registry, connect: Callable[..., Any]
) -> None:
    client = connect(namespace="risk")
    registry.on("CreateModel", pb.CreateModelResponse(revision=1))

    client.registry.CreateModel(create(namespace="fraud", request_id="mine"))

    (request,) = registry.requests("CreateModel")
    assert (request.namespace, request.request_id) == ("fraud", "mine")


def test_the_clients_namespace_is_meant_where_a_request_names_none(
    registry: Registry, connect: Callable[..., Any]
) -> None:
    client = connect(namespace="risk")
    registry.on("GetModel", pb.GetModelResponse(revision=1))

    client.registry.GetModel(pb.GetModelRequest(model="churn"))

    assert registry.requests("GetModel")[0].namespace == "risk"


def test_a_namespace_to_create_is_not_taken_for_the_clients(
    registry: Registry, connect: Callable[..., Any]
) -> None:
    client = connect(namespace="risk")
    registry.on("CreateNamespace", pb.CreateNamespaceResponse(revision=1))

    client.namespaces.CreateNamespace(
        pb.CreateNamespaceRequest(namespace=pb.Namespace(name="fraud"))
    )

    assert registry.requests("CreateNamespace")[0].namespace.name == "fraud"


def test_a_write_is_retried_under_one_request_id(registry: Registry, client: Any) -> None:
    registry.on("CreateModel", UNAVAILABLE, UNAVAILABLE, pb.CreateModelResponse(revision=7))

    answer = client.registry.CreateModel(create())

    sent = registry.requests("CreateModel")
    assert answer.revision == 7
    assert len(sent) == 3
    assert len({request.request_id for request in sent}) == 1


def test_a_call_that_a_stopping_server_kills_is_sent_again(registry: Registry, client: Any) -> None:
    registry.on("CreateModel", Refusal("CANCELLED"), pb.CreateModelResponse(revision=7))

    answer = client.registry.CreateModel(create())

    one, other = registry.requests("CreateModel")
    assert answer.revision == 7
    assert one.request_id == other.request_id


def test_a_call_that_its_caller_cancels_is_not_sent_again(registry: Registry) -> None:
    arrived, over = threading.Event(), threading.Event()

    def answer(_: Any) -> pb.GetModelResponse:
        arrived.set()
        over.wait(10)
        return pb.GetModelResponse()

    registry.on("GetModel", answer)
    with Client(registry.address) as client:
        call = client.registry.GetModel.future(pb.GetModelRequest(model="a"))
        assert arrived.wait(10)
        call.cancel()
        # Longer than the channel waits before its second and third attempt.
        over.wait(1)
        over.set()

    assert call.cancelled()
    assert len(registry.calls) == 1


def test_four_attempts_are_enough(registry: Registry, client: Any) -> None:
    registry.on("GetModel", UNAVAILABLE)

    with pytest.raises(errors.ShuttingDown):
        client.registry.GetModel(pb.GetModelRequest(model="churn"))

    assert len(registry.calls) == 4


def test_a_refusal_is_not_retried(registry: Registry, client: Any) -> None:
    registry.on("GetModel", Refusal("NOT_FOUND", "MODEL_NOT_FOUND"))

    with pytest.raises(errors.ModelNotFound):
        client.registry.GetModel(pb.GetModelRequest(model="ghost"))

    assert len(registry.calls) == 1


def test_a_retried_metric_keeps_its_time_so_that_it_counts_once(
    registry: Registry, client: Any
) -> None:
    registry.on("LogMetrics", UNAVAILABLE, pb.LogMetricsResponse(logged=1))

    client.log_metrics("churn", 1, {"auc": 0.9}, step=3)

    first, second = registry.requests("LogMetrics")
    assert first == second
    assert first.metrics[0].HasField("time")


def test_a_call_has_a_deadline_unless_it_brings_its_own(
    registry: Registry, connect: Callable[..., Any]
) -> None:
    client = connect(timeout_seconds=20)
    registry.on("GetModel", pb.GetModelResponse())

    client.registry.GetModel(pb.GetModelRequest(model="a"))
    client.registry.GetModel(pb.GetModelRequest(model="b"), timeout=5)

    by_default, by_caller = (call.seconds_left or 0 for call in registry.calls)
    assert 10 < by_default < 25
    assert 0 < by_caller < 10


def test_the_token_goes_with_unary_calls_and_watches(
    registry: Registry, connect: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAGEWIRE_TOKEN", "s3cret")
    client = connect()
    registry.on("GetModel", pb.GetModelResponse())
    registry.streams = [[]]

    client.registry.GetModel(pb.GetModelRequest(model="a"))
    list(client.watch(reconnect=False))

    assert [call.metadata.get("authorization") for call in registry.calls] == ["Bearer s3cret"] * 2


def test_the_address_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAGEWIRE_ADDRESS", "registry.example:1234")

    with Client() as client:
        assert client.address == "registry.example:1234"


def test_a_read_asks_for_at_least_what_was_seen(registry: Registry, client: Any) -> None:
    seen(registry, client, 7)
    registry.on("GetModel", pb.GetModelResponse(revision=6), pb.GetModelResponse(revision=9))

    for _ in range(3):
        client.registry.GetModel(pb.GetModelRequest(model="churn"))

    asked = [request.min_revision for request in registry.requests("GetModel")]
    assert asked == [7, 7, 9]


def test_lost_history_is_raised_once_and_then_worked_on(registry: Registry, client: Any) -> None:
    seen(registry, client, 7)
    registry.on("GetModel", AHEAD, pb.GetModelResponse(revision=3))

    with pytest.raises(errors.HistoryLost) as raised:
        client.registry.GetModel(pb.GetModelRequest(model="churn"))
    answer = client.registry.GetModel(pb.GetModelRequest(model="churn"))

    lost = raised.value
    assert (lost.last_seen_revision, lost.head_revision, lost.log_id) == (7, 3, "log-b")
    assert answer.revision == 3
    assert [request.min_revision for request in registry.requests("GetModel")] == [7, 0]
    assert client.last_seen_revision == 3


def test_whoever_asks_to_be_told_of_lost_history_gets_the_answer(
    registry: Registry, connect: Callable[..., Any]
) -> None:
    told: list[errors.HistoryLost] = []
    client = connect(on_history_lost=told.append)
    seen(registry, client, 7)
    registry.on("GetModel", AHEAD, pb.GetModelResponse(revision=3))

    answer = client.registry.GetModel(pb.GetModelRequest(model="churn"))

    assert answer.revision == 3
    assert [lost.last_seen_revision for lost in told] == [7]


def test_a_mark_of_the_callers_own_is_refused_as_what_it_is(
    registry: Registry, client: Any
) -> None:
    seen(registry, client, 7)
    registry.on("GetModel", AHEAD)

    with pytest.raises(errors.RevisionAhead) as raised:
        client.registry.GetModel(pb.GetModelRequest(model="churn", min_revision=99))

    assert not isinstance(raised.value, errors.HistoryLost)
    assert client.last_seen_revision == 7


def test_an_answer_from_before_the_loss_does_not_bring_the_mark_back(
    registry: Registry, client: Any
) -> None:
    seen(registry, client, 7)

    def lost_meanwhile(request: Any) -> Any:
        registry.on("GetModel", AHEAD)
        with pytest.raises(errors.HistoryLost):
            client.registry.GetModel(pb.GetModelRequest(model="churn"))
        return pb.ListModelsResponse(revision=8)

    registry.on("ListModels", lost_meanwhile)
    client.registry.ListModels(pb.ListModelsRequest())

    assert client.last_seen_revision == 0


def test_a_future_is_translated_too(registry: Registry) -> None:
    registry.on(
        "GetModel", pb.GetModelResponse(revision=4), Refusal("NOT_FOUND", "MODEL_NOT_FOUND")
    )

    with Client(registry.address) as client:
        found = client.registry.GetModel.future(pb.GetModelRequest(model="a")).result()
        missing = client.registry.GetModel.future(pb.GetModelRequest(model="b"))

        assert found.revision == client.last_seen_revision == 4
        assert isinstance(missing.exception(), errors.ModelNotFound)


def test_head_names_the_log_that_the_mark_belongs_to(registry: Registry, client: Any) -> None:
    seen(registry, client, 7)
    registry.on(
        "GetHead",
        pb.GetHeadResponse(log_id=LOG_ID, revision=8),
        pb.GetHeadResponse(log_id="log-b", revision=2),
    )

    client.watches.GetHead(pb.GetHeadRequest())
    of_the_first = client.last_seen_revision
    client.watches.GetHead(pb.GetHeadRequest())

    assert (of_the_first, client.last_seen_revision) == (8, 2)
