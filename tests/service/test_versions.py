"""Model versions: registered whole, changed where they may be, copied, deleted, brought back."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from stagewire import pb
from stagewire.callers import ANONYMOUS, Caller
from tests.factories import (
    alias,
    delete,
    delete_version,
    found,
    head,
    holders,
    model,
    numbered,
    promote,
    refused,
    rename,
    version,
    versions,
)

if TYPE_CHECKING:
    from stagewire.service.registry import Registry

READY = pb.MODEL_VERSION_STATUS_READY
PENDING = pb.MODEL_VERSION_STATUS_PENDING_REGISTRATION
FAILED = pb.MODEL_VERSION_STATUS_FAILED_REGISTRATION


def whole(**changed: Any) -> dict[str, Any]:
    """Give every field that a version may be registered with."""
    fields: dict[str, Any] = {
        "source": "s3://models/churn",
        "storage_uri": "s3://archive/churn",
        "status": PENDING,
        "status_message": "uploading",
        "description": "# Churn",
        "tags": {"team": "risk", "empty": ""},
        "params": {"depth": "6", "rate": "0.1"},
        "signature": '{"inputs": []}',
        "flavors": ["sklearn", "python_function"],
        "lineage": pb.Lineage(
            run_id="run-1",
            run_link="https://runs/1",
            experiment="exp",
            git_commit="abc123",
            git_repository="https://git/churn",
            logged_model_id="m-1",
            datasets=[
                pb.Dataset(name="b", digest="sha256:1", use=pb.DATASET_USE_TRAINING, source="s3"),
                pb.Dataset(name="a", digest="sha256:2", use=pb.DATASET_USE_EVALUATION),
            ],
        ),
    }
    return {**fields, **changed}


def update(registry: Registry, paths: list[str], **fields: Any) -> pb.ModelVersion:
    request = pb.UpdateModelVersionRequest(
        model="churn",
        version=1,
        update=pb.ModelVersionUpdate(**fields),
        update_mask=FieldMask(paths=paths),
    )
    return registry.UpdateModelVersion(request, ANONYMOUS).version


def set_tags(registry: Registry, **tags: str) -> pb.SetModelVersionTagsResponse:
    request = pb.SetModelVersionTagsRequest(model="churn", version=1, tags=tags)
    return registry.SetModelVersionTags(request, ANONYMOUS)


def copied(
    registry: Registry, number: int, target: str, name: str = "churn", **fields: Any
) -> pb.ModelVersion:
    request = pb.CopyModelVersionRequest(model=name, version=number, target_model=target, **fields)
    return registry.CopyModelVersion(request, ANONYMOUS).version


def undeleted(registry: Registry, number: int) -> pb.ModelVersion:
    request = pb.UndeleteModelVersionRequest(model="churn", version=number)
    return registry.UndeleteModelVersion(request, ANONYMOUS).version


def purged(registry: Registry, number: int) -> pb.ModelVersion:
    request = pb.PurgeModelVersionRequest(model="churn", version=number, reason="law")
    return registry.PurgeModelVersion(request, ANONYMOUS).version


def listed(registry: Registry, **fields: Any) -> list[tuple[str, int]]:
    answer = registry.ListModelVersions(pb.ListModelVersionsRequest(**fields), ANONYMOUS)
    return [(v.model, v.version) for v in answer.versions]


def test_a_version_is_answered_whole_as_it_can_be_read(registry: Registry) -> None:
    made = model(registry)
    wanted = pb.ModelVersion(**whole())

    request = pb.CreateModelVersionRequest(model="churn", version=wanted)
    answer = registry.CreateModelVersion(request, Caller("ann"))

    got = numbered(registry, 1)
    assert answer.version == got
    for field, value in whole().items():
        assert getattr(got, field) == getattr(pb.ModelVersion(**{field: value}), field)
    assert (got.namespace, got.model, got.model_id) == ("default", "churn", made.id)
    assert (got.version, got.creator) == (1, "ann")
    assert got.revision == answer.revision == head(registry)
    assert got.create_time == got.update_time
    assert list(got.stages) == list(got.aliases) == list(got.metrics) == []


def test_a_version_needs_nothing_but_a_model_and_is_ready(registry: Registry) -> None:
    model(registry)

    answer = registry.CreateModelVersion(pb.CreateModelVersionRequest(model="churn"), ANONYMOUS)

    assert (answer.version.version, answer.version.status) == (1, READY)
    assert not answer.version.HasField("lineage")


def test_metrics_come_with_a_version_and_are_shown_when_asked_for(registry: Registry) -> None:
    model(registry)
    version(
        registry,
        metrics=[
            pb.Metric(key="auc", value=0.9, step=2, dataset="test"),
            pb.Metric(key="loss", value=math.nan),
            pb.Metric(key="top", value=math.inf),
            pb.Metric(key="bottom", value=-math.inf),
        ],
    )

    plain, measured = numbered(registry, 1), numbered(registry, 1, include_metrics=True)

    assert not plain.metrics
    values = {m.key: m.value for m in measured.metrics}
    assert math.isnan(values.pop("loss"))
    assert values == {"auc": 0.9, "top": math.inf, "bottom": -math.inf}
    assert [(m.step, m.dataset) for m in measured.metrics if m.key == "auc"] == [(2, "test")]


def test_validating_only_gives_the_number_and_takes_none(registry: Registry) -> None:
    model(registry)
    request = pb.CreateModelVersionRequest(
        model="churn", validate_only=True, metrics=[pb.Metric(key="auc", value=1)]
    )

    answer = registry.CreateModelVersion(request, ANONYMOUS)

    assert (answer.version.version, answer.revision) == (1, 0)
    assert found(registry).latest_version == 0
    assert version(registry).version == 1


def test_parents_are_kept_with_their_identity_and_order(registry: Registry) -> None:
    parent = versions(registry, 2, "base")[0]
    model(registry)
    parents = [
        pb.ParentVersion(model="base", version=2, derivation=pb.DERIVATION_DISTILLED),
        pb.ParentVersion(model="base", version=1, derivation=pb.DERIVATION_FINE_TUNED),
    ]

    version(registry, lineage=pb.Lineage(parents=parents))

    kept = numbered(registry, 1).lineage.parents
    assert [(p.model, p.version, p.derivation) for p in kept] == [
        ("base", 2, pb.DERIVATION_DISTILLED),
        ("base", 1, pb.DERIVATION_FINE_TUNED),
    ]
    assert {p.model_id for p in kept} == {parent.model_id}


def test_a_parent_that_does_not_exist_is_refused(registry: Registry) -> None:
    model(registry)

    with refused("VERSION_NOT_FOUND"):
        version(registry, lineage=pb.Lineage(parents=[pb.ParentVersion(model="churn", version=7)]))
    with refused("MODEL_NOT_FOUND"):
        version(registry, lineage=pb.Lineage(parents=[pb.ParentVersion(model="ghost", version=1)]))

    assert version(registry).version == 1


def test_equal_content_has_an_equal_digest(registry: Registry) -> None:
    model(registry)
    first = version(registry, **whole())

    second = version(registry, **whole(tags={}, description="other words", status=READY))

    assert first.content_digest == second.content_digest
    assert len(first.content_digest) == 64


@pytest.mark.parametrize(
    "changed",
    [
        {"source": "s3://elsewhere"},
        {"params": {"depth": "7"}},
        {"signature": "{}"},
        {"flavors": ["sklearn"]},
        {"lineage": pb.Lineage(run_id="run-2")},
        {"lineage": pb.Lineage(parents=[pb.ParentVersion(model="churn", version=1)])},
    ],
    ids=["source", "params", "signature", "flavors", "run", "parents"],
)
def test_other_content_has_another_digest(registry: Registry, changed: dict[str, Any]) -> None:
    model(registry)
    first = version(registry, **whole())

    second = version(registry, **whole(**changed))

    assert first.content_digest != second.content_digest


def test_a_digest_outlives_whatever_is_not_content(registry: Registry) -> None:
    model(registry)
    made = version(registry, **whole())

    set_tags(registry, more="tags")
    update(registry, ["description", "status"], description="new", status=READY)
    promote(registry, 1)
    alias(registry, 1)
    rename(registry, "churn", "leavers")

    assert numbered(registry, 1, "leavers").content_digest == made.content_digest


def test_registration_may_fail_or_succeed(registry: Registry) -> None:
    model(registry)
    version(registry, status=PENDING)

    failed = update(
        registry, ["status", "status_message"], status=FAILED, status_message="no such bucket"
    )
    ready = update(registry, ["status", "status_message"], status=READY)

    assert (failed.status, failed.status_message) == (FAILED, "no such bucket")
    assert (ready.status, ready.status_message) == (READY, "")
    assert ready == numbered(registry, 1)


def test_a_status_named_in_the_mask_must_be_given(registry: Registry) -> None:
    versions(registry, 1)

    with refused("INVALID_FIELD"):
        update(registry, ["status"])


@pytest.mark.parametrize("paths", [[], ["source"], ["params"], ["tags"], ["lineage"], ["*"]])
def test_what_a_version_is_never_changes(registry: Registry, paths: list[str]) -> None:
    versions(registry, 1)

    with refused("INVALID_UPDATE_MASK"):
        update(registry, paths)


def test_an_update_that_changes_nothing_takes_no_revision(registry: Registry) -> None:
    made = versions(registry, 1)[0]

    assert update(registry, ["status", "description"], status=READY) == made
    assert head(registry) == made.revision


def test_tags_are_set_and_deleted_one_by_one(registry: Registry) -> None:
    model(registry)
    version(registry, tags={"team": "a", "tier": "1"})

    set_tags(registry, tier="2", empty="")
    request = pb.DeleteModelVersionTagsRequest(
        model="churn", version=1, keys=["team", "absent", "team"]
    )
    answer = registry.DeleteModelVersionTags(request, ANONYMOUS)

    assert dict(answer.version.tags) == {"tier": "2", "empty": ""}
    assert answer.version == numbered(registry, 1)
    assert answer.version.revision == answer.revision


def test_tags_that_are_so_already_take_no_revision(registry: Registry) -> None:
    model(registry)
    made = version(registry, tags={"team": "a"})

    kept = set_tags(registry, team="a").version
    request = pb.DeleteModelVersionTagsRequest(model="churn", version=1, keys=["absent"])
    same = registry.DeleteModelVersionTags(request, ANONYMOUS).version

    assert kept == same == made
    assert head(registry) == made.revision


def test_a_version_has_five_hundred_tags_at_most_however_they_come(registry: Registry) -> None:
    model(registry)
    version(registry, tags={f"k{number}": "" for number in range(500)})

    with refused("INVALID_FIELD"):
        set_tags(registry, one_more="")


def test_long_texts_come_back_whole(registry: Registry) -> None:
    texts = {"description": "d" * 5000, "source": "s" * 4096, "signature": "é" * 50_000}
    tags, params = {"long": "t" * 100_000}, {"long": "p" * 6000}
    model(registry)

    fields: dict[str, Any] = {**texts, "tags": tags, "params": params}
    made = version(registry, **fields)

    got = numbered(registry, 1)
    assert made == got
    assert {field: getattr(got, field) for field in texts} == texts
    assert (dict(got.tags), dict(got.params)) == (tags, params)


def test_a_copy_has_everything_but_its_place_and_names_its_original(registry: Registry) -> None:
    model(registry)
    origin = version(registry, **whole(status=READY))
    promote(registry, 1)
    alias(registry, 1)
    versions(registry, 1, "target")

    copy = copied(registry, 1, "target")

    assert copy == numbered(registry, 2, "target")
    for field in ("source", "description", "tags", "params", "signature", "flavors", "status"):
        assert getattr(copy, field) == getattr(origin, field)
    assert list(copy.stages) == list(copy.aliases) == []
    assert copy.lineage.run_id == "run-1"
    assert list(copy.lineage.parents) == [
        pb.ParentVersion(
            model="churn",
            version=1,
            derivation=pb.DERIVATION_COPIED,
            model_id=origin.model_id,
        )
    ]


def test_a_copy_keeps_parents_that_are_deleted_by_now(registry: Registry) -> None:
    versions(registry, 1, "base")
    model(registry)
    version(registry, lineage=pb.Lineage(parents=[pb.ParentVersion(model="base", version=1)]))
    delete(registry, "base")
    model(registry, "target")

    copy = copied(registry, 1, "target")

    assert [(p.model, p.version) for p in copy.lineage.parents] == [("base", 1), ("churn", 1)]


def test_a_version_may_be_copied_within_its_model(registry: Registry) -> None:
    versions(registry, 1)

    assert copied(registry, 1, "churn").version == 2


def test_a_copy_can_be_tried_first(registry: Registry) -> None:
    versions(registry, 1)
    model(registry, "target")

    tried = copied(registry, 1, "target", validate_only=True)

    assert tried.version == 1
    assert found(registry, "target").latest_version == 0


def test_what_is_not_there_is_not_copied(registry: Registry) -> None:
    versions(registry, 1)

    with refused("MODEL_NOT_FOUND"):
        copied(registry, 1, "ghost")
    with refused("MODEL_NOT_FOUND"):
        copied(registry, 1, "churn", name="ghost")
    with refused("VERSION_NOT_FOUND"):
        copied(registry, 2, "churn")


def test_a_version_in_use_is_deleted_only_by_force(registry: Registry) -> None:
    versions(registry, 1)
    promote(registry, 1)
    alias(registry, 1)

    with refused("VERSION_IN_USE") as caught:
        delete_version(registry, 1)

    texts = [p.description for p in caught.error.preconditions]
    assert texts == ["it is in stage 'Production'", "it has alias 'champion'"]
    assert delete_version(registry, 1, force=True).deleted


def test_a_version_in_an_inactive_stage_only_is_not_in_use(registry: Registry) -> None:
    versions(registry, 1)
    promote(registry, 1, "Archived")

    deleted = delete_version(registry, 1)

    assert deleted.deleted
    assert list(deleted.stages) == []


def test_a_deleted_version_leaves_its_stages_and_aliases_and_is_not_found(
    registry: Registry,
) -> None:
    versions(registry, 2)
    promote(registry, 1)
    alias(registry, 1)

    deleted = delete_version(registry, 1, force=True)

    assert (list(deleted.stages), list(deleted.aliases)) == ([], [])
    assert deleted.revision == head(registry)
    assert holders(registry) == []
    assert dict(found(registry).aliases) == {}
    assert listed(registry, model="churn") == [("churn", 2)]
    with refused("VERSION_NOT_FOUND"):
        numbered(registry, 1)
    with refused("VERSION_NOT_FOUND"):
        delete_version(registry, 1)


def test_an_undeleted_version_is_in_no_stage_and_has_no_alias(registry: Registry) -> None:
    model(registry)
    made = version(registry, **whole(status=READY))
    promote(registry, 1)
    alias(registry, 1)
    delete_version(registry, 1, force=True)

    back = undeleted(registry, 1)

    assert back == numbered(registry, 1)
    assert (list(back.stages), list(back.aliases), back.deleted) == ([], [], False)
    assert (back.tags, back.lineage, back.create_time) == (
        made.tags,
        made.lineage,
        made.create_time,
    )


def test_only_what_is_deleted_can_be_undeleted_or_purged(registry: Registry) -> None:
    versions(registry, 1)

    with refused("NOT_DELETED"):
        undeleted(registry, 1)
    with refused("NOT_DELETED"):
        purged(registry, 1)
    with refused("VERSION_NOT_FOUND"):
        undeleted(registry, 2)


def test_a_purged_version_keeps_its_number_and_loses_its_texts(registry: Registry) -> None:
    model(registry)
    made = version(registry, **whole(), metrics=[pb.Metric(key="auc", value=1)])
    delete_version(registry, 1)

    left = purged(registry, 1)

    blank = pb.ModelVersion(
        namespace="default",
        model="churn",
        model_id=made.model_id,
        version=1,
        status=PENDING,
        content_digest=made.content_digest,
        creator="anonymous",
        revision=head(registry),
        create_time=made.create_time,
        update_time=left.update_time,
        activity_time=left.activity_time,
        deleted=True,
        purged=True,
    )
    assert left == blank
    with refused("PURGED"):
        undeleted(registry, 1)
    with refused("PURGED"):
        purged(registry, 1)
    assert version(registry).version == 2


def test_every_write_refuses_a_revision_that_is_not_the_versions(registry: Registry) -> None:
    made = versions(registry, 1)[0]
    place: dict[str, Any] = {
        "model": "churn",
        "version": 1,
        "expected_revision": made.revision - 1,
    }
    requests: list[tuple[Any, Any]] = [
        (registry.SetModelVersionTags, pb.SetModelVersionTagsRequest(**place, tags={"a": ""})),
        (registry.DeleteModelVersionTags, pb.DeleteModelVersionTagsRequest(**place, keys=["a"])),
        (registry.DeleteModelVersion, pb.DeleteModelVersionRequest(**place)),
        (registry.UndeleteModelVersion, pb.UndeleteModelVersionRequest(**place)),
        (registry.PurgeModelVersion, pb.PurgeModelVersionRequest(**place, reason="law")),
        (registry.SetAlias, pb.SetAliasRequest(**place, alias="champion")),
        (registry.TransitionStage, pb.TransitionStageRequest(**place, stage="Staging")),
        (registry.RemoveFromStage, pb.RemoveFromStageRequest(**place, stage="Staging")),
        (
            registry.UpdateModelVersion,
            pb.UpdateModelVersionRequest(
                **place,
                update=pb.ModelVersionUpdate(description="x"),
                update_mask=FieldMask(paths=["description"]),
            ),
        ),
    ]

    for operation, request in requests:
        with refused("REVISION_MISMATCH") as caught:
            operation(request, ANONYMOUS)
        assert caught.error.metadata == {"current_revision": str(made.revision)}

    assert numbered(registry, 1) == made


def test_versions_of_one_model_are_listed_newest_first_in_pages(registry: Registry) -> None:
    versions(registry, 5)
    seen: list[int] = []
    token = ""

    while True:
        request = pb.ListModelVersionsRequest(model="churn", page_size=2, page_token=token)
        page = registry.ListModelVersions(request, ANONYMOUS)
        seen += [v.version for v in page.versions]
        token = page.next_page_token
        if not token:
            break

    assert seen == [5, 4, 3, 2, 1]


def test_versions_of_all_models_are_listed_newest_first(registry: Registry) -> None:
    versions(registry, 2, "a")
    versions(registry, 1, "b")
    version(registry, "a")

    assert listed(registry) == [("a", 3), ("b", 1), ("a", 2), ("a", 1)]


def test_a_list_shows_versions_as_they_are_read_one_by_one(registry: Registry) -> None:
    model(registry)
    version(registry, **whole(status=READY))
    version(registry, metrics=[pb.Metric(key="auc", value=0.5)])
    promote(registry, 1)
    alias(registry, 2)

    request = pb.ListModelVersionsRequest(model="churn", include_metrics=True)
    page = registry.ListModelVersions(request, ANONYMOUS)

    alone = [numbered(registry, n, include_metrics=True) for n in (2, 1)]
    assert list(page.versions) == alone
    assert page.revision == head(registry)


def test_versions_are_filtered_by_what_they_hold(registry: Registry) -> None:
    model(registry)
    version(registry, metrics=[pb.Metric(key="auc", value=0.95)], tags={"team": "risk"})
    version(registry, metrics=[pb.Metric(key="auc", value=0.5)], tags={"team": "risk"})
    version(registry, metrics=[pb.Metric(key="auc", value=0.99)])
    promote(registry, 1, "Staging")

    text = "metrics.auc >= 0.9 AND stage = 'Staging' AND tags.team IN ('risk', 'fraud')"
    assert listed(registry, filter=text) == [("churn", 1)]


def test_versions_without_the_metric_or_with_nan_come_last_either_way(registry: Registry) -> None:
    model(registry)
    for value in (0.5, math.nan, math.inf, None, -math.inf, 0.9):
        points = [] if value is None else [pb.Metric(key="auc", value=value)]
        version(registry, metrics=points)

    def order(direction: str) -> list[int]:
        seen: list[int] = []
        token = ""
        while True:
            request = pb.ListModelVersionsRequest(
                model="churn",
                order_by=f"metrics.auc {direction}",
                page_size=1,
                page_token=token,
            )
            page = registry.ListModelVersions(request, ANONYMOUS)
            seen += [v.version for v in page.versions]
            token = page.next_page_token
            if not token:
                return seen

    assert order("desc")[:4] == [3, 6, 1, 5]
    assert order("asc")[:4] == [5, 1, 6, 3]
    assert sorted(order("desc")[4:]) == sorted(order("asc")[4:]) == [2, 4]


@pytest.mark.parametrize("order_by", ["colour desc", "metrics.", "name sideways"])
def test_an_order_by_nothing_sortable_is_refused(registry: Registry, order_by: str) -> None:
    with refused("INVALID_ORDER_BY"):
        listed(registry, order_by=order_by)


def test_a_filter_that_does_not_parse_is_refused(registry: Registry) -> None:
    with refused("INVALID_FILTER") as caught:
        listed(registry, filter="stage = = 'x'")

    assert [f.field for f in caught.error.fields] == ["filter"]


def test_versions_of_an_unknown_model_are_not_found(registry: Registry) -> None:
    with refused("MODEL_NOT_FOUND"):
        listed(registry, model="ghost")
    with refused("NAMESPACE_NOT_FOUND"):
        listed(registry, namespace="nowhere")
