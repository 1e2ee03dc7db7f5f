"""`stagewire import`: an export, or a registry of MLflow, into this one; again without harm."""

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from stagewire.cli import groups, output, texts
from stagewire.cli.arguments import DryRun, Reason
from stagewire.cli.exports import STANDARD
from stagewire.cli.sessions import CONNECTED, Session, command

if TYPE_CHECKING:
    from stagewire import pb
    from stagewire.migrate.batches import Sum

app = typer.Typer(cls=groups.DefaultGroup)

#: Remarks on records that were not imported; JSON has them all.
_MOST_SHOWN = 20


class Conflict(StrEnum):
    """What becomes of a record where something else is there."""

    FAIL = "fail"
    SKIP = "skip"


OnConflict = Annotated[
    Conflict,
    typer.Option(
        "--on-conflict",
        help="Where something else is here: import nothing at all, or everything but that.",
    ),
]


@command(
    app,
    groups.DEFAULT,
    examples=[
        "stagewire import monday.jsonl",
        "stagewire import monday.jsonl --dry-run -o json",
        "zcat risk.jsonl.gz | stagewire import - --on-conflict skip",
        "stagewire import file whole.jsonl --database-url sqlite:///restored.db",
    ],
    everywhere=(*CONNECTED, "output"),
)
def file(
    session: Session,
    source: Annotated[
        str,
        typer.Argument(metavar="FILE", help="An export; - is standard input.", show_default=False),
    ],
    *,
    on_conflict: OnConflict = Conflict.FAIL,
    without_log: Annotated[
        bool, typer.Option("--without-log", help="Leave an exported log out.")
    ] = False,
    database_url: Annotated[
        str | None,
        typer.Option(
            "--database-url",
            metavar="URL",
            help="Restore an export with its log into this empty database, without a server.",
            show_default=False,
        ),
    ] = None,
    dry_run: DryRun = False,
    reason: Reason = "",
) -> None:
    """Bring an export in; the command that is meant without one.

    The whole file is read and checked, by the server too, before anything is written. What is
    here already is left alone: an import that was interrupted is run again and completes, and a
    second run changes nothing.
    """
    with _seekable(source) as opened:
        if database_url is not None:
            from stagewire.cli import restores

            restores.restore(opened, database_url, session.output)
            return
        total = _check_file(opened, without_log=without_log)
        steps = Steps(on_conflict, dry_run=dry_run, reason=reason)
        sent = send(session, lambda: _records(opened), total, steps)
    report(session, sent, steps)


@command(
    app,
    "mlflow",
    examples=[
        "stagewire import mlflow --from sqlite:///mlflow.db",
        "stagewire import mlflow --from http://mlflow.internal:5000 --dry-run",
        "stagewire import mlflow --from postgresql://mlflow@db/mlflow -n risk -o json",
    ],
)
def mlflow(
    session: Session,
    *,
    source: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="URL",
            help="http://…, or MLflow's database: sqlite:///mlflow.db, postgresql://…",
            show_default=False,
        ),
    ],
    workspaces: Annotated[
        list[str] | None,
        typer.Option(
            "--workspace", metavar="NAME", help="Only this one of MLflow's; may be repeated."
        ),
    ] = None,
    on_conflict: OnConflict = Conflict.FAIL,
    dry_run: DryRun = False,
    reason: Reason = "",
) -> None:
    """Bring a registry of MLflow in: models, versions, stages, aliases, tags, runs and times.

    Versions keep their numbers. MLflow's default workspace goes into --namespace, every other one
    into the namespace of its name. What differs or could not be brought is listed at the end. An
    import that was interrupted is run again and completes; a second run changes nothing.

    A server is asked with MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or
    MLFLOW_TRACKING_TOKEN.
    """
    from stagewire.cli import mlflow_imports

    steps = Steps(on_conflict, dry_run=dry_run, reason=reason)
    mlflow_imports.bring_in(session, source, workspaces or [], steps)


@contextmanager
def _seekable(source: str) -> Iterator[IO[str]]:
    """Open what is to be imported so that it can be read twice."""
    if source != STANDARD:
        with Path(source).open(encoding="utf-8") as opened:
            yield opened
        return
    with tempfile.TemporaryFile("w+", encoding="utf-8") as kept:
        shutil.copyfileobj(sys.stdin, kept)
        yield kept


def _check_file(opened: IO[str], *, without_log: bool) -> int:
    """Read the whole file under the contract's limits, and count its records."""
    from stagewire.migrate import lines

    opened.seek(0)
    count = 0
    with output.progress() as progress:
        bar = progress.add_task("reading", total=None)
        for number, record in lines.read(opened):
            if record.HasField("header") and record.header.with_log and not without_log:
                message = (
                    f"line {number}: this export holds the log, which no server takes in; restore "
                    "it into an empty database with --database-url, or leave the log out with "
                    "--without-log"
                )
                raise lines.BadFile(message)
            count += 1
            progress.update(bar, advance=1)
    return count


@dataclass
class Steps:
    """How an import goes: asked first, and written only if nothing is refused then."""

    on_conflict: Conflict
    dry_run: bool = False
    reason: str = ""
    refused: bool = False


def send(
    session: Session,
    records: Callable[[], Iterable[tuple[str, "pb.RegistryRecord"]]],
    total: int | None,
    steps: Steps,
) -> "Sum":
    """Ask what would come of records, and write them unless something is in the way."""
    from stagewire import pb
    from stagewire.migrate.batches import Sender

    def run(what: str, policy: pb.ImportConflictPolicy.ValueType, *, ask: bool) -> "Sum":
        with output.progress() as progress:
            bar = progress.add_task(what, total=total)
            sender = Sender(
                session.client,
                on_conflict=policy,
                validate_only=ask,
                reason=steps.reason,
                told=lambda count: progress.update(bar, advance=count),
            )
            return sender.send_all(records())

    asked = run("checking", pb.IMPORT_CONFLICT_POLICY_SKIP, ask=True)
    steps.refused = bool(asked.skipped) and steps.on_conflict is Conflict.FAIL
    if steps.dry_run or steps.refused or not asked.imported:
        return asked
    if steps.on_conflict is Conflict.SKIP:
        return run("importing", pb.IMPORT_CONFLICT_POLICY_SKIP, ask=False)
    return run("importing", pb.IMPORT_CONFLICT_POLICY_FAIL, ask=False)


def _records(opened: IO[str]) -> Iterator[tuple[str, Any]]:
    from stagewire.migrate import lines

    opened.seek(0)
    for number, line in enumerate(opened, start=1):
        if line.strip():
            record = lines.parse(line, number)
            if record.WhichOneof("record") not in {"header", "text", "log", "end"}:
                yield f"line {number}", record


def report(session: Session, done: "Sum", steps: Steps, **more: Any) -> None:
    """Say what came of it; exit 1 when something else was here and so nothing was written."""
    others = f"{len(done.skipped):,} are here with other content"
    if steps.refused:
        text = f"imported nothing: {others}; --on-conflict skip leaves those as they are"
    elif not done.imported and not done.skipped:
        text = f"nothing to import: all {done.unchanged:,} records are here already"
    else:
        would = "would import" if steps.dry_run else "imported"
        text = f"{would} {done.imported:,} records; {done.unchanged:,} were here already"
        text += f"; {others}" if done.skipped else ""
    imported = 0 if steps.refused else done.imported
    output.show_plain(
        {
            "imported": imported,
            "unchanged": done.unchanged,
            "dry_run": steps.dry_run,
            "skipped": [vars(one) for one in done.skipped],
            **more,
        },
        session.output,
        name=str(imported),
        text=text,
    )
    for one in done.skipped[:_MOST_SHOWN]:
        where = "" if one.subject.startswith(one.place) else f"{one.place}: "
        texts.remark(f"{where}{one.subject} {one.description}")
    if len(done.skipped) > _MOST_SHOWN:
        texts.remark(f"and {len(done.skipped) - _MOST_SHOWN:,} more; -o json has them all")
    if steps.refused:
        raise typer.Exit(1)
