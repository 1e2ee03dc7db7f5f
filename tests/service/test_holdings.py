"""Which version speaks for each stage, and when MLflow's clients say something last changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from stagewire import pb
from stagewire.callers import ANONYMOUS
from tests.factories import (
    alias,
    delete_version,
    found,
    model,
    numbered,
    promote,
    refused,
    rename,
    stage,
    version,
    versions,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from stagewire.service.registry import Registry


def latest(registry: Registry, *stages: str) -> list[tuple[str, int]]:
    request = pb.GetLatestVersionsRequest(model="churn", stages=stages)
    answer = registry.GetLatestVersions(request, ANONYMOUS)
    return [(held.stage, held.version.version) for held in answer.latest_versions]


def retire(
    registry: Registry, number: int, stage: str = "Production"
) -> pb.TransitionStageResponse:
    return promote(
        registry, number, stage, displace=pb.DISPLACEMENT_RETIRE, leave_other_stages=True
    )


def test_the_primary_speaks_for_its_stage_and_the_newest_for_none(registry: Registry) -> None:
    versions(registry, 6)
    promote(registry, 1, "Archived")
    promote(registry, 2, "Production")
    promote(registry, 4, "Production", displace=pb.DISPLACEMENT_KEEP)
    promote(registry, 6, "Staging")

    assert latest(registry) == [("None", 5), ("Staging", 6), ("Production", 4), ("Archived", 1)]
    assert latest(registry, "production", "NONE") == [("None", 5), ("Production", 4)]


def test_a_version_in_several_stages_speaks_for_each(registry: Registry) -> None:
    versions(registry, 1)
    promote(registry, 1, "Staging")
    promote(registry, 1, "Production")

    assert latest(registry) == [("Staging", 1), ("Production", 1)]


def test_the_deleted_speak_for_nothing(registry: Registry) -> None:
    versions(registry, 3)
    promote(registry, 2)
    delete_version(registry, 3)
    delete_version(registry, 2, force=True)

    assert latest(registry) == [("None", 1)]


def test_a_model_without_versions_has_none_that_speak(registry: Registry) -> None:
    model(registry)

    assert latest(registry) == []


def test_an_unknown_stage_is_not_found(registry: Registry) -> None:
    versions(registry, 1)

    with refused("STAGE_NOT_FOUND"):
        latest(registry, "Nowhere")


def test_a_list_and_a_read_say_alike_what_hangs_on_a_model(registry: Registry) -> None:
    versions(registry, 3)
    versions(registry, 1, "other")
    model(registry, "empty")
    promote(registry, 1)
    alias(registry, 2)

    request = pb.ListModelsRequest(include_holdings=True)
    listed = registry.ListModels(request, ANONYMOUS)

    assert [m.name for m in listed.models] == ["churn", "empty", "other"]
    for listed_model, held in zip(listed.models, listed.holdings, strict=True):
        whole = registry.GetModel(
            pb.GetModelRequest(model=listed_model.name, include_latest_versions=True), ANONYMOUS
        )
        assert list(held.latest_versions) == list(whole.latest_versions)
        assert held.aliases == whole.aliases
        assert held.activity_time == whole.activity_time
    assert not registry.ListModels(pb.ListModelsRequest(), ANONYMOUS).holdings
    assert not found(registry).latest_versions


def test_retiring_takes_the_others_out_of_every_active_stage(registry: Registry) -> None:
    versions(registry, 3)
    promote(registry, 1, "Staging")
    promote(registry, 1, "Production")
    promote(registry, 2, "Production", displace=pb.DISPLACEMENT_KEEP)
    promote(registry, 3, "Staging", displace=pb.DISPLACEMENT_KEEP)

    answer = retire(registry, 3)

    assert list(answer.version.stages) == ["Production"]
    assert [(v.version, list(v.stages)) for v in answer.displaced] == [
        (1, ["Archived"]),
        (2, ["Archived"]),
    ]
    assert len({v.revision for v in (*answer.displaced, answer.version)}) == 1


def test_the_retired_go_where_the_stage_sends_them_without_an_archive(registry: Registry) -> None:
    space = pb.Namespace(name="risk")
    registry.CreateNamespace(pb.CreateNamespaceRequest(namespace=space), ANONYMOUS)
    for name in ("Staging", "Production", "Archived"):
        gone = pb.DeleteStageRequest(namespace="risk", stage=name)
        if name == "Archived":
            stage(registry, "Live", namespace="risk", active=True)
            stage(registry, "Shelf", namespace="risk")
            stage(registry, "Canary", namespace="risk", active=True, displace_to="Shelf")
        registry.DeleteStage(gone, ANONYMOUS)
    model(registry, namespace="risk")
    for _ in range(2):
        version(registry, namespace="risk")

    def move(number: int, where: str) -> pb.TransitionStageResponse:
        request = pb.TransitionStageRequest(
            namespace="risk",
            model="churn",
            version=number,
            stage=where,
            displace=pb.DISPLACEMENT_RETIRE,
        )
        return registry.TransitionStage(request, ANONYMOUS)

    move(1, "Canary")
    assert [list(v.stages) for v in move(2, "Canary").displaced] == [["Shelf"]]
    with refused("INVALID_FIELD"):
        move(1, "Live")
    with refused("INVALID_FIELD"):
        move(1, "Shelf")
    with refused("INVALID_FIELD"):
        move(1, "None")


def change_description(registry: Registry) -> None:
    request = pb.UpdateModelVersionRequest(
        model="churn",
        version=1,
        update=pb.ModelVersionUpdate(description="new"),
        update_mask=FieldMask(paths=["description"]),
    )
    registry.UpdateModelVersion(request, ANONYMOUS)


def change_model(registry: Registry) -> None:
    request = pb.UpdateModelRequest(
        model="churn",
        update=pb.ModelUpdate(description="new"),
        update_mask=FieldMask(paths=["description"]),
    )
    registry.UpdateModel(request, ANONYMOUS)


def tag_version(registry: Registry) -> None:
    request = pb.SetModelVersionTagsRequest(model="churn", version=1, tags={"a": "b"})
    registry.SetModelVersionTags(request, ANONYMOUS)
    gone = pb.DeleteModelVersionTagsRequest(model="churn", version=1, keys=["a"])
    registry.DeleteModelVersionTags(gone, ANONYMOUS)


def tag_model(registry: Registry) -> None:
    request = pb.SetModelTagsRequest(model="churn", tags={"a": "b"})
    registry.SetModelTags(request, ANONYMOUS)
    gone = pb.DeleteModelTagsRequest(model="churn", keys=["a"])
    registry.DeleteModelTags(gone, ANONYMOUS)


def rename_there_and_back(registry: Registry) -> None:
    rename(registry, "churn", "retention")
    rename(registry, "retention", "churn")


def move_there_and_back(registry: Registry) -> None:
    promote(registry, 1)
    promote(registry, 1, "None")


@pytest.mark.parametrize(
    ("change", "moves_model", "moves_version"),
    [
        (change_model, True, False),
        (change_description, False, True),
        (tag_model, False, False),
        (tag_version, False, False),
        (lambda registry: alias(registry, 1), False, False),
        (version, True, False),
        (move_there_and_back, True, True),
        (rename_there_and_back, True, False),
        (lambda registry: delete_version(registry, 2), True, False),
    ],
)
def test_activity_is_what_mlflow_calls_an_update(
    registry: Registry,
    change: Callable[[Registry], object],
    *,
    moves_model: bool,
    moves_version: bool,
) -> None:
    versions(registry, 2)
    model_before = found(registry).activity_time.ToNanoseconds()
    version_before = numbered(registry, 1).activity_time.ToNanoseconds()

    change(registry)

    assert (found(registry).activity_time.ToNanoseconds() > model_before) == moves_model
    assert (numbered(registry, 1).activity_time.ToNanoseconds() > version_before) == moves_version


def test_versions_are_listed_by_their_activity(registry: Registry) -> None:
    versions(registry, 3)
    change_description(registry)
    alias(registry, 2)

    request = pb.ListModelVersionsRequest(order_by="last_updated_timestamp desc")
    listed = registry.ListModelVersions(request, ANONYMOUS).versions

    assert [v.version for v in listed] == [1, 3, 2]


def test_an_alias_may_be_a_word_of_any_script(registry: Registry) -> None:
    versions(registry, 1)

    alias(registry, 1, "größe_冠軍-1")

    assert found(registry).aliases == {"größe_冠軍-1": 1}
