"""Model versions through MLflow's API."""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.field_mask_pb2 import FieldMask

from stagewire import errors as refusals
from stagewire import names, pb
from stagewire.mlflow import answers, checks, errors, models
from stagewire.mlflow.calls import Call, takes
from stagewire.mlflow.errors import saying
from stagewire.mlflow.shapes import FLAG, TAGS, TEXT

if TYPE_CHECKING:
    from stagewire.mlflow.shapes import Json

_VERSION = {"name": TEXT.needed, "version": TEXT.needed}
_LOGGED_MODEL = "models:/m-"


@takes(
    name=TEXT.needed,
    source=TEXT.needed,
    run_id=TEXT,
    tags=TAGS,
    run_link=TEXT,
    description=TEXT,
    model_id=TEXT,
)
def create(call: Call) -> Json:
    """Register the next version of a model."""
    name, source = call["name"], call["source"]
    is_prompt = checks.marks_prompt(dict(call["tags"]))
    if is_prompt:
        checks.prompt_source(source)
    named = "" if is_prompt else _named_model(call, source)
    if named:
        _refuse_prompt(call, source, named)
        source = _of_no_stage(call, source, named)
    checks.model_name(name)
    wanted = pb.ModelVersion(
        source=source,
        description=call["description"],
        tags=checks.version_tags(call["tags"]),
        lineage=pb.Lineage(
            run_id=call["run_id"], run_link=call["run_link"], logged_model_id=call["model_id"]
        ),
    )
    _find_logged_model(call, wanted)
    with saying({**_of_sources(call, source, named), **errors.of_model(name)}):
        made = call.ask(
            call.registry.CreateModelVersion,
            pb.CreateModelVersionRequest(model=name, version=wanted),
        )
    return {"model_version": answers.model_version(call, made.version)}


def _named_model(call: Call, source: str) -> str:
    """Name the model whose version a source is, if it is one's."""
    if not source.lower().startswith("models:/") or source.lower().startswith(_LOGGED_MODEL):
        return ""
    try:
        return names.parse_models_uri(source)[0]
    except refusals.RegistryError:
        name, _, selector = source.partition(":/")[2].partition("/")
        if name and selector.isdecimal():
            # A number that no version has.
            _refuse_prompt(call, source, name)
            raise errors.absent_version(name, checks.version_number(selector)) from None
        raise errors.invalid(
            f"Invalid model version source: '{source}'. The model_id request parameter must "
            "identify the resource that contains the source."
        ) from None


def _refuse_prompt(call: Call, source: str, named: str) -> None:
    with saying(errors.of_model(named)):
        found = call.ask(call.registry.GetModel, pb.GetModelRequest(model=named))
    if checks.marks_prompt(dict(found.model.tags)):
        raise errors.invalid(
            f"Invalid model version source: '{source}'. Prompt versions cannot be used as model "
            "version sources."
        )


def _of_no_stage(call: Call, source: str, named: str) -> str:
    """Put a number into a source by the stage None, which is no stage of ours."""
    stage = names.parse_models_uri(source)[1].stage
    if names.stage_key(stage) != names.stage_key(answers.NONE):
        return source
    request = pb.GetLatestVersionsRequest(model=named, stages=[answers.NONE])
    with saying(errors.of_model(named)):
        found = call.ask(call.registry.GetLatestVersions, request).latest_versions
    if not found:
        raise errors.invalid(f"No versions of model with name '{named}' and stage '{stage}' found")
    return f"models:/{named}/{found[0].version.version}"


def _find_logged_model(call: Call, wanted: pb.ModelVersion) -> None:
    """Fill in where a logged model's files are, if somebody can be asked."""
    if call.upstream is None or not wanted.source.startswith(_LOGGED_MODEL):
        return
    found = call.upstream.logged_model(wanted.source.removeprefix("models:/"), call.headers)
    wanted.storage_uri = found.artifact_location
    wanted.lineage.run_id = wanted.lineage.run_id or found.run_id


def _of_sources(call: Call, source: str, named: str) -> dict[str, errors.MlflowError]:
    start = f"Invalid model version source: '{source}'."
    local = errors.invalid(
        f"{start} To use a local path as a model version source, the run_id request parameter has "
        "to be specified and the local path has to be contained within the artifact directory of "
        "the run specified by the run_id."
    )
    unsafe = errors.invalid(
        f"{start} If supplying a source as an http, https, local file path, ftp, objectstore, or "
        "mlflow-artifacts uri, an absolute path must be provided without relative path references "
        "present. Please provide an absolute path."
    )
    texts = {"SOURCE_UNSAFE": unsafe, "SOURCE_NOT_IN_RUN": local}
    return {**texts, **_of_named_source(call, source, named)} if named else texts


def _of_named_source(call: Call, source: str, named: str) -> dict[str, errors.MlflowError]:
    selector = names.parse_models_uri(source)[1]
    none = f"No versions of model with name '{named}'"
    texts = {
        "SOURCE_NOT_IN_RUN": errors.invalid(
            f"Invalid model version source: '{source}'. The run_id and model_id request parameters "
            "must match the referenced model version."
        ),
        "VERSION_NOT_FOUND": errors.absent_version(named, selector.version)
        if selector.version
        else errors.invalid(f"{none} found"),
        "STAGE_EMPTY": errors.invalid(f"{none} and stage '{selector.stage}' found"),
        "ALIAS_NOT_FOUND": errors.invalid(f"Registered model alias {selector.alias} not found."),
    }
    if selector.stage:
        texts["STAGE_NOT_FOUND"] = models.unknown_stage(call, selector.stage)
    return texts


@takes(_VERSION)
def get(call: Call) -> Json:
    """Show a version with its metrics."""
    return {"model_version": answers.model_version(call, find(call, with_metrics=True))}


@takes(name=TEXT, version=TEXT)
def download_uri(call: Call) -> Json:
    """Say where a version's files are."""
    found = find(call)
    return {"artifact_uri": found.storage_uri or found.source}


def find(call: Call, *, with_metrics: bool = False) -> pb.ModelVersion:
    """Return the version that a request names."""
    name, number = _addressed(call)
    request = pb.GetModelVersionRequest(model=name, version=number, include_metrics=with_metrics)
    with saying(errors.of_version(name, number)):
        return call.ask(call.registry.GetModelVersion, request).version


def _addressed(call: Call) -> tuple[str, int]:
    """Check which version is meant: the name first, then the number."""
    name = call["name"]
    checks.model_name(name)
    return name, checks.existing_version(name, call["version"])


@takes(_VERSION, description=TEXT)
def update(call: Call) -> Json:
    """Change a version's description; without one it becomes empty."""
    name, number = _addressed(call)
    with saying(errors.of_version(name, number)):
        changed = call.ask(
            call.registry.UpdateModelVersion,
            pb.UpdateModelVersionRequest(
                model=name,
                version=number,
                update=pb.ModelVersionUpdate(description=call["description"]),
                update_mask=FieldMask(paths=["description"]),
            ),
        )
    return {"model_version": answers.model_version(call, changed.version)}


@takes(_VERSION, stage=TEXT.needed, archive_existing_versions=FLAG)
def transition(call: Call) -> Json:
    """Move a version into a stage and out of its others."""
    stage, archives = call["stage"], call["archive_existing_versions"]
    key = names.stage_key(stage)
    if key not in {names.stage_key(answers.NONE), *call.stages}:
        raise models.unknown_stage(call, stage)
    if archives and not (key in call.stages and call.stages[key].active):
        active = [defined.name for defined in call.stages.values() if defined.active]
        raise errors.invalid(
            "Model version transition cannot archive existing model versions because "
            f"'{stage}' is not an Active stage. Valid stages are {active}"
        )
    name, number = _addressed(call)
    wanted = pb.TransitionStageRequest(
        model=name,
        version=number,
        stage=stage,
        displace=pb.DISPLACEMENT_RETIRE if archives else pb.DISPLACEMENT_KEEP,
        leave_other_stages=True,
    )
    with saying(errors.of_version(name, number)):
        moved = _moved(call, wanted)
    return {"model_version": answers.model_version(call, moved.version)}


def _moved(call: Call, wanted: pb.TransitionStageRequest) -> pb.TransitionStageResponse:
    try:
        return call.ask(call.registry.TransitionStage, wanted)
    except refusals.RegistryError as error:
        # An exclusive stage keeps nobody beside the version that enters: it goes by its own
        # definition then, also when the first of two equal calls did so.
        kept = wanted.displace == pb.DISPLACEMENT_KEEP
        if not kept or error.reason not in {"STAGE_OCCUPIED", "REQUEST_ID_REUSED"}:
            raise
    wanted.displace = pb.DISPLACEMENT_UNSPECIFIED
    return call.ask(call.registry.TransitionStage, wanted)


@takes(_VERSION)
def delete(call: Call) -> Json:
    """Delete a version, whatever it is used for."""
    number = checks.version_number(call["version"])
    name, number = _addressed(call)
    with saying(errors.of_version(name, number)):
        call.ask(
            call.registry.DeleteModelVersion,
            pb.DeleteModelVersionRequest(model=name, version=number, force=True),
        )
    return {}


@takes(_VERSION, key=TEXT.needed, value=TEXT)
def set_tag(call: Call) -> Json:
    """Set a tag of a version."""
    name = call["name"]
    checks.model_name(name)
    checks.version_number(call["version"])
    tags = checks.version_tags([(call["key"], call["value"])])
    number = checks.existing_version(name, call["version"])
    with saying(errors.of_version(name, number)):
        call.ask(
            call.registry.SetModelVersionTags,
            pb.SetModelVersionTagsRequest(model=name, version=number, tags=tags),
        )
    return {}


@takes(_VERSION, key=TEXT.needed)
def delete_tag(call: Call) -> Json:
    """Delete a tag of a version; an absent one is no error."""
    name = call["name"]
    checks.model_name(name)
    checks.version_number(call["version"])
    checks.tag_key(call["key"])
    number = checks.existing_version(name, call["version"])
    with saying(errors.of_version(name, number)):
        call.ask(
            call.registry.DeleteModelVersionTags,
            pb.DeleteModelVersionTagsRequest(model=name, version=number, keys=[call["key"]]),
        )
    return {}
