"""The operations that endpoints ask for: a registry has them, and a client through `remotes`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from stagewire import pb

_Request = TypeVar("_Request")
_Answer = TypeVar("_Answer")
#: A request and who calls, in; the answer out.
_Operation = Callable[[_Request, Any], _Answer]


class Operations(Protocol):
    """What endpoints call; every refusal is a `RegistryError`."""

    CreateModel: _Operation[pb.CreateModelRequest, pb.CreateModelResponse]
    CreateModelVersion: _Operation[pb.CreateModelVersionRequest, pb.CreateModelVersionResponse]
    DeleteAlias: _Operation[pb.DeleteAliasRequest, pb.DeleteAliasResponse]
    DeleteModel: _Operation[pb.DeleteModelRequest, pb.DeleteModelResponse]
    DeleteModelTags: _Operation[pb.DeleteModelTagsRequest, pb.DeleteModelTagsResponse]
    DeleteModelVersion: _Operation[pb.DeleteModelVersionRequest, pb.DeleteModelVersionResponse]
    DeleteModelVersionTags: _Operation[
        pb.DeleteModelVersionTagsRequest, pb.DeleteModelVersionTagsResponse
    ]
    GetLatestVersions: _Operation[pb.GetLatestVersionsRequest, pb.GetLatestVersionsResponse]
    GetModel: _Operation[pb.GetModelRequest, pb.GetModelResponse]
    GetModelVersion: _Operation[pb.GetModelVersionRequest, pb.GetModelVersionResponse]
    GetNamespace: _Operation[pb.GetNamespaceRequest, pb.GetNamespaceResponse]
    ListModelVersions: _Operation[pb.ListModelVersionsRequest, pb.ListModelVersionsResponse]
    ListModels: _Operation[pb.ListModelsRequest, pb.ListModelsResponse]
    ListNamespaces: _Operation[pb.ListNamespacesRequest, pb.ListNamespacesResponse]
    ListStages: _Operation[pb.ListStagesRequest, pb.ListStagesResponse]
    RenameModel: _Operation[pb.RenameModelRequest, pb.RenameModelResponse]
    ResolveModelVersion: _Operation[pb.ResolveModelVersionRequest, pb.ResolveModelVersionResponse]
    SetAlias: _Operation[pb.SetAliasRequest, pb.SetAliasResponse]
    SetModelTags: _Operation[pb.SetModelTagsRequest, pb.SetModelTagsResponse]
    SetModelVersionTags: _Operation[pb.SetModelVersionTagsRequest, pb.SetModelVersionTagsResponse]
    TransitionStage: _Operation[pb.TransitionStageRequest, pb.TransitionStageResponse]
    UpdateModel: _Operation[pb.UpdateModelRequest, pb.UpdateModelResponse]
    UpdateModelVersion: _Operation[pb.UpdateModelVersionRequest, pb.UpdateModelVersionResponse]
    CreateWebhook: _Operation[pb.CreateWebhookRequest, pb.CreateWebhookResponse]
    DeleteWebhook: _Operation[pb.DeleteWebhookRequest, pb.DeleteWebhookResponse]
    GetWebhook: _Operation[pb.GetWebhookRequest, pb.GetWebhookResponse]
    ListWebhooks: _Operation[pb.ListWebhooksRequest, pb.ListWebhooksResponse]
    TestWebhook: _Operation[pb.TestWebhookRequest, pb.TestWebhookResponse]
    UpdateWebhook: _Operation[pb.UpdateWebhookRequest, pb.UpdateWebhookResponse]
