"""What a name goes on meaning: a (name, number) pair never means two versions, ever."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from stagewire import pb
from stagewire.callers import ANONYMOUS
from tests.factories import (
    alias,
    delete,
    delete_version,
    found,
    model,
    numbered,
    promote,
    refused,
    rename,
    undelete,
    version,
    versions,
)

if TYPE_CHECKING:
    from stagewire.service.registry import Registry

WRITES: dict[str, Callable[[], Any]] = {
    "SetModelTags": lambda: pb.SetModelTagsRequest(model="old", tags={"a": ""}),
    "DeleteModelTags": lambda: pb.DeleteModelTagsRequest(model="old", keys=["a"]),
    "UpdateModel": lambda: pb.UpdateModelRequest(
        model="old", update=pb.ModelUpdate(), update_mask=FieldMask(paths=["owner"])
    ),
    "RenameModel": lambda: pb.RenameModelRequest(model="old", new_name="newest"),
    "DeleteModel": lambda: pb.DeleteModelRequest(model="old"),
    "CreateModelVersion": lambda: pb.CreateModelVersionRequest(model="old"),
    "UpdateModelVersion": lambda: pb.UpdateModelVersionRequest(
        model="old",
        version=1,
        update=pb.ModelVersionUpdate(description="x"),
        update_mask=FieldMask(paths=["description"]),
    ),
    "DeleteModelVersion": lambda: pb.DeleteModelVersionRequest(model="old", version=1),
    "UndeleteModelVersion": lambda: pb.UndeleteModelVersionRequest(model="old", version=1),
    "PurgeModelVersion": lambda: pb.PurgeModelVersionRequest(model="old", version=1, reason="law"),
    "SetModelVersionTags": lambda: pb.SetModelVersionTagsRequest(
        model="old", version=1, tags={"a": ""}
    ),
    "DeleteModelVersionTags": lambda: pb.DeleteModelVersionTagsRequest(
        model="old", version=1, keys=["a"]
    ),
    "CopyModelVersion": lambda: pb.CopyModelVersionRequest(
        model="old", version=1, target_model="new"
    ),
    "SetAlias": lambda: pb.SetAliasRequest(model="old", version=1, alias="champion"),
    "DeleteAlias": lambda: pb.DeleteAliasRequest(model="old", alias="champion"),
    "TransitionStage": lambda: pb.TransitionStageRequest(model="old", version=1, stage="Staging"),
    "BatchTransitionStages": lambda: pb.BatchTransitionStagesRequest(
        transitions=[pb.Transition(model="old", version=1, stage="Staging")]
    ),
    "RemoveFromStage": lambda: pb.RemoveFromStageRequest(model="old", version=1, stage="Staging"),
    "RollbackStage": lambda: pb.RollbackStageRequest(model="old", stage="Staging"),
    "LogMetrics": lambda: pb.LogMetricsRequest(
        model="old", version=1, metrics=[pb.Metric(key="auc", value=1)]
    ),
}


def test_numbers_are_not_reused_after_a_version_is_deleted(registry: Registry) -> None:
    versions(registry, 3)

    delete_version(registry, 3)

    assert version(registry).version == 4


def test_a_name_made_again_goes_on_from_its_highest_number(registry: Registry) -> None:
    versions(registry, 3)
    delete_version(registry, 3)
    delete(registry)

    model(registry)

    assert found(registry).latest_version == 0
    assert version(registry).version == 4


def test_a_name_whose_bearer_had_no_version_starts_at_one_again(registry: Registry) -> None:
    model(registry)
    delete(registry)

    model(registry)

    assert version(registry).version == 1


def test_numbers_of_a_deleted_bearer_are_not_found_under_its_successor(registry: Registry) -> None:
    versions(registry, 2)
    delete(registry)
    model(registry)
    version(registry)

    assert numbered(registry, 3).version == 3
    with refused("VERSION_NOT_FOUND"):
        numbered(registry, 1)


def test_an_old_name_is_followed_by_reads(registry: Registry) -> None:
    versions(registry, 2, "old")
    promote(registry, 1, name="old")
    alias(registry, 2, name="old")
    rename(registry, "old", "new")

    def resolved(**selector: Any) -> int:
        request = pb.ResolveModelVersionRequest(model="old", **selector)
        return registry.ResolveModelVersion(request, ANONYMOUS).version.version

    assert found(registry, "old") == found(registry, "new")
    assert numbered(registry, 1, "old") == numbered(registry, 1, "new")
    assert resolved() == 2
    assert resolved(stage="Production") == 1
    assert resolved(alias="champion") == 2
    listed = registry.ListModelVersions(pb.ListModelVersionsRequest(model="old"), ANONYMOUS)
    assert [v.version for v in listed.versions] == [2, 1]
    tenures = registry.GetStageHistory(pb.GetStageHistoryRequest(model="old"), ANONYMOUS).tenures
    assert [t.version for t in tenures] == [1]


def test_versions_made_under_the_new_name_are_not_found_under_the_old(registry: Registry) -> None:
    versions(registry, 1, "old")
    rename(registry, "old", "new")
    version(registry, "new")

    with refused("VERSION_NOT_FOUND"):
        numbered(registry, 2, "old")


@pytest.mark.parametrize("operation", sorted(WRITES))
def test_writes_through_an_old_name_say_the_new_one(registry: Registry, operation: str) -> None:
    versions(registry, 1, "old")
    rename(registry, "old", "new")
    call = getattr(registry, operation)

    with refused("RENAMED") as caught:
        call(WRITES[operation](), ANONYMOUS)

    assert caught.error.metadata == {"model": "new"}


def test_an_old_name_taken_again_means_the_new_bearer_but_for_its_old_numbers(
    registry: Registry,
) -> None:
    first = versions(registry, 2, "old")[0]
    rename(registry, "old", "new")

    second = model(registry, "old")
    made = version(registry, "old")

    assert made.version == 3
    assert found(registry, "old").model.id == second.id
    assert numbered(registry, 3, "old").model_id == second.id
    assert numbered(registry, 1, "old").model_id == first.model_id
    assert numbered(registry, 1, "old").model == "new"
    request = pb.ResolveModelVersionRequest(model="old")
    assert registry.ResolveModelVersion(request, ANONYMOUS).version.version == 3


def test_writes_to_old_numbers_of_a_name_taken_again_say_whose_they_are(
    registry: Registry,
) -> None:
    versions(registry, 1, "old")
    rename(registry, "old", "new")
    model(registry, "old")
    version(registry, "old")

    for operation in ("SetModelVersionTags", "SetAlias", "TransitionStage", "CopyModelVersion"):
        with refused("RENAMED") as caught:
            getattr(registry, operation)(WRITES[operation](), ANONYMOUS)
        assert caught.error.metadata == {"model": "new"}


def test_a_name_given_up_by_deletion_means_the_model_that_left_it_by_rename(
    registry: Registry,
) -> None:
    first = model(registry, "old")
    rename(registry, "old", "new")
    model(registry, "old")
    delete(registry, "old")

    assert found(registry, "old").model.id == first.id


def test_an_old_name_of_a_deleted_model_means_nothing(registry: Registry) -> None:
    versions(registry, 1, "old")
    rename(registry, "old", "new")
    delete(registry, "new")

    with refused("MODEL_NOT_FOUND"):
        found(registry, "old")
    with refused("MODEL_NOT_FOUND"):
        numbered(registry, 1, "old")


def test_a_model_may_take_its_own_name_back(registry: Registry) -> None:
    versions(registry, 2, "old")
    rename(registry, "old", "new")
    version(registry, "new")

    rename(registry, "new", "old")

    assert [numbered(registry, n, "old").version for n in (1, 2, 3)] == [1, 2, 3]
    assert numbered(registry, 3, "new").model == "old"
    assert version(registry, "old").version == 4
    with refused("VERSION_NOT_FOUND"):
        numbered(registry, 4, "new")


def test_a_model_may_go_back_and_forth(registry: Registry) -> None:
    made = versions(registry, 1, "a")[0]

    for _ in range(3):
        rename(registry, "a", "b")
        rename(registry, "b", "a")

    assert numbered(registry, 1, "a").model_id == numbered(registry, 1, "b").model_id
    assert found(registry, "b").model.id == made.model_id
    assert version(registry, "a").version == 2


def test_taking_a_name_whose_numbers_belong_to_another_is_refused(registry: Registry) -> None:
    versions(registry, 3, "a")
    versions(registry, 5, "b")
    delete(registry, "b")

    with refused("NAME_HAS_HISTORY"):
        rename(registry, "a", "b")

    assert found(registry, "a").model.name == "a"
    assert version(registry, "a").version == 4


def test_going_back_is_refused_when_the_name_gave_out_ones_new_numbers(registry: Registry) -> None:
    versions(registry, 1, "a")
    rename(registry, "a", "b")
    version(registry, "b")
    model(registry, "a")
    version(registry, "a")
    rename(registry, "a", "c")

    with refused("NAME_HAS_HISTORY"):
        rename(registry, "b", "a")


def test_going_back_is_fine_when_others_numbers_lie_beside_ones_own(registry: Registry) -> None:
    mine = versions(registry, 1, "a")[0].model_id
    rename(registry, "a", "b")
    model(registry, "a")
    theirs = version(registry, "a").model_id
    rename(registry, "a", "c")

    rename(registry, "b", "a")

    assert version(registry, "a").version == 3
    owners = [numbered(registry, n, "a").model_id for n in (1, 2, 3)]
    assert owners == [mine, theirs, mine]


def test_a_model_without_versions_takes_any_free_name_and_goes_on_from_it(
    registry: Registry,
) -> None:
    versions(registry, 3, "a")
    delete(registry, "a")
    model(registry, "b")

    rename(registry, "b", "a")

    assert version(registry, "a").version == 4


def test_undeleting_after_the_name_was_taken_is_refused(registry: Registry) -> None:
    first = model(registry)
    delete(registry)
    model(registry)

    with refused("MODEL_EXISTS"):
        undelete(registry, first.id)


def test_undeleting_after_the_name_was_free_again_goes_on_from_the_highest(
    registry: Registry,
) -> None:
    first = versions(registry, 2)[0].model_id
    delete(registry)
    model(registry)
    version(registry)
    delete(registry)

    undelete(registry, first)

    assert [numbered(registry, n).model_id for n in (1, 2)] == [first, first]
    with refused("VERSION_NOT_FOUND"):
        numbered(registry, 3)
    assert version(registry).version == 4


def test_an_undeleted_model_answers_under_its_old_name_again(registry: Registry) -> None:
    made = versions(registry, 1, "old")[0]
    rename(registry, "old", "new")
    delete(registry, "new")

    undelete(registry, made.model_id)

    assert found(registry, "old").model.name == "new"
    assert numbered(registry, 1, "old").model == "new"


def test_names_of_two_namespaces_know_nothing_of_each_other(registry: Registry) -> None:
    registry.CreateNamespace(
        pb.CreateNamespaceRequest(namespace=pb.Namespace(name="other")), ANONYMOUS
    )
    versions(registry, 2)
    model(registry, namespace="other")

    assert version(registry, namespace="other").version == 1
