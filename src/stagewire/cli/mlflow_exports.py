"""What `stagewire export mlflow` does: model by model into an MLflow server, with a report."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

from stagewire import pb
from stagewire.cli import mlflow_imports, output, paging
from stagewire.cli.arguments import Format, refuse
from stagewire.cli.sessions import Session
from stagewire.migrate.mlflow import Finding
from stagewire.migrate.mlflow_servers import Server
from stagewire.migrate.mlflow_targets import Target

_DATES = Finding(
    "times and creators",
    "",
    "are MLflow's own there: its API takes none",
    "keep an export of this registry",
)


def bring_out(
    session: Session, url: str, *, workspace: str, fill_gaps: bool, dry_run: bool
) -> None:
    """Write a namespace's models, and say what differs."""
    if url.partition("://")[0].lower() not in {"http", "https"}:
        refuse("--to", f"{url!r} is no address of an MLflow server; write http://…")
    findings: list[Finding] = []
    client = session.client
    request = pb.ListStagesRequest(page_size=1000)
    stages = {s.name: s.active for s in client.stages.ListStages(request).stages}
    with closing(Server(url, workspace=workspace)) as server, output.progress() as progress:
        bar = progress.add_task("exporting", total=None)
        target = Target(server, stages, findings.append, fill_gaps=fill_gaps, dry_run=dry_run)
        for model in _models(session):
            found = client.registry.GetModel(pb.GetModelRequest(model=model.name))
            versions = list(_versions(session, model.name))
            target.put(model, dict(found.aliases), versions)
            progress.update(bar, advance=1 + len(versions))
    findings.append(_DATES)
    if session.output is Format.TABLE:
        mlflow_imports.show(findings)
    would = "would create" if dry_run else "created"
    text = (
        f"{would} {target.created:,}, changed {target.changed:,}; {target.unchanged:,} were there"
    )
    output.show_plain(
        {
            "created": target.created,
            "changed": target.changed,
            "unchanged": target.unchanged,
            "dry_run": dry_run,
            "numbers": {
                name: {str(number): there for number, there in others.items()}
                for name, others in target.numbers.items()
            },
            "findings": [vars(finding) for finding in findings],
        },
        session.output,
        name=str(target.created),
        text=text,
    )


def _models(session: Session) -> Iterator[Any]:
    return paging.rows(
        session.client.registry.ListModels,
        pb.ListModelsRequest(),
        lambda answer: answer.models,
        limit=0,
    )


def _versions(session: Session, name: str) -> Iterator[Any]:
    return paging.rows(
        session.client.registry.ListModelVersions,
        pb.ListModelVersionsRequest(model=name, order_by="version asc"),
        lambda answer: answer.versions,
        limit=0,
    )
