"""Rollback: the holders before the last forward change, and further back when called again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stagewire import pb
from stagewire.callers import ANONYMOUS
from tests.factories import (
    delete_version,
    head,
    holders,
    numbered,
    promote,
    refused,
    rollback,
    stage,
    versions,
)

if TYPE_CHECKING:
    from stagewire.service.registry import Registry

KEEP = pb.DISPLACEMENT_KEEP


def stages_of(registry: Registry, number: int) -> list[str]:
    return list(numbered(registry, number).stages)


def test_each_rollback_walks_one_set_further_back(registry: Registry) -> None:
    versions(registry, 3)
    for number in (1, 2, 3):
        promote(registry, number)

    rollback(registry)
    first = holders(registry)
    rollback(registry)
    second = holders(registry)

    assert (first, second) == ([2], [1])
    with refused("NOTHING_TO_ROLL_BACK"):
        rollback(registry)


def test_a_rollback_after_a_promotion_goes_back_to_what_was_restored_before(
    registry: Registry,
) -> None:
    versions(registry, 4)
    for number in (1, 2, 3):
        promote(registry, number)
    rollback(registry)
    promote(registry, 4)

    rollback(registry)
    first = holders(registry)
    rollback(registry)
    second = holders(registry)

    assert (first, second) == ([2], [1])


def test_a_rollback_says_what_it_did(registry: Registry) -> None:
    versions(registry, 2)
    promoted = promote(registry, 1)
    promote(registry, 2)

    answer = rollback(registry)

    assert list(answer.restored) == [numbered(registry, 1)]
    assert list(answer.removed) == [numbered(registry, 2)]
    assert answer.restored_revision == promoted.revision
    assert answer.revision == head(registry) == answer.restored[0].revision
    assert list(answer.skipped_deleted) == []
    assert [
        (o.stage, o.primary_version, list(o.entered), list(o.left)) for o in answer.outcomes
    ] == [
        ("Production", 1, [1], [2]),
        ("Archived", 2, [2], [1]),
    ]


def test_the_restored_leave_archived_and_the_removed_enter_it(registry: Registry) -> None:
    versions(registry, 2)
    promote(registry, 1)
    promote(registry, 2)

    rollback(registry)

    assert (stages_of(registry, 1), stages_of(registry, 2)) == (["Production"], ["Archived"])


def test_who_was_archived_by_hand_stays_archived_when_restored(registry: Registry) -> None:
    versions(registry, 2)
    promote(registry, 1)
    promote(registry, 1, "Archived")
    promote(registry, 2)

    rollback(registry)

    assert stages_of(registry, 1) == ["Production", "Archived"]


def test_the_removed_stay_in_their_other_active_stages(registry: Registry) -> None:
    versions(registry, 2)
    promote(registry, 1)
    promote(registry, 2, "Staging")
    promote(registry, 2)

    rollback(registry)

    assert stages_of(registry, 2) == ["Staging"]


def test_a_whole_set_of_holders_comes_back(registry: Registry) -> None:
    versions(registry, 3)
    promote(registry, 1)
    promote(registry, 2, displace=KEEP)
    promote(registry, 3)

    answer = rollback(registry)

    assert holders(registry) == [1, 2]
    assert [v.version for v in answer.restored] == [1, 2]
    assert answer.outcomes[0].primary_version == 2


def test_what_stays_is_neither_restored_nor_removed(registry: Registry) -> None:
    versions(registry, 2)
    promote(registry, 1)
    promote(registry, 2, displace=KEEP)

    answer = rollback(registry)

    assert (list(answer.restored), [v.version for v in answer.removed]) == ([], [2])
    assert holders(registry) == [1]


def test_a_removal_can_be_rolled_back(registry: Registry) -> None:
    versions(registry, 1)
    promote(registry, 1)
    promote(registry, 1, "None")

    rollback(registry)

    assert holders(registry) == [1]


def test_the_deleted_are_left_out_and_named(registry: Registry) -> None:
    versions(registry, 3)
    promote(registry, 1)
    promote(registry, 2, displace=KEEP)
    promote(registry, 3)
    delete_version(registry, 2)

    answer = rollback(registry)

    assert holders(registry) == [1]
    assert list(answer.skipped_deleted) == [2]


def test_a_set_of_deleted_versions_only_is_refused(registry: Registry) -> None:
    versions(registry, 2)
    promote(registry, 1)
    promote(registry, 2)
    delete_version(registry, 1)

    with refused("ROLLBACK_TARGET_DELETED") as caught:
        rollback(registry)

    assert "version 1" in caught.error.message
    assert holders(registry) == [2]


def test_the_only_holder_deleted_can_not_be_brought_back(registry: Registry) -> None:
    versions(registry, 3)
    for number in (1, 2, 3):
        promote(registry, number)
    delete_version(registry, 3, force=True)

    with refused("ROLLBACK_TARGET_DELETED"):
        rollback(registry)


def test_a_deletion_among_others_can_be_rolled_past(registry: Registry) -> None:
    versions(registry, 3)
    promote(registry, 1)
    promote(registry, 2)
    promote(registry, 3, displace=KEEP)
    delete_version(registry, 3, force=True)

    answer = rollback(registry)

    assert holders(registry) == [1]
    assert answer.removed[0].version == 2


def test_a_first_promotion_has_nothing_before_it(registry: Registry) -> None:
    versions(registry, 1)

    with refused("NOTHING_TO_ROLL_BACK"):
        rollback(registry)
    promote(registry, 1)
    with refused("NOTHING_TO_ROLL_BACK"):
        rollback(registry)


def test_each_stage_has_a_history_of_its_own(registry: Registry) -> None:
    versions(registry, 2)
    promote(registry, 1)
    promote(registry, 1, "Staging")
    promote(registry, 2, "Staging")
    promote(registry, 2)

    rollback(registry, "Staging")

    assert holders(registry, "Staging") == [1]
    assert holders(registry, "Production") == [2]


def test_a_rollback_can_be_tried_first(registry: Registry) -> None:
    versions(registry, 2)
    promote(registry, 1)
    promote(registry, 2)
    before = head(registry)

    tried = rollback(registry, validate_only=True)

    assert ([v.version for v in tried.restored], tried.revision) == ([1], 0)
    assert (holders(registry), head(registry)) == ([2], before)


def test_a_rollback_refuses_a_revision_that_is_not_the_primarys(registry: Registry) -> None:
    versions(registry, 2)
    promote(registry, 1)
    made = promote(registry, 2).version

    with refused("REVISION_MISMATCH"):
        rollback(registry, expected_revision=made.revision - 1)

    assert rollback(registry, expected_revision=made.revision).revision == head(registry)


def test_a_refusing_stage_can_be_rolled_back(registry: Registry) -> None:
    stage(registry, "Canary", occupancy=pb.STAGE_OCCUPANCY_EXCLUSIVE)
    versions(registry, 2)
    promote(registry, 1, "Canary")
    promote(registry, 2, "Canary")

    rollback(registry, "canary")

    assert holders(registry, "Canary") == [1]


def test_rolling_back_through_a_batch_undoes_it_whole(registry: Registry) -> None:
    versions(registry, 3)
    promote(registry, 1)
    request = pb.BatchTransitionStagesRequest(
        transitions=[
            pb.Transition(model="churn", version=number, stage="Production") for number in (2, 3)
        ]
    )
    registry.BatchTransitionStages(request, ANONYMOUS)

    rollback(registry)

    assert holders(registry) == [1]


def test_a_rollback_of_an_unknown_stage_is_not_found(registry: Registry) -> None:
    versions(registry, 1)

    with refused("STAGE_NOT_FOUND"):
        rollback(registry, "Nowhere")
