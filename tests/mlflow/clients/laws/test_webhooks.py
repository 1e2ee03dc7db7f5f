"""Webhooks: how clients keep them, and what a receiver gets."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import queue
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities.webhook import WebhookAction, WebhookEntity, WebhookEvent, WebhookStatus
from mlflow.exceptions import MlflowException

from tests.mlflow.clients.apis import Api
from tests.mlflow.clients.releases import absent, refused

CREATED = WebhookEvent(WebhookEntity.MODEL_VERSION, WebhookAction.CREATED)
#: What a receiver got: its headers, in lower case, and its body.
Post = tuple[dict[str, str], bytes]


class Receiver:
    """A server that keeps what it is sent, and is well."""

    def __init__(self) -> None:
        posts: queue.Queue[Post] = queue.Queue()

        class Keep(BaseHTTPRequestHandler):
            def do_POST(self) -> None:  # the library's name
                body = self.rfile.read(int(self.headers["content-length"]))
                posts.put(({k.lower(): v for k, v in self.headers.items()}, body))
                self.send_response(200)
                self.send_header("content-length", "2")
                self.end_headers()
                self.wfile.write(b"ok")

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # as above
                pass

        self.posts = posts
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Keep)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def next(self, name: str) -> tuple[Post, dict[str, Any]]:
        """Wait for the next post about a model: other laws' models have webhooks' events too."""
        while True:
            post = self.posts.get(timeout=30)
            told = json.loads(post[1])
            if told["data"].get("name") == name:
                return post, told

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    running = Receiver()
    yield running
    running.close()


@pytest.fixture
def url() -> str:
    """Give an address where nobody listens; nothing is sent to a webhook that is disabled."""
    return "http://127.0.0.1:9/hook"


@pytest.fixture
def make(client: MlflowClient) -> Iterator[Any]:
    """Create webhooks, which go with the law: they hear of every other law's models."""
    made = []

    def create(**given: Any) -> Any:
        made.append(client.create_webhook(**given).webhook_id)
        return client.get_webhook(made[-1])

    yield create
    for id_ in made:
        with contextlib.suppress(MlflowException):
            client.delete_webhook(id_)


def test_a_webhook_is_created_and_shown_without_its_secret(
    client: MlflowClient, api: Api, make: Any, name: str, url: str
) -> None:
    made = make(
        name=name,
        url=url,
        events=[CREATED],
        description="builds",
        secret="s3cret",
        status=WebhookStatus.DISABLED,
    )

    found = client.get_webhook(made.webhook_id)
    assert (found.name, found.url, found.description) == (name, url, "builds")
    assert (found.events, found.status) == ([CREATED], WebhookStatus.DISABLED)
    assert found.creation_timestamp == found.last_updated_timestamp
    assert "s3cret" not in api.send("GET", f"webhooks/{made.webhook_id}").text


def test_webhooks_are_listed_in_pages(client: MlflowClient, make: Any, name: str, url: str) -> None:
    disabled = {"url": url, "events": [CREATED], "status": WebhookStatus.DISABLED}
    made = {make(name=f"{name}-{n}", **disabled).webhook_id for n in range(3)}

    found, token = [], None
    while True:
        page = client.list_webhooks(max_results=2, page_token=token)
        found += [hook.webhook_id for hook in page]
        token = page.token
        if not token:
            break

    assert len(found) == len(set(found))
    assert made <= set(found)


def test_a_webhook_is_changed_in_what_is_named(
    client: MlflowClient, make: Any, name: str, url: str
) -> None:
    disabled = {"url": url, "events": [CREATED], "status": WebhookStatus.DISABLED}
    id_ = make(name=name, **disabled, description="old").webhook_id
    tags = [WebhookEvent(WebhookEntity.MODEL_VERSION_TAG, WebhookAction.SET)]

    client.update_webhook(id_, description="new")
    client.update_webhook(id_, events=tags)

    found = client.get_webhook(id_)
    assert (found.name, found.url, found.description) == (name, url, "new")
    assert (found.events, found.status) == (tags, WebhookStatus.DISABLED)


def test_a_deleted_webhook_is_not_found(
    client: MlflowClient, make: Any, name: str, url: str
) -> None:
    disabled = {"url": url, "events": [CREATED], "status": WebhookStatus.DISABLED}
    id_ = make(name=name, **disabled).webhook_id
    client.delete_webhook(id_)

    gone = absent(f"Webhook with ID {id_} not found.")
    assert refused(client.get_webhook, id_) == gone
    assert refused(client.update_webhook, id_, description="x") == gone
    assert refused(client.delete_webhook, id_) == gone


EVENT = {"entity": "MODEL_VERSION", "action": "CREATED"}


@pytest.mark.parametrize(
    ("given", "begins"),
    [
        ({"name": "-x"}, "Webhook name '-x' is invalid. "),
        ({"name": "x" * 64}, f"Webhook name '{'x' * 64}' is invalid. "),
        ({"name": ""}, "Missing value for required parameter 'name'. "),
        ({"url": "  "}, "Webhook URL cannot be empty or just whitespace: "),
        ({"url": "ftp://host/x"}, "Invalid webhook URL scheme: 'ftp'. Allowed schemes are: "),
        ({"events": []}, "Webhook events must be a non-empty list of WebhookEvent objects: []."),
        (
            {"events": [{"entity": "MODEL_VERSION", "action": "UPDATED"}]},
            "Invalid action 'updated' for entity 'model_version'. Valid actions are: ",
        ),
    ],
)
def test_a_webhook_that_is_none_is_told_why(
    api: Api, name: str, url: str, given: dict[str, Any], begins: str
) -> None:
    whole = {"name": name, "url": url, "events": [EVENT], "status": "DISABLED", **given}

    status, code, text = api.refused("POST", "webhooks", whole)

    assert (status, code) == (400, "INVALID_PARAMETER_VALUE")
    assert text.startswith(begins)


def test_there_is_a_most_that_may_be_listed(api: Api) -> None:
    status, code, _ = api.refused("GET", "webhooks", {"max_results": 1001})

    assert (status, code) == (400, "INVALID_PARAMETER_VALUE")


def test_a_webhook_can_be_tried(
    client: MlflowClient, make: Any, receiver: Receiver, name: str
) -> None:
    id_ = make(name=name, url=receiver.url, events=[CREATED]).webhook_id

    tried = client.test_webhook(id_)

    assert (tried.success, tried.response_status) == (True, 200)
    assert json.loads(receiver.posts.get(timeout=30)[1])["entity"] == "model_version"


def test_what_happens_is_told_and_signed(
    client: MlflowClient, make: Any, receiver: Receiver, model: str
) -> None:
    make(name=model, url=receiver.url, events=[CREATED], secret="s3cret")

    client.create_model_version(
        model, "s3://models/1", run_id="r1", tags={"a": "1"}, description="first"
    )

    (headers, body), told = receiver.next(model)
    assert (told["entity"], told["action"]) == ("model_version", "created")
    assert told["data"] == {
        "name": model,
        "version": "1",
        "source": "s3://models/1",
        "run_id": "r1",
        "tags": {"a": "1"},
        "description": "first",
    }
    signed = f"{headers['x-mlflow-delivery-id']}.{headers['x-mlflow-timestamp']}.".encode() + body
    mark = base64.b64encode(hmac.new(b"s3cret", signed, hashlib.sha256).digest()).decode()
    assert headers["x-mlflow-signature"] == f"v1,{mark}"


def test_every_event_has_its_entity_its_action_and_its_data(
    client: MlflowClient, make: Any, receiver: Receiver, name: str
) -> None:
    pairs = [
        (WebhookEntity.REGISTERED_MODEL, WebhookAction.CREATED),
        (WebhookEntity.MODEL_VERSION, WebhookAction.CREATED),
        (WebhookEntity.MODEL_VERSION_TAG, WebhookAction.SET),
        (WebhookEntity.MODEL_VERSION_TAG, WebhookAction.DELETED),
        (WebhookEntity.MODEL_VERSION_ALIAS, WebhookAction.CREATED),
        (WebhookEntity.MODEL_VERSION_ALIAS, WebhookAction.DELETED),
    ]
    make(name=name, url=receiver.url, events=[WebhookEvent(*pair) for pair in pairs])

    client.create_registered_model(name)
    client.create_model_version(name, "s3://models/1")
    client.set_model_version_tag(name, "1", "a", "1")
    client.delete_model_version_tag(name, "1", "a")
    client.set_registered_model_alias(name, "champion", "1")
    client.delete_registered_model_alias(name, "champion")

    told = [receiver.next(name)[1] for _ in pairs]
    found = {(one["entity"], one["action"]): one["data"] for one in told}
    assert set(found) == {(entity.value, action.value) for entity, action in pairs}
    assert found["model_version_tag", "set"] == {
        "name": name,
        "version": "1",
        "key": "a",
        "value": "1",
    }
    assert found["model_version_tag", "deleted"] == {"name": name, "version": "1", "key": "a"}
    assert found["model_version_alias", "created"] == {
        "name": name,
        "alias": "champion",
        "version": "1",
    }
    assert found["model_version_alias", "deleted"] == {"name": name, "alias": "champion"}
