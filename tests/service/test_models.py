"""Registered models: made, read, changed, deleted, brought back, erased."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from stagewire import pb
from stagewire.callers import ANONYMOUS, Caller
from tests.factories import (
    alias,
    delete,
    delete_version,
    found,
    head,
    last_event,
    model,
    numbered,
    promote,
    refused,
    rename,
    stage,
    undelete,
    version,
    versions,
)

if TYPE_CHECKING:
    from stagewire.service.registry import Registry

ANN = Caller("ann")


def update(
    registry: Registry, paths: list[str], *, expected_revision: int = 0, **fields: str
) -> pb.UpdateModelResponse:
    request = pb.UpdateModelRequest(
        model="churn",
        update=pb.ModelUpdate(**fields),
        update_mask=FieldMask(paths=paths),
        expected_revision=expected_revision,
    )
    return registry.UpdateModel(request, ANONYMOUS)


def set_tags(registry: Registry, **tags: str) -> pb.SetModelTagsResponse:
    return registry.SetModelTags(pb.SetModelTagsRequest(model="churn", tags=tags), ANONYMOUS)


def names_of(registry: Registry, **fields: Any) -> list[str]:
    request = pb.ListModelsRequest(**fields)
    return [m.name for m in registry.ListModels(request, ANONYMOUS).models]


def test_a_model_is_answered_whole_as_it_can_be_read(registry: Registry) -> None:
    wanted = pb.Model(name="churn", description="who leaves", owner="risk", tags={"team": "a"})

    made = registry.CreateModel(pb.CreateModelRequest(model=wanted), ANN)

    assert made.model == found(registry).model
    assert (made.model.namespace, made.model.name) == ("default", "churn")
    assert (made.model.description, made.model.owner) == ("who leaves", "risk")
    assert dict(made.model.tags) == {"team": "a"}
    assert made.model.creator == "ann"
    assert made.model.id
    assert made.model.revision == made.revision == head(registry)
    assert made.model.create_time == made.model.update_time


def test_the_creator_owns_a_model_unless_it_says_otherwise(registry: Registry) -> None:
    made = registry.CreateModel(pb.CreateModelRequest(model=pb.Model(name="churn")), ANN)

    assert made.model.owner == "ann"


def test_output_fields_of_a_request_are_ignored(registry: Registry) -> None:
    made = model(
        registry, namespace="", id="mine", creator="me", revision=99, deleted=True, purged=True
    )

    assert made.id != "mine"
    assert (made.creator, made.revision) == ("anonymous", 2)
    assert not made.deleted
    assert not made.purged


def test_two_spellings_of_one_name_are_one_model(registry: Registry) -> None:
    composed, decomposed = (
        "caf\N{LATIN SMALL LETTER E WITH ACUTE}",
        "cafe\N{COMBINING ACUTE ACCENT}",
    )
    made = model(registry, decomposed)

    again = found(registry, composed).model

    assert made.name == again.name == composed
    assert again == found(registry, decomposed).model
    with refused("MODEL_EXISTS"):
        model(registry, composed)


def test_names_that_differ_in_case_are_two_models(registry: Registry) -> None:
    lower, upper = model(registry, "churn"), model(registry, "Churn")

    assert lower.id != upper.id
    assert found(registry, "Churn").model == upper


@pytest.mark.parametrize("name", ["", "a/b", "a:b", ".", "..", "tab\there", "x" * 257])
def test_what_is_no_name_is_refused_by_field(registry: Registry, name: str) -> None:
    with refused("INVALID_FIELD") as caught:
        model(registry, name)

    assert [f.field for f in caught.error.fields] == ["model.name"]


def test_a_name_may_have_spaces_and_any_script(registry: Registry) -> None:
    made = model(registry, "Отток клиентов 離反")

    assert found(registry, "Отток клиентов 離反").model == made


def test_a_taken_name_is_refused_naming_the_model(registry: Registry) -> None:
    model(registry)

    with refused("MODEL_EXISTS") as caught:
        model(registry)

    assert (caught.error.resource_type, caught.error.resource_name) == ("model", "churn")


def test_validating_only_answers_and_writes_nothing(registry: Registry) -> None:
    request = pb.CreateModelRequest(model=pb.Model(name="churn"), validate_only=True)

    answer = registry.CreateModel(request, ANONYMOUS)

    assert answer.model.name == "churn"
    assert answer.revision == 0
    assert not answer.model.HasField("create_time")
    assert head(registry) == 1
    with refused("MODEL_NOT_FOUND"):
        found(registry)


def test_validating_only_refuses_as_the_real_call_would(registry: Registry) -> None:
    model(registry)
    request = pb.CreateModelRequest(model=pb.Model(name="churn"), validate_only=True)

    with refused("MODEL_EXISTS"):
        registry.CreateModel(request, ANONYMOUS)


def test_a_model_shows_its_stages_in_order_its_aliases_and_its_newest_version(
    registry: Registry,
) -> None:
    versions(registry, 4)
    promote(registry, 1)
    promote(registry, 2, displace=pb.DISPLACEMENT_KEEP)
    promote(registry, 3, "Staging")
    alias(registry, 2)
    delete_version(registry, 4)

    shown = found(registry)

    assert [(h.stage, h.primary_version, list(h.versions)) for h in shown.stages] == [
        ("Staging", 3, [3]),
        ("Production", 2, [1, 2]),
    ]
    assert dict(shown.aliases) == {"champion": 2}
    assert shown.latest_version == 3


def test_an_update_changes_what_its_mask_names_and_nothing_else(registry: Registry) -> None:
    model(registry, description="old", owner="risk")

    answer = update(registry, ["description"], description="new", owner="ignored")

    assert (answer.model.description, answer.model.owner) == ("new", "risk")
    assert answer.model == found(registry).model
    assert answer.model.revision == answer.revision


def test_an_update_can_empty_a_field(registry: Registry) -> None:
    model(registry, description="old")

    assert update(registry, ["description"]).model.description == ""


@pytest.mark.parametrize("paths", [[], ["name"], ["*"], ["description", "tags"]])
def test_a_mask_that_names_nothing_updatable_is_refused(
    registry: Registry, paths: list[str]
) -> None:
    model(registry)

    with refused("INVALID_UPDATE_MASK"):
        update(registry, paths, description="x")


def test_an_update_that_changes_nothing_takes_no_revision(registry: Registry) -> None:
    made = model(registry, description="same")

    answer = update(registry, ["description"], description="same")

    assert answer.model == made
    assert answer.revision == head(registry) == made.revision


def test_tags_are_set_and_deleted_one_by_one(registry: Registry) -> None:
    model(registry, tags={"team": "a", "tier": "1"})

    set_tags(registry, tier="2", empty="")
    request = pb.DeleteModelTagsRequest(model="churn", keys=["team", "absent", "team"])
    answer = registry.DeleteModelTags(request, ANONYMOUS)

    assert dict(answer.model.tags) == {"tier": "2", "empty": ""}
    assert answer.model == found(registry).model


def test_tags_that_are_so_already_take_no_revision(registry: Registry) -> None:
    made = model(registry, tags={"team": "a"})

    set_answer = set_tags(registry, team="a")
    request = pb.DeleteModelTagsRequest(model="churn", keys=["absent"])
    delete_answer = registry.DeleteModelTags(request, ANONYMOUS)

    assert set_answer.model == delete_answer.model == made
    assert set_answer.revision == delete_answer.revision == head(registry) == made.revision


def test_a_model_has_five_hundred_tags_at_most_however_they_come(registry: Registry) -> None:
    model(registry, tags={f"k{number}": "" for number in range(500)})

    with refused("INVALID_FIELD"):
        set_tags(registry, one_more="")

    assert len(found(registry).model.tags) == 500


@pytest.mark.parametrize("key", ["team", "ключ", "a b/c.d", "$", "mlflow.note.content"])
def test_a_tag_may_have_any_key(registry: Registry, key: str) -> None:
    made = model(registry, tags={key: "value"})

    assert dict(made.tags) == dict(found(registry).model.tags) == {key: "value"}


def test_models_are_listed_by_name_in_pages_without_twins(registry: Registry) -> None:
    wanted = sorted(["b", "a", "C", "ä", "é", "Z", "z1", "z10", "z2"])
    for name in wanted:
        model(registry, name)

    listed: list[str] = []
    token = ""
    while True:
        request = pb.ListModelsRequest(page_size=2, page_token=token)
        page = registry.ListModels(request, ANONYMOUS)
        listed += [m.name for m in page.models]
        token = page.next_page_token
        if not token:
            break

    assert listed == wanted


def test_a_list_shows_models_as_they_are_read_one_by_one(registry: Registry) -> None:
    model(registry, "a", tags={"x": "1"}, description="first")
    model(registry, "b", owner="risk")

    page = registry.ListModels(pb.ListModelsRequest(), ANONYMOUS)

    assert list(page.models) == [found(registry, "a").model, found(registry, "b").model]
    assert page.revision == head(registry)


def test_deleted_models_and_those_of_other_namespaces_are_not_listed(registry: Registry) -> None:
    registry.CreateNamespace(
        pb.CreateNamespaceRequest(namespace=pb.Namespace(name="other")), ANONYMOUS
    )
    model(registry, "gone")
    model(registry, "elsewhere", namespace="other")
    model(registry, "here")
    delete(registry, "gone")

    assert names_of(registry) == ["here"]
    assert names_of(registry, namespace="other") == ["elsewhere"]


def test_models_are_filtered_and_ordered(registry: Registry) -> None:
    model(registry, "b", tags={"team": "risk"})
    model(registry, "a", tags={"team": "risk"})
    model(registry, "c", tags={"team": "fraud"})

    listed = names_of(registry, filter="tags.team = 'risk'", order_by="create_time desc")

    assert listed == ["a", "b"]


def test_a_token_of_another_query_is_refused(registry: Registry) -> None:
    model(registry, "a")
    model(registry, "b")
    page = registry.ListModels(pb.ListModelsRequest(page_size=1), ANONYMOUS)

    with refused("INVALID_PAGE_TOKEN"):
        names_of(registry, page_token=page.next_page_token, order_by="name desc")


def test_a_renamed_model_stays_itself(registry: Registry) -> None:
    made = model(registry, description="who leaves", tags={"team": "a"})
    version(registry)

    renamed = rename(registry, "churn", "leavers")

    assert (renamed.id, renamed.name) == (made.id, "leavers")
    assert (renamed.description, renamed.create_time) == (made.description, made.create_time)
    assert renamed.revision == head(registry)
    assert renamed == found(registry, "leavers").model
    assert numbered(registry, 1, "leavers").model == "leavers"


def test_renaming_to_the_name_it_has_takes_no_revision(registry: Registry) -> None:
    made = model(registry, "caf\N{LATIN SMALL LETTER E WITH ACUTE}")

    renamed = rename(registry, made.name, "cafe\N{COMBINING ACUTE ACCENT}")

    assert renamed == made
    assert head(registry) == made.revision


def test_renaming_onto_a_living_name_is_refused(registry: Registry) -> None:
    model(registry, "a")
    model(registry, "b")

    with refused("MODEL_EXISTS"):
        rename(registry, "a", "b")


def test_a_model_in_use_is_deleted_only_by_force(registry: Registry) -> None:
    versions(registry, 2)
    promote(registry, 1)
    alias(registry, 2)

    with refused("MODEL_IN_USE") as caught:
        delete(registry)

    texts = [p.description for p in caught.error.preconditions]
    assert texts == ["version 1 is in stage 'Production'", "alias 'champion' is on version 2"]
    assert delete(registry, force=True).deleted


def test_a_model_in_an_inactive_stage_only_is_not_in_use(registry: Registry) -> None:
    versions(registry, 1)
    promote(registry, 1, "Archived")

    assert delete(registry).deleted


def test_a_deleted_model_is_not_found_nor_are_its_versions(registry: Registry) -> None:
    versions(registry, 1)

    deleted = delete(registry)

    assert deleted.revision == head(registry)
    with refused("MODEL_NOT_FOUND"):
        found(registry)
    with refused("MODEL_NOT_FOUND"):
        numbered(registry, 1)
    with refused("MODEL_NOT_FOUND"):
        version(registry)
    request = pb.ListModelVersionsRequest()
    assert not registry.ListModelVersions(request, ANONYMOUS).versions


def test_an_undeleted_model_is_back_with_versions_stages_and_aliases(registry: Registry) -> None:
    versions(registry, 2)
    promote(registry, 1)
    alias(registry, 2)
    before = found(registry)
    deleted = delete(registry, force=True)

    back = undelete(registry, deleted.id)

    after = found(registry)
    assert back == after.model
    assert not back.deleted
    assert back.revision == head(registry)
    assert (after.stages, after.aliases) == (before.stages, before.aliases)
    assert numbered(registry, 1).stages == ["Production"]
    assert version(registry).version == 3


def test_only_what_is_deleted_can_be_undeleted_or_purged(registry: Registry) -> None:
    made = model(registry)

    with refused("NOT_DELETED"):
        undelete(registry, made.id)
    with refused("NOT_DELETED"):
        registry.PurgeModel(pb.PurgeModelRequest(model_id=made.id, reason="law"), ANONYMOUS)


def test_an_unknown_id_is_not_found(registry: Registry) -> None:
    with refused("MODEL_NOT_FOUND"):
        undelete(registry, "nobody")


def test_an_id_of_another_namespace_is_not_found(registry: Registry) -> None:
    registry.CreateNamespace(
        pb.CreateNamespaceRequest(namespace=pb.Namespace(name="other")), ANONYMOUS
    )
    made = model(registry)
    delete(registry)

    request = pb.UndeleteModelRequest(namespace="other", model_id=made.id)
    with refused("MODEL_NOT_FOUND"):
        registry.UndeleteModel(request, ANONYMOUS)


def test_a_purged_model_keeps_its_name_and_loses_its_texts(registry: Registry) -> None:
    made = model(registry, description="secret", tags={"who": "secret"}, owner="secret")
    version(registry, description="secret", source="s3://secret", params={"p": "secret"})
    delete(registry)

    request = pb.PurgeModelRequest(model_id=made.id, reason="a court's order")
    purged = registry.PurgeModel(request, ANONYMOUS).model

    assert purged.purged
    assert purged.deleted
    assert (purged.name, purged.id) == ("churn", made.id)
    assert "secret" not in str(purged)
    assert "secret" not in str(last_event(registry))
    with refused("PURGED"):
        undelete(registry, made.id)
    with refused("PURGED"):
        registry.PurgeModel(request, ANONYMOUS)


def test_numbers_of_a_purged_model_stay_taken(registry: Registry) -> None:
    made = model(registry)
    version(registry)
    delete(registry)
    registry.PurgeModel(pb.PurgeModelRequest(model_id=made.id, reason="law"), ANONYMOUS)

    model(registry)

    assert version(registry).version == 2


def test_a_purged_models_stages_hold_no_stage_back(registry: Registry) -> None:
    stage(registry, "Canary", active=True)
    made = versions(registry, 1)[0]
    promote(registry, 1, "Canary")
    delete(registry, force=True)
    registry.PurgeModel(pb.PurgeModelRequest(model_id=made.model_id, reason="law"), ANONYMOUS)

    registry.DeleteStage(pb.DeleteStageRequest(stage="Canary"), ANONYMOUS)

    stages = registry.ListStages(pb.ListStagesRequest(), ANONYMOUS).stages
    assert "Canary" not in [s.name for s in stages]


def test_a_purge_needs_a_reason(registry: Registry) -> None:
    made = model(registry)
    delete(registry)

    with refused("INVALID_FIELD"):
        registry.PurgeModel(pb.PurgeModelRequest(model_id=made.id), ANONYMOUS)


def test_every_write_refuses_a_revision_that_is_not_the_models(registry: Registry) -> None:
    made = model(registry)
    stale = made.revision - 1
    requests: list[tuple[Any, Any]] = [
        (registry.SetModelTags, pb.SetModelTagsRequest(model="churn", tags={"a": ""})),
        (registry.DeleteModelTags, pb.DeleteModelTagsRequest(model="churn", keys=["a"])),
        (registry.RenameModel, pb.RenameModelRequest(model="churn", new_name="b")),
        (registry.DeleteModel, pb.DeleteModelRequest(model="churn")),
        (registry.UndeleteModel, pb.UndeleteModelRequest(model_id=made.id)),
        (registry.PurgeModel, pb.PurgeModelRequest(model_id=made.id, reason="law")),
    ]

    with refused("REVISION_MISMATCH"):
        update(registry, ["owner"], owner="me", expected_revision=stale)
    for operation, request in requests:
        request.expected_revision = stale
        with refused("REVISION_MISMATCH") as caught:
            operation(request, ANONYMOUS)
        assert caught.error.metadata == {"current_revision": str(made.revision)}

    assert found(registry).model == made


def test_a_write_at_the_models_revision_is_made(registry: Registry) -> None:
    made = model(registry)

    answer = update(registry, ["owner"], owner="me", expected_revision=made.revision)

    assert answer.model.owner == "me"
