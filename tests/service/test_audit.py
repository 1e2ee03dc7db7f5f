"""The log as a record: what it lists, and what of it can't be altered unseen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from stagewire import pb, rights
from stagewire.callers import ANONYMOUS, Caller
from stagewire.rights import Scope
from stagewire.store import events as log_events
from tests.factories import (
    alias,
    delete,
    head,
    model,
    promote,
    refused,
    rename,
    sql,
    version,
    versions,
)

if TYPE_CHECKING:
    from stagewire.service.registry import Registry


def listed(registry: Registry, **fields: Any) -> list[pb.Event]:
    request = pb.ListEventsRequest(**fields)
    return list(registry.ListEvents(request, ANONYMOUS).events)


def methods(registry: Registry, **fields: Any) -> list[str]:
    return [e.payload.method for e in listed(registry, **fields)]


def verified(registry: Registry, **fields: Any) -> pb.VerifyLogResponse:
    return registry.VerifyLog(pb.VerifyLogRequest(**fields), ANONYMOUS)


def test_events_are_listed_newest_first(registry: Registry) -> None:
    versions(registry, 1)
    promote(registry, 1)

    assert methods(registry) == [
        "TransitionStage",
        "CreateModelVersion",
        "CreateModel",
        "Bootstrap",
    ]


def test_a_models_events_are_listed_whatever_its_name_was_then(registry: Registry) -> None:
    versions(registry, 1, "old")
    model(registry, "other")
    rename(registry, "old", "new")
    alias(registry, 1, name="new")
    wanted = ["SetAlias", "RenameModel", "CreateModelVersion", "CreateModel"]

    assert methods(registry, model="new") == wanted
    assert methods(registry, model="old") == wanted
    delete(registry, "new", force=True)
    assert methods(registry, model="new") == ["DeleteModel", *wanted]


def test_a_name_taken_again_means_its_living_bearer(registry: Registry) -> None:
    model(registry)
    delete(registry)
    model(registry)

    assert methods(registry, model="churn") == ["CreateModel"]


def test_events_are_filtered_by_actor_time_and_revision(registry: Registry) -> None:
    for who in ("ann", "bob", "ann"):
        request = pb.CreateModelRequest(model=pb.Model(name=f"{who}{head(registry)}"))
        registry.CreateModel(request, Caller(who))
    times = {e.revision: e.commit_time for e in listed(registry)}

    assert [e.revision for e in listed(registry, actor="ann")] == [4, 2]
    assert [e.revision for e in listed(registry, after_revision=2)] == [4, 3]
    assert [e.revision for e in listed(registry, since_time=times[3])] == [4, 3]
    assert [e.revision for e in listed(registry, until_time=times[3])] == [2, 1]


def test_events_are_filtered_by_kind_over_many_pages(registry: Registry) -> None:
    model(registry)
    for number in range(1, 31):
        version(registry)
        if number % 10 == 0:
            promote(registry, number)
    seen: list[str] = []
    token = ""

    while True:
        request = pb.ListEventsRequest(
            kinds=[pb.CHANGE_KIND_STAGES_CHANGED, pb.CHANGE_KIND_MODEL_CREATED],
            page_size=1,
            page_token=token,
        )
        page = registry.ListEvents(request, ANONYMOUS)
        seen += [e.payload.method for e in page.events]
        token = page.next_page_token
        if not token:
            break

    assert seen == ["TransitionStage"] * 3 + ["CreateModel"]


def test_each_namespace_has_its_own_events_and_a_star_means_all(registry: Registry) -> None:
    registry.CreateNamespace(
        pb.CreateNamespaceRequest(namespace=pb.Namespace(name="risk")), ANONYMOUS
    )
    model(registry, namespace="risk")
    model(registry)

    assert methods(registry, namespace="risk") == ["CreateModel", "CreateNamespace"]
    assert methods(registry) == ["CreateModel", "Bootstrap"]
    assert len(methods(registry, namespace="*")) == 4
    assert methods(registry, namespace="*", model="churn") == ["CreateModel"] * 2
    with refused("MODEL_NOT_FOUND"):
        methods(registry, namespace="*", model="ghost")


def test_what_is_not_there_is_refused(registry: Registry) -> None:
    with refused("NAMESPACE_NOT_FOUND"):
        listed(registry, namespace="nowhere")
    with refused("MODEL_NOT_FOUND"):
        listed(registry, model="ghost")
    with refused("INVALID_PAGE_TOKEN"):
        listed(registry, page_token="x")


def test_an_events_hash_chains_it_onto_the_one_before(registry: Registry) -> None:
    versions(registry, 2)
    log = list(reversed(listed(registry)))
    previous = log_events.GENESIS_HASH

    for event in log:
        micros = event.commit_time.ToMicroseconds()
        payload = event.payload.SerializeToString(deterministic=True)
        previous = log_events.chain(previous, event.revision, micros, payload)
        assert event.chain_hash == previous

    assert registry.GetHead(pb.GetHeadRequest(), ANONYMOUS).head_hash == previous


def test_the_head_is_the_newest_revision(registry: Registry) -> None:
    model(registry)

    top = registry.GetHead(pb.GetHeadRequest(), ANONYMOUS)

    newest = listed(registry)[0]
    assert (top.revision, top.commit_time) == (newest.revision, newest.commit_time)
    assert (len(top.log_id), top.compacted_revision) == (36, 0)


def test_an_unaltered_log_is_intact_also_in_stretches(registry: Registry) -> None:
    versions(registry, 5)

    whole = verified(registry)
    first = verified(registry, max_revisions=3)
    rest = verified(registry, from_revision=first.last_revision + 1)

    assert (whole.intact, whole.first_revision, whole.last_revision) == (True, 1, 7)
    assert (first.intact, first.last_revision, first.head_revision) == (True, 3, 7)
    assert (rest.intact, rest.first_revision, rest.last_hash) == (True, 4, whole.last_hash)


def test_beyond_the_head_there_is_nothing_to_verify(registry: Registry) -> None:
    answer = verified(registry, from_revision=9)

    assert (answer.intact, answer.first_revision, answer.last_revision) == (True, 0, 0)


@pytest.mark.parametrize(
    ("tampering", "bad"),
    [
        ("UPDATE log SET payload = chain_hash WHERE revision = 3", 3),
        ("UPDATE log SET commit_time = commit_time + 1 WHERE revision = 3", 3),
        ("UPDATE log SET chain_hash = payload WHERE revision = 3", 3),
        ("UPDATE log SET actor = 'nobody' WHERE revision = 3", 3),
        ("UPDATE log SET request_id = 'other' WHERE revision = 3", 3),
        ("UPDATE log_models SET model_id = 'other' WHERE revision = 3", 3),
        ("DELETE FROM log_models WHERE revision = 3", 3),
        ("DELETE FROM log WHERE revision = 3", 3),
        ("DELETE FROM log WHERE revision = 5", 5),
        ("DELETE FROM log WHERE revision = 1", 1),
        ("UPDATE log SET revision = 9 WHERE revision = 3", 3),
        ("UPDATE log_head SET head_hash = log_id", 5),
    ],
)
def test_tampering_is_found_where_it_was_done(
    registry: Registry, database_url: str, tampering: str, bad: int
) -> None:
    versions(registry, 3)
    if "head_hash = log_id" in tampering and database_url.startswith("postgresql"):
        tampering = "UPDATE log_head SET head_hash = log_id::bytea"

    sql(database_url, tampering)

    answer = verified(registry)
    assert (answer.intact, answer.bad_revision) == (False, bad)
    assert answer.problem.startswith(f"revision {bad} ")


def test_a_log_whose_end_was_cut_off_is_found_by_its_head(
    registry: Registry, database_url: str
) -> None:
    versions(registry, 3)

    sql(database_url, "DELETE FROM log WHERE revision > 3")

    assert verified(registry).bad_revision == 4


def test_verifying_goes_on_past_what_was_compacted(registry: Registry, database_url: str) -> None:
    versions(registry, 3)
    compact(database_url, 3)

    answer = verified(registry)

    assert (answer.intact, answer.first_revision, answer.last_revision) == (True, 4, 5)
    assert [e.revision for e in listed(registry)] == [5, 4]


def compact(database_url: str, revision: int) -> None:
    sql(
        database_url,
        "UPDATE log_head SET compacted_revision = :revision, compacted_hash = "
        "(SELECT chain_hash FROM log WHERE revision = :revision)",
        revision=revision,
    )
    for table in ("log_models", "log"):
        statement = f"DELETE FROM {table} WHERE revision <= :revision"  # noqa: S608  # own names
        sql(database_url, statement, revision=revision)


def test_times_that_are_none_are_refused(registry: Registry) -> None:
    with refused("INVALID_FIELD"):
        listed(registry, since_time=Timestamp(seconds=10**15))


def seeing(*scopes: Scope) -> Caller:
    return Caller("ann", rights=rights.of(frozenset(scopes)))


def shown(registry: Registry, caller: Caller, **fields: Any) -> list[pb.Event]:
    request = pb.ListEventsRequest(**fields)
    return list(registry.ListEvents(request, caller).events)


CHURN = Scope("viewer", model="churn")


def test_events_of_what_may_not_be_seen_are_not_listed(registry: Registry) -> None:
    versions(registry, 1)
    versions(registry, 1, "secret")
    promote(registry, 1, name="secret")

    assert [e.payload.method for e in shown(registry, seeing(CHURN))] == [
        "CreateModelVersion",
        "CreateModel",
        "Bootstrap",
    ]
    assert [e.revision for e in shown(registry, seeing(CHURN), namespace="*")] == [3, 2, 1]
    with refused("MODEL_NOT_FOUND"):
        shown(registry, seeing(CHURN), model="secret")
    with refused("MODEL_NOT_FOUND"):
        shown(registry, seeing(CHURN), namespace="*", model="secret")
    with refused("NAMESPACE_NOT_FOUND"):
        shown(registry, seeing(Scope("viewer", "risk")))
    assert shown(registry, seeing(Scope("viewer", "risk")), namespace="*") == []


def test_of_an_event_that_is_seen_in_part_it_is_not_told_who_did_it(registry: Registry) -> None:
    for name in ("churn", "secret"):
        versions(registry, 1, name)
    moves = [pb.Transition(model=m, version=1, stage="Production") for m in ("churn", "secret")]
    request = pb.BatchTransitionStagesRequest(transitions=moves, reason="of both", request_id="r")
    registry.BatchTransitionStages(request, Caller("bob"))
    promote(registry, 1, "Staging", reason="of one")

    whole, part = shown(registry, seeing(CHURN))[:2]

    assert (whole.payload.actor, whole.payload.reason) == ("anonymous", "of one")
    assert [r.change.model for r in part.payload.records] == ["churn"]
    assert (part.payload.actor, part.payload.reason, part.payload.request_id) == ("", "", "")
    assert part.payload.method == "BatchTransitionStages"
    assert b"secret" not in part.SerializeToString()
    # Whoever asks for what bob did must not learn that this was it.
    assert shown(registry, seeing(CHURN), actor="bob") == []
    assert len(shown(registry, ANONYMOUS, actor="bob")) == 1


def test_a_rename_shows_no_name_that_may_not_be_seen(registry: Registry) -> None:
    model(registry, "secret")
    rename(registry, "secret", "churn")
    rename(registry, "churn", "hidden")

    gone, come, *rest = shown(registry, seeing(CHURN))

    assert [e.payload.method for e in rest] == ["Bootstrap"]
    for event in (gone, come):
        assert b"secret" not in event.SerializeToString()
        assert b"hidden" not in event.SerializeToString()
        assert (event.payload.actor, event.payload.method) == ("", "RenameModel")
    (record,) = come.payload.records
    assert (record.change.model_state.name, list(record.after.models)) == ("churn", ["churn"])
    assert not record.HasField("before")
    (record,) = gone.payload.records
    assert (record.change.delivery, record.change.model) == (pb.CHANGE_DELIVERY_LEFT, "churn")
    assert record.change.WhichOneof("resource") is None
    assert not record.HasField("after")


def test_a_deleted_models_end_is_shown_to_who_saw_it(registry: Registry) -> None:
    model(registry)
    delete(registry)

    event = shown(registry, seeing(CHURN))[0]

    assert (event.payload.method, event.payload.actor) == ("DeleteModel", "anonymous")
    assert event.payload.records[0].change.model_state.deleted


def test_events_of_administration_are_the_administrators(registry: Registry) -> None:
    for space in ("default", "*"):
        scope = pb.Scope(role=pb.ROLE_VIEWER, namespace=space)
        wanted = pb.Grant(subject="eve", scope=scope)
        registry.CreateGrant(pb.CreateGrantRequest(grant=wanted), ANONYMOUS)
    registry.CreateToken(pb.CreateTokenRequest(token=pb.Token(subject="eve")), ANONYMOUS)

    def listed_to(*scopes: Scope) -> list[str]:
        return [e.payload.method for e in shown(registry, seeing(*scopes), namespace="*")]

    assert listed_to(Scope("viewer", "*")) == ["Bootstrap"]
    assert listed_to(Scope("admin")) == ["CreateGrant", "Bootstrap"]
    assert listed_to(Scope("admin", "*")) == [
        "CreateToken",
        "CreateGrant",
        "CreateGrant",
        "Bootstrap",
    ]


def test_who_may_see_everything_gets_the_log_as_it_is(registry: Registry) -> None:
    versions(registry, 1)
    rename(registry, "churn", "other")

    admin = seeing(Scope("admin", "*"))

    assert shown(registry, admin, namespace="*") == shown(registry, ANONYMOUS, namespace="*")
