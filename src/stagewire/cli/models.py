"""`stagewire model`: register, find, rename and retire models."""

from typing import Annotated

import typer

from stagewire import pb
from stagewire.cli import paging, views
from stagewire.cli.arguments import (
    Description,
    DryRun,
    ExpectedRevision,
    Filter,
    Force,
    Limit,
    ModelId,
    ModelName,
    NewDescription,
    OrderBy,
    Reason,
    RequestId,
    RequiredReason,
    TagKeys,
    TagPairs,
    Tags,
    pairs,
    refuse,
)
from stagewire.cli.sessions import Session, command

app = typer.Typer()


@command(
    app,
    "create",
    examples=[
        "stagewire model create churn --owner risk-team --tag domain=telco",
        "stagewire model create churn --dry-run -o json",
    ],
)
def create(
    session: Session,
    model: ModelName,
    *,
    description: Description = "",
    tag: Tags = None,
    owner: Annotated[
        str, typer.Option("--owner", metavar="WHO", help="Who answers for it; you by default.")
    ] = "",
    dry_run: DryRun = False,
    reason: Reason = "",
    request_id: RequestId = "",
) -> None:
    """Register a model: a name under which versions are kept."""
    answer = session.client.registry.CreateModel(
        pb.CreateModelRequest(
            model=pb.Model(
                name=model, description=description, tags=pairs("--tag", tag), owner=owner
            ),
            validate_only=dry_run,
            reason=reason,
            request_id=request_id,
        )
    )
    session.show(answer.model, views.MODEL)


@command(
    app,
    "get",
    examples=["stagewire model get churn", "stagewire model get churn -o json | jq .aliases"],
)
def get(session: Session, model: ModelName) -> None:
    """Show a model, and what its stages and aliases hold."""
    answer = session.client.registry.GetModel(pb.GetModelRequest(model=model))
    session.show(answer, views.FOUND_MODEL)


@command(
    app,
    "list",
    examples=[
        "stagewire model list",
        "stagewire model list --filter \"tags.domain = 'telco' AND stage = 'Production'\"",
        "stagewire model list --order-by 'update_time desc' --limit 10 -o name",
    ],
)
def list_(
    session: Session,
    *,
    filter_: Filter = "",
    order_by: OrderBy = "",
    limit: Limit = paging.DEFAULT_LIMIT,
) -> None:
    """List models, by name unless ordered otherwise."""
    found = paging.collect(
        session.client.registry.ListModels,
        pb.ListModelsRequest(filter=filter_, order_by=order_by),
        lambda answer: answer.models,
        limit=limit,
    )
    session.show_all(found, views.MODEL)


@command(
    app, "update", examples=["stagewire model update churn --owner growth --reason 'team moved'"]
)
def update(
    session: Session,
    model: ModelName,
    *,
    description: NewDescription = None,
    owner: Annotated[
        str | None, typer.Option("--owner", metavar="WHO", help="Who answers for it from now on.")
    ] = None,
    expected_revision: ExpectedRevision = 0,
    reason: Reason = "",
    request_id: RequestId = "",
) -> None:
    """Change a model's description or owner. Tags have `tag`, the name has `rename`."""
    changes = {"description": description, "owner": owner}
    given = {name: value for name, value in changes.items() if value is not None}
    if not given:
        refuse("--description", "nothing to change; give --description or --owner")
    request = pb.UpdateModelRequest(
        model=model,
        update=pb.ModelUpdate(**given),
        expected_revision=expected_revision,
        reason=reason,
        request_id=request_id,
    )
    request.update_mask.paths.extend(given)
    session.show(session.client.registry.UpdateModel(request).model, views.MODEL)


@command(
    app, "rename", examples=["stagewire model rename churn churn-eu --reason 'split by region'"]
)
def rename(
    session: Session,
    model: ModelName,
    new_name: Annotated[
        str, typer.Argument(metavar="NEW_NAME", help="The name to take.", show_default=False)
    ],
    *,
    expected_revision: ExpectedRevision = 0,
    reason: Reason = "",
    request_id: RequestId = "",
) -> None:
    """Give a model another name; the old one goes on answering reads until it is taken."""
    answer = session.client.registry.RenameModel(
        pb.RenameModelRequest(
            model=model,
            new_name=new_name,
            expected_revision=expected_revision,
            reason=reason,
            request_id=request_id,
        )
    )
    session.show(answer.model, views.MODEL)


@command(
    app,
    "delete",
    examples=[
        "stagewire model delete churn --reason 'replaced by churn-eu'",
        "ID=$(stagewire model delete churn -o name)",
    ],
)
def delete(
    session: Session,
    model: ModelName,
    *,
    force: Force = False,
    expected_revision: ExpectedRevision = 0,
    reason: Reason = "",
    request_id: RequestId = "",
) -> None:
    """Delete a model softly; `-o name` prints the id that `model undelete` takes."""
    answer = session.client.registry.DeleteModel(
        pb.DeleteModelRequest(
            model=model,
            force=force,
            expected_revision=expected_revision,
            reason=reason,
            request_id=request_id,
        )
    )
    session.show(answer.model, views.DELETED_MODEL)


@command(
    app, "undelete", examples=["stagewire model undelete 0f8fad5b-d9cb-469f-a165-70867728950e"]
)
def undelete(
    session: Session,
    model_id: ModelId,
    *,
    expected_revision: ExpectedRevision = 0,
    reason: Reason = "",
    request_id: RequestId = "",
) -> None:
    """Bring a deleted model back with its versions, stages and aliases."""
    answer = session.client.registry.UndeleteModel(
        pb.UndeleteModelRequest(
            model_id=model_id,
            expected_revision=expected_revision,
            reason=reason,
            request_id=request_id,
        )
    )
    session.show(answer.model, views.MODEL)


@command(
    app,
    "purge",
    examples=[
        "stagewire model purge 0f8fad5b-d9cb-469f-a165-70867728950e --reason 'GDPR request 17'"
    ],
)
def purge(
    session: Session,
    model_id: ModelId,
    *,
    reason: RequiredReason,
    expected_revision: ExpectedRevision = 0,
    request_id: RequestId = "",
) -> None:
    """Erase a deleted model's texts for good; its numbers stay taken."""
    answer = session.client.registry.PurgeModel(
        pb.PurgeModelRequest(
            model_id=model_id,
            expected_revision=expected_revision,
            reason=reason,
            request_id=request_id,
        )
    )
    session.show(answer.model, views.DELETED_MODEL)


@command(app, "tag", examples=["stagewire model tag churn domain=telco tier=1"])
def tag(
    session: Session,
    model: ModelName,
    tags: TagPairs,
    *,
    expected_revision: ExpectedRevision = 0,
    reason: Reason = "",
    request_id: RequestId = "",
) -> None:
    """Set tags of a model, leaving its other tags alone."""
    answer = session.client.registry.SetModelTags(
        pb.SetModelTagsRequest(
            model=model,
            tags=pairs("KEY=VALUE", tags),
            expected_revision=expected_revision,
            reason=reason,
            request_id=request_id,
        )
    )
    session.show(answer.model, views.MODEL)


@command(app, "untag", examples=["stagewire model untag churn tier"])
def untag(
    session: Session,
    model: ModelName,
    keys: TagKeys,
    *,
    expected_revision: ExpectedRevision = 0,
    reason: Reason = "",
    request_id: RequestId = "",
) -> None:
    """Delete tags of a model; absent ones are no error."""
    answer = session.client.registry.DeleteModelTags(
        pb.DeleteModelTagsRequest(
            model=model,
            keys=keys,
            expected_revision=expected_revision,
            reason=reason,
            request_id=request_id,
        )
    )
    session.show(answer.model, views.MODEL)
