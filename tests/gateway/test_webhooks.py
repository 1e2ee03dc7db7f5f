"""MLflow's webhook calls: its shapes and texts over our own operations."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from stagewire import pb
from stagewire.callers import ANONYMOUS
from stagewire.mlflow import shapes, webhooks
from stagewire.mlflow.calls import Call, Endpoint
from stagewire.mlflow.errors import MlflowError
from stagewire.service import happenings
from stagewire.service.deliveries import Letter, Outcome
from tests.factories import webhook

if TYPE_CHECKING:
    from stagewire.service.registry import Registry

EVENT = {"entity": "MODEL_VERSION", "action": "CREATED"}


def answer(registry: Registry, endpoint: Endpoint, **given: Any) -> Any:
    fields = shapes.fields(endpoint.shape, given)
    call = Call(registry, ANONYMOUS, "default", "", fields, {})
    return endpoint.work(call)


@contextlib.contextmanager
def mistaken(code: str, text: str) -> Iterator[None]:
    with pytest.raises(MlflowError) as caught:
        yield
    assert (caught.value.code, caught.value.message) == (code, text)


def create(registry: Registry, **fields: Any) -> Any:
    body = {"name": "ci", "url": "https://a.example/x", "events": [EVENT], **fields}
    return answer(registry, webhooks.create, **body)["webhook"]


def test_all_that_mlflow_can_tell_happens() -> None:
    assert set(webhooks.EVENTS) == set(happenings.MLFLOW)


def test_a_webhook_has_mlflows_shape(registry: Registry) -> None:
    made = create(registry, description="builds")

    assert made == {
        "webhook_id": made["webhook_id"],
        "name": "ci",
        "url": "https://a.example/x",
        "events": [EVENT],
        "status": "ACTIVE",
        "description": "builds",
        "creation_timestamp": made["creation_timestamp"],
        "last_updated_timestamp": made["creation_timestamp"],
    }
    assert isinstance(made["creation_timestamp"], int)
    got = answer(registry, webhooks.get, webhook_id=made["webhook_id"])
    assert got == {"webhook": made}


def test_enums_may_be_numbers(registry: Registry) -> None:
    made = create(registry, events=[{"entity": 2, "action": 1}], status=2)

    assert (made["events"], made["status"]) == ([EVENT], "DISABLED")


def test_webhooks_are_listed_in_pages_the_newest_first(registry: Registry) -> None:
    ids = [create(registry)["webhook_id"] for _ in range(3)]

    first = answer(registry, webhooks.list_, max_results="2")
    token = {"max_results": "2", "page_token": first["next_page_token"]}
    second = answer(registry, webhooks.list_, **token)

    assert [w["webhook_id"] for w in first["webhooks"] + second["webhooks"]] == ids[::-1]
    assert "next_page_token" not in second


def test_a_patch_changes_what_it_names(registry: Registry) -> None:
    id_ = create(registry, description="old")["webhook_id"]

    def patch(**body: Any) -> Any:
        return answer(registry, webhooks.update, webhook_id=id_, **body)["webhook"]

    assert patch(description="")["name"] == "ci"
    assert "description" not in patch()
    assert patch(name="", url="")["name"] == "ci"
    assert patch(name="builds", status="DISABLED")["status"] == "DISABLED"
    aliases = {"entity": "MODEL_VERSION_ALIAS", "action": "DELETED"}
    assert patch(events=[aliases])["events"] == [aliases]


def test_a_deleted_webhook_is_not_found_in_mlflows_words(registry: Registry) -> None:
    id_ = create(registry)["webhook_id"]

    assert answer(registry, webhooks.delete, webhook_id=id_) == {}

    with mistaken("RESOURCE_DOES_NOT_EXIST", f"Webhook with ID {id_} not found."):
        answer(registry, webhooks.get, webhook_id=id_)


def test_only_mlflows_events_are_shown_to_its_clients(registry: Registry) -> None:
    mixed = webhook(registry, "model_version.created", "model_version.deleted")
    ours = webhook(registry, "model_version_stage.changed")
    every = webhook(registry, "*")

    shown = answer(registry, webhooks.list_)["webhooks"]

    events = {w["webhook_id"]: w["events"] for w in shown}
    assert events[mixed.id] == [EVENT]
    assert len(events[every.id]) == 15
    assert ours.id not in events
    with mistaken("RESOURCE_DOES_NOT_EXIST", f"Webhook with ID {ours.id} not found."):
        answer(registry, webhooks.get, webhook_id=ours.id)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        (
            {"name": "-x"},
            (
                "Webhook name '-x' is invalid. It must start and end with a letter or digit, be "
                "less than 63 characters long, and contain only letters, digits, dots (.), "
                "underscores (_), and hyphens (-)."
            ),
        ),
        ({"url": "  "}, "Webhook URL cannot be empty or just whitespace: '  '"),
        (
            {"url": "ftp://a.example"},
            "Invalid webhook URL scheme: 'ftp'. Allowed schemes are: https.",
        ),
        ({"url": "https://"}, "Webhook URL must include a hostname: 'https://'"),
        ({"events": []}, "Webhook events must be a non-empty list of WebhookEvent objects: []."),
        (
            {"events": [{"entity": "MODEL_VERSION", "action": "UPDATED"}]},
            "Invalid action 'updated' for entity 'model_version'. Valid actions are: ['created']",
        ),
        (
            {"events": [{"entity": "MODEL_VERSION_TAG", "action": "CREATED"}]},
            (
                "Invalid action 'created' for entity 'model_version_tag'. "
                "Valid actions are: ['deleted', 'set']"
            ),
        ),
    ],
)
def test_mistakes_have_mlflows_texts(registry: Registry, fields: Any, text: str) -> None:
    with mistaken("INVALID_PARAMETER_VALUE", text):
        create(registry, **fields)


def test_pages_have_mlflows_limits_and_texts(registry: Registry) -> None:
    for wrong in ({"max_results": "1001"}, {"max_results": "-1"}):
        with mistaken("INVALID_PARAMETER_VALUE", "max_results must be between 1 and 1000."):
            answer(registry, webhooks.list_, **wrong)
    with mistaken("INVALID_PARAMETER_VALUE", "Invalid page token, could not base64-decode"):
        answer(registry, webhooks.list_, page_token="?")


def test_a_test_shows_a_status_or_an_error_and_no_body(registry: Registry) -> None:
    id_ = create(registry)["webhook_id"]
    sent: list[Letter] = []
    outcomes = [Outcome(200), Outcome(500, "status", "x"), Outcome(0, "timeout", "too late")]

    def post(letter: Letter) -> Outcome:
        sent.append(letter)
        return outcomes.pop(0)

    registry.post = post

    def test(**body: Any) -> Any:
        return answer(registry, webhooks.test, webhook_id=id_, **body)["result"]

    assert test() == {"success": True, "response_status": 200}
    tag = {"entity": "MODEL_VERSION_TAG", "action": "SET"}
    assert test(event=tag) == {"success": False, "response_status": 500}
    assert test() == {"success": False, "error_message": "Failed to test webhook: too late"}
    told = [letter.happening.event for letter in sent]
    assert told == ["model_version.created", "model_version_tag.set", "model_version.created"]


def test_a_secret_is_never_shown(registry: Registry, tmp_path: Any) -> None:
    from stagewire.hooks import HookRules, Vault

    registry.hooks = HookRules(Vault(tmp_path / "keys", makes=True))
    made = create(registry, secret="hidden")

    patched = answer(registry, webhooks.update, webhook_id=made["webhook_id"], secret="other")

    assert "hidden" not in str(made)
    assert "other" not in str(patched)
    assert answer(registry, webhooks.get, webhook_id=made["webhook_id"])["webhook"]["name"] == "ci"
    got = registry.GetWebhook(pb.GetWebhookRequest(id=made["webhook_id"]), ANONYMOUS)
    assert got.webhook.signed
