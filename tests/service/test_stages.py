"""Stage definitions: what there is, in which order, and what keeps one from going."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from stagewire import pb
from stagewire.callers import ANONYMOUS
from tests.factories import (
    delete,
    head,
    model,
    numbered,
    promote,
    refused,
    stage,
    version,
    versions,
)

if TYPE_CHECKING:
    from stagewire.service.registry import Registry

EXCLUSIVE = pb.STAGE_OCCUPANCY_EXCLUSIVE


def stages(registry: Registry, **fields: Any) -> list[pb.Stage]:
    return list(registry.ListStages(pb.ListStagesRequest(**fields), ANONYMOUS).stages)


def names_of(registry: Registry) -> list[str]:
    return [s.name for s in stages(registry)]


def update(
    registry: Registry, name: str, paths: list[str], *, expected_revision: int = 0, **fields: Any
) -> pb.UpdateStageResponse:
    request = pb.UpdateStageRequest(
        stage=name,
        update=pb.StageUpdate(**fields),
        update_mask=FieldMask(paths=paths),
        expected_revision=expected_revision,
    )
    return registry.UpdateStage(request, ANONYMOUS)


def remove(registry: Registry, name: str, **fields: Any) -> int:
    return registry.DeleteStage(pb.DeleteStageRequest(stage=name, **fields), ANONYMOUS).revision


def test_a_namespace_begins_with_mlflows_stages(registry: Registry) -> None:
    defined = stages(registry)

    assert [(s.name, s.active, s.occupancy, s.displace_to) for s in defined] == [
        ("Staging", True, pb.STAGE_OCCUPANCY_DISPLACING, "Archived"),
        ("Production", True, pb.STAGE_OCCUPANCY_DISPLACING, "Archived"),
        ("Archived", False, pb.STAGE_OCCUPANCY_SHARED, ""),
    ]
    assert {s.revision for s in defined} == {1}


def test_a_stage_is_answered_whole_and_listed_in_its_place(registry: Registry) -> None:
    request = pb.CreateStageRequest(
        stage=pb.Stage(
            name="Canary",
            description="a few users",
            position=15,
            active=True,
            occupancy=EXCLUSIVE,
            displace_to="archived",
        )
    )

    answer = registry.CreateStage(request, ANONYMOUS)

    assert answer.stage == stages(registry)[1]
    assert names_of(registry) == ["Staging", "Canary", "Production", "Archived"]
    assert (answer.stage.namespace, answer.stage.displace_to) == ("default", "Archived")
    assert (answer.stage.occupancy, answer.stage.active) == (EXCLUSIVE, True)
    assert answer.stage.revision == answer.revision == head(registry)
    assert answer.stage.create_time == answer.stage.update_time


def test_a_stage_without_a_position_comes_last_and_is_shared(registry: Registry) -> None:
    made = stage(registry, "Shadow")

    assert names_of(registry)[-1] == "Shadow"
    assert made.occupancy == pb.STAGE_OCCUPANCY_SHARED


def test_the_last_position_there_is_can_be_followed(registry: Registry) -> None:
    stage(registry, "A", position=2**31 - 1)

    stage(registry, "B")

    assert names_of(registry)[-2:] == ["A", "B"]


def test_a_stage_can_be_tried_first(registry: Registry) -> None:
    request = pb.CreateStageRequest(stage=pb.Stage(name="Canary"), validate_only=True)

    answer = registry.CreateStage(request, ANONYMOUS)

    assert (answer.stage.name, answer.revision) == ("Canary", 0)
    assert "Canary" not in names_of(registry)


@pytest.mark.parametrize("name", ["Production", "production", "PRODUCTION"])
def test_a_stage_exists_in_any_letter_case(registry: Registry, name: str) -> None:
    with refused("STAGE_EXISTS") as caught:
        stage(registry, name)

    assert caught.error.resource_name == "Production"


@pytest.mark.parametrize("name", ["None", "none", "latest", "Latest", "", "a/b", "a@b", "12"])
def test_what_means_something_else_is_no_stage(registry: Registry, name: str) -> None:
    with refused("INVALID_FIELD"):
        stage(registry, name)


def test_a_stage_displaces_only_into_another_that_is_defined_and_shared(
    registry: Registry,
) -> None:
    stage(registry, "Single", occupancy=EXCLUSIVE)

    with refused("STAGE_NOT_FOUND"):
        stage(registry, "A", displace_to="Nowhere")
    with refused("INVALID_FIELD"):
        stage(registry, "A", displace_to="a")
    with refused("INVALID_FIELD"):
        stage(registry, "A", displace_to="Single")
    with refused("INVALID_FIELD"):
        update(registry, "Archived", ["displace_to"], displace_to="archived")
    with refused("STAGE_NOT_FOUND"):
        update(registry, "Archived", ["displace_to"], displace_to="Nowhere")


def test_an_update_changes_what_its_mask_names_and_nothing_else(registry: Registry) -> None:
    before = stages(registry)[1]

    answer = update(
        registry, "PRODUCTION", ["description", "position"], description="live", position=5
    )

    assert (answer.stage.description, answer.stage.position) == ("live", 5)
    assert (answer.stage.name, answer.stage.displace_to) == ("Production", "Archived")
    assert answer.stage.create_time == before.create_time
    assert answer.stage.revision == answer.revision == head(registry)
    assert names_of(registry) == ["Production", "Staging", "Archived"]
    assert stages(registry)[0] == answer.stage


def test_an_update_that_changes_nothing_takes_no_revision(registry: Registry) -> None:
    before = stages(registry)[1]

    answer = update(
        registry, "Production", ["active", "displace_to"], active=True, displace_to="aRchived"
    )

    assert answer.stage == before
    assert head(registry) == 1


@pytest.mark.parametrize("paths", [[], ["name"], ["*"]])
def test_a_mask_that_names_nothing_updatable_is_refused(
    registry: Registry, paths: list[str]
) -> None:
    with refused("INVALID_UPDATE_MASK"):
        update(registry, "Production", paths)


def test_a_stage_that_others_displace_into_must_stay_shared(registry: Registry) -> None:
    with refused("INVALID_FIELD"):
        update(registry, "Archived", ["occupancy"], occupancy=EXCLUSIVE)


def test_holders_stay_when_their_stage_becomes_exclusive(registry: Registry) -> None:
    versions(registry, 2)
    promote(registry, 1)
    promote(registry, 2, displace=pb.DISPLACEMENT_KEEP)

    update(registry, "Production", ["occupancy"], occupancy=EXCLUSIVE)

    assert [list(numbered(registry, n).stages) for n in (1, 2)] == [["Production"]] * 2


def test_a_versions_stages_come_in_the_namespaces_order(registry: Registry) -> None:
    versions(registry, 1)
    for name in ("Archived", "Production", "Staging"):
        promote(registry, 1, name)

    assert list(numbered(registry, 1).stages) == ["Staging", "Production", "Archived"]
    update(registry, "Archived", ["position"], position=1)
    assert list(numbered(registry, 1).stages) == ["Archived", "Staging", "Production"]


def test_an_empty_stage_can_be_deleted_and_made_again(registry: Registry) -> None:
    stage(registry, "Canary")

    revision = remove(registry, "canary")

    assert revision == head(registry)
    assert "Canary" not in names_of(registry)
    assert stage(registry, "CANARY").name == "CANARY"


def test_a_stage_that_others_displace_into_stays(registry: Registry) -> None:
    with refused("STAGE_IN_USE") as caught:
        remove(registry, "Archived")

    assert [p.description for p in caught.error.preconditions] == [
        "stage 'Staging' displaces into it",
        "stage 'Production' displaces into it",
    ]


def test_a_stage_that_is_held_stays_also_when_by_a_deleted_model(registry: Registry) -> None:
    versions(registry, 1)
    promote(registry, 1, "Staging")
    delete(registry, force=True)

    with refused("STAGE_IN_USE"):
        remove(registry, "Staging")


def test_a_stage_that_was_left_can_be_deleted(registry: Registry) -> None:
    versions(registry, 1)
    promote(registry, 1, "Staging")
    promote(registry, 1, "None")

    remove(registry, "Staging")

    with refused("STAGE_NOT_FOUND"):
        promote(registry, 1, "Staging")


def test_an_unknown_stage_is_not_found(registry: Registry) -> None:
    with refused("STAGE_NOT_FOUND"):
        remove(registry, "Canary")
    with refused("STAGE_NOT_FOUND"):
        update(registry, "Canary", ["active"])


def test_writes_refuse_a_revision_that_is_not_the_stages(registry: Registry) -> None:
    made = stage(registry, "Canary")
    stale = made.revision - 1

    with refused("REVISION_MISMATCH") as caught:
        update(registry, "Canary", ["active"], active=True, expected_revision=stale)
    assert caught.error.metadata == {"current_revision": str(made.revision)}
    with refused("REVISION_MISMATCH"):
        remove(registry, "Canary", expected_revision=stale)


def test_stages_are_listed_in_pages(registry: Registry) -> None:
    first = registry.ListStages(pb.ListStagesRequest(page_size=2), ANONYMOUS)

    request = pb.ListStagesRequest(page_size=2, page_token=first.next_page_token)
    second = registry.ListStages(request, ANONYMOUS)

    assert [s.name for s in (*first.stages, *second.stages)] == [
        "Staging",
        "Production",
        "Archived",
    ]
    assert second.next_page_token == ""


def test_stages_of_two_namespaces_know_nothing_of_each_other(registry: Registry) -> None:
    registry.CreateNamespace(
        pb.CreateNamespaceRequest(namespace=pb.Namespace(name="other")), ANONYMOUS
    )
    stage(registry, "Canary", namespace="other")
    model(registry)
    version(registry)

    assert "Canary" not in names_of(registry)
    with refused("STAGE_NOT_FOUND"):
        promote(registry, 1, "Canary")
    with refused("NAMESPACE_NOT_FOUND"):
        stages(registry, namespace="nowhere")
