"""MLflow's registry at `stagewire://`: the answers of the REST API, without HTTP."""

from __future__ import annotations

import inspect
import multiprocessing
import pickle
from typing import TYPE_CHECKING, Any

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.store.model_registry.abstract_store import AbstractStore
from mlflow.tracking._model_registry.utils import _get_store

from stagewire.client import Client
from stagewire.mlflow.store import StagewireStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.mlflow.clients.plugin.conftest import Served

#: Releases before 3.10 have none.
HAS_WORKSPACES = hasattr(mlflow, "set_workspace")


@pytest.fixture
def client(served: Served) -> MlflowClient:
    return MlflowClient(registry_uri=f"stagewire://{served.grpc}")


def refusal(call: Callable[[], object]) -> tuple[str, str]:
    """Give the code and text of a refusal."""
    with pytest.raises(MlflowException) as caught:
        call()
    return caught.value.error_code, str(caught.value)


def live_a_life(client: MlflowClient, name: str) -> list[Any]:
    """Do everything that MLflow's client can do with a model, and say what came of it."""
    other = f"{name}-copies"
    life: list[Any] = [
        client.create_registered_model(name, tags={"team": "risk"}, description="d"),
        client.create_model_version(name, "s3://models/1", run_id="r1", tags={"k": "v"}),
        client.create_model_version(name, "s3://models/2", run_link="http://runs/2"),
        client.update_registered_model(name, description="better"),
        client.update_model_version(name, "1", description="first"),
        client.set_registered_model_tag(name, "empty", ""),
        client.set_model_version_tag(name, "1", "ok", "yes"),
        client.delete_registered_model_tag(name, "absent"),
        client.delete_model_version_tag(name, "1", "k"),
        client.set_registered_model_alias(name, "champion", "1"),
        client.get_model_version_by_alias(name, "champion"),
        client.transition_model_version_stage(name, "1", "staging"),
        client.transition_model_version_stage(name, "1", "Production"),
        client.transition_model_version_stage(
            name, "2", "Production", archive_existing_versions=True
        ),
        client.get_latest_versions(name),
        client.get_latest_versions(name, stages=["Production", "archived"]),
        client.get_registered_model(name),
        client.get_model_version(name, "1"),
        client.get_model_version_download_uri(name, "1"),
        client.search_registered_models(f"name LIKE '{name}%'"),
        client.search_model_versions(f"name = '{name}'", order_by=["version_number ASC"]),
        client.search_model_versions(f"name = '{name}' AND run_id = 'r1'"),
        client.copy_model_version(f"models:/{name}/1", other),
        client.get_model_version_download_uri(other, "1"),
        client.rename_registered_model(other, f"{other}-2"),
        refusal(lambda: client.create_registered_model(name)),
        refusal(lambda: client.create_registered_model("a/b")),
        refusal(lambda: client.get_registered_model(f"{name}-absent")),
        refusal(lambda: client.get_model_version(name, "9")),
        refusal(lambda: client.get_model_version_by_alias(name, "absent")),
        refusal(lambda: client.set_registered_model_alias(name, "v1", "1")),
        refusal(lambda: client.set_registered_model_alias(name, "no such version", "1")),
        refusal(lambda: client.transition_model_version_stage(name, "1", "Nowhere")),
        refusal(lambda: client.get_latest_versions(name, stages=["Nowhere"])),
        refusal(lambda: client.search_model_versions("no filter at all")),
        refusal(lambda: client.search_registered_models(page_token="no token")),
        refusal(lambda: client.create_model_version(name, "s3://models/../secret")),
        client.delete_registered_model_alias(name, "champion"),
        client.delete_model_version(name, "1"),
        refusal(lambda: client.get_model_version(name, "1")),
        client.delete_registered_model(f"{other}-2"),
        client.delete_registered_model(name),
    ]
    return [plain(one, name) for one in life]


def plain(found: Any, name: str) -> Any:
    """Tell what was found without the model's own name and the moment."""
    if isinstance(found, list):
        return [plain(one, name) for one in found]
    if isinstance(found, tuple):
        return tuple(plain(one, name) for one in found)
    if isinstance(found, str):
        return found.replace(name, "NAME")
    if hasattr(found, "tags"):
        return {
            key: plain(value, name)
            for key, value in dict(found).items()
            if not key.endswith("_timestamp")
        }
    return found


def test_the_plugin_answers_as_the_rest_api_does(
    served: Served, client: MlflowClient, name: str
) -> None:
    over_http = live_a_life(MlflowClient(registry_uri=served.http), f"{name}-over-http")
    natively = live_a_life(client, f"{name}-natively")

    assert natively == over_http


def test_both_see_one_registry(served: Served, client: MlflowClient, name: str) -> None:
    over_http = MlflowClient(registry_uri=served.http)
    client.create_registered_model(name)
    made = over_http.create_model_version(name, "s3://models/1")

    found = client.get_model_version(name, made.version)

    assert dict(found) == dict(made)


def test_pages_follow_each_other_without_gaps(client: MlflowClient, name: str) -> None:
    client.create_registered_model(name)
    for number in range(5):
        client.create_model_version(name, f"s3://models/{number}")
    found, token = [], None
    while token != "":
        page = client.search_model_versions(
            f"name = '{name}'", max_results=2, order_by=["version_number ASC"], page_token=token
        )
        found += [version.version for version in page]
        token = page.token or ""

    assert found == ["1", "2", "3", "4", "5"]


def test_prompts_are_kept_apart_from_models(client: MlflowClient, name: str) -> None:
    client.register_prompt(name, "Hello, {{name}}!")

    assert client.load_prompt(name, 1).template == "Hello, {{name}}!"
    assert client.search_registered_models(f"name = '{name}'") == []


def test_mlflow_finds_the_plugin_by_the_scheme(served: Served) -> None:
    assert type(_get_store(f"stagewire://{served.grpc}")) is StagewireStore


def test_nothing_of_the_store_is_left_to_http() -> None:
    """Every public method goes through the two doors that the plugin stands in."""
    doors = ("call_endpoint(", "call_endpoints(", "http_request(", "get_host_creds(")
    past = {
        name: door
        for name, method in inspect.getmembers(StagewireStore, inspect.isfunction)
        if not name.startswith("_")
        for door in doors
        if door in inspect.getsource(method).replace("self._call_endpoint(", "")
    }

    assert past == {}
    assert issubclass(StagewireStore, AbstractStore)


def test_a_namespace_in_the_address_is_where_calls_go(
    served: Served, client: MlflowClient, name: str
) -> None:
    served.create_namespace("botany")
    botany = MlflowClient(registry_uri=f"stagewire://{served.grpc}?namespace=botany")
    botany.create_registered_model(name)

    assert [found.name for found in botany.search_registered_models(f"name = '{name}'")] == [name]
    assert client.search_registered_models(f"name = '{name}'") == []


def test_a_namespace_that_is_not_there_is_no_workspace(served: Served, name: str) -> None:
    nowhere = MlflowClient(registry_uri=f"stagewire://{served.grpc}?namespace=nowhere")

    code, text = refusal(lambda: nowhere.create_registered_model(name))

    assert code == "RESOURCE_DOES_NOT_EXIST"
    assert "Workspace 'nowhere' not found" in text


if HAS_WORKSPACES:

    def test_mlflows_workspace_is_the_namespace(
        served: Served, client: MlflowClient, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        served.create_namespace("garden")
        monkeypatch.setenv("MLFLOW_WORKSPACE", "garden")
        client.create_registered_model(name)
        monkeypatch.delenv("MLFLOW_WORKSPACE")

        assert client.search_registered_models(f"name = '{name}'") == []
        with Client(served.grpc, namespace="garden") as native:
            assert native.create_version(name, create_model=False).version == 1


@pytest.mark.parametrize(
    "uri",
    [
        "stagewire://",
        "stagewire:host",
        "stagewire://host:1/path",
        "stagewire://host:1?namespaces=a",
        "stagewire://host:1?namespace=a&namespace=b",
    ],
)
def test_an_address_that_cant_be_read_is_refused(uri: str) -> None:
    code, text = refusal(lambda: StagewireStore(uri))

    assert code == "INVALID_PARAMETER_VALUE"
    assert "stagewire://HOST:PORT" in text


def test_a_server_that_is_not_there_is_temporarily_unavailable(free_port: int, name: str) -> None:
    gone = MlflowClient(registry_uri=f"stagewire://127.0.0.1:{free_port}")

    assert refusal(lambda: gone.get_registered_model(name))[0] == "TEMPORARILY_UNAVAILABLE"


def test_a_store_travels_to_another_process(served: Served, name: str) -> None:
    store = StagewireStore(f"stagewire://{served.grpc}")
    store.create_registered_model(name)

    there = pickle.loads(pickle.dumps(store))  # noqa: S301  # our own

    assert there.get_registered_model(name).name == name


def test_a_store_works_on_after_a_fork(served: Served, name: str) -> None:
    store = StagewireStore(f"stagewire://{served.grpc}")
    store.create_registered_model(name)

    with multiprocessing.get_context("fork").Pool(1) as pool:
        there = pool.apply_async(store.get_registered_model, (name,)).get(30)

    assert there.name == store.get_registered_model(name).name == name
