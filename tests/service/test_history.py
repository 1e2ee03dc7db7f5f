"""Stage history: who held a stage when, by whom and why; and who held it then."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from stagewire import pb
from stagewire.callers import ANONYMOUS, Caller
from tests.factories import (
    delete_version,
    found,
    model,
    promote,
    refused,
    rollback,
    stage,
    versions,
)

if TYPE_CHECKING:
    from stagewire.service.registry import Registry


def history(registry: Registry, **fields: Any) -> list[pb.StageTenure]:
    request = pb.GetStageHistoryRequest(model="churn", **fields)
    return list(registry.GetStageHistory(request, ANONYMOUS).tenures)


def held(registry: Registry, **fields: Any) -> list[tuple[str, int]]:
    return [(t.stage, t.version) for t in history(registry, **fields)]


def test_a_tenure_says_who_came_and_went_when_and_why(registry: Registry) -> None:
    versions(registry, 2)

    def move(number: int, who: str, why: str) -> pb.TransitionStageResponse:
        request = pb.TransitionStageRequest(
            model="churn", version=number, stage="Production", reason=why
        )
        return registry.TransitionStage(request, Caller(who))

    first, second = move(1, "ann", "good"), move(2, "bob", "better")

    *later, oldest = history(registry)
    by_stage = {(t.stage, t.version): t for t in later}
    assert oldest == pb.StageTenure(
        stage="Production",
        version=1,
        entered_revision=first.revision,
        entered_time=first.version.update_time,
        entered_by="ann",
        entered_reason="good",
        cause=pb.STAGE_ENTRY_CAUSE_TRANSITION,
        left_revision=second.revision,
        left_time=second.version.update_time,
        left_by="bob",
        left_reason="better",
    )
    assert by_stage["Archived", 1].cause == pb.STAGE_ENTRY_CAUSE_DISPLACEMENT
    assert by_stage["Production", 2].left_revision == 0
    assert not by_stage["Production", 2].HasField("left_time")


def test_a_rollback_is_told_from_a_promotion(registry: Registry) -> None:
    versions(registry, 2)
    promote(registry, 1)
    promote(registry, 2)
    rollback(registry, reason="worse")

    newest = history(registry, stage="production")[0]

    assert (newest.version, newest.cause) == (1, pb.STAGE_ENTRY_CAUSE_ROLLBACK)
    assert newest.entered_reason == "worse"


def test_who_held_a_stage_at_a_time_or_revision(registry: Registry) -> None:
    versions(registry, 2)
    first = promote(registry, 1)
    second = promote(registry, 2)
    promote(registry, 2, "None")

    def at(answer: pb.TransitionStageResponse) -> list[list[tuple[str, int]]]:
        moment = answer.version.update_time
        return [
            held(registry, stage="Production", at_revision=answer.revision),
            held(registry, stage="Production", at_time=moment),
        ]

    assert at(first) == [[("Production", 1)]] * 2
    assert at(second) == [[("Production", 2)]] * 2
    assert held(registry, at_revision=first.revision - 1) == []
    assert held(registry, at_revision=second.revision + 1) == [("Archived", 1)]


def test_history_is_listed_newest_first_in_pages(registry: Registry) -> None:
    versions(registry, 3)
    for number in (1, 2, 3):
        promote(registry, number)
    whole = history(registry)
    seen: list[pb.StageTenure] = []
    token = ""

    while True:
        request = pb.GetStageHistoryRequest(model="churn", page_size=1, page_token=token)
        page = registry.GetStageHistory(request, ANONYMOUS)
        seen += page.tenures
        token = page.next_page_token
        if not token:
            break

    assert seen == whole
    revisions = [t.entered_revision for t in whole]
    assert revisions == sorted(revisions, reverse=True)
    assert len(whole) == 5


def test_a_deleted_versions_tenures_stay_and_have_an_end(registry: Registry) -> None:
    versions(registry, 1)
    promote(registry, 1)
    gone = delete_version(registry, 1, force=True)

    tenure = history(registry)[0]

    assert (tenure.version, tenure.left_revision) == (1, gone.revision)


def test_a_stage_whose_definition_is_gone_keeps_its_history(registry: Registry) -> None:
    stage(registry, "Canary")
    versions(registry, 1)
    promote(registry, 1, "Canary")
    promote(registry, 1, "None")
    registry.DeleteStage(pb.DeleteStageRequest(stage="Canary"), ANONYMOUS)

    assert held(registry, stage="canary") == [("Canary", 1)]
    assert list(found(registry).stages) == []


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"stage": "Nowhere"}, "STAGE_NOT_FOUND"),
        ({"namespace": "nowhere"}, "NAMESPACE_NOT_FOUND"),
        ({"page_token": "x"}, "INVALID_PAGE_TOKEN"),
        ({"at_revision": -1}, "INVALID_FIELD"),
    ],
    ids=str,
)
def test_what_is_not_there_is_refused(
    registry: Registry, fields: dict[str, Any], reason: str
) -> None:
    model(registry)

    with refused(reason):
        history(registry, **fields)
