"""Models and versions as MLflow's JSON: snake_case, milliseconds, version numbers as texts.

What is unset is left out. A version in several stages shows one: the highest active, else the
highest other, unless it was asked for by a stage.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from stagewire import names, pb

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from google.protobuf.timestamp_pb2 import Timestamp

    from stagewire.mlflow.calls import Call
    from stagewire.mlflow.shapes import Json

#: MLflow's word for no stage.
NONE = "None"


def registered_model(
    call: Call,
    model: pb.Model,
    *,
    aliases: Mapping[str, int] | None = None,
    latest: Iterable[pb.LatestVersion] = (),
    activity_time: Timestamp | None = None,
) -> Json:
    """Show a model with what hangs on it."""
    return _without_unset(
        {
            "name": model.name,
            "creation_timestamp": _millis(model.create_time),
            "last_updated_timestamp": _millis(activity_time or model.create_time),
            "user_id": _user(model.creator),
            "description": model.description,
            "latest_versions": latest_versions(call, latest),
            "tags": _tags(model.tags),
            "aliases": [
                {"alias": alias, "version": str(number)}
                for alias, number in sorted((aliases or {}).items())
            ],
        }
    )


def latest_versions(call: Call, found: Iterable[pb.LatestVersion]) -> list[Json]:
    """Show each stage's version as being in that stage."""
    return [
        model_version(call, latest.version, stage=latest.stage, listed=True) for latest in found
    ]


def model_version(
    call: Call, version: pb.ModelVersion, *, stage: str = "", listed: bool = False
) -> Json:
    """Show a version, in `stage` where it was found by that.

    The logged model's id is shown in lists alone: a client that is given it for one version asks
    its tracking server about it before it copies that version.
    """
    lineage = version.lineage
    return _without_unset(
        {
            "name": version.model,
            "version": str(version.version),
            "creation_timestamp": _millis(version.create_time),
            "last_updated_timestamp": _millis(version.activity_time),
            "user_id": _user(version.creator),
            "current_stage": stage or current_stage(call, version),
            "description": version.description,
            "source": version.source,
            "run_id": lineage.run_id,
            "status": pb.ModelVersionStatus.Name(version.status).removeprefix(
                "MODEL_VERSION_STATUS_"
            ),
            "status_message": version.status_message,
            "tags": _tags(version.tags),
            "run_link": lineage.run_link,
            "aliases": list(version.aliases),
            "model_id": lineage.logged_model_id if listed else "",
            "model_params": [
                {"name": name, "value": value} for name, value in sorted(version.params.items())
            ],
            "model_metrics": [_metric(version, metric) for metric in version.metrics],
        }
    )


def current_stage(call: Call, version: pb.ModelVersion) -> str:
    """Choose the one stage that MLflow shows of those a version is in."""
    held: list[str] = list(version.stages)
    if len(held) > 1:
        active = [name for name in held if _is_active(call, name)]
        return (active or held)[-1]
    return held[0] if held else NONE


def _is_active(call: Call, stage: str) -> bool:
    found = call.stages.get(names.stage_key(stage))
    return found is not None and found.active


def _metric(version: pb.ModelVersion, metric: pb.Metric) -> Json:
    return _without_unset(
        {
            "key": metric.key,
            "value": metric.value if math.isfinite(metric.value) else _unwritable(metric.value),
            "timestamp": _millis(metric.time),
            "step": metric.step,
            "dataset_name": metric.dataset,
            "model_id": version.lineage.logged_model_id,
            "run_id": version.lineage.run_id,
        }
    )


def _unwritable(value: float) -> str:
    """Write what JSON has no number for as protobuf's JSON does."""
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _user(name: str) -> str:
    return "" if name == names.ANONYMOUS else name


def _tags(tags: Mapping[str, str]) -> list[Json]:
    return [{"key": key, "value": value} for key, value in sorted(tags.items())]


def _millis(moment: Timestamp) -> int:
    return moment.seconds * 1000 + moment.nanos // 1_000_000


def _without_unset(shown: Json) -> Json:
    return {name: value for name, value in shown.items() if not _is_unset(value)}


def _is_unset(value: Any) -> bool:
    return value is None or value in ("", [])
