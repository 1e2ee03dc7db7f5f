"""Transitions: who enters a stage, who is displaced, and what else stays as it was."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from stagewire import pb
from stagewire.callers import ANONYMOUS
from tests.factories import (
    delete_version,
    found,
    head,
    holders,
    last_event,
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

KEEP, ARCHIVE = pb.DISPLACEMENT_KEEP, pb.DISPLACEMENT_ARCHIVE


def stages_of(registry: Registry, number: int, name: str = "churn") -> list[str]:
    return list(numbered(registry, number, name).stages)


def outcomes(answer: Any) -> list[tuple[str, str, int, list[int], list[int]]]:
    return [
        (o.model, o.stage, o.primary_version, list(o.entered), list(o.left))
        for o in answer.outcomes
    ]


def batch(
    registry: Registry, *moves: tuple[int, str] | pb.Transition, **fields: Any
) -> pb.BatchTransitionStagesResponse:
    transitions = [
        m
        if isinstance(m, pb.Transition)
        else pb.Transition(model="churn", version=m[0], stage=m[1])
        for m in moves
    ]
    request = pb.BatchTransitionStagesRequest(transitions=transitions, **fields)
    return registry.BatchTransitionStages(request, ANONYMOUS)


def remove(
    registry: Registry, number: int, name: str = "Production", **fields: Any
) -> pb.RemoveFromStageResponse:
    request = pb.RemoveFromStageRequest(model="churn", version=number, stage=name, **fields)
    return registry.RemoveFromStage(request, ANONYMOUS)


def test_a_version_enters_a_stage(registry: Registry) -> None:
    versions(registry, 1)

    answer = promote(registry, 1, "sTAGING")

    assert answer.version == numbered(registry, 1)
    assert list(answer.version.stages) == ["Staging"]
    assert answer.version.revision == answer.revision == head(registry)
    assert list(answer.displaced) == []
    assert outcomes(answer) == [("churn", "Staging", 1, [1], [])]


def test_a_version_may_be_in_several_stages(registry: Registry) -> None:
    versions(registry, 1)

    promote(registry, 1, "Staging")
    promote(registry, 1, "Production")

    assert stages_of(registry, 1) == ["Staging", "Production"]


def test_entering_production_displaces_its_holders_into_archived(registry: Registry) -> None:
    versions(registry, 3)
    promote(registry, 1)
    promote(registry, 2, displace=KEEP)

    answer = promote(registry, 3)

    assert holders(registry) == [3]
    assert [stages_of(registry, n) for n in (1, 2)] == [["Archived"], ["Archived"]]
    assert list(answer.displaced) == [numbered(registry, 1), numbered(registry, 2)]
    assert outcomes(answer) == [
        ("churn", "Production", 3, [3], [1, 2]),
        ("churn", "Archived", 2, [1, 2], []),
    ]


def test_promoting_an_older_version_takes_effect(registry: Registry) -> None:
    versions(registry, 2)
    promote(registry, 2)

    answer = promote(registry, 1)

    assert holders(registry) == [1]
    assert answer.outcomes[0].primary_version == 1


def test_the_displaced_enter_archived_only_if_then_in_no_active_stage(registry: Registry) -> None:
    versions(registry, 2)
    promote(registry, 1, "Staging")
    promote(registry, 1, "Production")

    promote(registry, 2, "Production")

    assert stages_of(registry, 1) == ["Staging"]


def test_keeping_the_holders_names_the_primary_they_leave(registry: Registry) -> None:
    versions(registry, 2)
    promote(registry, 2)

    answer = promote(registry, 1, displace=KEEP)

    assert holders(registry) == [1, 2]
    assert list(answer.displaced) == []
    assert outcomes(answer) == [("churn", "Production", 2, [1], [])]


def test_a_shared_stage_keeps_its_holders_unless_told_to_archive_them(registry: Registry) -> None:
    stage(registry, "Canary", active=True, displace_to="Archived")
    versions(registry, 3)
    promote(registry, 1, "Canary")
    promote(registry, 2, "Canary")
    shared = holders(registry, "Canary")

    promote(registry, 3, "Canary", displace=ARCHIVE)

    assert shared == [1, 2]
    assert holders(registry, "Canary") == [3]
    assert stages_of(registry, 1) == ["Archived"]


def test_the_displaced_just_leave_a_stage_that_displaces_nowhere(registry: Registry) -> None:
    stage(registry, "Canary", active=True)
    versions(registry, 2)
    promote(registry, 1, "Canary")

    promote(registry, 2, "Canary", displace=ARCHIVE)

    assert stages_of(registry, 1) == []


def test_an_exclusive_stage_displaces_its_holder_and_keeps_none(registry: Registry) -> None:
    stage(registry, "Canary", active=True, occupancy=pb.STAGE_OCCUPANCY_EXCLUSIVE)
    versions(registry, 3)
    promote(registry, 1, "Canary")
    promote(registry, 2, "Canary")

    with refused("STAGE_OCCUPIED") as caught:
        promote(registry, 3, "Canary", displace=KEEP)

    assert holders(registry, "Canary") == [2]
    assert caught.error.preconditions[0].subject == "churn/Canary"


@pytest.mark.parametrize("displace", [pb.DISPLACEMENT_UNSPECIFIED, KEEP, ARCHIVE])
def test_a_refusing_stage_is_entered_only_when_empty(
    registry: Registry, displace: pb.Displacement.ValueType
) -> None:
    stage(registry, "Canary", occupancy=pb.STAGE_OCCUPANCY_EXCLUSIVE_REFUSING)
    versions(registry, 2)
    promote(registry, 1, "Canary")

    with refused("STAGE_OCCUPIED"):
        promote(registry, 2, "Canary", displace=displace)

    remove(registry, 1, "Canary")
    assert promote(registry, 2, "Canary", displace=displace).outcomes[0].primary_version == 2


def test_the_holder_of_an_exclusive_stage_may_enter_it_again(registry: Registry) -> None:
    stage(registry, "Canary", occupancy=pb.STAGE_OCCUPANCY_EXCLUSIVE_REFUSING)
    versions(registry, 1)
    promote(registry, 1, "Canary")

    assert promote(registry, 1, "Canary", displace=KEEP).revision == head(registry)


def test_a_version_leaves_its_other_stages_when_told(registry: Registry) -> None:
    versions(registry, 1)
    promote(registry, 1, "Staging")
    promote(registry, 1, "Archived")

    answer = promote(registry, 1, "Production", leave_other_stages=True)

    assert stages_of(registry, 1) == ["Production"]
    assert outcomes(answer) == [
        ("churn", "Staging", 0, [], [1]),
        ("churn", "Production", 1, [1], []),
        ("churn", "Archived", 0, [], [1]),
    ]


def test_none_means_no_stage(registry: Registry) -> None:
    versions(registry, 1)
    promote(registry, 1, "Staging")
    promote(registry, 1, "Production")

    answer = promote(registry, 1, "none")

    assert list(answer.version.stages) == stages_of(registry, 1) == []
    assert [(o.stage, list(o.left)) for o in answer.outcomes] == [
        ("Staging", [1]),
        ("Production", [1]),
    ]


@pytest.mark.parametrize("name", ["Production", "None"])
def test_a_move_to_where_it_is_takes_no_revision(registry: Registry, name: str) -> None:
    versions(registry, 1)
    first = promote(registry, 1, name)

    again = promote(registry, 1, name)

    assert again.version == first.version
    assert (again.revision, list(again.outcomes)) == (head(registry), [])
    assert again.revision == first.revision


def test_entering_again_still_displaces_the_others(registry: Registry) -> None:
    versions(registry, 2)
    promote(registry, 2)
    promote(registry, 1, displace=KEEP)

    answer = promote(registry, 1)

    assert holders(registry) == [1]
    assert answer.version == numbered(registry, 1)
    assert list(answer.displaced) == [numbered(registry, 2)]


@pytest.mark.parametrize(
    "status",
    [pb.MODEL_VERSION_STATUS_PENDING_REGISTRATION, pb.MODEL_VERSION_STATUS_FAILED_REGISTRATION],
)
def test_only_a_ready_version_enters_a_stage(
    registry: Registry, status: pb.ModelVersionStatus.ValueType
) -> None:
    model(registry)
    version(registry, status=status)

    with refused("VERSION_NOT_READY"):
        promote(registry, 1)

    assert promote(registry, 1, "None").version.version == 1


def test_a_move_of_what_is_not_there_is_not_found(registry: Registry) -> None:
    versions(registry, 2)
    delete_version(registry, 2)

    with refused("STAGE_NOT_FOUND"):
        promote(registry, 1, "Prodution")
    with refused("VERSION_NOT_FOUND"):
        promote(registry, 2)
    with refused("MODEL_NOT_FOUND"):
        promote(registry, 1, name="ghost")
    with refused("NAMESPACE_NOT_FOUND"):
        promote(registry, 1, namespace="nowhere")


def test_a_move_refuses_a_revision_that_is_not_the_versions(registry: Registry) -> None:
    made = versions(registry, 1)[0]
    promote(registry, 1, "Staging")

    with refused("REVISION_MISMATCH"):
        promote(registry, 1, expected_revision=made.revision)

    assert stages_of(registry, 1) == ["Staging"]


def test_a_move_can_be_tried_first(registry: Registry) -> None:
    versions(registry, 2)
    promote(registry, 1)
    before = head(registry)

    tried = promote(registry, 2, validate_only=True)

    assert (list(tried.version.stages), tried.revision) == (["Production"], 0)
    assert [v.version for v in tried.displaced] == [1]
    assert outcomes(tried)[0] == ("churn", "Production", 2, [2], [1])
    assert (holders(registry), head(registry)) == ([1], before)


def test_a_move_is_one_change_of_each_version_it_moves(registry: Registry) -> None:
    versions(registry, 2)
    promote(registry, 1)

    answer = promote(registry, 2, reason="better")

    event = last_event(registry)
    assert (event.revision, event.payload.reason) == (answer.revision, "better")
    assert [
        (
            r.change.version,
            list(r.change.entered_stages),
            list(r.change.left_stages),
            list(r.before.stages),
            list(r.after.stages),
            {p.stage: p.version for p in r.change.primaries},
        )
        for r in event.payload.records
    ] == [
        (
            1,
            ["Archived"],
            ["Production"],
            ["Production"],
            ["Archived"],
            {"Production": 2, "Archived": 1},
        ),
        (2, ["Production"], [], [], ["Production"], {"Production": 2}),
    ]


def test_who_becomes_primary_by_anothers_leaving_is_recorded_and_not_changed(
    registry: Registry,
) -> None:
    versions(registry, 2)
    promote(registry, 1)
    promote(registry, 2, displace=KEEP)
    before = numbered(registry, 1)

    remove(registry, 2)

    records = last_event(registry).payload.records
    assert [(r.change.kind, r.change.version) for r in records] == [
        (pb.CHANGE_KIND_STAGES_CHANGED, 2),
        (pb.CHANGE_KIND_STAGE_PRIMARY_CHANGED, 1),
    ]
    assert [(p.stage, p.version) for p in records[1].change.primaries] == [("Production", 1)]
    assert numbered(registry, 1) == before


def test_a_version_is_taken_out_of_one_stage(registry: Registry) -> None:
    versions(registry, 2)
    promote(registry, 1, "Staging")
    promote(registry, 1)
    promote(registry, 2, displace=KEEP)

    answer = remove(registry, 2, "production")

    assert holders(registry) == [1]
    assert answer.version == numbered(registry, 2)
    assert outcomes(answer) == [("churn", "Production", 1, [], [2])]
    assert answer.revision == answer.version.revision == head(registry)
    assert stages_of(registry, 1) == ["Staging", "Production"]


def test_taking_out_what_is_not_in_takes_no_revision(registry: Registry) -> None:
    made = versions(registry, 1)[0]

    answer = remove(registry, 1)

    assert answer.version == made
    assert (answer.revision, list(answer.outcomes)) == (made.revision, [])
    with refused("STAGE_NOT_FOUND"):
        remove(registry, 1, "Nowhere")


def test_a_swap_is_one_revision_that_archives_nobody(registry: Registry) -> None:
    versions(registry, 2)
    promote(registry, 1, "Staging")
    promote(registry, 2, "Production")
    before = head(registry)

    answer = batch(
        registry,
        pb.Transition(model="churn", version=1, stage="Production", leave_other_stages=True),
        pb.Transition(model="churn", version=2, stage="Staging", leave_other_stages=True),
    )

    assert answer.revision == head(registry) == before + 1
    assert [stages_of(registry, n) for n in (1, 2)] == [["Production"], ["Staging"]]
    assert list(answer.versions) == [numbered(registry, 1), numbered(registry, 2)]
    assert outcomes(answer) == [
        ("churn", "Staging", 2, [2], [1]),
        ("churn", "Production", 1, [1], [2]),
    ]


def test_a_plain_swap_archives_nobody_either(registry: Registry) -> None:
    versions(registry, 2)
    promote(registry, 1, "Staging")
    promote(registry, 2, "Production")

    batch(registry, (1, "Production"), (2, "Staging"))

    assert [stages_of(registry, n) for n in (1, 2)] == [["Production"], ["Staging"]]


def test_a_batch_is_all_or_nothing_and_names_the_move_refused(registry: Registry) -> None:
    versions(registry, 2)
    promote(registry, 1)
    before = head(registry)

    with refused("VERSION_NOT_FOUND") as caught:
        batch(registry, (2, "Production"), (9, "Staging"))

    assert caught.error.message.startswith("transitions[1]: ")
    assert (holders(registry), head(registry)) == ([1], before)


def test_a_batch_moves_versions_of_several_models_in_one_revision(registry: Registry) -> None:
    versions(registry, 1, "b")
    versions(registry, 1, "a")

    answer = batch(
        registry,
        pb.Transition(model="b", version=1, stage="Production"),
        pb.Transition(model="a", version=1, stage="Staging"),
    )

    assert [(v.model, v.version, list(v.stages)) for v in answer.versions] == [
        ("a", 1, ["Staging"]),
        ("b", 1, ["Production"]),
    ]
    assert {v.revision for v in answer.versions} == {answer.revision}
    assert len(last_event(registry).payload.records) == 2


def test_moves_of_a_batch_are_made_in_their_order(registry: Registry) -> None:
    versions(registry, 3)

    batch(registry, (1, "Production"), (2, "Production"), (3, "Production"))

    assert holders(registry) == [3]
    assert [stages_of(registry, n) for n in (1, 2)] == [["Archived"], ["Archived"]]


def test_a_batch_can_fill_a_stage_with_a_set(registry: Registry) -> None:
    versions(registry, 3)
    promote(registry, 1)

    batch(
        registry,
        pb.Transition(model="churn", version=2, stage="Production"),
        pb.Transition(model="churn", version=3, stage="Production", displace=KEEP),
    )

    assert holders(registry) == [2, 3]


def test_two_spellings_of_a_model_in_a_batch_are_one(registry: Registry) -> None:
    composed, decomposed = "é", "e\N{COMBINING ACUTE ACCENT}"
    versions(registry, 2, composed)

    batch(
        registry,
        pb.Transition(model=composed, version=1, stage="Production"),
        pb.Transition(model=decomposed, version=2, stage="Production"),
    )

    assert holders(registry, name=composed) == [2]
    assert stages_of(registry, 1, composed) == ["Archived"]


def test_a_batch_checks_each_moves_revision_before_it_moves_anything(registry: Registry) -> None:
    first, second = versions(registry, 2)

    with refused("REVISION_MISMATCH"):
        batch(
            registry,
            pb.Transition(
                model="churn", version=1, stage="Staging", expected_revision=first.revision
            ),
            pb.Transition(
                model="churn", version=2, stage="Staging", expected_revision=second.revision - 1
            ),
        )

    assert found(registry).stages == type(found(registry))().stages


def test_a_batch_can_be_tried_first_and_may_change_nothing(registry: Registry) -> None:
    versions(registry, 1)
    before = head(registry)

    tried = batch(registry, (1, "Production"), validate_only=True)
    idle = batch(registry, (1, "None"))

    assert (tried.revision, [list(v.stages) for v in tried.versions]) == (0, [["Production"]])
    assert (idle.revision, list(idle.versions), list(idle.outcomes)) == (before, [], [])
    assert head(registry) == before


def test_a_batch_needs_a_move(registry: Registry) -> None:
    with refused("INVALID_FIELD"):
        batch(registry)
