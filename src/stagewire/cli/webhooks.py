"""`stagewire webhook`: have events posted to a URL, and see what became of them."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from stagewire import pb
from stagewire.cli import output, paging, wording
from stagewire.cli.arguments import (
    LARGEST_REVISION,
    Description,
    DryRun,
    ExpectedRevision,
    Limit,
    NewDescription,
    Reason,
    RequestId,
    chosen,
    refuse,
)
from stagewire.cli.sessions import Session, command
from stagewire.cli.views import Column, View

app = typer.Typer()


class Format(StrEnum):
    """How events are written and signed."""

    MLFLOW = "mlflow"
    CLOUDEVENTS = "cloudevents"


_FORMATS = {
    Format.MLFLOW: pb.WEBHOOK_FORMAT_MLFLOW,
    Format.CLOUDEVENTS: pb.WEBHOOK_FORMAT_CLOUDEVENTS,
}

HookId = Annotated[
    str,
    typer.Argument(
        metavar="ID", help="The webhook's id, as `webhook list` shows it.", show_default=False
    ),
]
Url = Annotated[
    str, typer.Option("--url", "-u", metavar="URL", help="Where to post.", show_default=False)
]
NewUrl = Annotated[
    str | None,
    typer.Option("--url", "-u", metavar="URL", help="Where to post from now.", show_default=False),
]
Events = Annotated[
    list[str] | None,
    typer.Option(
        "--event",
        "-e",
        metavar="EVENT",
        help="What to be told of, e.g. model_version.created, or '*'; may be repeated.",
    ),
]
FormatChoice = Annotated[
    Format | None,
    typer.Option("--format", help="How events are written and signed.", show_default=False),
]
Models = Annotated[
    list[str] | None,
    typer.Option("--model", "-m", metavar="MODEL", help="Only of this one; may be repeated."),
]
Prefix = Annotated[
    str | None,
    typer.Option(
        "--model-prefix", metavar="TEXT", help="Only of models named so.", show_default=False
    ),
]
SecretFile = Annotated[
    Path | None,
    typer.Option(
        "--secret-file",
        metavar="FILE",
        help="Where the secret to sign with stands: '-' is standard input.",
        show_default=False,
    ),
]


def _failing(hook: pb.Webhook) -> str:
    progress = hook.progress
    if not progress.failed_attempts and not progress.HasField("failing_since_time"):
        return ""
    return f"{progress.error}, for {wording.ago(progress.failing_since_time)}"


def _status(hook: pb.Webhook) -> str:
    return wording.enum_name(pb.WebhookStatus, hook.status)


def _of(hook: pb.Webhook) -> str:
    return f"{hook.model_prefix}*" if hook.model_prefix else wording.words(hook.models)


WEBHOOK: View[pb.Webhook] = View(
    plural="webhooks",
    name=lambda hook: hook.id,
    title=lambda hook: f"webhook {hook.name}",
    columns=(
        Column("ID", lambda hook: hook.id),
        Column("NAME", lambda hook: hook.name),
        Column("STATUS", _status),
        Column("LAG", lambda hook: str(hook.progress.lag_revisions), right=True),
        Column("DEAD", lambda hook: str(hook.progress.dead_letters), right=True),
        Column("FAILING", _failing, always=False),
        Column("URL", lambda hook: hook.url, whole=False),
        Column("EVENTS", lambda hook: wording.words(hook.events), whole=False),
        Column("MODELS", _of, always=False, whole=False),
    ),
    details=lambda hook: (
        ("id", hook.id),
        ("namespace", hook.namespace),
        ("url", hook.url),
        ("events", wording.words(hook.events)),
        ("models", _of(hook)),
        ("format", wording.enum_name(pb.WebhookFormat, hook.format)),
        ("status", _status(hook)),
        ("signed", "yes" if hook.signed else "no"),
        ("description", hook.description),
        ("delivered", str(hook.progress.delivered_revision or "")),
        ("lag", str(hook.progress.lag_revisions) if hook.HasField("progress") else ""),
        ("dead", str(hook.progress.dead_letters or "")),
        ("failing", _failing(hook)),
        ("missed", str(hook.progress.missed_revisions or "")),
        ("created", wording.instant(hook.create_time)),
        ("updated", wording.instant(hook.update_time)),
        ("revision", str(hook.revision)),
    ),
)


def _result(delivery: pb.Delivery) -> str:
    said = str(delivery.response_status) if delivery.response_status else delivery.error
    return f"{wording.enum_name(pb.DeliveryStatus, delivery.status)} {said}".strip()


def _revision(delivery: pb.Delivery) -> str:
    until = delivery.until_revision
    return f"{delivery.revision}-{until}" if until else str(delivery.revision)


DELIVERY: View[pb.Delivery] = View(
    plural="deliveries",
    name=lambda delivery: delivery.id,
    columns=(
        Column("ID", lambda delivery: delivery.id),
        Column("REVISION", _revision, right=True),
        Column("EVENT", lambda delivery: delivery.event),
        Column("RESULT", _result),
        Column("ATTEMPTS", lambda delivery: str(delivery.attempts), right=True),
        Column("LAST", lambda delivery: wording.ago(delivery.attempt_time)),
    ),
    details=lambda _: (),
)


def _secret(path: Path | None) -> str:
    """Read a secret from where it does not stand in the list of processes."""
    if path is None:
        return ""
    if str(path) == "-":
        return sys.stdin.read().strip()
    try:
        return path.read_text().strip()
    except OSError as error:
        refuse("--secret-file", f"can't read {path}: {error.strerror}")


@command(
    app,
    "create",
    examples=[
        "stagewire webhook create ci --url https://ci.example/hook -e model_version.created",
        "stagewire webhook create all --url https://x.example/p -e '*' --format cloudevents",
    ],
)
def create(
    session: Session,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="What to call it.", show_default=False)
    ],
    *,
    url: Url,
    event: Events = None,
    format_: FormatChoice = None,
    model: Models = None,
    model_prefix: Prefix = None,
    secret_file: SecretFile = None,
    description: Description = "",
    disabled: Annotated[bool, typer.Option("--disabled", help="Send nothing yet.")] = False,
    dry_run: DryRun = False,
    reason: Reason = "",
    request_id: RequestId = "",
) -> None:
    """Have what happens from now on posted to a URL, in order and at least once."""
    hook = pb.Webhook(
        name=name,
        description=description,
        url=url,
        events=event or (),
        format=_FORMATS[format_] if format_ else None,
        status=pb.WEBHOOK_STATUS_DISABLED if disabled else None,
        models=model or (),
        model_prefix=model_prefix,
        secret=_secret(secret_file),
    )
    answer = session.client.webhooks.CreateWebhook(
        pb.CreateWebhookRequest(
            webhook=hook, validate_only=dry_run, reason=reason, request_id=request_id
        )
    )
    session.show(answer.webhook, WEBHOOK)


@command(app, "list", examples=["stagewire webhook list", "stagewire webhook list -o json"])
def list_(session: Session, *, limit: Limit = paging.DEFAULT_LIMIT) -> None:
    """List the namespace's webhooks and how far they are, the newest first."""
    found = paging.collect(
        session.client.webhooks.ListWebhooks,
        pb.ListWebhooksRequest(),
        lambda answer: answer.webhooks,
        limit=limit,
    )
    session.show_all(found, WEBHOOK)


@command(app, "get", examples=["stagewire webhook get ID -o json"])
def get(session: Session, webhook: HookId) -> None:
    """Show a webhook, and what stands in its way."""
    answer = session.client.webhooks.GetWebhook(pb.GetWebhookRequest(id=webhook))
    session.show(answer.webhook, WEBHOOK)


@command(
    app,
    "update",
    examples=[
        "stagewire webhook update ID --disable",
        "stagewire webhook update ID --enable --skip --reason 'what happened is known'",
    ],
)
def update(
    session: Session,
    webhook: HookId,
    *,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="Call it so.", show_default=False),
    ] = None,
    url: NewUrl = None,
    event: Events = None,
    format_: FormatChoice = None,
    model: Models = None,
    model_prefix: Prefix = None,
    secret_file: SecretFile = None,
    description: NewDescription = None,
    enable: Annotated[
        bool | None,
        typer.Option("--enable/--disable", help="Whether anything is sent.", show_default=False),
    ] = None,
    skip: Annotated[
        bool, typer.Option("--skip", help="With --enable: leave out what happened meanwhile.")
    ] = False,
    expected_revision: ExpectedRevision = 0,
    reason: Reason = "",
    request_id: RequestId = "",
) -> None:
    """Change a webhook; an enabled one goes on from where it stood, unless it is told to skip."""
    if skip and not enable:
        refuse("--skip", "only goes with --enable")
    status = pb.WEBHOOK_STATUS_ACTIVE if enable else pb.WEBHOOK_STATUS_DISABLED
    changes: dict[str, Any] = {
        "name": name,
        "url": url,
        "events": event or None,
        "format": _FORMATS[format_] if format_ else None,
        "models": model or None,
        "model_prefix": model_prefix,
        "secret": _secret(secret_file) if secret_file else None,
        "description": description,
        "status": None if enable is None else status,
    }
    given = {field: value for field, value in changes.items() if value is not None}
    if not given:
        refuse("--url", "nothing to change; see --help for what can be")
    request = pb.UpdateWebhookRequest(
        id=webhook,
        update=pb.WebhookUpdate(**given),
        resume=pb.WEBHOOK_RESUME_NOW if skip else None,
        expected_revision=expected_revision,
        reason=reason,
        request_id=request_id,
    )
    request.update_mask.paths.extend(given)
    session.show(session.client.webhooks.UpdateWebhook(request).webhook, WEBHOOK)


@command(app, "delete", examples=["stagewire webhook delete ID"])
def delete(
    session: Session,
    webhook: HookId,
    *,
    expected_revision: ExpectedRevision = 0,
    reason: Reason = "",
    request_id: RequestId = "",
) -> None:
    """Delete a webhook, with its secret and the history of its deliveries."""
    answer = session.client.webhooks.DeleteWebhook(
        pb.DeleteWebhookRequest(
            id=webhook, expected_revision=expected_revision, reason=reason, request_id=request_id
        )
    )
    output.show_plain(
        output.plain(answer), session.output, name=webhook, text=f"deleted webhook {webhook}"
    )


@command(app, "test", examples=["stagewire webhook test ID --event model_version.created"])
def try_(
    session: Session,
    webhook: HookId,
    *,
    event: Annotated[
        str, typer.Option("--event", "-e", metavar="EVENT", help="Which; else its first.")
    ] = "",
) -> None:
    """Send a made-up event and say how the receiver answered; exit 1 unless it took it."""
    answer = session.client.webhooks.TestWebhook(pb.TestWebhookRequest(id=webhook, event=event))
    said = f"answered with {answer.response_status}" if answer.response_status else answer.message
    text = f"taken: {said}" if answer.success else f"not taken: {said}"
    output.show_plain(output.plain(answer), session.output, name=webhook, text=text)
    if not answer.success:
        raise typer.Exit(1)


@command(
    app,
    "deliveries",
    examples=["stagewire webhook deliveries ID", "stagewire webhook deliveries ID --status dead"],
)
def deliveries(
    session: Session,
    webhook: HookId,
    *,
    status: Annotated[
        list[str] | None,
        typer.Option(
            "--status",
            metavar="STATUS",
            help="Only delivered, retrying, dead, queued or missed; may be repeated.",
        ),
    ] = None,
    limit: Limit = paging.DEFAULT_LIMIT,
) -> None:
    """List what was sent to a webhook and what became of it, the newest first."""
    names = chosen("--status", status, prefix="DELIVERY_STATUS_", names=pb.DeliveryStatus.keys())
    found = paging.collect(
        session.client.webhooks.ListDeliveries,
        pb.ListDeliveriesRequest(
            id=webhook, statuses=[pb.DeliveryStatus.Value(name) for name in names]
        ),
        lambda answer: answer.deliveries,
        limit=limit,
    )
    session.show_all(found, DELIVERY)


@command(
    app,
    "redeliver",
    examples=[
        "stagewire webhook redeliver ID --delivery 0b6a…",
        "stagewire webhook redeliver ID --dead-since 1200",
    ],
)
def redeliver(
    session: Session,
    webhook: HookId,
    *,
    delivery: Annotated[
        str, typer.Option("--delivery", metavar="ID", help="This one, whatever became of it.")
    ] = "",
    dead_since: Annotated[
        int,
        typer.Option(
            "--dead-since",
            min=0,
            max=LARGEST_REVISION,
            help="All that are dead, of this revision or a later one.",
        ),
    ] = 0,
) -> None:
    """Have deliveries made once more, under the ids that they had."""
    answer = session.client.webhooks.RedeliverWebhook(
        pb.RedeliverWebhookRequest(id=webhook, delivery_id=delivery, dead_since_revision=dead_since)
    )
    lost = f"; {answer.compacted} are gone from the log" if answer.compacted else ""
    output.show_plain(
        output.plain(answer), session.output, name=webhook, text=f"queued {answer.queued}{lost}"
    )
