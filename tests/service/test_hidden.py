"""What may not be seen is as if it were not there: told by no answer, refusal, list or count.

Two registries have the same that ann may see; one of them has much more beside it. Whatever she
asks is answered alike by both, but for what goes by the log alone: revisions, times, ids, hashes.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf import json_format
from google.protobuf.field_mask_pb2 import FieldMask

from stagewire import errors, pb, rights
from stagewire.callers import ANONYMOUS, Caller
from stagewire.rights import Scope
from stagewire.service.registry import Registry
from stagewire.store.opening import open_database
from tests.factories import hand_out_sessions, refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from google.protobuf.message import Message

ID = re.compile(r"\b[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}\b|\b[0-9a-f]{16}\b")
#: What goes by the log: of an equal registry with more in it these are others.
OF_THE_LOG = re.compile(r"revision|time|hash|log_id|lag|digest")

NAMES = (
    *("mine-a", "mine-b", "mine-old", "mine-new", "mine-was", "mine-gone"),
    *("hidden-a", "hidden-old", "hidden-new", "hidden-gone", "hidden-was", "ghost", "mine-ghost"),
)
SPACES = ("", "vault", "nowhere")
ROLES = ("viewer", "registrar", "approver", "editor")


class Seen:
    """One registry, and what ann is told by it."""

    def __init__(self, registry: Registry, role: str) -> None:
        """Give ann a role on what begins with `mine`."""
        self.registry = registry
        scopes = frozenset({Scope(role, model="mine*"), Scope("deployer", model="mine*")})
        self.ann = Caller(
            name="ann", rights=rights.of(scopes), method=pb.AUTHENTICATION_METHOD_TOKEN
        )
        self.hidden_id = "0" * 32

    def root(self, method: str, request: Any) -> Any:
        """Call as one who may do everything."""
        return getattr(self.registry, method)(request, ANONYMOUS)

    def told(self, method: str, request: Any) -> Any:
        """Call as ann and give all that she learns, but for what is the log's."""
        try:
            answer = getattr(self.registry, method)(request, self.ann)
        except errors.RegistryError as error:
            return _plain(
                [
                    *(error.reason, error.message, error.resource_type, error.resource_name),
                    [[f.field, f.description] for f in error.fields],
                    [[p.type, p.subject, p.description] for p in error.preconditions],
                    dict(error.metadata),
                ],
                {self.hidden_id: "hidden"},
            )
        return _plain(json_format.MessageToDict(answer), {self.hidden_id: "hidden"})


def _plain(value: Any, known: dict[str, str]) -> Any:
    """Leave out what is the log's, and number ids by when they first come."""
    if isinstance(value, dict):
        return {
            key: ("there" if key == "nextPageToken" else _plain(found, known))
            for key, found in value.items()
            if not OF_THE_LOG.search(re.sub(r"[A-Z]", lambda m: f"_{m[0].lower()}", str(key)))
        }
    if isinstance(value, list):
        return [_plain(item, known) for item in value]
    if isinstance(value, str):
        return ID.sub(lambda m: known.setdefault(m[0], f"id-{len(known)}"), value)
    return value


def _make(do: Callable[[str, Any], Any], name: str, *, space: str = "", versions: int = 2) -> str:
    """Make a model that holds something everywhere."""
    where: dict[str, Any] = {"namespace": space, "model": name}
    wanted = pb.Model(name=name, tags={"team": "risk"}, description="of the team")
    made = do("CreateModel", pb.CreateModelRequest(namespace=space, model=wanted)).model
    for index in range(versions):
        version = pb.ModelVersion(
            source=f"s3://bucket/{index}",
            tags={"team": "risk"},
            params={"lr": "0.1"},
            lineage=pb.Lineage(run_id=f"run-{index}"),
        )
        metrics = [pb.Metric(key="auc", value=index / 10)]
        request = pb.CreateModelVersionRequest(**where, version=version, metrics=metrics)
        number = do("CreateModelVersion", request).version.version
        do(
            "TransitionStage",
            pb.TransitionStageRequest(**where, version=number, stage="Production"),
        )
        if not index:
            do("SetAlias", pb.SetAliasRequest(**where, version=number, alias="champion"))
    return str(made.id)


def _report(do: Callable[[str, Any], Any], agent: str, model: str) -> None:
    target = pb.TargetStatus(
        target="eu", model=model, stage="Production", state=pb.DEPLOYMENT_STATE_SERVING
    )
    do("ReportStatus", pb.ReportStatusRequest(agent=agent, session=1, seq=1, targets=[target]))


def _fill(seen: Seen, *, more: bool) -> None:
    """Make what ann sees, and with `more` whatever she may not see in between."""
    do = seen.root
    hand_out_sessions(seen.registry)
    if more:
        do("CreateNamespace", pb.CreateNamespaceRequest(namespace=pb.Namespace(name="vault")))
        _make(do, "hidden-a")
        _make(do, "mine-a", space="vault")
        _make(do, "a", space="vault")
    _make(do, "mine-a")
    _make(do, "hidden-was")
    do("RenameModel", pb.RenameModelRequest(model="hidden-was", new_name="mine-was"))
    if more:
        _make(do, "hidden-was")
        _make(do, "hidden-old")
        do("RenameModel", pb.RenameModelRequest(model="hidden-old", new_name="hidden-new"))
        seen.hidden_id = _make(do, "hidden-gone")
        do("DeleteModel", pb.DeleteModelRequest(model="hidden-gone", force=True))
    _make(do, "mine-old")
    do("RenameModel", pb.RenameModelRequest(model="mine-old", new_name="mine-new"))
    _make(do, "mine-gone")
    do("DeleteModel", pb.DeleteModelRequest(model="mine-gone", force=True))
    _make(do, "mine-b", versions=3)
    _report(do, "a1", "mine-a")
    if more:
        _report(do, "a2", "hidden-a")
        hook = pb.Webhook(name="ci", url="https://hooks.example/in", events=["*"])
        do("CreateWebhook", pb.CreateWebhookRequest(webhook=hook))
        do("CreateToken", pb.CreateTokenRequest(token=pb.Token(subject="bob")))
        grant = pb.Grant(subject="bob", scope=pb.Scope(role=pb.ROLE_ADMIN, namespace="vault"))
        do("CreateGrant", pb.CreateGrantRequest(grant=grant))


#: Reads of a namespace, of a model in it, and of one of its versions.
READS: dict[str, Callable[[str, str], Message]] = {
    "GetNamespace": lambda space, _: pb.GetNamespaceRequest(name=space or "default"),
    "ListNamespaces": lambda _s, _n: pb.ListNamespacesRequest(),
    "ListStages": lambda space, _: pb.ListStagesRequest(namespace=space),
    "GetModel": lambda space, name: pb.GetModelRequest(
        namespace=space, model=name, include_latest_versions=True
    ),
    "ListModels": lambda space, name: pb.ListModelsRequest(
        namespace=space, filter=f"name = '{name}'", include_holdings=True
    ),
    "GetModelVersion": lambda space, name: pb.GetModelVersionRequest(
        namespace=space, model=name, version=1, include_metrics=True
    ),
    "ListModelVersions": lambda space, name: pb.ListModelVersionsRequest(
        namespace=space, model=name
    ),
    "ResolveModelVersion": lambda space, name: pb.ResolveModelVersionRequest(
        namespace=space, uri=f"models:/{name}/Production"
    ),
    "GetLatestVersions": lambda space, name: pb.GetLatestVersionsRequest(
        namespace=space, model=name, stages=["Production", "None"]
    ),
    "GetStageHistory": lambda space, name: pb.GetStageHistoryRequest(namespace=space, model=name),
    "ListMetrics": lambda space, name: pb.ListMetricsRequest(namespace=space, model=name),
    "ListEvents": lambda space, name: pb.ListEventsRequest(
        namespace=space, model=name, page_size=1000
    ),
    "ListDeployments": lambda space, name: pb.ListDeploymentsRequest(namespace=space, model=name),
    "GetDeploymentStatus": lambda space, name: pb.GetDeploymentStatusRequest(
        namespace=space, model=name
    ),
    "ListWebhooks": lambda space, _: pb.ListWebhooksRequest(namespace=space),
    "ListTokens": lambda _s, _n: pb.ListTokensRequest(include_ended=True),
    "ListGrants": lambda space, _: pb.ListGrantsRequest(namespace=space),
    "ListRefusals": lambda _s, _n: pb.ListRefusalsRequest(),
    "GetCaller": lambda _s, _n: pb.GetCallerRequest(),
}


def _resolved(**selector: Any) -> Callable[[str, str], Message]:
    return lambda space, name: pb.ResolveModelVersionRequest(
        namespace=space, model=name, **selector
    )


#: The same by other ways.
MORE_READS: list[tuple[str, Callable[[str, str], Message]]] = [
    ("ResolveModelVersion", _resolved()),
    ("ResolveModelVersion", _resolved(version=2)),
    ("ResolveModelVersion", _resolved(version=9)),
    ("ResolveModelVersion", _resolved(alias="champion")),
    ("ResolveModelVersion", _resolved(stage="Prodction")),
    ("GetModelVersion", lambda s, n: pb.GetModelVersionRequest(namespace=s, model=n, version=9)),
    ("ListMetrics", lambda s, n: pb.ListMetricsRequest(namespace=s, model=n, version=1)),
    ("ListEvents", lambda _, n: pb.ListEventsRequest(namespace="*", model=n, page_size=1000)),
    (
        "GetStageHistory",
        lambda s, n: pb.GetStageHistoryRequest(namespace=s, model=n, stage="Hiden"),
    ),
]

#: Lists that might tell by their order, by what they find, or by where a page ends.
LISTS: list[tuple[str, Any]] = [
    ("ListModels", pb.ListModelsRequest()),
    ("ListModels", pb.ListModelsRequest(order_by="create_time desc", include_holdings=True)),
    ("ListModels", pb.ListModelsRequest(order_by="name desc", page_size=2)),
    ("ListModels", pb.ListModelsRequest(filter="name LIKE '%hidden%'")),
    ("ListModels", pb.ListModelsRequest(filter="tags.team = 'risk'")),
    ("ListModels", pb.ListModelsRequest(filter="NOT name LIKE 'mine%'")),
    ("ListModels", pb.ListModelsRequest(namespace="vault")),
    ("ListModels", pb.ListModelsRequest(namespace="*")),
    ("ListModelVersions", pb.ListModelVersionsRequest()),
    ("ListModelVersions", pb.ListModelVersionsRequest(order_by="name, version desc", page_size=2)),
    ("ListModelVersions", pb.ListModelVersionsRequest(filter="run_id = 'run-1'")),
    ("ListModelVersions", pb.ListModelVersionsRequest(filter="stage = 'Production'")),
    ("ListModelVersions", pb.ListModelVersionsRequest(filter="alias = 'champion'")),
    ("ListModelVersions", pb.ListModelVersionsRequest(filter="metrics.auc > 0")),
    ("ListModelVersions", pb.ListModelVersionsRequest(filter="NOT name = 'mine-a'")),
    ("ListDeployments", pb.ListDeploymentsRequest()),
    ("ListDeployments", pb.ListDeploymentsRequest(agent="a2")),
    ("ListDeployments", pb.ListDeploymentsRequest(target_prefix="e", stage="Production")),
    ("ListDeployments", pb.ListDeploymentsRequest(in_sync=False)),
    ("ListEvents", pb.ListEventsRequest(namespace="*", page_size=1000)),
    ("ListEvents", pb.ListEventsRequest(namespace="", page_size=1000)),
    ("ListEvents", pb.ListEventsRequest(namespace="*", page_size=1000, actor="anonymous")),
    (
        "ListEvents",
        pb.ListEventsRequest(namespace="*", kinds=[pb.CHANGE_KIND_MODEL_RENAMED], page_size=1000),
    ),
    (
        "ListEvents",
        pb.ListEventsRequest(namespace="*", kinds=[pb.CHANGE_KIND_TOKEN_CREATED], page_size=1000),
    ),
]

MASK = FieldMask(paths=["description"])

#: Changes of a model by its name. None is refused otherwise for being there unseen.
WRITES: dict[str, Callable[[str, str], Message]] = {
    "CreateModel": lambda s, n: pb.CreateModelRequest(namespace=s, model=pb.Model(name=n)),
    "UpdateModel": lambda s, n: pb.UpdateModelRequest(
        namespace=s, model=n, update=pb.ModelUpdate(description="new"), update_mask=MASK
    ),
    "SetModelTags": lambda s, n: pb.SetModelTagsRequest(namespace=s, model=n, tags={"a": "b"}),
    "DeleteModelTags": lambda s, n: pb.DeleteModelTagsRequest(namespace=s, model=n, keys=["a"]),
    "CreateModelVersion": lambda s, n: pb.CreateModelVersionRequest(
        namespace=s, model=n, version=pb.ModelVersion(source="s3://b/m")
    ),
    "UpdateModelVersion": lambda s, n: pb.UpdateModelVersionRequest(
        namespace=s,
        model=n,
        version=1,
        update=pb.ModelVersionUpdate(description="new"),
        update_mask=MASK,
    ),
    "SetModelVersionTags": lambda s, n: pb.SetModelVersionTagsRequest(
        namespace=s, model=n, version=1, tags={"a": "b"}
    ),
    "DeleteModelVersionTags": lambda s, n: pb.DeleteModelVersionTagsRequest(
        namespace=s, model=n, version=1, keys=["a"]
    ),
    "CopyModelVersion": lambda s, n: pb.CopyModelVersionRequest(
        namespace=s, model=n, version=1, target_model="mine-b"
    ),
    "SetAlias": lambda s, n: pb.SetAliasRequest(namespace=s, model=n, version=1, alias="new"),
    "DeleteAlias": lambda s, n: pb.DeleteAliasRequest(namespace=s, model=n, alias="new"),
    "TransitionStage": lambda s, n: pb.TransitionStageRequest(
        namespace=s, model=n, version=1, stage="Staging"
    ),
    "BatchTransitionStages": lambda s, n: pb.BatchTransitionStagesRequest(
        namespace=s,
        transitions=[
            pb.Transition(model="mine-a", version=2, stage="Staging"),
            pb.Transition(model=n, version=1, stage="Staging"),
        ],
    ),
    "RemoveFromStage": lambda s, n: pb.RemoveFromStageRequest(
        namespace=s, model=n, version=1, stage="Staging"
    ),
    "RollbackStage": lambda s, n: pb.RollbackStageRequest(namespace=s, model=n, stage="Production"),
    "LogMetrics": lambda s, n: pb.LogMetricsRequest(
        namespace=s, model=n, version=1, metrics=[pb.Metric(key="f1", value=1)]
    ),
    "ReportStatus": lambda s, n: pb.ReportStatusRequest(
        namespace=s,
        agent="a1",
        session=2,
        seq=1,
        targets=[
            pb.TargetStatus(
                target="us", model=n, stage="Staging", state=pb.DEPLOYMENT_STATE_SERVING
            )
        ],
    ),
    "DeleteModelVersion": lambda s, n: pb.DeleteModelVersionRequest(
        namespace=s, model=n, version=2
    ),
    "UndeleteModelVersion": lambda s, n: pb.UndeleteModelVersionRequest(
        namespace=s, model=n, version=2
    ),
    "PurgeModelVersion": lambda s, n: pb.PurgeModelVersionRequest(
        namespace=s, model=n, version=2, reason="law"
    ),
    "DeleteModel": lambda s, n: pb.DeleteModelRequest(namespace=s, model=n),
}

#: By what else a hidden one might be met: as parent, source, target, new name.
MORE_WRITES: list[tuple[str, Callable[[str, str], Message]]] = [
    (
        "CreateModelVersion",
        lambda s, n: pb.CreateModelVersionRequest(
            namespace=s,
            model="mine-b",
            version=pb.ModelVersion(
                source="s3://b/m",
                lineage=pb.Lineage(parents=[pb.ParentVersion(model=n, version=1)]),
            ),
        ),
    ),
    *(
        (
            "CreateModelVersion",
            lambda s, n, end=end: pb.CreateModelVersionRequest(
                namespace=s, model="mine-b", version=pb.ModelVersion(source=f"models:/{n}{end}")
            ),
        )
        for end in ("/1", "/Production", "@champion", "/latest", "/9")
    ),
    (
        "CopyModelVersion",
        lambda s, n: pb.CopyModelVersionRequest(
            namespace=s, model="mine-a", version=1, target_model=n
        ),
    ),
    (
        "CreateModel",
        lambda s, n: pb.CreateModelRequest(namespace=s, model=pb.Model(name=n), validate_only=True),
    ),
    (
        "CreateGrant",
        lambda s, n: pb.CreateGrantRequest(
            grant=pb.Grant(subject="ann", scope=pb.Scope(role=pb.ROLE_VIEWER, namespace=s, model=n))
        ),
    ),
    ("DeleteNamespace", lambda s, _: pb.DeleteNamespaceRequest(name=s or "default")),
    (
        "CreateNamespace",
        lambda s, _: pb.CreateNamespaceRequest(namespace=pb.Namespace(name=s or "default")),
    ),
    ("DeleteStage", lambda s, _: pb.DeleteStageRequest(namespace=s, stage="Stging")),
]


@pytest.fixture(params=ROLES)
def pair(request: pytest.FixtureRequest, two_urls: tuple[str, str]) -> Iterator[tuple[Seen, Seen]]:
    """Give a registry with what ann sees, and one with more beside it."""
    databases = [open_database(url, readers=4) for url in two_urls]
    found = [Seen(Registry(database), request.param) for database in databases]
    for seen, more in zip(found, (False, True), strict=True):
        seen.registry.bootstrap()
        _fill(seen, more=more)
    yield found[0], found[1]
    for database in databases:
        database.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def two_urls(
    request: pytest.FixtureRequest, sqlite_template: Path, tmp_path: Path
) -> tuple[str, str]:
    """Give two fresh registries on each database in turn."""
    if request.param == "postgresql":
        make = request.getfixturevalue("make_postgres_url")
        return make(), make()
    for name in ("few", "many"):
        (tmp_path / f"{name}.db").write_bytes(sqlite_template.read_bytes())
    return f"sqlite:///{tmp_path}/few.db", f"sqlite:///{tmp_path}/many.db"


def reads() -> Iterator[tuple[str, Any]]:
    """Give every read under every name in every namespace."""
    yield from LISTS
    for space in SPACES:
        for name in NAMES:
            for method, make in (*READS.items(), *MORE_READS):
                yield method, make(space, name)


def writes() -> Iterator[tuple[str, Any]]:
    """Give every change under every name in every namespace."""
    for method, make in (*MORE_WRITES, *WRITES.items()):
        for space in SPACES:
            for name in NAMES:
                yield method, make(space, name)


def _assert_alike(pair: tuple[Seen, Seen], calls: Iterator[tuple[str, Any]]) -> int:
    few, many = pair
    count = 0
    for method, request in calls:
        expected = few.told(method, request)
        told = many.told(method, request)
        assert told == expected, (method, request)
        count += 1
    return count


def test_what_is_hidden_is_told_by_nothing(pair: tuple[Seen, Seen]) -> None:
    few, many = pair
    hidden = _hidden(many)

    assert _assert_alike(pair, reads()) > 1000
    assert _assert_alike(pair, writes()) > 1000
    assert _assert_alike(pair, _by_id(few, many)) > 0
    # What ann changed meanwhile is alike, too; and nothing that she may not see was touched.
    assert _assert_alike(pair, reads()) > 1000
    assert _hidden(many) == hidden


def _by_id(few: Seen, many: Seen) -> Iterator[tuple[str, Any]]:
    """Ask by an id: of what is hidden where it is there, of nothing where it is not."""
    for method, make in (
        ("UndeleteModel", pb.UndeleteModelRequest),
        ("PurgeModel", pb.PurgeModelRequest),
    ):
        for space in SPACES:
            told = [
                seen.told(method, make(namespace=space, model_id=seen.hidden_id, reason="law"))
                for seen in (few, many)
            ]
            assert told[0] == told[1], (method, space)
            assert told[0][0] in ("MODEL_NOT_FOUND", "NAMESPACE_NOT_FOUND", "PERMISSION_DENIED")
    yield "GetCaller", pb.GetCallerRequest()


def _hidden(many: Seen) -> list[Any]:
    """Read all that ann may not see."""
    found: list[Any] = []
    for space in ("", "vault"):
        models = many.root("ListModels", pb.ListModelsRequest(namespace=space, page_size=1000))
        for model in models.models:
            if space or not model.name.startswith("mine"):
                found += [
                    many.root("GetModel", pb.GetModelRequest(namespace=space, model=model.name)),
                    many.root(
                        "ListModelVersions",
                        pb.ListModelVersionsRequest(namespace=space, model=model.name),
                    ),
                ]
    for answer in found:
        answer.revision = 0
    return found


one_role = pytest.mark.parametrize("pair", ["viewer"], indirect=True)


@one_role
def test_pages_go_on_past_what_is_hidden(pair: tuple[Seen, Seen]) -> None:
    for seen in pair:
        names: list[str] = []
        token = ""
        while True:
            request = pb.ListModelsRequest(page_size=1, page_token=token)
            page = seen.registry.ListModels(request, seen.ann)
            names += [model.name for model in page.models]
            assert len(page.models) == 1
            if not (token := page.next_page_token):
                break

        assert names == ["mine-a", "mine-b", "mine-new", "mine-was"]


@one_role
def test_anothers_page_goes_on_with_what_the_caller_sees(pair: tuple[Seen, Seen]) -> None:
    _, many = pair
    token = many.root("ListModels", pb.ListModelsRequest(page_size=1)).next_page_token

    request = pb.ListModelsRequest(page_size=1000, page_token=token)
    page = many.registry.ListModels(request, many.ann)

    assert [model.name for model in page.models] == ["mine-a", "mine-b", "mine-new", "mine-was"]


def test_under_a_name_that_was_left_for_a_hidden_one_nothing_is_found(registry: Registry) -> None:
    # But for the log, where it is told until it left; and its numbers, which none has twice.
    seen = Seen(registry, "editor")
    _make(seen.root, "mine-left")
    seen.root("RenameModel", pb.RenameModelRequest(model="mine-left", new_name="hidden-left"))

    for method, make in (*READS.items(), *MORE_READS, *WRITES.items(), *MORE_WRITES):
        if method != "CreateModel":
            left, ghost = (seen.told(method, make("", f"mine-{end}")) for end in ("left", "none"))
            assert repr(left).replace("mine-left", "mine-none") == repr(ghost), method
    _make(seen.root, "mine-left")
    old = pb.GetModelVersionRequest(model="mine-left", version=1)
    assert seen.told("GetModelVersion", old)[0] == "VERSION_NOT_FOUND"
    move = pb.TransitionStageRequest(model="mine-left", version=1, stage="Staging")
    assert seen.told("TransitionStage", move)[0] == "VERSION_NOT_FOUND"


def test_an_answer_is_repeated_to_nobody_else_and_never_after_sight_is_lost(
    registry: Registry,
) -> None:
    seen = Seen(registry, "editor")
    request = pb.CreateModelRequest(model=pb.Model(name="mine-a"), request_id="r1")
    first = registry.CreateModel(request, seen.ann).model
    gone = registry.DeleteModel(pb.DeleteModelRequest(model="mine-a"), seen.ann).model
    back = pb.UndeleteModelRequest(model_id=gone.id, request_id="r2")
    registry.UndeleteModel(back, seen.ann)

    assert registry.UndeleteModel(back, seen.ann).model.id == first.id
    blind = Caller(name="ann", rights=rights.of(frozenset({Scope("viewer", model="other*")})))
    with refused("MODEL_NOT_FOUND"):
        registry.UndeleteModel(back, blind)
    with refused("PERMISSION_DENIED"):
        registry.CreateModel(request, blind)
    bob = Caller(name="bob", rights=seen.ann.rights)
    with refused("MODEL_EXISTS"):
        registry.CreateModel(request, bob)


def test_a_version_names_its_parents_to_whoever_sees_it_and_shows_nothing_of_them(
    registry: Registry,
) -> None:
    seen = Seen(registry, "viewer")
    _make(seen.root, "hidden-a")
    _make(seen.root, "mine-a", versions=0)
    made = pb.CopyModelVersionRequest(model="hidden-a", version=1, target_model="mine-a")
    seen.root("CopyModelVersion", made)

    shown = registry.GetModelVersion(
        pb.GetModelVersionRequest(model="mine-a", version=1), seen.ann
    ).version

    # Where a version comes from is part of it: whoever made it here has told so.
    assert [(p.model, p.version) for p in shown.lineage.parents] == [("hidden-a", 1)]
    with refused("MODEL_NOT_FOUND"):
        registry.GetModelVersion(pb.GetModelVersionRequest(model="hidden-a", version=1), seen.ann)


def _deployer(name: str, *scopes: Scope) -> Caller:
    return Caller(
        name=name,
        rights=rights.of(frozenset(scopes)),
        method=pb.AUTHENTICATION_METHOD_TOKEN,
    )


def _status(model: str, *, seq: int = 1, session: int = 1, stage: str = "Production") -> Any:
    target = pb.TargetStatus(
        target="eu", model=model, stage=stage, state=pb.DEPLOYMENT_STATE_SERVING
    )
    return pb.ReportStatusRequest(
        agent="a1", session=session, seq=seq, targets=[target], complete_from_seq=seq
    )


def _reported(registry: Registry) -> list[tuple[str, str]]:
    found = registry.ListDeployments(pb.ListDeploymentsRequest(), ANONYMOUS).deployments
    return sorted((d.model, d.stage) for d in found)


def test_nobody_speaks_for_an_agent_that_runs_what_is_not_theirs(registry: Registry) -> None:
    hand_out_sessions(registry)
    bob = _deployer("bob", Scope("deployer", model="hidden*"))
    ann = _deployer("ann", Scope("deployer", model="mine*"))
    half = _deployer("eve", Scope("deployer", stage="staging"))
    registry.ReportStatus(_status("hidden-a"), bob)

    # What bob's agent reports would be gone, and it be told that another stands in for it.
    for who, request in (
        (ann, _status("mine-a", session=2)),
        (half, _status("hidden-a", session=2, stage="Staging")),
    ):
        with refused("PERMISSION_DENIED") as told:
            registry.ReportStatus(request, who)
        assert "hidden" not in str(told.error.metadata)
    assert _reported(registry) == [("hidden-a", "Production")]
    assert not registry.ReportStatus(_status("hidden-b", seq=2), bob).superseded
    assert _reported(registry) == [("hidden-b", "Production")]


def test_an_agent_is_taken_over_by_whoever_may_report_all_that_it_runs(
    registry: Registry,
) -> None:
    hand_out_sessions(registry)
    bob = _deployer("bob", Scope("deployer", model="hidden*"))
    registry.ReportStatus(_status("hidden-a"), bob)

    registry.ReportStatus(_status("mine-a", session=2), _deployer("eve", Scope("deployer")))

    assert _reported(registry) == [("mine-a", "Production")]
    with refused("PERMISSION_DENIED"):
        registry.ReportStatus(_status("hidden-a", session=3), bob)


def test_an_agent_goes_on_with_less_when_a_grant_is_taken_back(registry: Registry) -> None:
    hand_out_sessions(registry)
    registry.ReportStatus(_status("hidden-a"), _deployer("bob", Scope("deployer")))

    less = _deployer("bob", Scope("deployer", model="mine*"))
    registry.ReportStatus(_status("mine-a", seq=2), less)

    assert _reported(registry) == [("mine-a", "Production")]


def test_agents_of_when_access_was_not_controlled_are_whoevers_come_first(
    registry: Registry,
) -> None:
    hand_out_sessions(registry)
    registry.ReportStatus(_status("mine-a"), ANONYMOUS)
    request = _status("mine-b", session=2)

    registry.ReportStatus(request, _deployer("ann", Scope("deployer", model="mine*")))

    assert _reported(registry) == [("mine-b", "Production")]
    registry.ReportStatus(_status("hidden-a", session=3), ANONYMOUS)


def test_how_much_a_namespace_holds_is_told_to_whoever_sees_all_of_it(registry: Registry) -> None:
    seen = Seen(registry, "viewer")
    _make(seen.root, "hidden-a")
    limit = pb.UpdateNamespaceRequest(
        name="default",
        update=pb.NamespaceUpdate(quota=pb.Quota(max_models=5)),
        update_mask=FieldMask(paths=["quota"]),
    )
    seen.root("UpdateNamespace", limit)
    request = pb.GetNamespaceRequest(name="default")
    whole = Caller(name="bob", rights=rights.of(frozenset({Scope("viewer")})))

    assert not registry.GetNamespace(request, seen.ann).HasField("usage")
    assert registry.GetNamespace(request, whole).usage.models == 1
