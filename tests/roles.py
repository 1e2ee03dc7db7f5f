"""Who may call what, said once and plainly: the roles, the table, and a call of every RPC.

The table is written down from what the roles are for, not read from the server's rules: a rule
that is wrong differs from it. It is held against the service and against a running server.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from google.protobuf.field_mask_pb2 import FieldMask

from stagewire import pb

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.message import Message

#: A role, where it is granted, and what narrows it. They are of the namespace `default`.
ROLES: dict[str, tuple[pb.Scope, ...]] = {
    "nobody": (),
    "stranger": (pb.Scope(role=pb.ROLE_ADMIN, namespace="elsewhere"),),
    "neighbour": (pb.Scope(role=pb.ROLE_EDITOR, model="other*"),),
    "viewer": (pb.Scope(role=pb.ROLE_VIEWER),),
    "registrar": (pb.Scope(role=pb.ROLE_REGISTRAR),),
    "approver": (pb.Scope(role=pb.ROLE_APPROVER),),
    "deployer": (pb.Scope(role=pb.ROLE_DEPLOYER),),
    "editor": (pb.Scope(role=pb.ROLE_EDITOR),),
    "admin": (pb.Scope(role=pb.ROLE_ADMIN),),
    "root": (pb.Scope(role=pb.ROLE_ADMIN, namespace="*"),),
    "owner": (pb.Scope(role=pb.ROLE_EDITOR, model="churn*"),),
    "a@Staging": (pb.Scope(role=pb.ROLE_APPROVER, stage="Staging"),),
    "d@Staging": (pb.Scope(role=pb.ROLE_DEPLOYER, stage="Staging"),),
    "e@Staging": (pb.Scope(role=pb.ROLE_EDITOR, stage="Staging"),),
    "a@best": (pb.Scope(role=pb.ROLE_APPROVER, alias="best"),),
    "e@best": (pb.Scope(role=pb.ROLE_EDITOR, alias="best"),),
}

ANSWERED, DENIED, NOT_FOUND = "y", "-", "?"

#: Each RPC on what is called `churn...`, stage Production and alias `champion`: answered (y),
#: refused as not granted (-), or refused as not there (?), which is all that one who may not see
#: it is told.
TABLE = """
                         nobody stranger neighbour viewer registrar approver deployer editor admin root owner a@Staging d@Staging e@Staging a@best e@best
CreateNamespace          -      -        -         -      -         -        -        -      -     y    -     -         -         -         -      -
GetNamespace             ?      ?        y         y      y         y        y        y      y     y    y     y         y         y         y      y
ListNamespaces           y      y        y         y      y         y        y        y      y     y    y     y         y         y         y      y
UpdateNamespace          ?      ?        -         -      -         -        -        -      y     y    -     -         -         -         -      -
DeleteNamespace          -      -        -         -      -         -        -        -      -     y    -     -         -         -         -      -
CreateModel              ?      ?        -         -      y         -        -        y      y     y    y     -         -         y         -      y
GetModel                 ?      ?        ?         y      y         y        y        y      y     y    y     y         y         y         y      y
ListModels               ?      ?        y         y      y         y        y        y      y     y    y     y         y         y         y      y
UpdateModel              ?      ?        ?         -      -         -        -        y      y     y    y     -         -         y         -      y
RenameModel              ?      ?        ?         -      -         -        -        y      y     y    y     -         -         y         -      y
DeleteModel              ?      ?        ?         -      -         -        -        y      y     y    y     -         -         y         -      y
UndeleteModel            ?      ?        ?         -      -         -        -        y      y     y    y     -         -         y         -      y
PurgeModel               ?      ?        -         -      -         -        -        -      y     y    -     -         -         -         -      -
SetModelTags             ?      ?        ?         -      -         -        -        y      y     y    y     -         -         y         -      y
DeleteModelTags          ?      ?        ?         -      -         -        -        y      y     y    y     -         -         y         -      y
CreateModelVersion       ?      ?        -         -      y         -        -        y      y     y    y     -         -         y         -      y
GetModelVersion          ?      ?        ?         y      y         y        y        y      y     y    y     y         y         y         y      y
ListModelVersions        ?      ?        ?         y      y         y        y        y      y     y    y     y         y         y         y      y
UpdateModelVersion       ?      ?        ?         -      -         -        -        y      y     y    y     -         -         y         -      y
DeleteModelVersion       ?      ?        ?         -      -         -        -        y      y     y    y     -         -         y         -      y
UndeleteModelVersion     ?      ?        ?         -      -         -        -        y      y     y    y     -         -         y         -      y
PurgeModelVersion        ?      ?        -         -      -         -        -        -      y     y    -     -         -         -         -      -
SetModelVersionTags      ?      ?        ?         -      -         -        -        y      y     y    y     -         -         y         -      y
DeleteModelVersionTags   ?      ?        ?         -      -         -        -        y      y     y    y     -         -         y         -      y
CopyModelVersion         ?      ?        ?         -      y         -        -        y      y     y    y     -         -         y         -      y
ResolveModelVersion      ?      ?        ?         y      y         y        y        y      y     y    y     y         y         y         y      y
GetLatestVersions        ?      ?        ?         y      y         y        y        y      y     y    y     y         y         y         y      y
SetAlias                 ?      ?        ?         -      -         y        -        y      y     y    y     -         -         -         -      -
DeleteAlias              ?      ?        ?         -      -         y        -        y      y     y    y     -         -         -         -      -
CreateStage              ?      ?        -         -      -         -        -        -      y     y    -     -         -         -         -      -
UpdateStage              ?      ?        -         -      -         -        -        -      y     y    -     -         -         -         -      -
ListStages               ?      ?        y         y      y         y        y        y      y     y    y     y         y         y         y      y
DeleteStage              ?      ?        -         -      -         -        -        -      y     y    -     -         -         -         -      -
TransitionStage          ?      ?        ?         -      -         y        -        y      y     y    y     -         -         -         -      -
BatchTransitionStages    ?      ?        ?         -      -         y        -        y      y     y    y     -         -         -         -      -
RemoveFromStage          ?      ?        ?         -      -         y        -        y      y     y    y     -         -         -         -      -
RollbackStage            ?      ?        ?         -      -         y        -        y      y     y    y     -         -         -         -      -
GetStageHistory          ?      ?        ?         y      y         y        y        y      y     y    y     y         y         y         y      y
LogMetrics               ?      ?        -         -      y         -        -        y      y     y    y     -         -         y         -      y
ListMetrics              ?      ?        ?         y      y         y        y        y      y     y    y     y         y         y         y      y
Watch                    ?      ?        y         y      y         y        y        y      y     y    y     y         y         y         y      y
GetHead                  y      y        y         y      y         y        y        y      y     y    y     y         y         y         y      y
ListEvents               ?      ?        ?         y      y         y        y        y      y     y    y     y         y         y         y      y
VerifyLog                -      -        -         -      -         -        -        -      -     y    -     -         -         -         -      -
ReportStatus             ?      ?        ?         -      -         -        y        -      y     y    -     -         -         -         -      -
ListDeployments          ?      ?        y         y      y         y        y        y      y     y    y     y         y         y         y      y
GetDeploymentStatus      ?      ?        ?         y      y         y        y        y      y     y    y     y         y         y         y      y
ForgetAgent              ?      ?        -         -      -         -        y        -      y     y    -     -         -         -         -      -
CreateWebhook            ?      ?        -         -      -         -        -        -      y     y    -     -         -         -         -      -
GetWebhook               ?      ?        -         -      -         -        -        -      y     y    -     -         -         -         -      -
ListWebhooks             ?      ?        -         -      -         -        -        -      y     y    -     -         -         -         -      -
UpdateWebhook            ?      ?        -         -      -         -        -        -      y     y    -     -         -         -         -      -
DeleteWebhook            ?      ?        -         -      -         -        -        -      y     y    -     -         -         -         -      -
TestWebhook              ?      ?        -         -      -         -        -        -      y     y    -     -         -         -         -      -
ListDeliveries           ?      ?        -         -      -         -        -        -      y     y    -     -         -         -         -      -
RedeliverWebhook         ?      ?        -         -      -         -        -        -      y     y    -     -         -         -         -      -
ExportRegistry           ?      ?        -         -      -         -        -        -      y     y    -     -         -         -         -      -
ImportRegistry           -      -        -         -      -         -        -        -      -     y    -     -         -         -         -      -
CreateToken              -      -        -         -      -         -        -        -      -     y    -     -         -         -         -      -
ListTokens               y      y        y         y      y         y        y        y      y     y    y     y         y         y         y      y
RevokeToken              ?      ?        ?         ?      ?         ?        ?        ?      ?     y    ?     ?         ?         ?         ?      ?
CreateGrant              -      -        -         -      -         -        -        -      y     y    -     -         -         -         -      -
ListGrants               y      y        y         y      y         y        y        y      y     y    y     y         y         y         y      y
DeleteGrant              ?      ?        ?         ?      ?         ?        ?        ?      y     y    ?     ?         ?         ?         ?      ?
GetCaller                y      y        y         y      y         y        y        y      y     y    y     y         y         y         y      y
ListRefusals             -      -        -         -      -         -        -        -      -     y    -     -         -         -         -      -
"""  # noqa: E501  # it is a table


def expected() -> dict[str, dict[str, str]]:
    """Read the table: for each RPC what each role is told."""
    head, *rows = [line.split() for line in TABLE.strip().splitlines()]
    return {rpc: dict(zip(head, outcomes, strict=True)) for rpc, *outcomes in rows}


class Scene:
    """A registry in which every RPC can be called once more, on something fresh."""

    def __init__(
        self, do: Callable[[str, Any], Any], *, receiver: str = "https://hooks.example/in"
    ) -> None:
        """Prepare it by calls of one who may do everything; webhooks lead to `receiver`."""
        self.receiver = receiver
        #: Calls as the one who may do everything.
        self.do = do
        self._numbers = itertools.count(1)
        self.space("elsewhere")

    def request(self, method: str) -> Message:
        """Make a request that one who may do everything is answered."""
        return REQUESTS[method](self)

    def name(self) -> str:
        """Give a model's name that is free."""
        return f"churn-{next(self._numbers)}"

    def space(self, name: str = "") -> str:
        """Make a namespace."""
        name = name or self.name()
        wanted = pb.Namespace(name=name)
        self.do("CreateNamespace", pb.CreateNamespaceRequest(namespace=wanted))
        return name

    def model(self, *, versions: int = 0, stage: str = "", alias: str = "") -> str:
        """Make a model with so many versions, each of which was in the stage."""
        name = self.name()
        wanted = pb.Model(name=name, tags={"team": "risk"})
        self.do("CreateModel", pb.CreateModelRequest(model=wanted))
        for number in range(1, versions + 1):
            self.do("CreateModelVersion", REQUESTS_OF_versionS["CreateModelVersion"](name))
            if stage:
                move = pb.TransitionStageRequest(model=name, version=number, stage=stage)
                self.do("TransitionStage", move)
        if alias:
            self.do("SetAlias", pb.SetAliasRequest(model=name, version=1, alias=alias))
        return name

    def without_version(self) -> str:
        """Make a model whose version is deleted."""
        name = self.model(versions=1)
        self.do("DeleteModelVersion", pb.DeleteModelVersionRequest(model=name, version=1))
        return name

    def gone(self) -> str:
        """Make a model that is deleted, and give its id."""
        request = pb.DeleteModelRequest(model=self.model(versions=1))
        return str(self.do("DeleteModel", request).model.id)

    def stage(self) -> str:
        """Define a stage that nothing is in."""
        name = self.name()
        self.do("CreateStage", pb.CreateStageRequest(stage=pb.Stage(name=name)))
        return name

    def hook(self) -> str:
        """Make a webhook, and give its id."""
        request = REQUESTS["CreateWebhook"](self)
        return str(self.do("CreateWebhook", request).webhook.id)

    def agent(self) -> str:
        """Have an agent report what runs, and give its name."""
        request = REQUESTS["ReportStatus"](self)
        self.do("ReportStatus", request)
        return str(request.agent)  # type: ignore[attr-defined]  # it is a report

    def token(self) -> str:
        """Make a token of somebody's, and give its id."""
        return str(self.do("CreateToken", REQUESTS["CreateToken"](self)).token.id)

    def grant(self) -> str:
        """Grant somebody a role, and give the grant's id."""
        return str(self.do("CreateGrant", REQUESTS["CreateGrant"](self)).grant.id)


def _mask(*paths: str) -> FieldMask:
    return FieldMask(paths=paths)


#: What is about a version of a model that is named.
REQUESTS_OF_versionS: dict[str, Callable[[str], Message]] = {
    "CreateModelVersion": lambda name: pb.CreateModelVersionRequest(
        model=name, version=pb.ModelVersion(source="s3://b/m", tags={"team": "risk"})
    ),
    "GetModelVersion": lambda name: pb.GetModelVersionRequest(model=name, version=1),
    "UpdateModelVersion": lambda name: pb.UpdateModelVersionRequest(
        model=name,
        version=1,
        update=pb.ModelVersionUpdate(description="new"),
        update_mask=_mask("description"),
    ),
    "DeleteModelVersion": lambda name: pb.DeleteModelVersionRequest(model=name, version=1),
    "SetModelVersionTags": lambda name: pb.SetModelVersionTagsRequest(
        model=name, version=1, tags={"a": "b"}
    ),
    "DeleteModelVersionTags": lambda name: pb.DeleteModelVersionTagsRequest(
        model=name, version=1, keys=["team"]
    ),
    "ResolveModelVersion": lambda name: pb.ResolveModelVersionRequest(model=name),
    "ListModelVersions": lambda name: pb.ListModelVersionsRequest(model=name),
    "SetAlias": lambda name: pb.SetAliasRequest(model=name, version=1, alias="champion"),
    "TransitionStage": lambda name: pb.TransitionStageRequest(
        model=name, version=1, stage="Production"
    ),
    "BatchTransitionStages": lambda name: pb.BatchTransitionStagesRequest(
        transitions=[pb.Transition(model=name, version=1, stage="Production")]
    ),
    "LogMetrics": lambda name: pb.LogMetricsRequest(
        model=name, version=1, metrics=[pb.Metric(key="auc", value=0.5)]
    ),
    "ListMetrics": lambda name: pb.ListMetricsRequest(model=name, version=1),
}

REQUESTS: dict[str, Callable[[Scene], Message]] = {
    "CreateNamespace": lambda s: pb.CreateNamespaceRequest(namespace=pb.Namespace(name=s.name())),
    "GetNamespace": lambda _: pb.GetNamespaceRequest(name="default"),
    "ListNamespaces": lambda _: pb.ListNamespacesRequest(),
    "UpdateNamespace": lambda s: pb.UpdateNamespaceRequest(
        name="default",
        update=pb.NamespaceUpdate(description=s.name()),
        update_mask=_mask("description"),
    ),
    "DeleteNamespace": lambda s: pb.DeleteNamespaceRequest(name=s.space()),
    "CreateModel": lambda s: pb.CreateModelRequest(model=pb.Model(name=s.name())),
    "GetModel": lambda s: pb.GetModelRequest(model=s.model()),
    "ListModels": lambda _: pb.ListModelsRequest(),
    "UpdateModel": lambda s: pb.UpdateModelRequest(
        model=s.model(),
        update=pb.ModelUpdate(description="new"),
        update_mask=_mask("description"),
    ),
    "RenameModel": lambda s: pb.RenameModelRequest(model=s.model(), new_name=s.name()),
    "DeleteModel": lambda s: pb.DeleteModelRequest(model=s.model()),
    "UndeleteModel": lambda s: pb.UndeleteModelRequest(model_id=s.gone()),
    "PurgeModel": lambda s: pb.PurgeModelRequest(model_id=s.gone(), reason="law"),
    "SetModelTags": lambda s: pb.SetModelTagsRequest(model=s.model(), tags={"a": "b"}),
    "DeleteModelTags": lambda s: pb.DeleteModelTagsRequest(model=s.model(), keys=["team"]),
    **{
        name: (lambda s, make=make: make(s.model(versions=1)))  # type: ignore[misc]
        for name, make in REQUESTS_OF_versionS.items()
    },
    "UndeleteModelVersion": lambda s: pb.UndeleteModelVersionRequest(
        model=s.without_version(), version=1
    ),
    "PurgeModelVersion": lambda s: pb.PurgeModelVersionRequest(
        model=s.without_version(), version=1, reason="law"
    ),
    "CopyModelVersion": lambda s: pb.CopyModelVersionRequest(
        model=s.model(versions=1), version=1, target_model=s.model()
    ),
    "GetLatestVersions": lambda s: pb.GetLatestVersionsRequest(model=s.model()),
    "DeleteAlias": lambda s: pb.DeleteAliasRequest(
        model=s.model(versions=1, alias="champion"), alias="champion"
    ),
    "CreateStage": lambda s: pb.CreateStageRequest(stage=pb.Stage(name=s.name())),
    "UpdateStage": lambda s: pb.UpdateStageRequest(
        stage=s.stage(), update=pb.StageUpdate(description="new"), update_mask=_mask("description")
    ),
    "ListStages": lambda _: pb.ListStagesRequest(),
    "DeleteStage": lambda s: pb.DeleteStageRequest(stage=s.stage()),
    "RemoveFromStage": lambda s: pb.RemoveFromStageRequest(
        model=s.model(versions=1, stage="Production"), version=1, stage="Production"
    ),
    "RollbackStage": lambda s: pb.RollbackStageRequest(
        model=s.model(versions=2, stage="Production"), stage="Production"
    ),
    "GetStageHistory": lambda s: pb.GetStageHistoryRequest(model=s.model()),
    "Watch": lambda _: pb.WatchRequest(start=pb.WATCH_START_NOW),
    "GetHead": lambda _: pb.GetHeadRequest(),
    "ListEvents": lambda s: pb.ListEventsRequest(model=s.model()),
    "VerifyLog": lambda _: pb.VerifyLogRequest(max_revisions=1),
    "ReportStatus": lambda s: pb.ReportStatusRequest(
        agent=s.name(),
        session=1,
        seq=1,
        targets=[
            pb.TargetStatus(
                target="eu",
                model=s.model(),
                stage="Production",
                state=pb.DEPLOYMENT_STATE_SERVING,
            )
        ],
    ),
    "ListDeployments": lambda _: pb.ListDeploymentsRequest(),
    "GetDeploymentStatus": lambda s: pb.GetDeploymentStatusRequest(model=s.model()),
    "ForgetAgent": lambda s: pb.ForgetAgentRequest(agent=s.agent()),
    "CreateWebhook": lambda s: pb.CreateWebhookRequest(
        webhook=pb.Webhook(name="ci", url=s.receiver, events=["*"])
    ),
    "GetWebhook": lambda s: pb.GetWebhookRequest(id=s.hook()),
    "ListWebhooks": lambda _: pb.ListWebhooksRequest(),
    "UpdateWebhook": lambda s: pb.UpdateWebhookRequest(
        id=s.hook(), update=pb.WebhookUpdate(name="cd"), update_mask=_mask("name")
    ),
    "DeleteWebhook": lambda s: pb.DeleteWebhookRequest(id=s.hook()),
    "TestWebhook": lambda s: pb.TestWebhookRequest(id=s.hook()),
    "ListDeliveries": lambda s: pb.ListDeliveriesRequest(id=s.hook()),
    "RedeliverWebhook": lambda s: pb.RedeliverWebhookRequest(id=s.hook(), dead_since_revision=1),
    "ExportRegistry": lambda _: pb.ExportRegistryRequest(namespaces=["default"]),
    "ImportRegistry": lambda s: pb.ImportRegistryRequest(
        records=[
            pb.RegistryRecord(
                namespace=pb.NamespaceRecord(
                    namespace=pb.Namespace(name=s.name()), stages=[pb.Stage(name="Shadow")]
                )
            )
        ]
    ),
    "CreateToken": lambda s: pb.CreateTokenRequest(token=pb.Token(subject=s.name())),
    "ListTokens": lambda _: pb.ListTokensRequest(),
    "RevokeToken": lambda s: pb.RevokeTokenRequest(id=s.token()),
    "CreateGrant": lambda s: pb.CreateGrantRequest(
        grant=pb.Grant(subject=s.name(), scope=pb.Scope(role=pb.ROLE_VIEWER))
    ),
    "ListGrants": lambda _: pb.ListGrantsRequest(),
    "DeleteGrant": lambda s: pb.DeleteGrantRequest(id=s.grant()),
    "GetCaller": lambda _: pb.GetCallerRequest(),
    "ListRefusals": lambda _: pb.ListRefusalsRequest(),
}

Fields = dict[str, Any]


def _version(scene: Scene) -> Fields:
    return {"name": scene.model(versions=1), "version": "1"}


#: Each HTTP route, the RPC that decides on it, and what it is asked with.
ROUTES: dict[tuple[str, str], tuple[str, Callable[[Scene], Fields]]] = {
    ("POST", "/registered-models/create"): ("CreateModel", lambda s: {"name": s.name()}),
    ("POST", "/registered-models/rename"): (
        "RenameModel",
        lambda s: {"name": s.model(), "new_name": s.name()},
    ),
    ("PATCH", "/registered-models/update"): (
        "UpdateModel",
        lambda s: {"name": s.model(), "description": "new"},
    ),
    ("DELETE", "/registered-models/delete"): ("DeleteModel", lambda s: {"name": s.model()}),
    ("GET", "/registered-models/get"): ("GetModel", lambda s: {"name": s.model()}),
    ("GET", "/registered-models/search"): ("ListModels", lambda _: {}),
    ("GET", "/registered-models/list"): ("ListModels", lambda _: {}),
    ("POST", "/registered-models/get-latest-versions"): (
        "GetLatestVersions",
        lambda s: {"name": s.model()},
    ),
    ("GET", "/registered-models/get-latest-versions"): (
        "GetLatestVersions",
        lambda s: {"name": s.model()},
    ),
    ("POST", "/registered-models/set-tag"): (
        "SetModelTags",
        lambda s: {"name": s.model(), "key": "a", "value": "b"},
    ),
    ("DELETE", "/registered-models/delete-tag"): (
        "DeleteModelTags",
        lambda s: {"name": s.model(), "key": "team"},
    ),
    ("POST", "/registered-models/alias"): (
        "SetAlias",
        lambda s: {"alias": "champion", **_version(s)},
    ),
    ("DELETE", "/registered-models/alias"): (
        "DeleteAlias",
        lambda s: {"name": s.model(versions=1, alias="champion"), "alias": "champion"},
    ),
    ("GET", "/registered-models/alias"): (
        "ResolveModelVersion",
        lambda s: {"name": s.model(versions=1), "alias": "latest"},
    ),
    ("POST", "/model-versions/create"): (
        "CreateModelVersion",
        lambda s: {"name": s.model(), "source": "s3://b/m"},
    ),
    ("PATCH", "/model-versions/update"): (
        "UpdateModelVersion",
        lambda s: {"description": "new", **_version(s)},
    ),
    ("POST", "/model-versions/transition-stage"): (
        "TransitionStage",
        lambda s: {"stage": "Production", **_version(s)},
    ),
    ("DELETE", "/model-versions/delete"): ("DeleteModelVersion", _version),
    ("GET", "/model-versions/get"): ("GetModelVersion", _version),
    ("GET", "/model-versions/search"): ("ListModels", lambda _: {}),
    ("GET", "/model-versions/get-download-uri"): ("GetModelVersion", _version),
    ("POST", "/model-versions/set-tag"): (
        "SetModelVersionTags",
        lambda s: {"key": "a", "value": "b", **_version(s)},
    ),
    ("DELETE", "/model-versions/delete-tag"): (
        "DeleteModelVersionTags",
        lambda s: {"key": "team", **_version(s)},
    ),
    ("GET", "/model-versions/get-artifact"): (
        "GetModelVersion",
        lambda s: {"path": "MLmodel", **_version(s)},
    ),
    ("POST", "/webhooks"): (
        "CreateWebhook",
        lambda s: {
            "name": "ci",
            "url": s.receiver,
            "events": [{"entity": "REGISTERED_MODEL", "action": "CREATED"}],
        },
    ),
    ("GET", "/webhooks"): ("ListWebhooks", lambda _: {}),
    ("GET", "/webhooks/{webhook_id}"): ("GetWebhook", lambda s: {"webhook_id": s.hook()}),
    ("PATCH", "/webhooks/{webhook_id}"): (
        "UpdateWebhook",
        lambda s: {"webhook_id": s.hook(), "name": "cd"},
    ),
    ("DELETE", "/webhooks/{webhook_id}"): ("DeleteWebhook", lambda s: {"webhook_id": s.hook()}),
    ("POST", "/webhooks/{webhook_id}/test"): ("TestWebhook", lambda s: {"webhook_id": s.hook()}),
    ("GET", "/server-info"): ("GetHead", lambda _: {}),
    ("GET", "/workspaces"): ("ListNamespaces", lambda _: {}),
    ("GET", "/workspaces/{workspace_name}"): (
        "GetNamespace",
        lambda _: {"workspace_name": "default"},
    ),
}
