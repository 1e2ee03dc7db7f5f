"""MLflow's webhooks over ours: its requests into the contract's, the contract's answers into its.

A webhook shows only the events that MLflow knows, since its clients refuse any other; one that
asks for none of them is not shown.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from stagewire import errors, pb
from stagewire.service import happenings
from stagewire.service.webhooks import EVERYTHING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stagewire.service.callers import Caller
    from stagewire.service.registry import Registry

Json = dict[str, Any]

DEFAULT_RESULTS = 100
MOST_RESULTS = 1000
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", re.ASCII)
_LONGEST_NAME = 63

#: As MLflow numbers them; JSON may hold a name or a number.
ENTITIES = (
    "ENTITY_UNSPECIFIED",
    "REGISTERED_MODEL",
    "MODEL_VERSION",
    "MODEL_VERSION_TAG",
    "MODEL_VERSION_ALIAS",
    "PROMPT",
    "PROMPT_VERSION",
    "PROMPT_TAG",
    "PROMPT_VERSION_TAG",
    "PROMPT_ALIAS",
    "BUDGET_POLICY",
)
ACTIONS = ("ACTION_UNSPECIFIED", "CREATED", "UPDATED", "DELETED", "SET", "EXCEEDED")
STATUSES = ("", "ACTIVE", "DISABLED")


def create(registry: Registry, caller: Caller, namespace: str, body: Mapping[str, Any]) -> Json:
    """Answer POST webhooks."""
    _check_name(body["name"])
    request = pb.CreateWebhookRequest(
        namespace=namespace,
        webhook=pb.Webhook(
            name=body["name"],
            url=body["url"],
            events=_events(body.get("events")),
            description=body.get("description") or "",
            secret=body.get("secret") or "",
            status=_status(body.get("status")),
        ),
    )
    with _mlflows_texts(body):
        return {"webhook": show(registry.CreateWebhook(request, caller).webhook)}


def list_(registry: Registry, caller: Caller, namespace: str, query: Mapping[str, Any]) -> Json:
    """Answer GET webhooks."""
    most = int(query.get("max_results") or DEFAULT_RESULTS)
    if not 1 <= most <= MOST_RESULTS:
        raise _invalid("max_results must be between 1 and 1000.")
    token = query.get("page_token") or ""
    request = pb.ListWebhooksRequest(namespace=namespace, page_size=most, page_token=token)
    try:
        answer = registry.ListWebhooks(request, caller)
    except errors.RegistryError as error:
        if error.reason != "INVALID_PAGE_TOKEN":
            raise
        raise _invalid("Invalid page token, could not base64-decode", error) from error
    shown: Json = {"webhooks": [show(hook) for hook in answer.webhooks if _told(hook)]}
    if answer.next_page_token:
        shown["next_page_token"] = answer.next_page_token
    return shown


def get(registry: Registry, caller: Caller, namespace: str, webhook_id: str) -> Json:
    """Answer GET webhooks/ID."""
    return {"webhook": show(_get(registry, caller, namespace, webhook_id))}


def update(
    registry: Registry, caller: Caller, namespace: str, webhook_id: str, body: Mapping[str, Any]
) -> Json:
    """Answer PATCH webhooks/ID: what is absent stays, and so does an empty name or URL."""
    before = _get(registry, caller, namespace, webhook_id)
    changes: Json = {name: body[name] for name in ("name", "url") if body.get(name)}
    changes |= {
        name: body[name] for name in ("description", "secret") if body.get(name) is not None
    }
    if "name" in changes:
        _check_name(changes["name"])
    if body.get("events"):
        changes["events"] = _events(body["events"])
    if body.get("status") is not None:
        changes["status"] = _status(body["status"])
    if not changes:
        return {"webhook": show(before)}
    request = pb.UpdateWebhookRequest(
        namespace=namespace, id=webhook_id, update=pb.WebhookUpdate(**changes)
    )
    request.update_mask.paths.extend(changes)
    with _mlflows_texts(body):
        return {"webhook": show(registry.UpdateWebhook(request, caller).webhook)}


def delete(registry: Registry, caller: Caller, namespace: str, webhook_id: str) -> Json:
    """Answer DELETE webhooks/ID."""
    _get(registry, caller, namespace, webhook_id)
    registry.DeleteWebhook(pb.DeleteWebhookRequest(namespace=namespace, id=webhook_id), caller)
    return {}


def test(
    registry: Registry, caller: Caller, namespace: str, webhook_id: str, body: Mapping[str, Any]
) -> Json:
    """Answer POST webhooks/ID/test; the receiver's own words are never shown."""
    hook = _get(registry, caller, namespace, webhook_id)
    asked = _events([body["event"]]) if body.get("event") else _told(hook)
    request = pb.TestWebhookRequest(namespace=namespace, id=webhook_id, event=asked[0])
    answer = registry.TestWebhook(request, caller)
    result: Json = {"success": answer.success}
    if answer.response_status:
        result["response_status"] = answer.response_status
    else:
        result["error_message"] = f"Failed to test webhook: {answer.message}"
    return {"result": result}


def show(hook: pb.Webhook) -> Json:
    """Show a webhook as MLflow does."""
    shown: Json = {
        "webhook_id": hook.id,
        "name": hook.name,
        "url": hook.url,
        "events": [
            dict(zip(("entity", "action"), event.upper().split("."), strict=True))
            for event in _told(hook)
        ],
        "status": STATUSES[hook.status],
        "creation_timestamp": hook.create_time.ToMilliseconds(),
        "last_updated_timestamp": hook.update_time.ToMilliseconds(),
    }
    if hook.description:
        shown["description"] = hook.description
    return shown


def _told(hook: pb.Webhook) -> list[str]:
    """List what it is told of MLflow's events."""
    everything = EVERYTHING in hook.events
    return [event for event in happenings.MLFLOW if everything or event in hook.events]


def _get(registry: Registry, caller: Caller, namespace: str, webhook_id: str) -> pb.Webhook:
    request = pb.GetWebhookRequest(namespace=namespace, id=webhook_id)
    hook = registry.GetWebhook(request, caller).webhook
    if not _told(hook):
        text = f"Webhook with ID {webhook_id} not found."
        raise errors.not_found("WEBHOOK_NOT_FOUND", "webhook", webhook_id, text)
    return hook


def _events(given: Any) -> list[str]:
    if not given:
        raise _invalid(
            f"Webhook events must be a non-empty list of WebhookEvent objects: {given or []}."
        )
    return [_event(event) for event in given]


def _event(given: Mapping[str, Any]) -> str:
    entity = _word(given.get("entity"), ENTITIES)
    action = _word(given.get("action"), ACTIONS)
    if f"{entity}.{action}" not in happenings.MLFLOW:
        known = sorted(
            event.partition(".")[2] for event in happenings.MLFLOW if event.startswith(f"{entity}.")
        )
        raise _invalid(
            f"Invalid action '{action}' for entity '{entity}'. Valid actions are: {known}"
        )
    return f"{entity}.{action}"


def _status(given: Any) -> pb.WebhookStatus.ValueType:
    word = _word(given, STATUSES).upper() if given else "ACTIVE"
    try:
        return pb.WebhookStatus.Value(f"WEBHOOK_STATUS_{word}")
    except ValueError:
        raise _invalid(f"Invalid webhook status: {given!r}.") from None


def _word(given: Any, words: tuple[str, ...]) -> str:
    """Read an enum's value, given by name or by number."""
    if isinstance(given, int) and 0 <= given < len(words):
        return words[given].lower()
    return str(given or words[0]).lower()


def _check_name(name: str) -> None:
    if len(name) > _LONGEST_NAME or not _NAME.fullmatch(name):
        raise _invalid(
            f"Webhook name {name!r} is invalid. It must start and end with a letter or digit, "
            "be less than 63 characters long, and contain only letters, digits, dots (.), "
            "underscores (_), and hyphens (-)."
        )


@contextmanager
def _mlflows_texts(body: Mapping[str, Any]) -> Iterator[None]:
    """Say what is wrong in MLflow's words, which name no field of the contract."""
    try:
        yield
    except errors.RegistryError as error:
        if error.reason == "WEBHOOK_ADDRESS_REFUSED":
            # MLflow also names the address: whoever asks learns what a name means in here.
            text = f"Webhook URL must not resolve to a non-public IP address. {body.get('url')!r}"
            raise _invalid(text, error) from error
        if error.reason == "INVALID_FIELD" and error.fields:
            raise _invalid(error.fields[0].description, error) from error
        raise


def _invalid(text: str, error: errors.RegistryError | None = None) -> errors.RegistryError:
    fields = error.fields if error is not None else [errors.FieldViolation("webhook", text)]
    return errors.RegistryError("INVALID_FIELD", text, fields=fields)
