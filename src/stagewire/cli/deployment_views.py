"""How deployments look: what drifts or is silent stands out by a mark, by words and by colour."""

from collections.abc import Iterable

from stagewire import pb
from stagewire.cli import output, wording
from stagewire.cli.views import Column, View, version_or_none

#: Marks for those who see no colours, or read a file.
DRIFTING = "!"
SILENT = "?"


def sync(deployment: pb.Deployment) -> str:
    """Say whether it runs what is desired, and whether that is news of today."""
    words = "in sync" if deployment.in_sync else "drifting"
    return f"{words}, silent" if deployment.silent else words


def mark(deployment: pb.Deployment) -> str:
    """Mark what is not as it should be."""
    return DRIFTING * (not deployment.in_sync) + SILENT * deployment.silent


def urgency(deployment: pb.Deployment) -> tuple[bool, bool]:
    """Sort what drifts before what is silent before the rest."""
    return deployment.in_sync, not deployment.silent


def name(deployment: pb.Deployment) -> str:
    """Name it for scripts."""
    return f"{deployment.target}:{deployment.model}/{deployment.stage}"


def state(deployment: pb.Deployment) -> str:
    """Name what it is doing."""
    return wording.enum_name(pb.DeploymentState, deployment.state)


def lag(deployment: pb.Deployment) -> str:
    """Say how far its agent is behind the log."""
    if deployment.lag_revisions < 0:
        return "unknown"
    if deployment.lag_revisions and deployment.HasField("lag"):
        return f"{deployment.lag_revisions} ({wording.elapsed(deployment.lag.ToTimedelta())})"
    return str(deployment.lag_revisions)


def _colour(deployment: pb.Deployment) -> str:
    if not deployment.in_sync:
        return "bold red"
    return "yellow" if deployment.silent else ""


def _sync_colour(deployment: pb.Deployment) -> str:
    return _colour(deployment) or "green"


def _lease(deployment: pb.Deployment) -> str:
    if deployment.silent:
        return f"silent since {wording.instant(deployment.lease_end_time)}"
    left = deployment.lease_end_time.ToDatetime() - deployment.report_time.ToDatetime()
    return f"silent when not heard of for {wording.elapsed(left)}"


def _details(deployment: pb.Deployment) -> Iterable[tuple[str, str]]:
    told = deployment.agent_desired_version
    return (
        ("sync", f"{mark(deployment)} {sync(deployment)}".strip()),
        ("desired", version_or_none(deployment.desired_version)),
        ("running", version_or_none(deployment.running_version)),
        ("told to run", version_or_none(told) if told != deployment.desired_version else ""),
        ("state", state(deployment)),
        ("error", deployment.error),
        ("digest", deployment.running_digest),
        ("agent", deployment.agent),
        ("lag", lag(deployment)),
        ("reported", wording.instant(deployment.report_time)),
        ("lease", _lease(deployment)),
        ("agent's clock", wording.instant(deployment.agent_time)),
        ("session", f"{deployment.session}, report {deployment.seq}"),
    )


DEPLOYMENT: View[pb.Deployment] = View(
    plural="deployments",
    name=name,
    title=lambda deployment: f"{deployment.model} {deployment.stage} at {deployment.target}",
    columns=(
        Column("", mark, style=_colour, always=False),
        Column("TARGET", lambda deployment: deployment.target, style=_colour),
        Column("MODEL", lambda deployment: deployment.model),
        Column("STAGE", lambda deployment: deployment.stage),
        Column(
            "DESIRED", lambda deployment: version_or_none(deployment.desired_version), right=True
        ),
        Column(
            "RUNNING",
            lambda deployment: version_or_none(deployment.running_version),
            right=True,
            style=_colour,
        ),
        Column("STATE", state),
        Column("SYNC", sync, style=_sync_colour),
        Column("LAG", lag, right=True),
        Column("REPORTED", lambda deployment: wording.ago(deployment.report_time)),
        Column("AGENT", lambda deployment: deployment.agent, whole=False),
        Column("ERROR", lambda deployment: deployment.error, always=False, whole=False),
    ),
    details=_details,
)

DEPLOYMENTS: View[pb.GetDeploymentStatusResponse] = View(
    plural="deployments",
    name=lambda found: f"{found.in_sync}/{found.total}",
    columns=(),
    details=lambda found: (
        ("deployments", str(found.total)),
        ("in sync", str(found.in_sync)),
        ("drifting", str(found.drifting)),
        ("silent", str(found.silent)),
    ),
    appendix=lambda found: (
        [
            "",
            output.table(sorted(found.deployments, key=urgency), DEPLOYMENT.columns),
        ]
        if found.deployments
        else []
    ),
)
