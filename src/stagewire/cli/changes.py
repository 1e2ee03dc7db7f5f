"""The log's changes in words: one line each, for `watch` and `event list`."""

from stagewire import pb
from stagewire.cli import scopes, wording


def subject(change: pb.Change) -> str:
    """Name the resource that changed."""
    if change.HasField("webhook_state"):
        return f"webhook {change.webhook_state.name}"
    if change.HasField("token_state"):
        return f"token {change.token_state.id} of {change.token_state.subject}"
    if change.HasField("grant_state"):
        grant = change.grant_state
        return f"grant of {scopes.describe(grant.scope)} to {grant.subject}"
    if change.stage:
        return f"stage {change.stage}"
    if change.version:
        return f"{change.model}/{change.version}"
    return change.model or f"namespace {change.namespace}"


def describe(change: pb.Change) -> str:
    """Say what happened to it."""
    if change.delivery == pb.CHANGE_DELIVERY_LEFT:
        held = f" (it held {wording.words(change.left_stages)})" if change.left_stages else ""
        return f"{subject(change)} left the filter{held}"
    return f"{subject(change)}: {_effect(change)}"


def _effect(change: pb.Change) -> str:
    match change.kind:
        case pb.CHANGE_KIND_MODEL_RENAMED:
            return f"renamed from {change.previous_model}"
        case pb.CHANGE_KIND_STAGES_CHANGED | pb.CHANGE_KIND_STAGE_PRIMARY_CHANGED:
            return _moved(change)
        case pb.CHANGE_KIND_ALIASES_CHANGED:
            return f"aliases now {wording.words(change.version_state.aliases) or 'none'}"
        case pb.CHANGE_KIND_UNSPECIFIED:
            return "changed"
    words = wording.enum_name(pb.ChangeKind, change.kind).lower().split("_")
    moved = f" ({_moved(change)})" if change.entered_stages or change.left_stages else ""
    return (words[-1] if len(words) > 1 else words[0]) + moved


def _moved(change: pb.Change) -> str:
    parts = [f"entered {wording.words(change.entered_stages)}"] if change.entered_stages else []
    parts += [f"left {wording.words(change.left_stages)}"] if change.left_stages else []
    parts += [
        f"{primary.stage} runs {f'version {primary.version}' if primary.version else 'nothing'}"
        for primary in change.primaries
    ]
    return "; ".join(parts) or "as it was"
