"""`stagewire export`: everything a registry holds, as lines of JSON or into an MLflow server."""

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer

from stagewire.cli import groups, output, texts
from stagewire.cli.arguments import DryRun
from stagewire.cli.sessions import CONNECTED, Session, command

if TYPE_CHECKING:
    from stagewire import pb

app = typer.Typer(cls=groups.DefaultGroup)

STANDARD = "-"


@command(
    app,
    groups.DEFAULT,
    examples=[
        "stagewire export -o monday.jsonl",
        "stagewire export --namespace risk | gzip > risk.jsonl.gz",
        "stagewire export file --log -o whole.jsonl",
    ],
    everywhere=CONNECTED,
)
def file(
    session: Session,
    *,
    target: Annotated[
        str,
        typer.Option("--output", "-o", metavar="FILE", help="Where to; - is standard output."),
    ] = STANDARD,
    namespaces: Annotated[
        list[str] | None,
        typer.Option(
            "--namespace", "-n", metavar="NAME", help="Only this one; may be repeated; else all."
        ),
    ] = None,
    log: Annotated[
        bool,
        typer.Option("--log", help="Add the log, so that it can be restored as it is."),
    ] = False,
) -> None:
    """Write everything as lines of JSON, one record a line; the command that is meant without one.

    Restored into an empty registry it is the same registry: `stagewire import FILE`. With --log
    also its identity, revisions and hashes come back: `stagewire import FILE --database-url URL`,
    on a database that no server has open.
    """
    parts = session.client.export(namespaces=namespaces or (), with_log=log)
    if target == STANDARD:
        _write(parts, sys.stdout)
        return
    with _whole(Path(target)) as written:
        count = _write(parts, written)
    texts.remark(f"wrote {count:,} records to {target}")


@command(
    app,
    "mlflow",
    examples=[
        "stagewire export mlflow --to http://mlflow.internal:5000 --dry-run",
        "stagewire export mlflow --to http://mlflow.internal:5000 -n risk --fill-gaps",
    ],
)
def mlflow(
    session: Session,
    *,
    target: Annotated[
        str,
        typer.Option("--to", metavar="URL", help="The MLflow server.", show_default=False),
    ],
    workspace: Annotated[
        str,
        typer.Option("--workspace", metavar="NAME", help="MLflow's workspace, where it has them."),
    ] = "",
    fill_gaps: Annotated[
        bool,
        typer.Option(
            "--fill-gaps",
            help="Keep numbers: make and delete a version there for each that is missing here.",
        ),
    ] = False,
    dry_run: DryRun = False,
) -> None:
    """Write a namespace's living models into an MLflow server, through its REST API.

    Versions are made in the order of their numbers, with tags, descriptions, runs, aliases and the
    one stage that MLflow can show. What differs or could not be brought is listed at the end. A
    second run changes nothing.

    The server is asked with MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or
    MLFLOW_TRACKING_TOKEN.
    """
    from stagewire.cli import mlflow_exports

    mlflow_exports.bring_out(
        session, target, workspace=workspace, fill_gaps=fill_gaps, dry_run=dry_run
    )


def _write(parts: "Iterable[pb.ExportRegistryResponse]", file: IO[str]) -> int:
    from stagewire.migrate import lines

    count = 0
    with output.progress() as progress:
        bar = progress.add_task("exporting", total=None)
        for part in parts:
            if part.total_records:
                progress.update(bar, total=part.total_records)
            for record in part.records:
                file.write(lines.write(record) + "\n")
            count += len(part.records)
            progress.update(bar, advance=len(part.records))
    file.flush()
    return count


@contextmanager
def _whole(target: Path) -> Iterator[IO[str]]:
    """Give a file that has the target's name only once it is whole."""
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with partial.open("w", encoding="utf-8", newline="\n") as written:
            yield written
            written.flush()
            os.fsync(written.fileno())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
