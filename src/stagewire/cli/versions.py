"""`stagewire version`: register, find, describe, copy and retire model versions."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from stagewire import pb
from stagewire.cli import lineages, paging, views
from stagewire.cli.arguments import (
    Description,
    DryRun,
    ExpectedRevision,
    Filter,
    Force,
    Limit,
    ModelName,
    NewDescription,
    OfModel,
    OrderBy,
    Reason,
    RequestId,
    RequiredReason,
    TagKeys,
    TagPairs,
    Tags,
    VersionNumber,
    WithMetrics,
    numbers,
    pairs,
    refuse,
)
from stagewire.cli.sessions import Session, command
from stagewire.client.errors import StagewireError

app = typer.Typer()


class Status(StrEnum):
    """How far a registration has come."""

    PENDING = "pending"
    READY = "ready"
    FAILED = "failed"


_STATUSES = {
    Status.PENDING: pb.MODEL_VERSION_STATUS_PENDING_REGISTRATION,
    Status.READY: pb.MODEL_VERSION_STATUS_READY,
    Status.FAILED: pb.MODEL_VERSION_STATUS_FAILED_REGISTRATION,
}

StatusChoice = Annotated[
    Status | None,
    typer.Option("--status", help="How far registration has come.", show_default=False),
]
StatusMessage = Annotated[
    str | None,
    typer.Option("--status-message", metavar="TEXT", help="What the status means here."),
]


@command(
    app,
    "create",
    examples=[
        "stagewire version create churn --source s3://m/17 --run-id 8f2c --metric auc=0.913",
        "N=$(stagewire version create churn --source s3://m/18 --create-model -o name)",
        "stagewire version create churn --dataset may=sha256:1f0c --parent churn/3:fine-tuned",
    ],
)
def create(
    session: Session,
    model: ModelName,
    *,
    source: Annotated[
        str, typer.Option("--source", metavar="URI", help="Where its files are; never opened.")
    ] = "",
    create_model: Annotated[
        bool, typer.Option("--create-model", help="Register the model first if there is none.")
    ] = False,
    description: Description = "",
    tag: Tags = None,
    param: Annotated[
        list[str] | None,
        typer.Option(
            "--param", "-p", metavar="KEY=VALUE", help="A training parameter; may be repeated."
        ),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", metavar="KEY=NUMBER", help="A measured value; may be repeated."),
    ] = None,
    flavor: Annotated[
        list[str] | None,
        typer.Option(
            "--flavor", metavar="NAME", help="A library that can load it; may be repeated."
        ),
    ] = None,
    signature: Annotated[
        Path | None,
        typer.Option("--signature", metavar="FILE", help="Input and output schema, a JSON file."),
    ] = None,
    status: StatusChoice = None,
    status_message: StatusMessage = None,
    run_id: lineages.RunId = "",
    run_link: lineages.RunLink = "",
    experiment: lineages.Experiment = "",
    git_commit: lineages.GitCommit = "",
    git_repository: lineages.GitRepository = "",
    dataset: lineages.TrainingData = None,
    evaluation_dataset: lineages.EvaluationData = None,
    parent: lineages.Parents = None,
    dry_run: DryRun = False,
    reason: Reason = "",
    request_id: RequestId = "",
) -> None:
    """Register the next version of a model; the server gives it its number."""
    request = pb.CreateModelVersionRequest(
        model=model,
        version=pb.ModelVersion(
            source=source,
            description=description,
            tags=pairs("--tag", tag),
            params=pairs("--param", param),
            flavors=flavor,
            signature=_text("--signature", signature),
            status=_STATUSES[status] if status else None,
            status_message=status_message,
            lineage=pb.Lineage(
                run_id=run_id,
                run_link=run_link,
                experiment=experiment,
                git_commit=git_commit,
                git_repository=git_repository,
                datasets=[
                    *lineages.datasets(dataset, pb.DATASET_USE_TRAINING),
                    *lineages.datasets(evaluation_dataset, pb.DATASET_USE_EVALUATION),
                ],
                parents=[lineages.parent(text) for text in parent or ()],
            ),
        ),
        metrics=[
            pb.Metric(key=key, value=value) for key, value in numbers("--metric", metric).items()
        ],
        validate_only=dry_run,
        reason=reason,
        request_id=request_id,
    )
    try:
        answer = session.client.registry.CreateModelVersion(request)
    except StagewireError as error:
        if not create_model or dry_run or error.reason != "MODEL_NOT_FOUND":
            raise
        _create_model(session, model, reason)
        answer = session.client.registry.CreateModelVersion(request)
    session.show(answer.version, views.VERSION)


@command(
    app,
    "get",
    examples=["stagewire version get churn 3", "stagewire version get churn 3 --metrics -o json"],
)
def get(
    session: Session, model: ModelName, version: VersionNumber, *, metrics: WithMetrics = False
) -> None:
    """Show one version."""
    answer = session.client.registry.GetModelVersion(
        pb.GetModelVersionRequest(model=model, version=version, include_metrics=metrics)
    )
    session.show(answer.version, views.VERSION)


@command(
    app,
    "list",
    examples=[
        "stagewire version list --model churn --metrics",
        "stagewire version list --filter \"metrics.auc >= 0.9 AND stage = 'Staging'\"",
        "stagewire version list --order-by 'metrics.auc desc' --limit 1 -o name",
    ],
)
def list_(
    session: Session,
    *,
    model: OfModel = "",
    filter_: Filter = "",
    order_by: OrderBy = "",
    metrics: WithMetrics = False,
    limit: Limit = paging.DEFAULT_LIMIT,
) -> None:
    """List versions of one model, or of all, newest first unless ordered otherwise."""
    found = paging.collect(
        session.client.registry.ListModelVersions,
        pb.ListModelVersionsRequest(
            model=model, filter=filter_, order_by=order_by, include_metrics=metrics
        ),
        lambda answer: answer.versions,
        limit=limit,
    )
    session.show_all(found, views.VERSION if model else views.ANY_VERSION)


@command(
    app,
    "update",
    examples=[
        "stagewire version update churn 3 --description 'retrained on May data'",
        "stagewire version update churn 4 --status failed --status-message 'upload broke off'",
    ],
)
def update(
    session: Session,
    model: ModelName,
    version: VersionNumber,
    *,
    description: NewDescription = None,
    status: StatusChoice = None,
    status_message: StatusMessage = None,
    expected_revision: ExpectedRevision = 0,
    reason: Reason = "",
    request_id: RequestId = "",
) -> None:
    """Change a version's description or status. Tags have `tag`; the rest never changes."""
    request = pb.UpdateModelVersionRequest(
        model=model,
        version=version,
        update=pb.ModelVersionUpdate(
            description=description,
            status=_STATUSES[status] if status else None,
            status_message=status_message,
        ),
        expected_revision=expected_revision,
        reason=reason,
        request_id=request_id,
    )
    changes = {"description": description, "status": status, "status_message": status_message}
    request.update_mask.paths.extend(name for name, value in changes.items() if value is not None)
    if not request.update_mask.paths:
        refuse(
            "--description", "nothing to change; give --description, --status or --status-message"
        )
    session.show(session.client.registry.UpdateModelVersion(request).version, views.VERSION)


@command(app, "delete", examples=["stagewire version delete churn 2 --reason 'leaked test data'"])
def delete(
    session: Session,
    model: ModelName,
    version: VersionNumber,
    *,
    force: Force = False,
    expected_revision: ExpectedRevision = 0,
    reason: Reason = "",
    request_id: RequestId = "",
) -> None:
    """Delete a version softly, ending its stages and aliases."""
    answer = session.client.registry.DeleteModelVersion(
        pb.DeleteModelVersionRequest(
            model=model,
            version=version,
            force=force,
            expected_revision=expected_revision,
            reason=reason,
            request_id=request_id,
        )
    )
    session.show(answer.version, views.VERSION)


@command(app, "undelete", examples=["stagewire version undelete churn 2"])
def undelete(
    session: Session,
    model: ModelName,
    version: VersionNumber,
    *,
    expected_revision: ExpectedRevision = 0,
    reason: Reason = "",
    request_id: RequestId = "",
) -> None:
    """Bring a deleted version back, in no stage and without aliases."""
    answer = session.client.registry.UndeleteModelVersion(
        pb.UndeleteModelVersionRequest(
            model=model,
            version=version,
            expected_revision=expected_revision,
            reason=reason,
            request_id=request_id,
        )
    )
    session.show(answer.version, views.VERSION)


@command(app, "purge", examples=["stagewire version purge churn 2 --reason 'GDPR request 17'"])
def purge(
    session: Session,
    model: ModelName,
    version: VersionNumber,
    *,
    reason: RequiredReason,
    expected_revision: ExpectedRevision = 0,
    request_id: RequestId = "",
) -> None:
    """Erase a deleted version's texts for good; its number stays taken."""
    answer = session.client.registry.PurgeModelVersion(
        pb.PurgeModelVersionRequest(
            model=model,
            version=version,
            expected_revision=expected_revision,
            reason=reason,
            request_id=request_id,
        )
    )
    session.show(answer.version, views.VERSION)


@command(app, "tag", examples=["stagewire version tag churn 3 validated=yes by=alice"])
def tag(
    session: Session,
    model: ModelName,
    version: VersionNumber,
    tags: TagPairs,
    *,
    expected_revision: ExpectedRevision = 0,
    reason: Reason = "",
    request_id: RequestId = "",
) -> None:
    """Set tags of a version, leaving its other tags alone."""
    answer = session.client.registry.SetModelVersionTags(
        pb.SetModelVersionTagsRequest(
            model=model,
            version=version,
            tags=pairs("KEY=VALUE", tags),
            expected_revision=expected_revision,
            reason=reason,
            request_id=request_id,
        )
    )
    session.show(answer.version, views.VERSION)


@command(app, "untag", examples=["stagewire version untag churn 3 validated"])
def untag(
    session: Session,
    model: ModelName,
    version: VersionNumber,
    keys: TagKeys,
    *,
    expected_revision: ExpectedRevision = 0,
    reason: Reason = "",
    request_id: RequestId = "",
) -> None:
    """Delete tags of a version; absent ones are no error."""
    answer = session.client.registry.DeleteModelVersionTags(
        pb.DeleteModelVersionTagsRequest(
            model=model,
            version=version,
            keys=keys,
            expected_revision=expected_revision,
            reason=reason,
            request_id=request_id,
        )
    )
    session.show(answer.version, views.VERSION)


@command(
    app, "copy", examples=["stagewire version copy churn 3 churn-prod --reason 'passed staging'"]
)
def copy(
    session: Session,
    model: ModelName,
    version: VersionNumber,
    target_model: Annotated[
        str,
        typer.Argument(
            metavar="TARGET_MODEL", help="The model that gets the copy.", show_default=False
        ),
    ],
    *,
    dry_run: DryRun = False,
    reason: Reason = "",
    request_id: RequestId = "",
) -> None:
    """Register a copy under another model, with the original as its parent."""
    answer = session.client.registry.CopyModelVersion(
        pb.CopyModelVersionRequest(
            model=model,
            version=version,
            target_model=target_model,
            validate_only=dry_run,
            reason=reason,
            request_id=request_id,
        )
    )
    session.show(answer.version, views.ANY_VERSION)


def _create_model(session: Session, model: str, reason: str) -> None:
    """Register the model; whoever else did so a moment ago did it for us."""
    try:
        session.client.registry.CreateModel(
            pb.CreateModelRequest(model=pb.Model(name=model), reason=reason)
        )
    except StagewireError as error:
        if error.reason != "MODEL_EXISTS":
            raise


def _text(option: str, path: Path | None) -> str:
    if path is None:
        return ""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        refuse(option, f"{str(path)!r} can't be read: {error.strerror}")
    except UnicodeDecodeError:
        refuse(option, f"{str(path)!r} is not UTF-8 text")
