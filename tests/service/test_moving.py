"""A registry comes out as records and in again: the same bytes, once, whole or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from stagewire import pb
from stagewire.callers import ANONYMOUS
from stagewire.service.registry import Registry
from stagewire.store.opening import open_database
from tests.factories import (
    alias,
    found,
    head,
    holders,
    last_event,
    model,
    numbered,
    promote,
    refused,
    rollback,
    version,
    versions,
)
from tests.faults.fold import Fold
from tests.moving import content, exported, imported, live

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def other(request: pytest.FixtureRequest, registry: Registry) -> Iterator[Registry]:
    """Give a second registry, on the other kind of database."""
    on_sqlite = registry.database.__class__.__name__ == "SqliteDatabase"
    name = "postgres_url" if on_sqlite else "sqlite_url"
    database = open_database(request.getfixturevalue(name), readers=4)
    made = Registry(database)
    made.bootstrap()
    yield made
    database.close()


def model_id(registry: Registry) -> str:
    """Give the id of the one model."""
    return next(r.model.model.id for r in exported(registry) if r.HasField("model"))


def record(**what: Any) -> pb.ImportRegistryRequest:
    return pb.ImportRegistryRequest(records=[pb.RegistryRecord(**what)])


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_restored_registry_exports_the_same_bytes(
    registry: Registry, other: Registry, size: int
) -> None:
    live(registry)
    before = exported(registry)

    imported(other, before, size=size)

    assert content(exported(other)) == content(before)


def test_what_was_restored_can_be_restored_again(registry: Registry, other: Registry) -> None:
    live(registry)
    imported(other, exported(registry))
    promote(other, 2, name="loyalty")
    rollback(other, name="loyalty")
    alias(other, 1, "newest", name="loyalty")
    version(other, "loyalty", source="s3://models/loyalty/4")
    before = exported(other)

    again = imported(other, before)

    assert (again.imported, list(again.conflicts)) == (0, [])
    assert content(exported(other)) == content(before)


def test_a_second_import_changes_nothing_and_takes_no_revision(
    registry: Registry, other: Registry
) -> None:
    live(registry)
    records = exported(registry)
    imported(other, records)
    before = head(other)

    again = imported(other, records)

    assert again.imported == 0
    assert again.unchanged == len(records) - 2
    assert head(other) == before


def test_a_registry_knows_its_own_export(registry: Registry) -> None:
    live(registry)
    before = head(registry)

    again = imported(registry, exported(registry))

    assert (again.imported, list(again.conflicts), head(registry)) == (0, [], before)


def test_the_log_of_an_import_folds_into_what_is_there(registry: Registry, other: Registry) -> None:
    live(registry)
    imported(other, exported(registry), size=5)
    promote(other, 1, name="loyalty")
    fold = Fold()
    events = pb.ListEventsRequest(namespace="*", page_size=1000)

    for event in reversed(other.ListEvents(events, ANONYMOUS).events):
        fold.apply(event)

    assert other.VerifyLog(pb.VerifyLogRequest(), ANONYMOUS).intact
    for space in ("default", "risk"):
        request = pb.ListModelVersionsRequest(namespace=space, page_size=1000)
        for state in other.ListModelVersions(request, ANONYMOUS).versions:
            known = fold.states["version", state.model_id, state.version]
            for omitted in fold.omitted["version", state.model_id, state.version]:
                assert omitted.size_bytes == 3000
                state.tags["long"] = ""
            assert known == state
        models = pb.ListModelsRequest(namespace=space)
        for living in other.ListModels(models, ANONYMOUS).models:
            assert fold.states["model", living.id] == living
        stages = pb.ListStagesRequest(namespace=space)
        for stage in other.ListStages(stages, ANONYMOUS).stages:
            assert fold.states["stage", space, stage.name.casefold()] == stage


def test_creators_and_times_are_kept_and_who_imported_is_in_the_log(
    registry: Registry, other: Registry
) -> None:
    versions(registry, 1)
    original = numbered(registry, 1)

    imported(other, exported(registry), reason="moving house")

    restored = numbered(other, 1)
    assert restored.create_time == original.create_time
    assert restored.update_time == original.update_time
    assert restored.creator == original.creator
    payload = last_event(other).payload
    assert (payload.actor, payload.method) == ("anonymous", "ImportRegistry")
    assert payload.reason == "moving house"


def test_a_rollback_walks_back_into_imported_history(registry: Registry, other: Registry) -> None:
    versions(registry, 3)
    for number in (1, 2):
        promote(registry, number)
    imported(other, exported(registry))
    promote(other, 3)

    rollback(other)
    after_one = holders(other)
    rollback(other)

    assert after_one == [2]
    assert holders(other) == [1]


def test_history_from_before_the_log_stands_at_negative_revisions(
    registry: Registry, other: Registry
) -> None:
    versions(registry, 2)
    promote(registry, 1)
    promote(registry, 2)
    imported(other, exported(registry))
    promote(other, 1)

    request = pb.GetStageHistoryRequest(model="churn", stage="Production")
    tenures = other.GetStageHistory(request, ANONYMOUS).tenures

    assert [(t.version, t.entered_revision > 0) for t in tenures] == [
        (1, True),
        (2, False),
        (1, False),
    ]
    assert tenures[2].left_revision == tenures[1].entered_revision < 0


def test_numbers_go_on_where_the_exported_registry_was(registry: Registry, other: Registry) -> None:
    live(registry)
    imported(other, exported(registry))

    assert version(other, "loyalty").version == version(registry, "loyalty").version
    assert version(other, "gone").version == version(registry, "gone").version


def test_an_old_name_leads_to_the_same_version_after_a_restore(
    registry: Registry, other: Registry
) -> None:
    live(registry)
    imported(other, exported(registry))

    assert numbered(other, 1, "retention").model == "loyalty"
    assert found(other, "retention").model.name == "loyalty"
    assert numbered(other, 1, "churn").model == "loyalty"


def test_only_the_namespaces_asked_for_are_exported(registry: Registry) -> None:
    live(registry)

    records = exported(registry, namespaces=["risk"])

    assert [r.namespace.namespace.name for r in records if r.HasField("namespace")] == ["risk"]
    assert [r.model.model.name for r in records if r.HasField("model")] == ["scores"]
    with refused("NAMESPACE_NOT_FOUND"):
        exported(registry, namespaces=["nowhere"])
    with refused("INVALID_FIELD"):
        exported(registry, namespaces=["risk"], with_log=True)


def test_an_export_with_the_log_holds_every_row_and_text(registry: Registry) -> None:
    live(registry)

    records = exported(registry, with_log=True)

    logged = [r.log.revision for r in records if r.HasField("log")]
    assert logged == list(range(1, head(registry) + 1))
    assert "x" * 3000 in [r.text.body for r in records if r.HasField("text")]
    assert (
        records[0].header.head_hash == [r.log.chain_hash for r in records if r.HasField("log")][-1]
    )


def other_content(kind: str) -> Callable[[Any], None]:
    def change(message: Any) -> None:
        match kind:
            case "model":
                message.model.description = "another"
            case "version":
                message.tags["team"] = "another"
            case "tenure":
                message.entered_by = "another"
            case "alias":
                message.set_by = "another"
            case "move":
                message.undo_step = message.step
            case _:
                message.stages[0].description = "another"

    return change


@pytest.mark.parametrize("kind", ["namespace", "model", "version", "tenure", "alias", "move"])
def test_what_is_there_with_other_content_is_refused_or_skipped(
    registry: Registry, other: Registry, kind: str
) -> None:
    live(registry)
    records = exported(registry)
    imported(other, records)
    before = content(exported(other))
    changed = next(r for r in records if r.HasField(kind))  # type: ignore[arg-type]
    other_content(kind)(getattr(changed, kind))
    fresh = pb.Model(id="fresh", name="fresh")
    batch = [pb.RegistryRecord(model=pb.ModelRecord(model=fresh)), changed]

    with refused("IMPORT_CONFLICT") as refusal:
        imported(other, batch)
    assert content(exported(other)) == before
    skipping = imported(other, batch, on_conflict=pb.IMPORT_CONFLICT_POLICY_SKIP)

    assert refusal.error.resource_name == "records[1]"
    assert (skipping.imported, [c.index for c in skipping.conflicts]) == (1, [1])


def test_a_name_that_another_model_bears_is_a_conflict_of_the_whole_model(
    registry: Registry, other: Registry
) -> None:
    versions(registry, 2)
    promote(registry, 2)
    model(other, "churn")
    records = exported(registry)

    answer = imported(other, records, on_conflict=pb.IMPORT_CONFLICT_POLICY_SKIP)

    moved = model_id(registry)
    assert {c.foreign_model_id for c in answer.conflicts if c.foreign_model_id} == {moved}
    assert answer.imported == 0
    assert found(other).latest_version == 0


def test_numbers_that_mean_another_models_versions_are_a_conflict(
    registry: Registry, other: Registry
) -> None:
    versions(registry, 2)
    versions(other, 1)
    other.DeleteModel(pb.DeleteModelRequest(model="churn"), ANONYMOUS)

    with refused("IMPORT_CONFLICT") as refusal:
        imported(other, exported(registry))

    assert "under the name 'churn' version 1 means another model's" in refusal.error.message


def test_history_is_not_added_behind_what_happened_here(
    registry: Registry, other: Registry
) -> None:
    versions(registry, 2)
    imported(other, exported(registry))
    promote(other, 1)
    tenure = pb.StageTenureRecord(
        model_id=model_id(registry), stage="Staging", version=2, entered_step=1
    )

    answer = imported(
        other, [pb.RegistryRecord(tenure=tenure)], on_conflict=pb.IMPORT_CONFLICT_POLICY_SKIP
    )

    assert "went on here" in " ".join(c.description for c in answer.conflicts)
    assert holders(other, "Staging") == []


def test_a_dry_run_says_what_would_be_imported_and_writes_nothing(
    registry: Registry, other: Registry
) -> None:
    live(registry)
    records = exported(registry)
    before = content(exported(other)), head(other)

    wet_later = imported(other, records, size=5, validate_only=True)

    assert (content(exported(other)), head(other)) == before
    assert wet_later.imported == len(records) - 2
    assert imported(other, records).imported > 0


def test_a_batch_is_written_whole_or_not_at_all(registry: Registry, other: Registry) -> None:
    live(registry)
    records = exported(registry)
    broken = pb.RegistryRecord(
        tenure=pb.StageTenureRecord(model_id="ghost", stage="Production", version=1, entered_step=1)
    )

    with refused("MODEL_NOT_FOUND") as refusal:
        imported(other, [*records[:20], broken], size=1000)

    assert refusal.error.message.startswith("records[19].tenure.model_id: ")
    assert head(other) == 1


BAD: dict[str, tuple[str, pb.ImportRegistryRequest]] = {
    "a header": ("records[0]", record(header=pb.ExportHeader(format=1))),
    "nothing": ("records[0]", pb.ImportRegistryRequest(records=[pb.RegistryRecord()])),
    "no id": ("records[0].model.model.id", record(model=pb.ModelRecord(model=pb.Model(name="a")))),
    "a slash": (
        "records[0].model.model.name",
        record(model=pb.ModelRecord(model=pb.Model(name="a/b", id="1"))),
    ),
    "a name that is not NFC": (
        "records[0].model.model.name",
        record(model=pb.ModelRecord(model=pb.Model(name="e\u0301", id="1"))),
    ),
    "no range without end": (
        "records[0].model.ranges",
        record(
            model=pb.ModelRecord(
                model=pb.Model(name="a", id="1"), ranges=[pb.NameRange(name="a", first=1, last=2)]
            )
        ),
    ),
    "a version without number": (
        "records[0].version.version",
        record(version=pb.ModelVersion(model_id="1")),
    ),
    "a long description": (
        "records[0].version.description",
        record(version=pb.ModelVersion(model_id="1", version=1, description="x" * 5001)),
    ),
    "a point without time": (
        "records[0].points.metrics",
        record(
            points=pb.MetricPoints(model_id="1", version=1, metrics=[pb.Metric(key="a", value=1)])
        ),
    ),
    "a stage that displaces into none": (
        "records[0].namespace.stages[0].displace_to",
        record(
            namespace=pb.NamespaceRecord(
                namespace=pb.Namespace(name="a"), stages=[pb.Stage(name="X", displace_to="Y")]
            )
        ),
    ),
}


@pytest.mark.parametrize("what", sorted(BAD))
def test_a_bad_record_is_refused_by_its_place_and_field(registry: Registry, what: str) -> None:
    path, request = BAD[what]

    with refused("INVALID_FIELD") as refusal:
        registry.ImportRegistry(request, ANONYMOUS)

    assert refusal.error.fields[0].field == path


def test_times_that_could_not_have_been_are_refused(registry: Registry) -> None:
    versions(registry, 1)
    tenure = pb.StageTenureRecord(
        model_id=model_id(registry), stage="Production", version=1, entered_step=2, left_step=1
    )

    with refused("INVALID_FIELD"):
        registry.ImportRegistry(record(tenure=tenure), ANONYMOUS)
    tenure.left_step = 3
    with refused("INVALID_FIELD"):
        registry.ImportRegistry(record(tenure=tenure), ANONYMOUS)
    tenure.entered_time.CopyFrom(Timestamp(seconds=1))
    tenure.left_time.CopyFrom(Timestamp(seconds=2))

    answer = registry.ImportRegistry(record(tenure=tenure), ANONYMOUS)

    assert answer.imported == 1
