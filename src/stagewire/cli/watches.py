"""`stagewire watch`: the log as it happens, one line an event."""

import base64
import binascii
from enum import StrEnum
from typing import Annotated, Any

import typer

from stagewire import pb
from stagewire.cli import changes, output, texts, wording
from stagewire.cli.arguments import Format, chosen, refuse
from stagewire.cli.sessions import Session, command
from stagewire.client import Snapshot

app = typer.Typer()


class Start(StrEnum):
    """Where a watch starts."""

    SNAPSHOT = "snapshot"
    BEGINNING = "beginning"
    NOW = "now"


@command(
    app,
    "watch",
    examples=[
        "stagewire watch",
        "stagewire watch --model churn --stage Production --from snapshot",
        "stagewire watch --from beginning -o json | jq -c '.changes[]?.kind'",
        "stagewire watch --count 1 -o name   # wait for the next change",
    ],
)
def watch(
    session: Session,
    *,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", metavar="MODEL", help="Only this model; may be repeated."),
    ] = None,
    prefix: Annotated[
        str, typer.Option("--prefix", metavar="TEXT", help="Only models whose name begins so.")
    ] = "",
    stage: Annotated[
        list[str] | None,
        typer.Option(
            "--stage", "-s", metavar="STAGE", help="Only versions in this stage; may be repeated."
        ),
    ] = None,
    kind: Annotated[
        list[str] | None,
        typer.Option(
            "--kind", metavar="KIND", help="Only these kinds, e.g. stages-changed; may be repeated."
        ),
    ] = None,
    start: Annotated[
        Start, typer.Option("--from", help="The present state, the whole log, or what comes.")
    ] = Start.NOW,
    cursor: Annotated[
        str,
        typer.Option("--cursor", metavar="CURSOR", help="Go on after this; JSON lines name it."),
    ] = "",
    count: Annotated[
        int, typer.Option("--count", min=0, help="End after so many events; 0 means never.")
    ] = 0,
    bookmarks: Annotated[
        bool, typer.Option("--bookmarks", help="Also say how far the log was read without a match.")
    ] = False,
) -> None:
    """Print changes as they happen, until interrupted; a broken connection is resumed.

    With `-o json` each line is one object whose `type` is transaction, snapshot or bookmark.
    """
    if model and prefix:
        refuse("--prefix", "give either --model or --prefix")
    resume = _decoded(cursor)
    kinds = chosen("--kind", kind, prefix="CHANGE_KIND_", names=pb.ChangeKind.keys())
    # A watch waits for its server for ever; a server that never was is better said at once.
    session.client.watches.GetHead(pb.GetHeadRequest())
    seen = 0
    with session.client.watch(
        models=model or (),
        model_prefix=prefix,
        stages=stage or (),
        kinds=kinds,
        cursor=resume,
        start=start.value,
        snapshot_on_reset=True,
    ) as events:
        for event in events:
            if isinstance(event, pb.Bookmark) and not bookmarks:
                continue
            _print(event, session.output)
            seen += 1
            if seen == count:
                return


def _print(event: Snapshot | pb.Transaction | pb.Bookmark, form: Format) -> None:
    match form:
        case Format.JSON:
            output.json_line(_plain(event))
        case Format.YAML:
            import yaml

            output.line(
                "---\n" + yaml.safe_dump(_plain(event), sort_keys=False, allow_unicode=True)
            )
        case Format.NAME:
            output.line(str(event.revision))
        case Format.TABLE:
            for text in _lines(event):
                output.line(texts.one_line(text))


def _plain(event: Snapshot | pb.Transaction | pb.Bookmark) -> dict[str, Any]:
    if isinstance(event, Snapshot):
        return {
            "type": "snapshot",
            "reason": pb.SnapshotReason.Name(event.reason),
            "revision": event.revision,
            "cursor": base64.b64encode(event.cursor).decode(),
            "items": [output.plain(item, whole=False) for item in event.items],
        }
    kind = "transaction" if isinstance(event, pb.Transaction) else "bookmark"
    return {"type": kind, **output.plain(event, whole=False)}


def _lines(event: Snapshot | pb.Transaction | pb.Bookmark) -> list[str]:
    if isinstance(event, pb.Bookmark):
        return [f"r{event.revision}  nothing more up to here"]
    if isinstance(event, Snapshot):
        why = wording.enum_name(pb.SnapshotReason, event.reason).lower().replace("_", " ")
        head = f"r{event.revision}  snapshot of {len(event.items)} resources ({why})"
        return [head, *(f"r{event.revision}  {_item(item)}" for item in event.items)]
    when = f"{event.commit_time.ToDatetime():%Y-%m-%d %H:%M:%S}Z"
    who = f" by {event.actor}" if event.actor else ""
    why = f" ({event.reason})" if event.reason else ""
    return [
        f"r{event.revision}  {when}  {changes.describe(change)}{who}{why}"
        for change in event.changes
    ]


def _item(item: pb.SnapshotItem) -> str:
    match item.WhichOneof("resource"):
        case "version":
            held = f" in {wording.words(item.version.stages)}" if item.version.stages else ""
            return f"{item.version.model}/{item.version.version}{held}"
        case "model":
            return f"{item.model.name}"
        case "stage":
            return f"stage {item.stage.name}"
        case "namespace":
            return f"namespace {item.namespace.name}"
        case _:
            return "something from a newer server"


def _decoded(cursor: str) -> bytes:
    try:
        return base64.b64decode(cursor, validate=True)
    except binascii.Error:
        refuse("--cursor", "that is no cursor; take `cursor` from a line of `watch -o json`")
