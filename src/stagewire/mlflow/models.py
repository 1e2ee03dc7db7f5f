"""Registered models through MLflow's API."""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.field_mask_pb2 import FieldMask

from stagewire import errors as refusals
from stagewire import names, pb
from stagewire.mlflow import answers, checks, errors
from stagewire.mlflow.calls import Call, takes
from stagewire.mlflow.errors import saying
from stagewire.mlflow.shapes import TAGS, TEXT, TEXTS

if TYPE_CHECKING:
    from stagewire.mlflow.shapes import Json


@takes(name=TEXT.needed, tags=TAGS, description=TEXT)
def create(call: Call) -> Json:
    """Register a model."""
    name = call["name"]
    checks.model_name(name)
    tags = checks.model_tags(call["tags"])
    wanted = pb.Model(name=name, tags=tags, description=call["description"])
    try:
        made = call.ask(call.registry.CreateModel, pb.CreateModelRequest(model=wanted))
    except refusals.RegistryError as error:
        if error.reason != "MODEL_EXISTS":
            raise
        raise _taken(call, name, is_prompt=checks.marks_prompt(tags)) from None
    return {"registered_model": answers.registered_model(call, made.model)}


def _taken(call: Call, name: str, *, is_prompt: bool) -> errors.MlflowError:
    present = call.ask(call.registry.GetModel, pb.GetModelRequest(model=name)).model
    was_prompt = checks.marks_prompt(dict(present.tags))
    kind, old = (("Registered Model", "Prompt")[flag] for flag in (is_prompt, was_prompt))
    if kind == old:
        return errors.exists(f"{kind} (name={name}) already exists.")
    return errors.exists(
        f"Tried to create a {kind.lower()} with name {name!r}, but the name is already taken by a "
        f"{old.lower()}. MLflow does not allow creating a model and a prompt with the same name."
    )


@takes(name=TEXT.needed)
def get(call: Call) -> Json:
    """Show a model."""
    checks.model_name(call["name"])
    return {"registered_model": shown(call, call["name"])}


def shown(call: Call, name: str) -> Json:
    """Read a model and show it with what hangs on it."""
    with saying(errors.of_model(name)):
        found = call.ask(
            call.registry.GetModel, pb.GetModelRequest(model=name, include_latest_versions=True)
        )
    return answers.registered_model(
        call,
        found.model,
        aliases=found.aliases,
        latest=found.latest_versions,
        activity_time=found.activity_time,
    )


@takes(name=TEXT.needed, description=TEXT)
def update(call: Call) -> Json:
    """Change a model's description; without one it becomes empty."""
    name = call["name"]
    checks.model_name(name)
    with saying(errors.of_model(name)):
        call.ask(
            call.registry.UpdateModel,
            pb.UpdateModelRequest(
                model=name,
                update=pb.ModelUpdate(description=call["description"]),
                update_mask=FieldMask(paths=["description"]),
            ),
        )
    return {"registered_model": shown(call, name)}


@takes(name=TEXT.needed, new_name=TEXT.needed)
def rename(call: Call) -> Json:
    """Give a model another name."""
    name, new_name = call["name"], call["new_name"]
    checks.new_model_name(new_name)
    checks.model_name(name)
    taken = errors.exists(f"Registered Model (name={new_name}) already exists.")
    with saying({**errors.of_model(name), "MODEL_EXISTS": taken}):
        call.ask(call.registry.RenameModel, pb.RenameModelRequest(model=name, new_name=new_name))
    return {"registered_model": shown(call, names.lookup_model(new_name))}


@takes(name=TEXT.needed)
def delete(call: Call) -> Json:
    """Delete a model, whatever its versions are used for."""
    name = call["name"]
    checks.model_name(name)
    with saying(errors.of_model(name)):
        call.ask(call.registry.DeleteModel, pb.DeleteModelRequest(model=name, force=True))
    return {}


@takes(name=TEXT.needed, stages=TEXTS)
def latest_versions(call: Call) -> Json:
    """Show for each stage asked for the version that speaks for it."""
    name, stages = call["name"], call["stages"]
    checks.model_name(name)
    defined = {names.stage_key(answers.NONE), *call.stages}
    unknown = [stage for stage in stages if names.stage_key(stage) not in defined]
    texts = errors.of_model(name)
    if stages:
        texts["STAGE_NOT_FOUND"] = unknown_stage(call, *stages)
    # Stages are looked at after the model, also those that could not be any.
    request = pb.GetLatestVersionsRequest(model=name, stages=[] if unknown else stages)
    with saying(texts):
        found = call.ask(call.registry.GetLatestVersions, request)
    if unknown:
        raise unknown_stage(call, *stages)
    return listed("model_versions", answers.latest_versions(call, found.latest_versions))


def unknown_stage(call: Call, *stages: str) -> errors.MlflowError:
    """Refuse the first of these stages that the namespace doesn't define."""
    valid = [answers.NONE, *(stage.name for stage in call.stages.values())]
    known = {names.stage_key(name) for name in valid}
    wrong = next((stage for stage in stages if names.stage_key(stage) not in known), stages[0])
    return errors.invalid(
        f"Invalid Model Version stage: {wrong}. Value must be one of {', '.join(valid)}."
    )


def listed(name: str, rows: list[Json]) -> Json:
    """Answer a list, which MLflow leaves out when it is empty."""
    return {name: rows} if rows else {}


@takes(name=TEXT.needed, key=TEXT.needed, value=TEXT)
def set_tag(call: Call) -> Json:
    """Set a tag of a model."""
    name = call["name"]
    checks.model_name(name)
    tags = checks.model_tags([(call["key"], call["value"])])
    with saying(errors.of_model(name)):
        call.ask(call.registry.SetModelTags, pb.SetModelTagsRequest(model=name, tags=tags))
    return {}


@takes(name=TEXT.needed, key=TEXT.needed)
def delete_tag(call: Call) -> Json:
    """Delete a tag of a model; an absent one is no error."""
    name = call["name"]
    checks.model_name(name)
    checks.tag_key(call["key"])
    with saying(errors.of_model(name)):
        call.ask(
            call.registry.DeleteModelTags,
            pb.DeleteModelTagsRequest(model=name, keys=[call["key"]]),
        )
    return {}


@takes(name=TEXT.needed, alias=TEXT.needed, version=TEXT.needed)
def set_alias(call: Call) -> Json:
    """Point an alias at a version, wherever it pointed before."""
    name = call["name"]
    checks.model_name(name)
    checks.new_alias(call["alias"])
    number = checks.existing_version(name, call["version"])
    with saying(errors.of_version(name, number)):
        call.ask(
            call.registry.SetAlias,
            pb.SetAliasRequest(model=name, alias=call["alias"], version=number, reassign=True),
        )
    return {}


@takes(name=TEXT.needed, alias=TEXT.needed)
def delete_alias(call: Call) -> Json:
    """Remove an alias; an absent one is no error."""
    name = call["name"]
    checks.model_name(name)
    checks.alias(call["alias"])
    try:
        with saying(errors.of_model(name)):
            call.ask(
                call.registry.DeleteAlias,
                pb.DeleteAliasRequest(model=name, alias=call["alias"]),
            )
    except refusals.RegistryError as error:
        if error.reason != "ALIAS_NOT_FOUND":
            raise
    return {}


@takes(name=TEXT.needed, alias=TEXT.needed)
def get_by_alias(call: Call) -> Json:
    """Show the version that an alias points at; "latest" is the newest."""
    name, alias = call["name"], call["alias"]
    checks.model_name(name)
    checks.alias(alias)
    request = pb.ResolveModelVersionRequest(model=name)
    if alias.lower() != "latest":
        request.alias = alias
    texts = {
        **errors.of_model(name),
        "ALIAS_NOT_FOUND": errors.invalid(f"Registered model alias {alias} not found."),
        "VERSION_NOT_FOUND": errors.absent(f"Latest version not found for model {name}."),
    }
    with saying(texts):
        found = call.ask(call.registry.ResolveModelVersion, request)
    return {"model_version": answers.model_version(call, found.version)}
