"""`stagewire deployment watch`: deployments as they change, as a table or as lines.

The log tells at once when a stage moves; what agents report stands beside it and is asked for.
"""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from stagewire import pb
from stagewire.cli import deployment_views, output, paging, texts, wording
from stagewire.cli.arguments import Format
from stagewire.client import Snapshot, errors

if TYPE_CHECKING:
    from rich.console import RenderableType

    from stagewire.cli.sessions import Session

#: More than anyone watches at once; each look reads all of them.
MOST_WATCHED = 10_000
#: Changes that come together are looked at together.
_LEAST_SECONDS = 0.25
#: What of a deployment is news; how old its report is, is not.
_NEWS = (
    "desired_version",
    "agent_desired_version",
    "running_version",
    "running_digest",
    "state",
    "error",
    "in_sync",
    "silent",
    "session",
)
#: Lines around the table: its header, the summary, and the prompt to come.
_BESIDE_ROWS = 4

Key = tuple[str, str, str, str]
Seen = Mapping[Key, pb.Deployment]


class TooMany(Exception):
    """There is more than can be watched."""

    reason = "TOO_MANY_DEPLOYMENTS"
    message = (
        f"there are more than {MOST_WATCHED:,} deployments; narrow them with --model, --stage,"
        " --target, --prefix or --agent"
    )


def watch(
    session: "Session", request: pb.ListDeploymentsRequest, *, interval: float, count: int
) -> None:
    """Show what the request lists, and every change of it, until `count` changes or for ever."""
    seen = _look(session, request)
    with _following(session, request) as moved, _shown(session.output) as show:
        changes = 0
        show(seen, [("present", one) for one in seen.values()])
        while not count or changes < count:
            moved.wait(interval)
            moved.clear()
            try:
                now = _look(session, request)
            except errors.Unavailable as error:
                # A server that restarts is back in a moment, and nothing of it is lost.
                texts.remark(f"warning: {error}; looking again in {interval:g} s")
                threading.Event().wait(interval)
                continue
            news = list(_news(seen, now))
            changes += len(news)
            show(now, news[: len(news) - max(changes - count, 0) if count else None])
            seen = now
            threading.Event().wait(_LEAST_SECONDS)


def _look(session: "Session", request: pb.ListDeploymentsRequest) -> Seen:
    asked = pb.ListDeploymentsRequest()
    asked.CopyFrom(request)
    asked.page_size = paging.LARGEST_PAGE
    found: dict[Key, pb.Deployment] = {}
    while True:
        page = session.client.deployments.ListDeployments(asked)
        found |= {(d.target, d.model, d.stage.casefold(), d.agent): d for d in page.deployments}
        if len(found) > MOST_WATCHED:
            raise TooMany
        asked.page_token = page.next_page_token
        if not page.next_page_token:
            return found


def _news(before: Seen, now: Seen) -> Iterator[tuple[str, pb.Deployment]]:
    for key, deployment in now.items():
        old = before.get(key)
        if old is None:
            yield "new", deployment
        elif any(getattr(old, field) != getattr(deployment, field) for field in _NEWS):
            yield "changed", deployment
    for key, deployment in before.items():
        if key not in now:
            yield "gone", deployment


@contextmanager
def _following(session: "Session", request: pb.ListDeploymentsRequest) -> Iterator[threading.Event]:
    """Give an event that is set whenever a stage moves."""
    moved = threading.Event()
    watch = session.client.watch(
        models=[request.model] if request.model else (),
        stages=[request.stage] if request.stage else (),
        kinds=[pb.CHANGE_KIND_STAGES_CHANGED, pb.CHANGE_KIND_STAGE_PRIMARY_CHANGED],
        start="now",
    )

    def follow() -> None:
        try:
            for event in watch:
                if isinstance(event, Snapshot | pb.Transaction):
                    moved.set()
        except errors.StagewireError as error:
            texts.remark(f"warning: stages are not followed ({error}); looking now and then")

    thread = threading.Thread(target=follow, name="deployment-watch", daemon=True)
    thread.start()
    try:
        yield moved
    finally:
        watch.close()


@contextmanager
def _shown(form: Format) -> Iterator[Any]:
    """Give what shows the state and its news: repainted on a terminal, else line by line."""
    console = output.console()
    if form is not Format.TABLE or not console.is_terminal:

        def say(_now: Seen, news: list[tuple[str, pb.Deployment]]) -> None:
            for kind, deployment in news:
                _print(kind, deployment, form)

        yield say
        return
    from rich.live import Live

    with Live(console=console, auto_refresh=False) as live:
        yield lambda now, _news: live.update(_painting(now, console.height), refresh=True)


def _painting(now: Seen, height: int) -> "RenderableType":
    from rich.console import Group
    from rich.text import Text

    rows = sorted(now.values(), key=deployment_views.urgency)
    room = max(height - _BESIDE_ROWS, 1)
    parts: list[RenderableType] = [Text(_summary(rows))]
    if rows:
        parts.append(output.table(rows[:room], deployment_views.DEPLOYMENT.columns))
    if len(rows) > room:
        parts.append(Text(f"and {len(rows) - room:,} more"))
    return Group(*parts)


def _summary(rows: list[pb.Deployment]) -> str:
    drifting = sum(not one.in_sync for one in rows)
    silent = sum(one.silent for one in rows)
    return (
        f"{datetime.now(UTC):%H:%M:%S}Z  {len(rows):,} deployment{'' if len(rows) == 1 else 's'}:"
        f" {len(rows) - drifting:,} in sync, {drifting:,} drifting, {silent:,} silent"
    )


def _print(kind: str, deployment: pb.Deployment, form: Format) -> None:
    match form:
        case Format.JSON:
            output.json_line({"type": kind, **output.plain(deployment)})
        case Format.YAML:
            import yaml

            tree = {"type": kind, **output.plain(deployment)}
            output.line("---\n" + yaml.safe_dump(tree, sort_keys=False, allow_unicode=True))
        case Format.NAME:
            output.line(deployment_views.name(deployment))
        case Format.TABLE:
            output.line(texts.one_line(_line(kind, deployment)))


def _line(kind: str, deployment: pb.Deployment) -> str:
    subject = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}Z  {deployment_views.name(deployment)}"
    if kind == "gone":
        return f"{subject}: gone (agent {deployment.agent})"
    runs = f"runs {_version(deployment.running_version)}"
    if not deployment.in_sync:
        runs += f", not {_version(deployment.desired_version)}"
    mark = deployment_views.mark(deployment)
    error = f": {deployment.error}" if deployment.error else ""
    words = [
        f"{runs} ({deployment_views.sync(deployment)})",
        deployment_views.state(deployment).lower() + error,
        f"agent {deployment.agent}",
    ]
    return f"{subject}{f' {mark}' if mark else ''}: {wording.words(words)}"


def _version(number: int) -> str:
    return f"version {number}" if number else "nothing"
