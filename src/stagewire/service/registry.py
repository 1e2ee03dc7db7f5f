"""The table of contents: every RPC, one line each. Every edge comes in through here.

If an edge needs two writes to be one, the contract lacks an RPC: add it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stagewire.hooks import NO_HOOKS
from stagewire.service import (
    aliases,
    audit,
    deliveries,
    deployments,
    grants,
    holdings,
    imports,
    metrics,
    models,
    namespaces,
    refusals,
    reports,
    rollbacks,
    stages,
    tokens,
    transitions,
    versions,
    webhooks,
)
from stagewire.service.batches import Batch as batch
from stagewire.service.hot import Memory as memory
from stagewire.service.operations import Note as note
from stagewire.service.operations import Read as read
from stagewire.service.operations import Secret as secret
from stagewire.service.operations import Visit as visit
from stagewire.service.operations import Write as write
from stagewire.service.operations import bootstrap, forget_old_requests
from stagewire.sources import PERMISSIVE

if TYPE_CHECKING:
    from collections.abc import Callable

    from stagewire.hooks import HookRules
    from stagewire.service.deliveries import Letter, Outcome
    from stagewire.sources import Sources
    from stagewire.store.database import Database


class Registry:
    """All operations on one database: `registry.GetModel(request, caller)`."""

    CreateNamespace = write(namespaces.create)
    GetNamespace = read(namespaces.get)
    ListNamespaces = read(namespaces.list_)
    UpdateNamespace = write(namespaces.update)
    DeleteNamespace = write(namespaces.delete)

    CreateModel = write(models.create)
    GetModel = memory(models.get)
    ListModels = read(models.list_)
    UpdateModel = write(models.update)
    RenameModel = write(models.rename)
    DeleteModel = write(models.delete)
    UndeleteModel = write(models.undelete)
    PurgeModel = write(models.purge)
    SetModelTags = write(models.set_tags)
    DeleteModelTags = write(models.delete_tags)

    CreateModelVersion = write(versions.create)
    GetModelVersion = memory(versions.get)
    ListModelVersions = read(versions.list_)
    UpdateModelVersion = write(versions.update)
    DeleteModelVersion = write(versions.delete)
    UndeleteModelVersion = write(versions.undelete)
    PurgeModelVersion = write(versions.purge)
    SetModelVersionTags = write(versions.set_tags)
    DeleteModelVersionTags = write(versions.delete_tags)
    CopyModelVersion = write(versions.copy)
    ResolveModelVersion = memory(versions.resolve)
    GetLatestVersions = read(holdings.latest_versions)

    SetAlias = write(aliases.set_)
    DeleteAlias = write(aliases.delete)

    CreateStage = write(stages.create)
    UpdateStage = write(stages.update)
    ListStages = read(stages.list_)
    DeleteStage = write(stages.delete)
    TransitionStage = write(transitions.transition)
    BatchTransitionStages = write(transitions.batch)
    RemoveFromStage = write(transitions.remove)
    RollbackStage = write(rollbacks.rollback)
    GetStageHistory = read(transitions.list_history)

    LogMetrics = note(metrics.log)
    ListMetrics = read(metrics.list_)

    GetHead = read(audit.head)
    ListEvents = read(audit.list_events)
    VerifyLog = read(audit.verify)

    ReportStatus = batch(reports.Intake)
    ListDeployments = read(deployments.list_)
    GetDeploymentStatus = read(deployments.status)
    ForgetAgent = note(reports.forget)

    CreateWebhook = write(webhooks.create, webhooks.check_new)
    GetWebhook = read(webhooks.get)
    ListWebhooks = read(webhooks.list_)
    UpdateWebhook = write(webhooks.update, webhooks.check_changed)
    DeleteWebhook = write(webhooks.delete)
    TestWebhook = visit(deliveries.made_up, deliveries.tried)
    ListDeliveries = read(webhooks.list_deliveries)
    RedeliverWebhook = note(webhooks.redeliver)

    ImportRegistry = write(imports.apply)

    CreateToken = secret(tokens.create, "secret", tokens.shown_once)
    ListTokens = read(tokens.list_)
    RevokeToken = write(tokens.revoke)
    CreateGrant = write(grants.create)
    ListGrants = read(grants.list_)
    DeleteGrant = write(grants.delete)
    GetCaller = read(grants.caller)
    ListRefusals = read(refusals.list_)

    def __init__(
        self, database: Database, *, sources: Sources = PERMISSIVE, hooks: HookRules = NO_HOOKS
    ) -> None:
        """Serve from `database`, whose schema is up to date, under these rules."""
        self.database = database
        self.sources = sources
        self.hooks = hooks
        #: What carries a letter to its receiver and waits; the server sets it.
        self.post: Callable[[Letter], Outcome] = deliveries.no_post

    def bootstrap(self) -> None:
        """Write the log's first event, the `default` namespace, unless it is there."""
        bootstrap(self.database, namespaces.ensure_default)

    def tidy(self) -> int:
        """Forget stored answers that are no longer promised; answers how many."""
        self.database.tidy()
        self.database.write(refusals.forget_old)
        return self.database.write(forget_old_requests)
