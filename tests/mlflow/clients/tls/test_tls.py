"""MLflow's registry by TLS, over HTTP and by the plugin, and the tokens that go there."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

if TYPE_CHECKING:
    from collections.abc import Iterator

HTTP = os.environ["REGISTRY_HTTP"]
GRPC = os.environ["REGISTRY_GRPC"]
AUTHORITY = os.environ["AUTHORITY"]


def test_a_client_over_http_trusts_the_authority_it_is_told_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", AUTHORITY)

    MlflowClient(tracking_uri=HTTP, registry_uri=HTTP).create_registered_model("by-http")

    monkeypatch.delenv("MLFLOW_TRACKING_SERVER_CERT_PATH")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(MlflowException, match="CERTIFICATE_VERIFY_FAILED"):
        MlflowClient(tracking_uri=HTTP, registry_uri=HTTP).get_registered_model("by-http")


def test_the_plugin_speaks_tls_where_its_address_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAGEWIRE_CA_FILE", AUTHORITY)

    for scheme in ("stagewire+tls", "stagewire"):
        client = MlflowClient(registry_uri=f"{scheme}://{GRPC}")
        name = f"by-{scheme}"
        client.create_registered_model(name)
        assert client.get_registered_model(name).name == name

    monkeypatch.delenv("STAGEWIRE_CA_FILE")
    # Spelled anew: what is connected stays connected.
    stranger = MlflowClient(registry_uri=f"stagewire+tls://{GRPC}?namespace=default")
    with pytest.raises(MlflowException, match="CERTIFICATE_VERIFY_FAILED"):
        stranger.get_registered_model("by-http")


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({}, None),
        ({"MLFLOW_TRACKING_TOKEN": "mlflow"}, "Bearer mlflow"),
        ({"MLFLOW_TRACKING_TOKEN": "mlflow", "STAGEWIRE_TOKEN": "ours"}, "Bearer ours"),
    ],
)
def test_the_plugin_sends_our_token_else_mlflows(
    monkeypatch: pytest.MonkeyPatch, heard: Heard, variables: dict[str, str], said: str | None
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(MlflowException):
        MlflowClient(registry_uri=f"stagewire://{heard.address}").get_registered_model("a")

    assert heard.authorizations == [said]


def test_a_token_does_not_go_to_another_host_in_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "secret")
    client = MlflowClient(registry_uri="stagewire://registry.example:50051")

    with pytest.raises(MlflowException, match="in clear") as refused:
        client.get_registered_model("a")

    assert refused.value.error_code == "INVALID_PARAMETER_VALUE"
    assert "secret" not in str(refused.value)


class Heard(grpc.GenericRpcHandler):
    """A server that notes what calls were authorized with, and knows nothing."""

    def __init__(self) -> None:
        self.authorizations: list[Any] = []
        self._server = grpc.server(ThreadPoolExecutor(1))
        self._server.add_generic_rpc_handlers((self,))
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def service(self, handler_call_details: Any) -> None:
        """Note one call, and leave it unimplemented."""
        metadata = dict(handler_call_details.invocation_metadata)
        self.authorizations.append(metadata.get("authorization"))

    def stop(self) -> None:
        """End it."""
        self._server.stop(0).wait()


@pytest.fixture
def heard() -> Iterator[Heard]:
    """Give a server that listens to what it is sent."""
    made = Heard()
    yield made
    made.stop()
