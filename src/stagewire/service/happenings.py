"""What webhooks are told: one pure function from a record of the log to events, in order.

An event's place among its revision's never depends on who asks, so that a place in the log and a
delivery's identity mean the same event for ever. Names and payloads of MLflow's events are
MLflow's; ours have names of their own, so that a subscription to MLflow's gets nothing else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stagewire import pb

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

#: Tags by which MLflow knows prompts, which are models to us, and what they hold.
IS_PROMPT = "mlflow.prompt.is_prompt"
_PROMPT_TEXT = "mlflow.prompt.text"
_PROMPT_TYPE = "_mlflow_prompt_type"

_MODEL = {"name": "example_model"}
_VERSION = {"name": "example_model", "version": "1"}
_PROMPT = {"name": "example_prompt"}
_PROMPT_VERSION = {"name": "example_prompt", "version": "1"}
_TAGS = {"tags": {"example_key": "example_value"}}
_KEY = {"key": "example_key"}
_PAIR = {"key": "example_key", "value": "example_value"}
_ALIAS = {"alias": "example_alias"}
_PRIMARIES = [{"stage": "Production", "version": 1}]

#: MLflow's events, each with the data that its own test sends.
MLFLOW: dict[str, dict[str, Any]] = {
    "registered_model.created": {**_MODEL, **_TAGS, "description": "An example registered model"},
    "model_version.created": {
        **_VERSION,
        "source": "models:/123",
        "run_id": "abcd1234abcd5678",
        **_TAGS,
        "description": "An example model version",
    },
    "model_version_tag.set": {**_VERSION, **_PAIR},
    "model_version_tag.deleted": {**_VERSION, **_KEY},
    "model_version_alias.created": {**_MODEL, **_ALIAS, "version": "1"},
    "model_version_alias.deleted": {**_MODEL, **_ALIAS},
    "prompt.created": {**_PROMPT, **_TAGS, "description": "An example prompt"},
    "prompt_version.created": {
        **_PROMPT_VERSION,
        "template": "Hello {{name}}!",
        **_TAGS,
        "description": "An example prompt version",
    },
    "prompt_tag.set": {**_PROMPT, **_PAIR},
    "prompt_tag.deleted": {**_PROMPT, **_KEY},
    "prompt_version_tag.set": {**_PROMPT_VERSION, **_PAIR},
    "prompt_version_tag.deleted": {**_PROMPT_VERSION, **_KEY},
    "prompt_alias.created": {**_PROMPT, **_ALIAS, "version": "1"},
    "prompt_alias.deleted": {**_PROMPT, **_ALIAS},
    "budget_policy.exceeded": {
        "budget_policy_id": "bp-abc123",
        "budget_unit": "USD",
        "budget_amount": 100.0,
        "current_spend": 105.5,
        "duration_unit": "MONTHS",
        "duration_value": 1,
        "target_scope": "ENDPOINT",
        "workspace": "default",
        "target_value": "ep-abc123",
        "window_start": 1704067200000,
    },
}

#: Our own, each with an example.
OURS: dict[str, dict[str, Any]] = {
    "model_version_stage.changed": {
        **_VERSION,
        "entered": ["Production"],
        "left": ["Staging"],
        "stages": ["Production"],
        "primaries": _PRIMARIES,
    },
    "model_version_stage.primary_changed": {**_VERSION, "primaries": _PRIMARIES},
    "model_version_stage.rolled_back": {
        **_MODEL,
        "moves": [{"version": "1", "entered": ["Production"], "left": ["Archived"]}],
        "primaries": _PRIMARIES,
    },
    "registered_model.updated": {**_MODEL, "description": "who leaves", "owner": "risk"},
    "registered_model.renamed": {**_MODEL, "previous_name": "old_model"},
    "registered_model.deleted": {**_MODEL},
    "registered_model.undeleted": {**_MODEL},
    "registered_model.purged": {**_MODEL},
    "registered_model_tag.set": {**_MODEL, **_PAIR},
    "registered_model_tag.deleted": {**_MODEL, **_KEY},
    "model_version.updated": {**_VERSION, "description": "better", "status": "READY"},
    "model_version.deleted": {**_VERSION},
    "model_version.undeleted": {**_VERSION},
    "model_version.purged": {**_VERSION},
}

#: Every event that can be asked for, with an example of its data.
EXAMPLES = {**MLFLOW, **OURS}

_OF_MODELS: dict[int, str] = {
    pb.CHANGE_KIND_MODEL_DELETED: "registered_model.deleted",
    pb.CHANGE_KIND_MODEL_UNDELETED: "registered_model.undeleted",
    pb.CHANGE_KIND_MODEL_PURGED: "registered_model.purged",
}
_OF_VERSIONS: dict[int, str] = {
    pb.CHANGE_KIND_VERSION_DELETED: "model_version.deleted",
    pb.CHANGE_KIND_VERSION_UNDELETED: "model_version.undeleted",
    pb.CHANGE_KIND_VERSION_PURGED: "model_version.purged",
}
_TAG_PATH = re.compile(r'tags\["(.*)"\]', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Happening:
    """One event: its name, the names of the model it is about, and what is told of it."""

    event: str
    models: tuple[str, ...]
    data: dict[str, Any]


def of(
    payload: pb.EventPayload,
    *,
    prompts: Collection[str] = (),
    texts: Mapping[tuple[str, int, str], str] | None = None,
) -> list[Happening]:
    """Say what a record of the log tells.

    `prompts` are the ids of those of its models that are MLflow's prompts; `texts` the bodies of
    what the record leaves out, by model, version and digest, as far as they are not erased.
    """
    changes = [_whole(record.change, texts or {}) for record in payload.records]
    # An alias that moved is one event, as in MLflow: it was set.
    moved = {
        (record.change.model_id, alias)
        for record in payload.records
        if record.change.kind == pb.CHANGE_KIND_ALIASES_CHANGED
        for alias in set(record.after.aliases) - set(record.before.aliases)
    }
    found: list[Happening] = []
    for record, change in zip(payload.records, changes, strict=True):
        names = dict.fromkeys((*record.after.models, *record.before.models, change.model))
        models = tuple(name for name in names if name)
        found += [
            Happening(event, models, data)
            for event, data in _told(record, change, moved, prompt=change.model_id in prompts)
        ]
    if payload.method == "RollbackStage" and changes:
        found.append(_rolled_back(changes))
    return found


def _told(
    record: pb.ChangeRecord, change: pb.Change, moved: Collection[tuple[str, str]], *, prompt: bool
) -> Iterator[tuple[str, dict[str, Any]]]:
    if change.HasField("model_state"):
        yield from _told_of_model(record, change, prompt=prompt)
    elif change.HasField("version_state"):
        yield from _told_of_version(record, change, moved, prompt=prompt)


def _told_of_model(
    record: pb.ChangeRecord, change: pb.Change, *, prompt: bool
) -> Iterator[tuple[str, dict[str, Any]]]:
    state = change.model_state
    model = {"name": state.name}
    tag = "prompt_tag" if prompt else "registered_model_tag"
    yield from _tags(record, tag, model, state.tags)
    match change.kind:
        case pb.CHANGE_KIND_MODEL_CREATED:
            tags, event = _ordered(state.tags), "registered_model.created"
            if is_prompt(tags):
                event = "prompt.created"
                tags = {k: v for k, v in tags.items() if k not in {IS_PROMPT, _PROMPT_TYPE}}
            yield event, {**model, "tags": tags, "description": state.description}
        case pb.CHANGE_KIND_MODEL_UPDATED if not record.set_tags and not record.deleted_tags:
            data = {"description": state.description, "owner": state.owner}
            yield "registered_model.updated", {**model, **data}
        case pb.CHANGE_KIND_MODEL_RENAMED:
            yield "registered_model.renamed", {**model, "previous_name": change.previous_model}
        case kind if kind in _OF_MODELS:
            yield _OF_MODELS[kind], model


def _told_of_version(
    record: pb.ChangeRecord,
    change: pb.Change,
    moved: Collection[tuple[str, str]],
    *,
    prompt: bool,
) -> Iterator[tuple[str, dict[str, Any]]]:
    state = change.version_state
    version = {"name": state.model, "version": str(state.version)}
    tag = "prompt_version_tag" if prompt else "model_version_tag"
    yield from _tags(record, tag, version, state.tags)
    match change.kind:
        case pb.CHANGE_KIND_VERSION_CREATED:
            yield _created(state, version)
        case pb.CHANGE_KIND_VERSION_UPDATED if not record.set_tags and not record.deleted_tags:
            status = pb.ModelVersionStatus.Name(state.status)
            data = {
                "description": state.description,
                "status": status.removeprefix("MODEL_VERSION_STATUS_"),
            }
            yield "model_version.updated", {**version, **data}
        case pb.CHANGE_KIND_ALIASES_CHANGED:
            yield from _aliases(record, change, moved, prompt=prompt)
        case pb.CHANGE_KIND_STAGE_PRIMARY_CHANGED:
            data_ = {**version, "primaries": _primaries(change)}
            yield "model_version_stage.primary_changed", data_
        case kind if kind in _OF_VERSIONS:
            yield _OF_VERSIONS[kind], version
    if change.entered_stages or change.left_stages:
        yield (
            "model_version_stage.changed",
            {
                **version,
                "entered": list(change.entered_stages),
                "left": list(change.left_stages),
                "stages": list(state.stages),
                "primaries": _primaries(change),
            },
        )


def _created(state: pb.ModelVersion, version: dict[str, str]) -> tuple[str, dict[str, Any]]:
    tags = _ordered(state.tags)
    description = state.description or None
    if is_prompt(tags):
        template = tags.pop(_PROMPT_TEXT, None)
        tags = {k: v for k, v in tags.items() if k not in {IS_PROMPT, _PROMPT_TYPE}}
        data = {**version, "template": template, "tags": tags, "description": description}
        return "prompt_version.created", data
    return "model_version.created", {
        **version,
        "source": state.source,
        "run_id": state.lineage.run_id or None,
        "tags": tags,
        "description": description,
    }


def _aliases(
    record: pb.ChangeRecord,
    change: pb.Change,
    moved: Collection[tuple[str, str]],
    *,
    prompt: bool,
) -> Iterator[tuple[str, dict[str, Any]]]:
    noun = "prompt_alias" if prompt else "model_version_alias"
    name = change.version_state.model
    before, after = set(record.before.aliases), set(record.after.aliases)
    for alias in sorted(before - after):
        if (change.model_id, alias) not in moved:
            yield f"{noun}.deleted", {"name": name, "alias": alias}
    for alias in sorted(after - before):
        data = {"name": name, "alias": alias, "version": str(change.version)}
        yield f"{noun}.created", data


def _tags(
    record: pb.ChangeRecord, noun: str, what: dict[str, str], tags: Mapping[str, str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    for key in record.set_tags:
        yield f"{noun}.set", {**what, "key": key, "value": tags.get(key, "")}
    for key in record.deleted_tags:
        yield f"{noun}.deleted", {**what, "key": key}


def _rolled_back(changes: list[pb.Change]) -> Happening:
    moves = [
        {"version": str(c.version), "entered": list(c.entered_stages), "left": list(c.left_stages)}
        for c in changes
        if c.entered_stages or c.left_stages
    ]
    primaries = {p["stage"]: p for change in changes for p in _primaries(change)}
    name = changes[0].model
    data = {"name": name, "moves": moves, "primaries": list(primaries.values())}
    return Happening("model_version_stage.rolled_back", (name,), data)


def _primaries(change: pb.Change) -> list[dict[str, Any]]:
    return [{"stage": p.stage, "version": p.version} for p in change.primaries]


def _ordered(tags: Mapping[str, str]) -> dict[str, str]:
    return {key: tags[key] for key in sorted(tags)}


def is_prompt(tags: Mapping[str, str]) -> bool:
    """Tell by its tags whether a model or a version is one of MLflow's prompts."""
    return tags.get(IS_PROMPT, "").lower() == "true"


def _whole(change: pb.Change, texts: Mapping[tuple[str, int, str], str]) -> pb.Change:
    """Put back the texts that payloads may show; an erased one stays empty."""
    if not change.omitted_texts:
        return change
    whole = pb.Change()
    whole.CopyFrom(change)
    state: Any = getattr(whole, whole.WhichOneof("resource") or "model_state")
    for omitted in change.omitted_texts:
        body = texts.get((change.model_id, change.version, omitted.sha256))
        if body is None:
            continue
        tag = _TAG_PATH.fullmatch(omitted.path)
        if tag is not None:
            state.tags[tag[1]] = body
        elif omitted.path in {"description", "source"}:
            setattr(state, omitted.path, body)
    return whole
