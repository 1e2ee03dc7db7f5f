"""Searches: as many results as are asked for, a page of ours at a time."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from stagewire.callers import ANONYMOUS
from tests import factories
from tests.factories import eventually
from tests.gateway.apis import Api, invalid
from tests.servers import RunningServer

if TYPE_CHECKING:
    from collections.abc import Callable

    from stagewire.service.registry import Registry


def pages_of_models(api: Api, **query: Any) -> list[list[str]]:
    """Page through models to the end."""
    found, token = [], ""
    while True:
        page = api.get("registered-models/search", page_token=token, **query)
        found.append([m["name"] for m in page.get("registered_models", ())])
        token = page.get("next_page_token", "")
        if not token:
            return found


def numbers(page: dict[str, Any]) -> list[int]:
    return [int(v["version"]) for v in page.get("model_versions", ())]


def count(registry: Registry, name: str) -> Callable[[], int]:
    """Count the calls of one operation from now on."""
    calls: list[object] = []
    operation = getattr(registry, name)

    def counted(request: Any, caller: Any) -> Any:
        calls.append(request)
        return operation(request, caller)

    registry.__dict__[name] = counted
    return lambda: len(calls)


def test_models_come_in_pages_of_the_size_asked_for(api: Api) -> None:
    for name in "abcd":
        api.model(name)

    assert pages_of_models(api, max_results=2) == [["a", "b"], ["c", "d"]]
    assert pages_of_models(api, max_results=3) == [["a", "b", "c"], ["d"]]
    assert pages_of_models(api) == [["a", "b", "c", "d"]]


def test_a_found_model_shows_its_aliases_and_latest_versions(api: Api) -> None:
    api.versions(2)
    api.move(1, "Production")
    api.post("registered-models/alias", name="churn", alias="champion", version="1")

    (found,) = api.get("registered-models/search")["registered_models"]

    assert found == api.get("registered-models/get", name="churn")["registered_model"]
    assert [v.get("aliases") for v in found["latest_versions"]] == [None, ["champion"]]


def test_a_search_without_results_is_empty(one: Api) -> None:
    assert one.get("registered-models/search") == {}
    assert one.get("model-versions/search") == {}
    assert one.get("registered-models/list") == {}


def test_versions_that_changed_last_come_first(api: Api) -> None:
    api.versions(3)
    api.move(1, "Staging")

    assert numbers(api.get("model-versions/search")) == [1, 3, 2]


@pytest.mark.parametrize("most", [1, 999, 1000, 1001, 2100])
def test_versions_are_joined_from_pages_up_to_the_most_asked_for(
    many: Api, many_server: RunningServer, most: int
) -> None:
    found: list[int] = []
    token = ""
    while True:
        page = many.get("model-versions/search", max_results=most, page_token=token)
        assert len(page["model_versions"]) == min(most, 2100 - len(found))
        found += numbers(page)
        token = page.get("next_page_token", "")
        if not token or most == 1:
            break

    assert found == list(range(2100, 2100 - len(found), -1))
    assert most == 1 or len(found) == 2100


def test_by_default_all_versions_are_given(many: Api) -> None:
    page = many.get("model-versions/search")

    assert numbers(page) == list(range(2100, 0, -1))
    assert "next_page_token" not in page


def test_no_more_than_one_page_is_read_ahead_of_who_takes_them(
    many: Api, many_server: RunningServer
) -> None:
    calls = count(many_server.server.registry, "ListModelVersions")
    host, _, port = many_server.server.http_address.rpartition(":")
    with socket.socket() as slow:
        # Less than the server may have on its way beyond what it was sent.
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect((host, int(port)))
        slow.sendall(b"GET /api/2.0/mlflow/model-versions/search HTTP/1.1\r\nHost: x\r\n\r\n")
        assert slow.recv(15) == b"HTTP/1.1 200 OK"
        for _ in range(50):
            many.get("registered-models/search")
        read = calls()
        rest = b""
        while b"\r\n0\r\n\r\n" not in rest[-100:]:
            rest += slow.recv(1 << 20)

    assert read <= 2
    assert calls() == 3
    assert rest.count(b'"version":') == 2100


def test_who_takes_nothing_is_sent_no_more(many: Api, many_server: RunningServer) -> None:
    calls = count(many_server.server.registry, "ListModelVersions")
    host, _, port = many_server.server.http_address.rpartition(":")
    many_server.server.gateway.slow_seconds = 0.3
    with socket.socket() as stalled, structlog.testing.capture_logs() as lines:
        stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stalled.connect((host, int(port)))
        stalled.sendall(b"GET /api/2.0/mlflow/model-versions/search HTTP/1.1\r\nHost: x\r\n\r\n")
        eventually(lambda: lines)
    many_server.server.gateway.slow_seconds = 30

    assert [line["code"] for line in lines] == ["CANCELLED"]
    assert calls() < 3


def test_who_hangs_up_is_read_for_no_longer(many: Api, many_server: RunningServer) -> None:
    calls = count(many_server.server.registry, "ListModelVersions")
    with many.http.stream("GET", "/api/2.0/mlflow/model-versions/search") as answer:
        next(answer.iter_raw(100))
    eventually(lambda: many_server.server.admission.now == 0)

    assert calls() < 3


def test_a_fault_halfway_does_not_look_like_an_end(many: Api, many_server: RunningServer) -> None:
    import httpx

    registry = many_server.server.registry
    operation = registry.ListModelVersions

    def failing(request: Any, caller: Any) -> Any:
        if request.page_token:
            raise ZeroDivisionError
        return operation(request, caller)

    registry.__dict__["ListModelVersions"] = failing

    with pytest.raises(httpx.RemoteProtocolError):
        many.send("GET", "model-versions/search")


@pytest.mark.parametrize("path", ["registered-models/search", "model-versions/search"])
def test_a_token_that_is_none_is_refused(one: Api, path: str) -> None:
    bad = invalid("Invalid page token, could not base64-decode")

    for token in ("x", "%%%", "eyJvZmZzZXQiOiAyfQ==", "離"):
        assert one.refused("GET", path, {"page_token": token}) == bad


@pytest.mark.parametrize("most", ["0", "-1"])
@pytest.mark.parametrize("path", ["registered-models/search", "model-versions/search"])
def test_no_results_can_not_be_asked_for(one: Api, path: str, most: str) -> None:
    text = f"Invalid value for max_results. It must be a positive integer, but got {most}"

    assert one.refused("GET", path, {"max_results": most}) == invalid(text)


def test_more_results_than_there_may_be_are_refused(one: Api) -> None:
    for path, most in (("registered-models/search", 1000), ("model-versions/search", 200_000)):
        one.get(path, max_results=most)
        refused = one.refused("GET", path, {"max_results": most + 1})
        assert refused[:2] == (400, "INVALID_PARAMETER_VALUE")
        assert refused[2].startswith(f"Invalid value \"{most + 1}\" for parameter 'max_results'")


def test_a_token_holds_while_others_write(api: Api, server: RunningServer) -> None:
    api.versions(4)
    order = {"order_by": ["version_number ASC"]}
    first = api.get("model-versions/search", max_results=2, **order)

    factories.version(server.server.registry)
    api.delete("model-versions/delete", name="churn", version="1")
    token = first["next_page_token"]
    rest = api.get("model-versions/search", page_token=token, **order)

    assert numbers(first) + numbers(rest) == [1, 2, 3, 4, 5]


@pytest.fixture(scope="module")
def many_server(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Serve 2,100 versions, each of some 5 kB."""
    url = f"sqlite:///{tmp_path_factory.mktemp('many') / 'registry.db'}"
    with RunningServer(url) as running:
        registry = running.server.registry
        factories.model(registry)
        for _ in range(2100):
            factories.version(registry, source="s3://x", description="x" * 5000)
        yield running


@pytest.fixture
def many(many_server: RunningServer) -> Any:
    """Speak MLflow's API with that server, as it is without what a test put over it."""
    import httpx

    many_server.server.registry.__dict__.pop("ListModelVersions", None)
    with httpx.Client(base_url=many_server.http_url, timeout=30) as http:
        yield Api(http)
    many_server.server.registry.__dict__.pop("ListModelVersions", None)


def test_json_of_many_pages_is_one_document(many: Api) -> None:
    answer = many.send("GET", "model-versions/search", params={"max_results": 1500})

    found = json.loads(answer.content)
    assert list(found) == ["model_versions", "next_page_token"]
    assert answer.headers["transfer-encoding"] == "chunked"
    assert ANONYMOUS.name not in answer.text
