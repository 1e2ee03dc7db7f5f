"""Webhooks: what may be one, what is kept of it, and what is never said of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.fernet import Fernet
from google.protobuf.field_mask_pb2 import FieldMask

from stagewire import pb
from stagewire.callers import ANONYMOUS
from stagewire.hooks import HookRules, SecretUnreadable, Vault
from tests.factories import head, last_event, model, refused, sql, webhook

if TYPE_CHECKING:
    from stagewire.service.registry import Registry


def get(registry: Registry, id_: str) -> pb.Webhook:
    return registry.GetWebhook(pb.GetWebhookRequest(id=id_), ANONYMOUS).webhook


def update(registry: Registry, id_: str, *paths: str, **fields: Any) -> pb.Webhook:
    resume = fields.pop("resume", None)
    expected = fields.pop("expected_revision", 0)
    request = pb.UpdateWebhookRequest(
        id=id_,
        update=pb.WebhookUpdate(**fields),
        update_mask=FieldMask(paths=paths or list(fields)),
        resume=resume,
        expected_revision=expected,
    )
    return registry.UpdateWebhook(request, ANONYMOUS).webhook


def listed(registry: Registry, **fields: Any) -> pb.ListWebhooksResponse:
    return registry.ListWebhooks(pb.ListWebhooksRequest(**fields), ANONYMOUS)


@pytest.fixture
def keys(registry: Registry, tmp_path: Path) -> Path:
    """Give the registry a file of keys."""
    path = tmp_path / "keys"
    registry.hooks = HookRules(Vault(path, makes=True))
    return path


def test_a_webhook_is_answered_as_it_was_created(registry: Registry) -> None:
    made = webhook(registry, "model_version.created", description="builds", models=["churn"])

    got = get(registry, made.id)
    progress = got.progress

    assert (progress.revision, progress.lag_revisions) == (head(registry), 0)
    got.ClearField("progress")
    assert got == made
    assert (made.format, made.status) == (pb.WEBHOOK_FORMAT_MLFLOW, pb.WEBHOOK_STATUS_ACTIVE)
    assert made.revision == head(registry)


def test_webhooks_are_listed_the_newest_first_and_by_namespace(registry: Registry) -> None:
    registry.CreateNamespace(
        pb.CreateNamespaceRequest(namespace=pb.Namespace(name="risk")), ANONYMOUS
    )
    made = [webhook(registry).id for _ in range(3)]

    first = listed(registry, page_size=2)
    second = listed(registry, page_size=2, page_token=first.next_page_token)

    assert [h.id for h in (*first.webhooks, *second.webhooks)] == made[::-1]
    assert not second.next_page_token
    assert not listed(registry, namespace="risk").webhooks
    with refused("WEBHOOK_NOT_FOUND"):
        registry.GetWebhook(pb.GetWebhookRequest(namespace="risk", id=made[0]), ANONYMOUS)


def test_only_what_the_mask_names_is_changed(registry: Registry) -> None:
    made = webhook(registry, description="old")

    after = update(registry, made.id, "description", description="new", name="other")

    assert (after.name, after.description) == ("ci", "new")
    assert after.revision == head(registry)
    with refused("INVALID_UPDATE_MASK"):
        update(registry, made.id, "id")


def test_an_update_that_changes_nothing_takes_no_revision(registry: Registry) -> None:
    made = webhook(registry)
    before = head(registry)

    update(registry, made.id, name="ci", events=["*"])

    assert head(registry) == before


def test_an_update_of_an_older_revision_is_refused(registry: Registry) -> None:
    made = webhook(registry)
    update(registry, made.id, name="first")

    with refused("REVISION_MISMATCH"):
        update(registry, made.id, name="second", expected_revision=made.revision)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("   ", "Webhook URL cannot be empty or just whitespace"),
        ("http://a.example/", "Invalid webhook URL scheme: 'http'. Allowed schemes are: https."),
        ("ftp://a.example/", "Invalid webhook URL scheme: 'ftp'. Allowed schemes are: https."),
        ("https:///x", "Webhook URL must include a hostname"),
        ("https://user:pass@a.example/", "user or password"),
        ("https://user@a.example/", "user or password"),
        ("https://a.example/\r\nX: y", "percent-encoded"),
        ("https://a.example/ä", "percent-encoded"),
        ("https://a.example\\@b.example/", "user or password"),
        ("https://a.example/x#y", "fragment"),
        ("https://a.example:99999/", "port"),
        ("https://a.example:x/", "port"),
        ("https://[::1/", "no URL"),
    ],
)
def test_a_url_that_nothing_may_be_posted_to_is_refused(
    registry: Registry, url: str, said: str
) -> None:
    with refused("INVALID_FIELD") as caught:
        webhook(registry, url=url)

    assert said in caught.error.message
    assert caught.error.fields[0].field == "webhook.url"


def test_unknown_events_are_refused_and_the_known_ones_named(registry: Registry) -> None:
    with refused("INVALID_FIELD") as caught:
        webhook(registry, "model.exploded")

    assert "model_version.created" in caught.error.message


def test_models_and_a_prefix_do_not_go_together(registry: Registry) -> None:
    with refused("INVALID_FIELD"):
        webhook(registry, models=["churn"], model_prefix="ch")
    made = webhook(registry, models=["churn"])
    with refused("INVALID_FIELD"):
        update(registry, made.id, model_prefix="ch")


def test_a_webhook_is_an_event_in_the_log_without_secret_and_path(
    registry: Registry, keys: Path
) -> None:
    made = webhook(registry, url="https://hooks.example:8443/T0/s3cret?key=k", secret="hidden")
    created = last_event(registry).payload
    update(registry, made.id, secret="other")
    registry.DeleteWebhook(pb.DeleteWebhookRequest(id=made.id, reason="old"), ANONYMOUS)
    deleted = last_event(registry).payload

    kinds = [payload.records[0].change.kind for payload in (created, deleted)]
    assert kinds == [pb.CHANGE_KIND_WEBHOOK_CREATED, pb.CHANGE_KIND_WEBHOOK_DELETED]
    state = created.records[0].change.webhook_state
    assert (state.url, state.signed) == ("https://hooks.example:8443", True)
    log = registry.ListEvents(pb.ListEventsRequest(), ANONYMOUS).SerializeToString()
    for secret in (b"hidden", b"other", b"s3cret"):
        assert secret not in log
    verified = registry.VerifyLog(pb.VerifyLogRequest(), ANONYMOUS)
    assert verified.intact


def test_a_secret_is_encrypted_where_it_is_kept_and_never_answered(
    registry: Registry, database_url: str, keys: Path
) -> None:
    made = webhook(registry, secret="hidden")

    kept = bytes(sql(database_url, "SELECT secret FROM webhooks")[0][0])
    requests = sql(database_url, "SELECT answer FROM requests")

    assert b"hidden" not in kept
    assert Fernet(keys.read_bytes().split()[0]).decrypt(kept) == b"hidden"
    assert (made.secret, made.signed) == ("", True)
    assert get(registry, made.id).secret == ""
    assert not any(b"hidden" in bytes(row[0]) for row in requests)
    assert keys.stat().st_mode & 0o777 == 0o600


def test_a_secret_without_a_key_is_refused_with_the_remedy(registry: Registry) -> None:
    with refused("SECRETS_KEY_MISSING") as caught:
        webhook(registry, secret="hidden")

    assert "STAGEWIRE_SECRETS_KEY_FILE" in caught.error.message
    assert "hidden" not in caught.error.message


def test_keys_are_turned_over_without_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    old, new = Fernet.generate_key(), Fernet.generate_key()
    path.write_bytes(old + b"\n")
    vault = Vault(path)
    first = vault.encrypt("hidden")

    path.write_bytes(new + b"\n" + old + b"\n")
    second = vault.encrypt("hidden")

    assert vault.decrypt(first) == vault.decrypt(second) == "hidden"
    assert Fernet(new).decrypt(second) == b"hidden"
    path.write_bytes(new)
    with pytest.raises(SecretUnreadable):
        vault.decrypt(first)


def test_a_file_that_holds_no_keys_is_refused_without_its_content(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    for content in ("", "not-a-key"):
        path.write_text(content)
        with pytest.raises(ValueError, match="holds no keys") as caught:
            Vault(path).check()
        assert "not-a-key" not in str(caught.value)


def test_a_deleted_webhook_is_gone_with_its_secret(
    registry: Registry, database_url: str, keys: Path
) -> None:
    made = webhook(registry, secret="hidden")

    registry.DeleteWebhook(pb.DeleteWebhookRequest(id=made.id), ANONYMOUS)

    with refused("WEBHOOK_NOT_FOUND") as caught:
        get(registry, made.id)
    assert caught.error.message == f"Webhook with ID {made.id} not found."
    assert not listed(registry).webhooks
    assert sql(database_url, "SELECT secret FROM webhooks")[0][0] is None
    assert sql(database_url, "SELECT * FROM webhook_cursors") == []


def test_a_webhook_that_becomes_active_goes_on_where_it_stood_unless_told(
    registry: Registry,
) -> None:
    made = webhook(registry)
    update(registry, made.id, status=pb.WEBHOOK_STATUS_DISABLED)
    model(registry)
    update(registry, made.id, status=pb.WEBHOOK_STATUS_ACTIVE)
    stood = get(registry, made.id).progress.revision
    update(registry, made.id, status=pb.WEBHOOK_STATUS_DISABLED)
    now = pb.WEBHOOK_RESUME_NOW
    update(registry, made.id, status=pb.WEBHOOK_STATUS_ACTIVE, resume=now)

    assert stood == made.revision
    assert get(registry, made.id).progress.revision == head(registry)


def test_a_checked_webhook_is_not_written(registry: Registry) -> None:
    before = head(registry)
    request = pb.CreateWebhookRequest(
        webhook=pb.Webhook(name="ci", url="https://a.example", events=["*"]), validate_only=True
    )

    registry.CreateWebhook(request, ANONYMOUS)

    assert head(registry) == before
    assert not listed(registry).webhooks


def test_the_same_request_creates_one_webhook(registry: Registry) -> None:
    request = pb.CreateWebhookRequest(
        webhook=pb.Webhook(name="ci", url="https://a.example", events=["*"]), request_id="one"
    )

    answers = [registry.CreateWebhook(request, ANONYMOUS) for _ in range(2)]

    assert answers[0] == answers[1]
    assert len(listed(registry).webhooks) == 1


def test_a_namespace_takes_its_webhooks_with_it(registry: Registry, database_url: str) -> None:
    space = pb.CreateNamespaceRequest(namespace=pb.Namespace(name="risk"))
    registry.CreateNamespace(space, ANONYMOUS)
    wanted = pb.Webhook(name="ci", url="https://a.example", events=["*"])
    request = pb.CreateWebhookRequest(namespace="risk", webhook=wanted)
    registry.CreateWebhook(request, ANONYMOUS)

    registry.DeleteNamespace(pb.DeleteNamespaceRequest(name="risk"), ANONYMOUS)

    assert sql(database_url, "SELECT * FROM webhooks") == []


def test_nothing_is_redelivered_that_was_never_delivered(registry: Registry) -> None:
    made = webhook(registry)
    neither = pb.RedeliverWebhookRequest(id=made.id)
    both = pb.RedeliverWebhookRequest(id=made.id, delivery_id="d", dead_since_revision=1)
    for request in (neither, both):
        with refused("INVALID_FIELD"):
            registry.RedeliverWebhook(request, ANONYMOUS)

    answer = registry.RedeliverWebhook(
        pb.RedeliverWebhookRequest(id=made.id, dead_since_revision=1), ANONYMOUS
    )

    assert (answer.queued, answer.compacted) == (0, 0)


def test_lists_of_events_are_kept_sorted_and_once(registry: Registry, database_url: str) -> None:
    webhook(registry, "model_version.created", "model_version.created", "registered_model.created")

    kept = json.loads(sql(database_url, "SELECT events FROM webhooks")[0][0])

    assert kept == ["model_version.created", "registered_model.created"]
