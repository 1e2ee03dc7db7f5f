"""The requests behind the few calls that people type daily, built once for both clients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from stagewire import pb

if TYPE_CHECKING:
    from collections.abc import Iterable

    #: Metrics as a mapping of key to value, or as points.
    Metrics = Mapping[str, float] | Iterable[pb.Metric]


_STARTS = {
    "snapshot": pb.WATCH_START_SNAPSHOT,
    "beginning": pb.WATCH_START_BEGINNING,
    "now": pb.WATCH_START_NOW,
}


def resolve(
    model: str, *, version: int, stage: str, alias: str, include_metrics: bool
) -> pb.ResolveModelVersionRequest:
    """Ask what a number, a stage, an alias, or none of them (the newest) means now."""
    if sum(map(bool, (version, stage, alias))) > 1:
        message = "pass one of version, stage and alias"
        raise ValueError(message)
    request = pb.ResolveModelVersionRequest(include_metrics=include_metrics)
    if model.startswith("models:/"):
        request.uri = model
        return request
    request.model = model
    if version:
        request.version = version
    elif stage:
        request.stage = stage
    elif alias:
        request.alias = alias
    return request


def create_version(
    model: str,
    *,
    source: str,
    metrics: Metrics,
    tags: Mapping[str, str] | None,
    params: Mapping[str, str] | None,
    lineage: pb.Lineage | None,
    signature: str,
    flavors: Iterable[str],
    description: str,
    reason: str,
) -> pb.CreateModelVersionRequest:
    """Register the next version of a model."""
    return pb.CreateModelVersionRequest(
        model=model,
        version=pb.ModelVersion(
            source=source,
            tags=tags,
            params=params,
            lineage=lineage,
            signature=signature,
            flavors=flavors,
            description=description,
        ),
        metrics=points(metrics),
        reason=reason,
    )


def log_metrics(
    model: str, version: int, metrics: Metrics, *, step: int, dataset: str
) -> pb.LogMetricsRequest:
    """Add points to a version's metrics."""
    return pb.LogMetricsRequest(
        model=model, version=version, metrics=points(metrics, step=step, dataset=dataset)
    )


def points(metrics: Metrics, *, step: int = 0, dataset: str = "") -> list[pb.Metric]:
    """Return metrics as points; those that are points already stand as they are."""
    if isinstance(metrics, Mapping):
        return [
            pb.Metric(key=key, value=value, step=step, dataset=dataset)
            for key, value in metrics.items()
        ]
    return list(metrics)


def watch(
    filter: pb.WatchFilter | None,  # noqa: A002 - the field's name in the contract
    *,
    models: Iterable[str],
    model_prefix: str,
    stages: Iterable[str],
    namespaces: Iterable[str],
    kinds: Iterable[pb.ChangeKind.ValueType | str],
    cursor: bytes,
    start: str,
    snapshot_on_reset: bool,
    namespace: str,
) -> pb.WatchRequest:
    """Build a watch's first request; refuse a start or a kind that the contract doesn't know."""
    if start not in _STARTS:
        message = f"start is {start!r}; say one of {', '.join(_STARTS)}"
        raise ValueError(message)
    asked = pb.WatchFilter(
        namespaces=namespaces,
        models=models,
        model_prefix=model_prefix,
        stages=stages,
        kinds=[_kind(kind) for kind in kinds],
    )
    if filter is not None:
        asked.MergeFrom(filter)
    if not asked.namespaces and namespace:
        asked.namespaces.append(namespace)
    request = pb.WatchRequest(filter=asked, snapshot_on_reset=snapshot_on_reset)
    if cursor:
        request.cursor = cursor
    else:
        request.start = _STARTS[start]
    return request


def _kind(kind: pb.ChangeKind.ValueType | str) -> pb.ChangeKind.ValueType:
    if not isinstance(kind, str):
        return kind
    return pb.ChangeKind.Value("CHANGE_KIND_" + kind.upper().removeprefix("CHANGE_KIND_"))
