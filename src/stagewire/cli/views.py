"""How each resource of the contract looks to a reader: its columns, its details, its name."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from stagewire import pb
from stagewire.cli import output, wording

if TYPE_CHECKING:
    from rich.console import RenderableType

M = TypeVar("M", bound=Message)
#: A column may also show what is no message.
R = TypeVar("R")


@dataclass(frozen=True, eq=False)
class Column(Generic[R]):
    """One column of a table. One that is not `always` shown needs a text in some row."""

    header: str
    text: Callable[[R], str]
    right: bool = False
    always: bool = True
    whole: bool = True
    style: Callable[[R], str] | None = None


def _nothing(_: Any) -> Iterable["RenderableType"]:
    return ()


@dataclass(frozen=True)
class View(Generic[M]):
    """How messages of one kind are printed."""

    plural: str
    name: Callable[[M], str]
    columns: Sequence[Column[M]]
    details: Callable[[M], Iterable[tuple[str, str]]]
    title: Callable[[M], str] | None = None
    appendix: Callable[[M], Iterable["RenderableType"]] = _nothing
    plain: Callable[[M], dict[str, Any]] = output.plain


def version_or_none(version: int) -> str:
    """Write a version's number; 0 means none."""
    return str(version) if version else "-"


def status(version: pb.ModelVersion) -> str:
    """Write how far a version's registration has come."""
    short = wording.enum_name(pb.ModelVersionStatus, version.status).removesuffix("_REGISTRATION")
    return "DELETED" if version.deleted else short


def metric_values(metrics: Iterable[pb.Metric]) -> str:
    """Join the latest values of a version's metrics."""
    return wording.words(
        f"{_measured(metric)}={wording.number(metric.value)}" for metric in metrics
    )


def _created(time: Timestamp, creator: str) -> str:
    return " by ".join(filter(None, (wording.instant(time), creator)))


def _measured(metric: pb.Metric) -> str:
    return f"{metric.key}@{metric.dataset}" if metric.dataset else metric.key


def _model_details(model: pb.Model) -> Iterable[tuple[str, str]]:
    return (
        ("id", model.id),
        ("namespace", model.namespace),
        ("owner", model.owner),
        ("tags", wording.labels(model.tags)),
        ("description", model.description),
        ("created", _created(model.create_time, model.creator)),
        ("updated", wording.instant(model.update_time)),
        ("revision", str(model.revision)),
        ("state", "purged" if model.purged else "deleted" if model.deleted else ""),
    )


MODEL: View[pb.Model] = View(
    plural="models",
    name=lambda model: model.name,
    title=lambda model: f"model {model.name}",
    columns=(
        Column("MODEL", lambda model: model.name),
        Column("OWNER", lambda model: model.owner, always=False),
        Column("TAGS", lambda model: wording.labels(model.tags), always=False, whole=False),
        Column("UPDATED", lambda model: wording.ago(model.update_time)),
        Column("DESCRIPTION", lambda model: model.description, always=False, whole=False),
    ),
    details=_model_details,
)

#: A deleted model's name may be taken by another: what scripts pass on is its id.
DELETED_MODEL: View[pb.Model] = View(
    plural="models",
    name=lambda model: model.id,
    title=MODEL.title,
    columns=MODEL.columns,
    details=_model_details,
)


def _found_model_plain(found: pb.GetModelResponse) -> dict[str, Any]:
    answer = output.plain(found)
    return {
        **answer.pop("model", {}),
        "stages": answer["stages"],
        "aliases": answer["aliases"],
        "latest_version": answer["latest_version"],
    }


FOUND_MODEL: View[pb.GetModelResponse] = View(
    plural="models",
    name=lambda found: found.model.name,
    title=lambda found: f"model {found.model.name}",
    columns=(),
    details=lambda found: (
        ("latest", version_or_none(found.latest_version)),
        *((f"{held.stage}", _holders(held)) for held in found.stages),
        ("aliases", wording.labels(found.aliases)),
        *_model_details(found.model),
    ),
    plain=_found_model_plain,
)


def _holders(held: pb.StageHolders) -> str:
    others = [number for number in held.versions if number != held.primary_version]
    rest = f" (also {wording.words(others)})" if others else ""
    return f"version {held.primary_version}{rest}"


def _datasets(lineage: pb.Lineage, use: "pb.DatasetUse.ValueType") -> str:
    return wording.words(
        f"{dataset.name}={dataset.digest}" if dataset.digest else dataset.name
        for dataset in lineage.datasets
        if (dataset.use or pb.DATASET_USE_TRAINING) == use
    )


def _parents(lineage: pb.Lineage) -> str:
    return wording.words(map(_parent, lineage.parents))


def _parent(parent: pb.ParentVersion) -> str:
    how = wording.enum_name(pb.Derivation, parent.derivation).lower() if parent.derivation else ""
    return f"{parent.model}/{parent.version}" + (f" ({how})" if how else "")


def _version_details(version: pb.ModelVersion) -> Iterable[tuple[str, str]]:
    lineage = version.lineage
    return (
        ("status", f"{status(version)} {version.status_message}".rstrip()),
        ("stages", wording.words(version.stages)),
        ("aliases", wording.words(version.aliases)),
        ("source", version.source),
        ("tags", wording.labels(version.tags)),
        ("params", wording.labels(version.params)),
        ("metrics", metric_values(version.metrics)),
        ("run", " ".join(filter(None, (lineage.run_id, lineage.run_link)))),
        ("experiment", lineage.experiment),
        ("commit", " of ".join(filter(None, (lineage.git_commit, lineage.git_repository)))),
        ("trained on", _datasets(lineage, pb.DATASET_USE_TRAINING)),
        ("evaluated on", _datasets(lineage, pb.DATASET_USE_EVALUATION)),
        ("parents", _parents(lineage)),
        ("flavors", wording.words(version.flavors)),
        ("signature", version.signature),
        ("description", version.description),
        ("digest", version.content_digest),
        ("created", _created(version.create_time, version.creator)),
        ("updated", wording.instant(version.update_time)),
        ("revision", str(version.revision)),
        ("state", "purged" if version.purged else "deleted" if version.deleted else ""),
    )


_VERSION_COLUMNS: tuple[Column[pb.ModelVersion], ...] = (
    Column("VERSION", lambda version: str(version.version), right=True),
    Column("STAGES", lambda version: wording.words(version.stages) or "-"),
    Column("ALIASES", lambda version: wording.words(version.aliases), always=False),
    Column(
        "STATUS",
        status,
        style=lambda version: "" if version.status == pb.MODEL_VERSION_STATUS_READY else "yellow",
    ),
    Column("METRICS", lambda version: metric_values(version.metrics), always=False, whole=False),
    Column("TAGS", lambda version: wording.labels(version.tags), always=False, whole=False),
    Column("RUN", lambda version: version.lineage.run_id, always=False),
    Column("CREATED", lambda version: wording.ago(version.create_time)),
    Column("BY", lambda version: version.creator, always=False),
    Column("SOURCE", lambda version: version.source, always=False, whole=False),
)

#: Versions of one model, which the reader has named: a number is enough.
VERSION: View[pb.ModelVersion] = View(
    plural="versions",
    name=lambda version: str(version.version),
    title=lambda version: f"{version.model} version {version.version}",
    columns=_VERSION_COLUMNS,
    details=_version_details,
)

#: Versions of many models.
ANY_VERSION: View[pb.ModelVersion] = View(
    plural="versions",
    name=lambda version: f"{version.model}/{version.version}",
    title=VERSION.title,
    columns=(Column("MODEL", lambda version: version.model), *_VERSION_COLUMNS),
    details=_version_details,
)


def _quota(namespace: pb.Namespace, usage: pb.NamespaceUsage | None = None) -> str:
    """Write what a namespace may hold and ask for, with what it holds."""
    quota = namespace.quota
    texts = []
    for name, limit, used in (
        ("models", quota.max_models, usage.models if usage else None),
        ("versions", quota.max_versions, usage.versions if usage else None),
        ("watches", quota.max_watches, None),
        ("requests a second", quota.requests_per_second, None),
    ):
        if limit:
            texts.append(f"{name} {limit:,}" if used is None else f"{name} {used:,} of {limit:,}")
    return ", ".join(texts)


def _namespace_details(namespace: pb.Namespace, quota: str) -> Iterable[tuple[str, str]]:
    return (
        ("description", namespace.description),
        ("quota", quota),
        ("created", wording.instant(namespace.create_time)),
        ("revision", str(namespace.revision)),
    )


def _plain_with_usage(answer: pb.GetNamespaceResponse) -> dict[str, Any]:
    usage = {"usage": output.plain(answer.usage)} if answer.HasField("usage") else {}
    return {**output.plain(answer.namespace), **usage}


NAMESPACE: View[pb.Namespace] = View(
    plural="namespaces",
    name=lambda namespace: namespace.name,
    title=lambda namespace: f"namespace {namespace.name}",
    columns=(
        Column("NAMESPACE", lambda namespace: namespace.name),
        Column("CREATED", lambda namespace: wording.ago(namespace.create_time)),
        Column("QUOTA", _quota, always=False, whole=False),
        Column("DESCRIPTION", lambda namespace: namespace.description, always=False, whole=False),
    ),
    details=lambda namespace: _namespace_details(namespace, _quota(namespace)),
)

#: A namespace with what it holds.
NAMESPACE_IN_USE: View[pb.GetNamespaceResponse] = View(
    plural="namespaces",
    name=lambda answer: answer.namespace.name,
    title=lambda answer: f"namespace {answer.namespace.name}",
    columns=(),
    details=lambda answer: _namespace_details(
        answer.namespace,
        _quota(answer.namespace, answer.usage if answer.HasField("usage") else None),
    ),
    plain=_plain_with_usage,
)


def _occupancy(stage: pb.Stage) -> str:
    return wording.enum_name(pb.StageOccupancy, stage.occupancy).lower().replace("_", "-")


STAGE: View[pb.Stage] = View(
    plural="stages",
    name=lambda stage: stage.name,
    title=lambda stage: f"stage {stage.name}",
    columns=(
        Column("POSITION", lambda stage: str(stage.position), right=True),
        Column("STAGE", lambda stage: stage.name),
        Column("ACTIVE", lambda stage: "yes" if stage.active else "no"),
        Column("OCCUPANCY", _occupancy),
        Column("DISPLACES TO", lambda stage: stage.displace_to or "-"),
        Column("DESCRIPTION", lambda stage: stage.description, always=False, whole=False),
    ),
    details=lambda stage: (
        ("position", str(stage.position)),
        ("active", "yes" if stage.active else "no"),
        ("occupancy", _occupancy(stage)),
        ("displaces to", stage.displace_to),
        ("description", stage.description),
        ("created", wording.instant(stage.create_time)),
        ("updated", wording.instant(stage.update_time)),
        ("revision", str(stage.revision)),
    ),
)


def _left(tenure: pb.StageTenure) -> str:
    return wording.ago(tenure.left_time) if tenure.left_revision else "still there"


TENURE: View[pb.StageTenure] = View(
    plural="tenures",
    name=lambda tenure: str(tenure.version),
    columns=(
        Column("STAGE", lambda tenure: tenure.stage),
        Column("VERSION", lambda tenure: str(tenure.version), right=True),
        Column("ENTERED", lambda tenure: wording.ago(tenure.entered_time)),
        Column("LEFT", _left),
        Column("BY", lambda tenure: tenure.entered_by, always=False),
        Column("HOW", lambda tenure: wording.enum_name(pb.StageEntryCause, tenure.cause).lower()),
        Column("REASON", lambda tenure: tenure.entered_reason, always=False, whole=False),
        Column(
            "REVISIONS", lambda tenure: f"{tenure.entered_revision}-{tenure.left_revision or ''}"
        ),
    ),
    details=lambda _: (),
)

METRIC: View[pb.Metric] = View(
    plural="metrics",
    name=lambda metric: metric.key,
    columns=(
        Column("KEY", lambda metric: metric.key),
        Column("VALUE", lambda metric: wording.number(metric.value), right=True),
        Column("STEP", lambda metric: str(metric.step), right=True),
        Column("DATASET", lambda metric: metric.dataset, always=False),
        Column(
            "VERSION",
            lambda metric: str(metric.version) if metric.version else "",
            right=True,
            always=False,
        ),
        Column("MEASURED", lambda metric: wording.ago(metric.time)),
    ),
    details=lambda _: (),
)


HEAD: View[pb.GetHeadResponse] = View(
    plural="heads",
    name=lambda head: str(head.revision),
    columns=(),
    details=lambda head: (
        ("revision", str(head.revision)),
        ("committed", wording.instant(head.commit_time)),
        ("log", head.log_id),
        ("compacted up to", str(head.compacted_revision or "")),
        ("hash", head.head_hash.hex()),
    ),
)

LOGGED: View[pb.LogMetricsResponse] = View(
    plural="points",
    name=lambda answer: str(answer.logged),
    columns=(),
    details=lambda answer: (("new points", str(answer.logged)),),
)
