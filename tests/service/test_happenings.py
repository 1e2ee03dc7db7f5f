"""What webhooks are told: MLflow's events as MLflow tells them, and ours beside them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from google.protobuf.field_mask_pb2 import FieldMask

from stagewire import pb
from stagewire.callers import ANONYMOUS
from stagewire.service import happenings
from tests.factories import (
    alias,
    delete,
    delete_version,
    last_event,
    model,
    promote,
    rename,
    rollback,
    undelete,
    version,
    versions,
    webhook,
)

if TYPE_CHECKING:
    from stagewire.service.registry import Registry

PROMPT = {"mlflow.prompt.is_prompt": "true", "_mlflow_prompt_type": "text"}


def told(registry: Registry, *prompts: str) -> list[tuple[str, dict[str, Any]]]:
    """Say what the newest record tells."""
    found = happenings.of(last_event(registry).payload, prompts=prompts)
    return [(happening.event, happening.data) for happening in found]


def test_a_new_model_is_told_as_mlflow_does(registry: Registry) -> None:
    model(registry, description="who leaves", tags={"b": "2", "a": "1"})

    data = {"name": "churn", "tags": {"a": "1", "b": "2"}, "description": "who leaves"}
    assert told(registry) == [("registered_model.created", data)]


def test_a_new_version_is_told_as_mlflow_does(registry: Registry) -> None:
    model(registry)
    version(registry, source="s3://m/1", tags={"a": "1"}, lineage=pb.Lineage(run_id="r1"))

    expected = {
        "name": "churn",
        "version": "1",
        "source": "s3://m/1",
        "run_id": "r1",
        "tags": {"a": "1"},
        "description": None,
    }
    assert told(registry) == [("model_version.created", expected)]


def test_each_tag_is_an_event_of_its_own(registry: Registry) -> None:
    versions(registry, 1)
    tagged = pb.SetModelVersionTagsRequest(model="churn", version=1, tags={"b": "2", "a": ""})
    registry.SetModelVersionTags(tagged, ANONYMOUS)
    set_ = told(registry)
    doomed = pb.DeleteModelVersionTagsRequest(model="churn", version=1, keys=["b", "b", "none"])
    registry.DeleteModelVersionTags(doomed, ANONYMOUS)

    which = {"name": "churn", "version": "1"}
    assert set_ == [
        ("model_version_tag.set", {**which, "key": "a", "value": ""}),
        ("model_version_tag.set", {**which, "key": "b", "value": "2"}),
    ]
    assert told(registry) == [("model_version_tag.deleted", {**which, "key": "b"})]


def test_a_models_tags_are_ours_alone(registry: Registry) -> None:
    model(registry)
    registry.SetModelTags(pb.SetModelTagsRequest(model="churn", tags={"a": "1"}), ANONYMOUS)
    set_ = told(registry)
    registry.DeleteModelTags(pb.DeleteModelTagsRequest(model="churn", keys=["a"]), ANONYMOUS)

    assert set_ == [("registered_model_tag.set", {"name": "churn", "key": "a", "value": "1"})]
    assert told(registry) == [("registered_model_tag.deleted", {"name": "churn", "key": "a"})]
    assert {e for e, _ in (*set_, *told(registry))}.isdisjoint(happenings.MLFLOW)


def test_an_alias_that_moves_is_created_once_and_never_deleted(registry: Registry) -> None:
    versions(registry, 2)
    alias(registry, 1)
    first = told(registry)
    alias(registry, 2, reassign=True)
    second = told(registry)
    registry.DeleteAlias(pb.DeleteAliasRequest(model="churn", alias="champion"), ANONYMOUS)

    which = {"name": "churn", "alias": "champion"}
    assert first == [("model_version_alias.created", {**which, "version": "1"})]
    assert second == [("model_version_alias.created", {**which, "version": "2"})]
    assert told(registry) == [("model_version_alias.deleted", which)]


def test_prompts_are_told_as_prompts(registry: Registry) -> None:
    made = model(registry, "greeting", description="hello", tags={**PROMPT, "team": "x"})
    created = told(registry)
    text = {"mlflow.prompt.text": "Hello {{name}}!"}
    version(registry, "greeting", source="prompt-template", tags={**PROMPT, **text, "a": "1"})
    versioned = told(registry, made.id)
    tags = pb.SetModelTagsRequest(model="greeting", tags={"team": "y"})
    registry.SetModelTags(tags, ANONYMOUS)
    tagged = told(registry, made.id)
    alias(registry, 1, name="greeting")

    data = {"name": "greeting", "tags": {"team": "x"}, "description": "hello"}
    assert created == [("prompt.created", data)]
    assert versioned == [
        (
            "prompt_version.created",
            {
                "name": "greeting",
                "version": "1",
                "template": "Hello {{name}}!",
                "tags": {"a": "1"},
                "description": None,
            },
        )
    ]
    assert tagged == [("prompt_tag.set", {"name": "greeting", "key": "team", "value": "y"})]
    aliased = {"name": "greeting", "alias": "champion", "version": "1"}
    assert told(registry, made.id) == [("prompt_alias.created", aliased)]


def test_a_stage_change_names_what_was_entered_left_and_runs(registry: Registry) -> None:
    versions(registry, 2)
    promote(registry, 1)
    promote(registry, 2)

    changes = {data["version"]: (event, data) for event, data in told(registry)}

    assert {event for event, _ in changes.values()} == {"model_version_stage.changed"}
    entered = changes["2"][1]
    assert (entered["entered"], entered["left"]) == (["Production"], [])
    assert {"stage": "Production", "version": 2} in entered["primaries"]
    left = changes["1"][1]
    assert (left["entered"], left["left"]) == (["Archived"], ["Production"])


def test_a_rollback_is_told_whole_after_its_changes(registry: Registry) -> None:
    versions(registry, 2)
    promote(registry, 1)
    promote(registry, 2)
    rollback(registry)

    *changes, (event, data) = told(registry)

    assert {e for e, _ in changes} == {"model_version_stage.changed"}
    assert event == "model_version_stage.rolled_back"
    assert {m["version"]: m["entered"] for m in data["moves"]}["1"] == ["Production"]
    assert {"stage": "Production", "version": 1} in data["primaries"]


def test_the_ends_and_returns_of_models_and_versions_are_told(registry: Registry) -> None:
    made = versions(registry, 1)
    request = pb.UpdateModelVersionRequest(
        model="churn",
        version=1,
        update=pb.ModelVersionUpdate(description="better"),
        update_mask=FieldMask(paths=["description"]),
    )
    registry.UpdateModelVersion(request, ANONYMOUS)
    updated = told(registry)
    delete_version(registry, 1)
    deleted = told(registry)
    which = pb.UndeleteModelVersionRequest(model="churn", version=1)
    registry.UndeleteModelVersion(which, ANONYMOUS)
    undeleted = told(registry)
    rename(registry, "churn", "leavers")
    renamed = told(registry)
    delete(registry, "leavers")
    gone = told(registry)
    undelete(registry, made[0].model_id)

    version_1 = {"name": "churn", "version": "1"}
    assert updated == [
        ("model_version.updated", {**version_1, "description": "better", "status": "READY"})
    ]
    assert deleted == [("model_version.deleted", version_1)]
    assert undeleted == [("model_version.undeleted", version_1)]
    names = {"name": "leavers", "previous_name": "churn"}
    assert renamed == [("registered_model.renamed", names)]
    assert gone == [("registered_model.deleted", {"name": "leavers"})]
    assert told(registry) == [("registered_model.undeleted", {"name": "leavers"})]


def test_a_version_deleted_in_a_stage_also_left_it(registry: Registry) -> None:
    versions(registry, 1)
    promote(registry, 1)
    delete_version(registry, 1, force=True)

    events = dict(told(registry))

    assert set(events) == {"model_version.deleted", "model_version_stage.changed"}
    assert events["model_version_stage.changed"]["left"] == ["Production"]


def test_a_long_text_is_told_whole_and_an_erased_one_empty(registry: Registry) -> None:
    long = "word " * 500
    made = model(registry, description=long, tags={"note": long})
    payload = last_event(registry).payload
    omitted = payload.records[0].change.omitted_texts
    texts = {(made.id, 0, text.sha256): long for text in omitted}

    whole = happenings.of(payload, texts=texts)[0].data
    erased = happenings.of(payload)[0].data

    assert (whole["description"], whole["tags"]) == (long, {"note": long})
    assert (erased["description"], erased["tags"]) == ("", {"note": ""})


def test_webhooks_and_stages_themselves_are_no_events(registry: Registry) -> None:
    webhook(registry)

    assert told(registry) == []


def test_what_can_be_asked_for_is_what_can_be_told() -> None:
    assert set(happenings.MLFLOW).isdisjoint(happenings.OURS)
    for event, example in happenings.EXAMPLES.items():
        assert event.count(".") == 1
        assert json.loads(json.dumps(example)) == example
