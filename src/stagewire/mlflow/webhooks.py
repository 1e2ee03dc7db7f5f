"""MLflow's webhooks over ours: its requests into the contract's, the contract's answers into its.

A webhook shows only the events that MLflow knows, since its clients refuse any other; one that
asks for none of them is not shown.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from stagewire import errors, pb
from stagewire.mlflow.calls import Call, takes
from stagewire.mlflow.errors import absent, invalid, saying
from stagewire.mlflow.shapes import COUNT, OBJECT, OBJECTS, TEXT, TEXT_IF_ANY, WORD

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stagewire.mlflow.shapes import Json

#: What the contract calls all events, ours included.
EVERYTHING = "*"
#: What MLflow can tell, in its own order.
EVENTS = (
    "registered_model.created",
    "model_version.created",
    "model_version_tag.set",
    "model_version_tag.deleted",
    "model_version_alias.created",
    "model_version_alias.deleted",
    "prompt.created",
    "prompt_version.created",
    "prompt_tag.set",
    "prompt_tag.deleted",
    "prompt_version_tag.set",
    "prompt_version_tag.deleted",
    "prompt_alias.created",
    "prompt_alias.deleted",
    "budget_policy.exceeded",
)
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


@takes(
    name=TEXT.needed,
    url=TEXT.needed,
    events=OBJECTS.needed,
    description=TEXT,
    secret=TEXT,
    status=WORD,
)
def create(call: Call) -> Json:
    """Answer POST webhooks."""
    _check_name(call["name"])
    request = pb.CreateWebhookRequest(
        webhook=pb.Webhook(
            name=call["name"],
            url=call["url"],
            events=_events(call["events"]),
            description=call["description"],
            secret=call["secret"],
            status=_status(call["status"]),
        ),
    )
    with _mlflows_texts(call["url"]):
        return {"webhook": show(call.ask(call.registry.CreateWebhook, request).webhook)}


@takes(max_results=COUNT.up_to(2**31 - 1, default=DEFAULT_RESULTS), page_token=TEXT)
def list_(call: Call) -> Json:
    """Answer GET webhooks."""
    if not 1 <= call["max_results"] <= MOST_RESULTS:
        raise invalid("max_results must be between 1 and 1000.")
    request = pb.ListWebhooksRequest(page_size=call["max_results"], page_token=call["page_token"])
    bad_token = invalid("Invalid page token, could not base64-decode")
    with saying({"INVALID_PAGE_TOKEN": bad_token}):
        answer = call.ask(call.registry.ListWebhooks, request)
    shown: Json = {"webhooks": [show(hook) for hook in answer.webhooks if _told(hook)]}
    if answer.next_page_token:
        shown["next_page_token"] = answer.next_page_token
    return shown


@takes(webhook_id=TEXT.needed)
def get(call: Call) -> Json:
    """Answer GET webhooks/ID."""
    return {"webhook": show(_found(call))}


@takes(
    webhook_id=TEXT.needed,
    name=TEXT,
    description=TEXT_IF_ANY,
    url=TEXT,
    events=OBJECTS,
    secret=TEXT_IF_ANY,
    status=WORD,
)
def update(call: Call) -> Json:
    """Answer PATCH webhooks/ID: what is absent stays, and so does an empty name or URL."""
    before = _found(call)
    changes: Json = {name: call[name] for name in ("name", "url") if call[name]}
    changes |= {name: call[name] for name in ("description", "secret") if call[name] is not None}
    if "name" in changes:
        _check_name(changes["name"])
    if call["events"]:
        changes["events"] = _events(call["events"])
    if call["status"] is not None:
        changes["status"] = _status(call["status"])
    if not changes:
        return {"webhook": show(before)}
    request = pb.UpdateWebhookRequest(id=before.id, update=pb.WebhookUpdate(**changes))
    request.update_mask.paths.extend(changes)
    with _mlflows_texts(call["url"]):
        return {"webhook": show(call.ask(call.registry.UpdateWebhook, request).webhook)}


@takes(webhook_id=TEXT.needed)
def delete(call: Call) -> Json:
    """Answer DELETE webhooks/ID."""
    found = _found(call)
    call.ask(call.registry.DeleteWebhook, pb.DeleteWebhookRequest(id=found.id))
    return {}


@takes(webhook_id=TEXT.needed, event=OBJECT)
def test(call: Call) -> Json:
    """Answer POST webhooks/ID/test; the receiver's own words are never shown."""
    hook = _found(call)
    event = _event(call["event"]) if call["event"] else _told(hook)[0]
    request = pb.TestWebhookRequest(id=hook.id, event=event)
    answer = call.ask(call.registry.TestWebhook, request)
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
    return [event for event in EVENTS if everything or event in hook.events]


def _found(call: Call) -> pb.Webhook:
    """Find the webhook that a call is about, if MLflow's clients may see it."""
    gone = absent(f"Webhook with ID {call['webhook_id']} not found.")
    request = pb.GetWebhookRequest(id=call["webhook_id"])
    with saying({"WEBHOOK_NOT_FOUND": gone, "INVALID_FIELD": gone}):
        hook = call.ask(call.registry.GetWebhook, request).webhook
    if not _told(hook):
        raise gone
    return hook


def _events(given: Any) -> list[str]:
    if not given:
        raise invalid("Webhook events must be a non-empty list of WebhookEvent objects: [].")
    return [_event(event) for event in given]


def _event(given: Mapping[str, Any]) -> str:
    entity = _word(given.get("entity"), ENTITIES)
    action = _word(given.get("action"), ACTIONS)
    if f"{entity}.{action}" not in EVENTS:
        known = sorted(
            event.partition(".")[2] for event in EVENTS if event.startswith(f"{entity}.")
        )
        raise invalid(
            f"Invalid action '{action}' for entity '{entity}'. Valid actions are: {known}"
        )
    return f"{entity}.{action}"


def _status(given: Any) -> pb.WebhookStatus.ValueType:
    word = _word(given, STATUSES).upper() if given else "ACTIVE"
    try:
        return pb.WebhookStatus.Value(f"WEBHOOK_STATUS_{word}")
    except ValueError:
        raise invalid(f"Invalid webhook status: {given!r}.") from None


def _word(given: Any, words: tuple[str, ...]) -> str:
    """Read an enum's value, given by name or by number."""
    if isinstance(given, int) and 0 <= given < len(words):
        return words[given].lower()
    return str(given or words[0]).lower()


def _check_name(name: str) -> None:
    if len(name) > _LONGEST_NAME or not _NAME.fullmatch(name):
        raise invalid(
            f"Webhook name {name!r} is invalid. It must start and end with a letter or digit, "
            "be less than 63 characters long, and contain only letters, digits, dots (.), "
            "underscores (_), and hyphens (-)."
        )


@contextmanager
def _mlflows_texts(url: str) -> Iterator[None]:
    """Say what is wrong in MLflow's words, which name no field of the contract."""
    # MLflow also names the address: whoever asks learns what a name means in here.
    private = f"Webhook URL must not resolve to a non-public IP address. {url!r}"
    try:
        with saying({"WEBHOOK_ADDRESS_REFUSED": invalid(private)}):
            yield
    except errors.RegistryError as error:
        if error.reason == "INVALID_FIELD" and error.fields:
            raise invalid(error.fields[0].description) from error
        raise
