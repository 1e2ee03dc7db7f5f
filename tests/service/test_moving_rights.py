"""Whoever may move into one stage, or under one alias, takes nothing out of another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from stagewire import names, pb, rights
from stagewire.callers import ANONYMOUS, Caller
from stagewire.rights import Scope
from tests.factories import (
    alias,
    delete,
    delete_version,
    found,
    hand_out_sessions,
    promote,
    refused,
    stage,
    versions,
)

if TYPE_CHECKING:
    from stagewire.service.registry import Registry


def may_move(*stages: str, aliases: tuple[str, ...] = (), role: str = "editor") -> Caller:
    """Give one who may edit everything, and move versions at these places alone."""
    scopes = {Scope(role, stage=names.stage_key(place)) for place in stages}
    scopes |= {Scope(role, alias=place) for place in aliases}
    return Caller(name="ann", rights=rights.of(frozenset(scopes)))


def held(registry: Registry, name: str = "churn") -> dict[str, list[int]]:
    """Read what a model's stages and aliases hold."""
    state = found(registry, name)
    return {
        **{holders.stage: list(holders.versions) for holders in state.stages},
        **{f"@{text}": [number] for text, number in state.aliases.items()},
    }


@pytest.fixture(autouse=True)
def _in_use(registry: Registry) -> None:
    """Have version 1 in Production and champion, 2 in Staging, 3 in both, 4 in Archived."""
    versions(registry, 5)
    promote(registry, 1)
    alias(registry, 1)
    promote(registry, 2, "Staging")
    promote(registry, 3, displace=pb.DISPLACEMENT_KEEP)
    promote(registry, 3, "Staging", displace=pb.DISPLACEMENT_KEEP)
    promote(registry, 4, "Archived")


IN_USE = {"Staging": [2, 3], "Production": [1, 3], "Archived": [4], "@champion": [1]}
RETIRE, ARCHIVE = pb.DISPLACEMENT_RETIRE, pb.DISPLACEMENT_ARCHIVE


def transition(version: int, to: str = "Staging", **fields: Any) -> tuple[str, Any]:
    request = pb.TransitionStageRequest(model="churn", version=version, stage=to, **fields)
    return "TransitionStage", request


def batch(*moves: tuple[int, str], **fields: Any) -> tuple[str, Any]:
    transitions = [pb.Transition(model="churn", version=n, stage=to, **fields) for n, to in moves]
    return "BatchTransitionStages", pb.BatchTransitionStagesRequest(transitions=transitions)


def remove(version: int, out_of: str) -> tuple[str, Any]:
    return "RemoveFromStage", pb.RemoveFromStageRequest(
        model="churn", version=version, stage=out_of
    )


def end(version: int) -> tuple[str, Any]:
    request = pb.DeleteModelVersionRequest(model="churn", version=version, force=True)
    return "DeleteModelVersion", request


#: What it takes the right to move at these places for, and not one of them less.
DEEDS: dict[str, tuple[set[str], tuple[str, Any]]] = {
    "into a stage": ({"Staging"}, transition(5)),
    "into a stage, out of no active one": ({"Staging"}, transition(4, leave_other_stages=True)),
    "into a stage, out of another": (
        {"Staging", "Production"},
        transition(1, leave_other_stages=True),
    ),
    "into a stage that displaces": ({"Production"}, transition(5, "Production")),
    "into a stage, archiving what is in it": ({"Staging"}, transition(5, displace=ARCHIVE)),
    "into a stage, retiring from another": (
        {"Staging", "Production"},
        transition(5, displace=RETIRE),
    ),
    "into one that is not active": ({"Archived"}, transition(5, "Archived")),
    "into one that is not active, out of others": (
        {"Archived", "Production"},
        transition(1, "Archived", leave_other_stages=True),
    ),
    "into one that is not active, staying": ({"Archived"}, transition(1, "Archived")),
    "out of a stage": ({"Staging"}, remove(2, "Staging")),
    "out of one that is not active": ({"Archived"}, remove(4, "Archived")),
    "out of every stage, which is one": ({"Staging"}, transition(2, "None")),
    "out of every stage, which are two": ({"Staging", "Production"}, transition(3, "None")),
    "out of every stage, which is not active": ({"Archived"}, transition(4, "None")),
    "back to before": (
        {"Production"},
        ("RollbackStage", pb.RollbackStageRequest(model="churn", stage="Production")),
    ),
    "several into one": ({"Staging"}, batch((1, "Staging"), (5, "Staging"))),
    "several into two": ({"Staging", "Production"}, batch((5, "Staging"), (2, "Production"))),
    "a swap": (
        {"Staging", "Production"},
        batch((1, "Staging"), (2, "Production"), leave_other_stages=True),
    ),
    "one into a stage, one out of all": (
        {"Staging", "Production"},
        batch((5, "Staging"), (1, "None")),
    ),
    "an alias set": (
        {"@other"},
        ("SetAlias", pb.SetAliasRequest(model="churn", version=1, alias="other")),
    ),
    "an alias moved": (
        {"@champion"},
        ("SetAlias", pb.SetAliasRequest(model="churn", version=2, alias="champion", reassign=True)),
    ),
    "an alias deleted": (
        {"@champion"},
        ("DeleteAlias", pb.DeleteAliasRequest(model="churn", alias="champion")),
    ),
    "a version deleted": ({"Production", "@champion"}, end(1)),
    "a version of two stages deleted": ({"Staging", "Production"}, end(3)),
    "a version of no active stage deleted": (set(), end(4)),
    "the model deleted": (
        {"Staging", "Production", "@champion"},
        ("DeleteModel", pb.DeleteModelRequest(model="churn", force=True)),
    ),
    "the model renamed": (
        {"Staging", "Production", "@champion"},
        ("RenameModel", pb.RenameModelRequest(model="churn", new_name="other")),
    ),
}


def mover(places: set[str]) -> Caller:
    """Give one who may edit everything and move at some places; at least somewhere else."""
    stages = [place for place in places if not place.startswith("@")]
    aliases = tuple(place[1:] for place in places if place.startswith("@"))
    # Editors have some place to move to: one that none of these is about.
    return may_move(*stages, "Shadow", aliases=(*aliases, "elsewhere"))


@pytest.mark.parametrize("deed", DEEDS)
def test_moving_takes_the_right_to_every_place_that_is_entered_or_left(
    registry: Registry, deed: str
) -> None:
    places, (method, request) = DEEDS[deed]
    before = held(registry)
    assert before == IN_USE
    everywhere = {"Staging", "Production", "Archived", "@champion", "@other"}

    for one in places:
        with refused("PERMISSION_DENIED") as told:
            getattr(registry, method)(request, mover(everywhere - {one}))
        named = told.error.metadata
        assert (f"@{named['alias']}" if named["alias"] else named["stage"]) == names.stage_key(one)
        assert held(registry) == before
    getattr(registry, method)(request, mover(places))


@pytest.mark.parametrize("deed", DEEDS)
def test_approvers_move_and_do_nothing_else(registry: Registry, deed: str) -> None:
    _, (method, request) = DEEDS[deed]
    approver = Caller(name="ann", rights=rights.of(frozenset({Scope("approver")})))
    edits = method in ("DeleteModelVersion", "DeleteModel", "RenameModel")

    if edits:
        with refused("PERMISSION_DENIED"):
            getattr(registry, method)(request, approver)
    else:
        getattr(registry, method)(request, approver)


def test_a_model_comes_back_by_whoever_may_move_what_comes_with_it(registry: Registry) -> None:
    gone = delete(registry, force=True)
    request = pb.UndeleteModelRequest(model_id=gone.id)

    for places in (
        {"Staging", "Production"},
        {"Staging", "@champion"},
        {"Production", "@champion"},
    ):
        with refused("PERMISSION_DENIED"):
            registry.UndeleteModel(request, mover(places))
    registry.UndeleteModel(request, mover({"Staging", "Production", "@champion"}))

    assert held(registry) == IN_USE


def test_a_version_comes_back_to_no_stage(registry: Registry) -> None:
    delete_version(registry, 1, force=True)

    registry.UndeleteModelVersion(
        pb.UndeleteModelVersionRequest(model="churn", version=1), mover(set())
    )

    assert held(registry) == {"Staging": [2, 3], "Production": [3], "Archived": [4]}


def test_what_a_definition_does_takes_no_right_but_to_the_stage_that_is_defined(
    registry: Registry,
) -> None:
    stage(registry, "Canary", active=True)
    stage(
        registry,
        "Live",
        active=True,
        displace_to="Canary",
        occupancy=pb.STAGE_OCCUPANCY_DISPLACING,
    )
    promote(registry, 1, "Live")
    registry.TransitionStage(transition(5, "Live")[1], mover({"Live"}))

    # Version 1 is in Production still, so that it is archived nowhere.
    assert held(registry)["Live"] == [5]
    registry.TransitionStage(transition(2, "Live")[1], mover({"Live"}))
    assert held(registry)["Canary"] == [5]
    registry.RollbackStage(
        pb.RollbackStageRequest(model="churn", stage="Live"), mover({"Live", "Canary"})
    )
    assert (held(registry)["Live"], "Canary" in held(registry)) == ([5], False)


def test_whom_one_retires_to_an_active_stage_one_moves_there(registry: Registry) -> None:
    active = pb.UpdateStageRequest(
        stage="Archived",
        update=pb.StageUpdate(active=True),
        update_mask=FieldMask(paths=["active"]),
    )
    registry.UpdateStage(active, ANONYMOUS)
    plain = pb.UpdateStageRequest(
        stage="Production",
        update=pb.StageUpdate(displace_to=""),
        update_mask=FieldMask(paths=["displace_to"]),
    )
    registry.UpdateStage(plain, ANONYMOUS)
    _, request = transition(5, "Production", displace=RETIRE)

    with refused("PERMISSION_DENIED") as told:
        registry.TransitionStage(request, mover({"Staging", "Production"}))

    assert told.error.metadata["stage"] == "archived"
    registry.TransitionStage(request, mover({"Staging", "Production", "Archived"}))
    assert held(registry)["Archived"] == [1, 3, 4]


def test_an_old_models_grants_do_not_cover_its_new_name(registry: Registry) -> None:
    on_old = frozenset({Scope("editor", model="churn"), Scope("editor", model="free", stage="x")})
    request = pb.RenameModelRequest(model="churn", new_name="free")

    with refused("PERMISSION_DENIED") as told:
        registry.RenameModel(request, Caller(name="ann", rights=rights.of(on_old)))

    assert told.error.metadata["model"] == "free"
    both = on_old | {Scope("editor", model="free")}
    registry.RenameModel(request, Caller(name="ann", rights=rights.of(both)))
    assert held(registry, "free") == IN_USE


def test_an_agent_is_forgotten_by_whoever_may_report_all_that_it_runs(registry: Registry) -> None:
    hand_out_sessions(registry)
    targets = [
        pb.TargetStatus(target="eu", model="churn", stage=place, state=pb.DEPLOYMENT_STATE_SERVING)
        for place in ("Staging", "Production")
    ]
    report = pb.ReportStatusRequest(agent="a1", session=1, seq=1, targets=targets)
    registry.ReportStatus(report, ANONYMOUS)
    forget = pb.ForgetAgentRequest(agent="a1")

    with refused("PERMISSION_DENIED") as told:
        registry.ForgetAgent(forget, may_move("Staging", role="deployer"))

    assert told.error.metadata["stage"] == "production"
    both = may_move("Staging", "Production", role="deployer")
    assert registry.ForgetAgent(forget, both).deployments == 2


def test_a_token_narrowed_to_another_place_moves_nothing(registry: Registry) -> None:
    granted = frozenset({Scope("editor", stage="staging")})
    for narrowed_to in (Scope("editor", stage="production"), Scope("editor", alias="champion")):
        both = rights.of(granted, frozenset({narrowed_to}))
        who = Caller(name="ann", rights=both)
        for method, request in (transition(2, "None"), transition(4, "None"), transition(5)):
            with refused("PERMISSION_DENIED"):
                getattr(registry, method)(request, who)
        # What is no moving both allow.
        registry.SetModelTags(pb.SetModelTagsRequest(model="churn", tags={"a": "b"}), who)


def test_undeleting_does_not_ask_for_stages_that_are_not_active(registry: Registry) -> None:
    versions(registry, 1, "free")
    promote(registry, 1, "Archived", name="free")
    gone = delete(registry, "free")

    registry.UndeleteModel(pb.UndeleteModelRequest(model_id=gone.id), mover(set()))

    assert held(registry, "free") == {"Archived": [1]}
