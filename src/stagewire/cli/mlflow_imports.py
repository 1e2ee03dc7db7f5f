"""What `stagewire import mlflow` does: workspace by workspace, asked first, reported at the end."""

from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING

from stagewire import pb
from stagewire.cli import imports, output
from stagewire.cli.arguments import Format, refuse
from stagewire.cli.sessions import Session
from stagewire.client import errors
from stagewire.migrate.batches import Sum
from stagewire.migrate.mlflow import DEFAULT_WORKSPACE, STAGES, Conversion, Finding, Source

if TYPE_CHECKING:
    from stagewire.migrate.mlflow import Model, Version


def bring_in(session: Session, url: str, workspaces: list[str], steps: imports.Steps) -> None:
    """Import every workspace asked for, and say what differs."""
    findings: list[Finding] = []
    total = Sum()
    counts = {"models": 0, "versions": 0}
    refused = False
    with closing(_open(url)) as source:
        known = source.workspaces()
        if unknown := [name for name in workspaces if name not in known]:
            refuse("--workspace", f"{unknown[0]!r} is none of {', '.join(known)}")
        for workspace in workspaces or known:
            namespace = session.namespace if workspace == DEFAULT_WORKSPACE else workspace
            part = _Part(session, source, workspace, namespace, dry_run=steps.dry_run)
            total.add(imports.send(session, part.records, source.count(workspace), steps))
            refused |= steps.refused
            findings += part.findings
            counts["models"] += part.models
            counts["versions"] += part.versions
        findings += source.remarks()
    if session.output is Format.TABLE:
        show(findings)
    steps.refused = refused
    listed = [vars(finding) for finding in findings]
    imports.report(session, total, steps, findings=listed, **counts)


def _open(url: str) -> Source:
    scheme = url.partition("://")[0].lower()
    if scheme in {"http", "https"}:
        from stagewire.migrate.mlflow_servers import Registry

        return Registry(url)
    if "://" not in url:
        refuse("--from", f"{url!r} is no URL; write http://…, sqlite:///FILE or postgresql://…")
    from stagewire.migrate.mlflow_databases import Database

    return Database(url)


class _Part:
    """One workspace on its way into one namespace; read once to ask, and once to write."""

    def __init__(
        self, session: Session, source: Source, workspace: str, namespace: str, *, dry_run: bool
    ) -> None:
        self.findings: list[Finding] = []
        self.models = self.versions = 0
        self._source = source
        self._workspace = workspace
        self._namespace = namespace
        self._stages = _stages(session, namespace, dry_run=dry_run)
        self._born = source.born(workspace)

    def records(self) -> Iterator[tuple[str, pb.RegistryRecord]]:
        """Read and convert everything, finding anew what differs."""
        self.findings = []
        conversion = Conversion(
            self._namespace, self._stages, self._workspace, self._born, self.findings.append
        )
        for model, versions in self._models():
            for record in conversion.convert(model, versions):
                yield f"model {model.name!r}", record
        self.models, self.versions = conversion.models, conversion.versions

    def _models(self) -> "Iterable[tuple[Model, list[Version]]]":
        return self._source.models(self._workspace)


def _stages(session: Session, namespace: str, *, dry_run: bool) -> dict[str, str]:
    """Read the stages of a namespace, creating it if there is none."""
    request = pb.ListStagesRequest(namespace=namespace, page_size=1000)
    try:
        found = session.client.stages.ListStages(request).stages
    except errors.NamespaceNotFound:
        if dry_run:
            return {name.casefold(): name for name in STAGES}
        session.client.namespaces.CreateNamespace(
            pb.CreateNamespaceRequest(
                namespace=pb.Namespace(name=namespace), reason="for a workspace of MLflow"
            )
        )
        found = session.client.stages.ListStages(request).stages
    return {stage.name.casefold(): stage.name for stage in found}


def show(findings: list[Finding]) -> None:
    """Print what differs as a table."""
    from stagewire.cli.views import Column

    if findings:
        columns: list[Column[Finding]] = [
            Column("WHAT", lambda f: f.subject),
            Column("FIELD", lambda f: f.field),
            Column("DIFFERS", lambda f: f.problem, whole=False),
            Column("REMEDY", lambda f: f.remedy, whole=False),
        ]
        output.show_table(findings, columns)
