"""What the log's events mean for an agent: primaries only, level-triggered, also backwards."""

from __future__ import annotations

from typing import Any

from stagewire import pb
from stagewire.agent.board import Board, Placement
from stagewire.client import Snapshot


def version(number: int, *, model: str = "iris", model_id: str = "m1", digest: str = "") -> Any:
    return pb.ModelVersion(
        namespace="default",
        model=model,
        model_id=model_id,
        version=number,
        source=f"file:///{model}/{number}",
        content_digest=digest or f"digest of {model_id}/{number}",
    )


def primary(number: int, stage: str = "Production") -> pb.StagePrimary:
    return pb.StagePrimary(stage=stage, version=number)


def item(state: pb.ModelVersion, *primaries: pb.StagePrimary) -> pb.SnapshotItem:
    return pb.SnapshotItem(version=state, primaries=primaries or [primary(state.version)])


def full(state: pb.ModelVersion, *primaries: pb.StagePrimary) -> pb.Change:
    return pb.Change(
        kind=pb.CHANGE_KIND_STAGES_CHANGED,
        delivery=pb.CHANGE_DELIVERY_FULL,
        model=state.model,
        model_id=state.model_id,
        version=state.version,
        version_state=state,
        primaries=primaries or [primary(state.version)],
    )


def left(number: int, *, model: str = "iris", model_id: str = "m1") -> pb.Change:
    return pb.Change(
        kind=pb.CHANGE_KIND_STAGES_CHANGED,
        delivery=pb.CHANGE_DELIVERY_LEFT,
        model=model,
        model_id=model_id,
        version=number,
        left_stages=["Production"],
    )


def transaction(revision: int, *changes: pb.Change) -> pb.Transaction:
    return pb.Transaction(revision=revision, cursor=b"c%d" % revision, changes=changes)


def snapshot(revision: int, *items: pb.SnapshotItem, seen: list[str] | None = None) -> Snapshot:
    sight = None
    if seen is not None:
        sight = pb.Sight(models=[pb.SeenModels(namespace="default", model=one) for one in seen])
    reason = pb.SNAPSHOT_REASON_REQUESTED
    return Snapshot(reason, revision, tuple(items), b"c%d" % revision, sight)


def board(*items: pb.SnapshotItem, revision: int = 1) -> Board:
    made = Board("Production")
    made.read_snapshot(snapshot(revision, *items), log_id="log-a")
    return made


def desired(made: Board) -> dict[str, int]:
    return {slot.model: slot.desired.version for slot in made.slots.values() if slot.desired}


def running(made: Board) -> dict[str, int]:
    return {slot.model: slot.running.version for slot in made.slots.values() if slot.running}


def run_desired(made: Board) -> None:
    for slot in made.slots.values():
        if slot.desired is not None:
            made.deployed(slot, slot.desired)


def test_only_the_primary_of_ones_own_stage_is_desired() -> None:
    made = board(
        item(version(2), primary(3), primary(2, "Staging")),
        item(version(3), primary(3)),
        item(version(7, model="other", model_id="m2"), primary(7, "Staging")),
    )

    assert desired(made) == {"iris": 3}


def test_stages_match_in_any_letter_case() -> None:
    made = Board("production")
    made.read_snapshot(snapshot(1, item(version(2))), log_id="log-a")

    assert desired(made) == {"iris": 2}


def test_a_full_changes_primary_wins_over_what_left() -> None:
    made = board(item(version(1)))

    made.read_transaction(transaction(2, left(1), full(version(2))), log_id="log-a")

    assert desired(made) == {"iris": 2}


def test_the_desired_version_leaving_alone_desires_none() -> None:
    made = board(item(version(1)))

    made.read_transaction(transaction(2, left(1)), log_id="log-a")

    assert desired(made) == {}


def test_another_version_leaving_changes_nothing() -> None:
    made = board(item(version(2)))

    made.read_transaction(transaction(2, left(1)), log_id="log-a")

    assert desired(made) == {"iris": 2}


def test_a_whole_model_leaving_desires_none() -> None:
    made = board(item(version(2)))
    gone = pb.Change(
        kind=pb.CHANGE_KIND_MODEL_DELETED,
        delivery=pb.CHANGE_DELIVERY_LEFT,
        model="iris",
        model_id="m1",
    )

    made.read_transaction(transaction(2, gone), log_id="log-a")

    assert desired(made) == {}


def test_a_full_change_may_say_that_the_stage_is_empty() -> None:
    made = board(item(version(2)))

    made.read_transaction(transaction(2, full(version(2), primary(0))), log_id="log-a")

    assert desired(made) == {}


def test_a_primary_that_the_change_does_not_bring_is_to_be_fetched() -> None:
    made = board(item(version(2)))

    made.read_transaction(transaction(2, full(version(1), primary(3))), log_id="log-a")

    (slot,) = made.slots.values()
    assert desired(made) == {"iris": 3}
    assert slot.version is None


def test_a_version_with_texts_left_out_is_to_be_fetched() -> None:
    change = full(version(2))
    change.omitted_texts.add(path="source", sha256="00", size_bytes=2000)
    made = board()

    made.read_transaction(transaction(2, change), log_id="log-a")

    (slot,) = made.slots.values()
    assert slot.desired is not None
    assert slot.version is None


def test_what_is_not_newer_is_ignored() -> None:
    made = board(item(version(2)), revision=5)

    is_read = made.read_transaction(transaction(5, full(version(3))), log_id="log-a")

    assert not is_read
    assert desired(made) == {"iris": 2}
    assert made.cursor == b"c5"


def test_a_snapshot_replaces_everything_also_backwards() -> None:
    made = board(item(version(2)), item(version(9, model="gone", model_id="m2")), revision=9)
    run_desired(made)

    made.read_snapshot(snapshot(4, item(version(1))), log_id="log-a")

    assert desired(made) == {"iris": 1}
    assert running(made) == {"iris": 2, "gone": 9}
    assert (made.revision, made.cursor) == (4, b"c4")
    assert made.read_transaction(transaction(5, full(version(3))), log_id="log-a")


def test_a_number_that_means_another_version_now_is_deployed_again() -> None:
    made = board(item(version(2, digest="before")))
    run_desired(made)

    made.read_snapshot(snapshot(1, item(version(2, digest="after"))), log_id="log-a")

    (slot,) = made.slots.values()
    assert not slot.is_settled


def test_a_model_of_the_same_name_takes_over_what_runs() -> None:
    made = board(item(version(5)))
    run_desired(made)

    made.read_snapshot(snapshot(1, item(version(1, model_id="m9"))), log_id="log-b")

    (slot,) = made.slots.values()
    assert slot.model_id == "m9"
    assert slot.running is not None
    assert slot.running.version == 5
    assert not slot.is_settled


def test_a_renamed_model_runs_on_under_its_new_name() -> None:
    made = board(item(version(2)))
    run_desired(made)
    renamed = pb.Change(
        kind=pb.CHANGE_KIND_MODEL_RENAMED,
        delivery=pb.CHANGE_DELIVERY_FULL,
        model="iris2",
        model_id="m1",
        previous_model="iris",
        model_state=pb.Model(name="iris2", id="m1"),
    )

    made.read_transaction(transaction(2, renamed), log_id="log-a")

    (slot,) = made.slots.values()
    assert slot.model == "iris2"
    assert slot.is_settled


def test_two_models_never_share_a_name() -> None:
    made = board(item(version(2)), item(version(1, model="lily", model_id="m2")))
    run_desired(made)
    made.read_transaction(transaction(2, left(2)), log_id="log-a")
    renamed = pb.Change(
        kind=pb.CHANGE_KIND_MODEL_RENAMED,
        delivery=pb.CHANGE_DELIVERY_FULL,
        model_id="m2",
        model_state=pb.Model(name="iris", id="m2"),
    )

    made.read_transaction(transaction(3, renamed), log_id="log-a")

    assert [slot.model for slot in made.slots.values()] == ["iris"]


def test_a_change_of_an_unknown_form_is_rejected_and_nothing_breaks() -> None:
    made = board(item(version(2)))
    run_desired(made)
    strange = pb.Change(kind=99, delivery=7, model="iris", model_id="m1")  # type: ignore[arg-type]

    made.read_transaction(transaction(2, strange), log_id="log-a")

    (slot,) = made.slots.values()
    assert slot.state == pb.DEPLOYMENT_STATE_REJECTED
    assert "update the agent" in slot.error
    assert slot.is_settled
    assert made.cursor == b"c2"


def test_an_unknown_kind_with_a_known_state_is_the_news() -> None:
    made = board(item(version(2)))
    newer = full(version(3))
    newer.kind = 99  # type: ignore[assignment]

    made.read_transaction(transaction(2, newer), log_id="log-a")

    assert desired(made) == {"iris": 3}


def test_changes_of_other_resources_are_passed_over() -> None:
    made = board(item(version(2)))
    changes = [
        pb.Change(namespace_state=pb.Namespace(name="risk")),
        pb.Change(stage_state=pb.Stage(name="Production")),
        pb.Change(model_state=pb.Model(name="unheard", id="m8")),
    ]

    made.read_transaction(transaction(2, *changes), log_id="log-a")

    assert desired(made) == {"iris": 2}
    assert made.revision == 2


def test_an_order_that_ended_nobody_knows_how_is_never_settled() -> None:
    made = board(item(version(2)))
    run_desired(made)
    (slot,) = made.slots.values()
    slot.is_uncertain = True

    assert not slot.is_settled

    made.deployed(slot, Placement.of(version(2)))

    assert slot.is_settled


def test_what_may_not_be_seen_any_more_is_held_as_it_was() -> None:
    made = board(item(version(1)), item(version(7, model="lily", model_id="m2")))
    run_desired(made)

    made.read_snapshot(snapshot(5, item(version(1)), seen=["iris"]), log_id="log-a")

    held = made.slots["m2"]
    assert held.is_unseen
    assert (desired(made), running(made)) == ({"iris": 1, "lily": 7}, {"iris": 1, "lily": 7})
    assert not made.slots["m1"].is_unseen


def test_what_is_not_there_though_it_may_be_seen_is_gone() -> None:
    made = board(item(version(1)), item(version(7, model="lily", model_id="m2")))
    run_desired(made)

    made.read_snapshot(snapshot(5, item(version(1)), seen=["iris", "li*"]), log_id="log-a")

    assert desired(made) == {"iris": 1}
    assert not made.slots["m2"].is_unseen


def test_a_model_in_sight_again_is_as_the_registry_says() -> None:
    lily = item(version(7, model="lily", model_id="m2"))
    made = board(lily)
    run_desired(made)
    made.read_snapshot(snapshot(5, seen=[]), log_id="log-a")

    newer = item(version(8, model="lily", model_id="m2"))
    made.read_snapshot(snapshot(6, newer, seen=["*"]), log_id="log-a")
    assert (desired(made), made.slots["m2"].is_unseen) == ({"lily": 8}, False)

    made.read_snapshot(snapshot(7, seen=[]), log_id="log-a")
    made.read_snapshot(snapshot(8, seen=["*"]), log_id="log-a")
    assert (desired(made), made.slots["m2"].is_unseen) == ({}, False)


def test_what_never_ran_is_not_held() -> None:
    made = board(item(version(1)))

    made.read_snapshot(snapshot(5, seen=[]), log_id="log-a")

    assert made.slots == {}


def test_what_may_be_running_is_held_until_it_is_known() -> None:
    made = board(item(version(1)))
    made.slots["m1"].is_uncertain = True

    made.read_snapshot(snapshot(5, seen=[]), log_id="log-a")

    assert made.slots["m1"].is_unseen
