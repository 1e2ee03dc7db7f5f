"""The synchronous servicers under grpcio-testing: no socket, the same refusals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import grpc_testing
import pytest

from stagewire import pb
from stagewire.callers import Caller
from stagewire.server import servicers

if TYPE_CHECKING:
    from stagewire.service.registry import Registry


@pytest.fixture
def channel(registry: Registry) -> Any:
    translated = {
        service: _translated(servicers.servicer(service, registry), service)
        for service in servicers.SERVICES
    }
    return grpc_testing.server_from_dictionary(translated, grpc_testing.strict_real_time())


def _translated(servicer: Any, service: Any) -> Any:
    for method in servicers.unary_methods(service):
        behaviour = servicers.translated(getattr(servicer, method.name))
        setattr(servicer, method.name, behaviour)
    return servicer


def invoke(channel: Any, name: str, request: Any) -> tuple[Any, grpc.StatusCode, str]:
    method = next(m for s in servicers.SERVICES for m in s.methods if m.name == name)
    call = channel.invoke_unary_unary(method, (), request, None)
    answer, _, code, details = call.termination()
    return answer, code, details


def test_a_servicer_answers_what_the_registry_answers(channel: Any) -> None:
    request = pb.CreateModelRequest(model=pb.Model(name="churn"))

    answer, code, _ = invoke(channel, "CreateModel", request)

    assert code is grpc.StatusCode.OK
    assert (answer.model.name, answer.revision) == ("churn", 2)


def test_a_servicer_refuses_with_a_code_and_a_text(channel: Any) -> None:
    # grpc-testing drops the trailers of an abort; test_error_reasons.py has the details.
    _, code, details = invoke(channel, "GetModel", pb.GetModelRequest(model="ghost"))

    assert (code, details) == (grpc.StatusCode.NOT_FOUND, "model 'ghost' does not exist")


def test_a_servicer_acts_for_the_caller_of_its_context(registry: Registry) -> None:
    service = next(s for s in servicers.SERVICES if s.name == "RegistryService")
    servicer = servicers.servicer(service, registry)
    token = servicers.CALLER.set(Caller("ann"))

    try:
        made = servicer.CreateModel(pb.CreateModelRequest(model=pb.Model(name="churn")), None)
    finally:
        servicers.CALLER.reset(token)

    assert made.model.creator == "ann"


@pytest.mark.parametrize("service", servicers.SERVICES, ids=lambda s: s.name)
def test_a_servicer_has_every_unary_rpc_of_its_service(service: Any) -> None:
    unary = {m.name for m in servicers.unary_methods(service)}

    assert unary == {m.name for m in service.methods} - {"Watch", "ExportRegistry"}
