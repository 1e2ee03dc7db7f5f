"""The one table of who may call what; what is not in it nobody may call.

A rule judges a request by what it names, before anything is read. What only the database knows
(which model an id or an old name means) `store/lookup.py` judges by the same rights; lists show
what may be seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stagewire import errors, names
from stagewire.rights import (
    ADMINISTER,
    ALL,
    EDIT,
    MOVE,
    REGISTER,
    REPORT,
    SEE,
    Permission,
    denied,
)
from stagewire.store import lookup

if TYPE_CHECKING:
    from collections.abc import Callable

    from stagewire.callers import Caller


@dataclass(frozen=True, slots=True)
class Rule:
    """What a method needs, and how it is seen that the caller has it."""

    needs: Permission
    judge: Callable[[Caller, Any], None]


def authorise(method: str, caller: Caller, request: Any) -> Permission:
    """Refuse what the caller may not do, and give what the method needs.

    Refuses PERMISSION_DENIED, and NAMESPACE_NOT_FOUND or MODEL_NOT_FOUND for what the caller may
    not see.
    """
    rule = RULES.get(method)
    if rule is None:
        raise errors.RegistryError("PERMISSION_DENIED", f"nobody may call {method}: it has no rule")
    if not caller.rights.everything:
        rule.judge(caller, request)
    return rule.needs


def authorise_answer(caller: Caller, answer: Any) -> None:
    """Refuse to repeat an answer about a model that the caller may not see any more."""
    fields = answer.DESCRIPTOR.fields_by_name
    for field, name in (("model", "name"), ("version", "model")):
        if field in fields and fields[field].message_type is not None and answer.HasField(field):
            found = getattr(answer, field)
            if not caller.rights.sees(found.namespace, getattr(found, name)):
                raise lookup.model_not_found(getattr(found, name))


def see_namespace(caller: Caller, space: str) -> str:
    """Give a namespace's name. Refuses NAMESPACE_NOT_FOUND for one that may not be seen."""
    space = names.namespace_or_default(space)
    if not caller.rights.sees_namespace(space):
        raise lookup.no_namespace(space)
    return space


def demand(
    caller: Caller, permission: Permission, space: str, model: str = ALL, **place: str
) -> None:
    """Refuse what may not be done to a model, or with `model` ALL to a namespace.

    What may not be seen is not found, but for what is about to be made.
    """
    space = see_namespace(caller, space)
    rights = caller.rights
    if model != ALL:
        model = names.lookup_model(model)
        if not rights.sees(space, model) and permission is not REGISTER:
            raise lookup.model_not_found(model)
    rights.demand(permission, space, model, caller=caller.name, **place)


def _anyone() -> Rule:
    """Allow whoever is known; the use case shows or takes only what is theirs."""
    return Rule(SEE, lambda _caller, _request: None)


def _registry() -> Rule:
    def judge(caller: Caller, _request: Any) -> None:
        caller.rights.demand(ADMINISTER, ALL, caller=caller.name)

    return Rule(ADMINISTER, judge)


def _namespace(needs: Permission, field: str = "namespace") -> Rule:
    def judge(caller: Caller, request: Any) -> None:
        space = see_namespace(caller, getattr(request, field))
        if needs is not SEE:
            caller.rights.demand(needs, space, caller=caller.name)

    return Rule(needs, judge)


def _everywhere_or(needs: Permission) -> Rule:
    """Allow what is asked of one visible namespace, or of all of them at once."""

    def judge(caller: Caller, request: Any) -> None:
        if request.namespace != ALL:
            see_namespace(caller, request.namespace)

    return Rule(needs, judge)


def _model(needs: Permission, field: str = "model") -> Rule:
    def judge(caller: Caller, request: Any) -> None:
        demand(caller, needs, request.namespace, getattr(request, field))

    return Rule(needs, judge)


def _found() -> Rule:
    """Allow what is found by a name that may be an old one: looking it up judges it."""
    return _namespace(SEE)


def _by_id(needs: Permission) -> Rule:
    """Allow what is named by its id: looking it up judges it."""
    return Rule(needs, _namespace(SEE).judge)


def _update_namespace(caller: Caller, request: Any) -> None:
    # How much it may have is not for its own admins to say.
    space = see_namespace(caller, request.name)
    own = set(request.update_mask.paths) <= {"description"}
    caller.rights.demand(ADMINISTER, space if own else ALL, caller=caller.name)


def _create_model(caller: Caller, request: Any) -> None:
    demand(caller, REGISTER, request.namespace, request.model.name)


def _rename_model(caller: Caller, request: Any) -> None:
    demand(caller, EDIT, request.namespace, request.model)
    # Whether there is a model of that name is not told: what is about to be made is judged.
    space = names.namespace_or_default(request.namespace)
    new_name = names.lookup_model(request.new_name)
    caller.rights.demand(EDIT, space, new_name, caller=caller.name)


def _update_version(caller: Caller, request: Any) -> None:
    # Whoever registers says also when its files are there.
    own = set(request.update_mask.paths) <= {"status", "status_message"}
    demand(caller, REGISTER if own else EDIT, request.namespace, request.model)


def _copy_version(caller: Caller, request: Any) -> None:
    demand(caller, SEE, request.namespace, request.model)
    demand(caller, REGISTER, request.namespace, request.target_model)


def _move(caller: Caller, request: Any) -> None:
    demand(caller, MOVE, request.namespace, request.model, stage=names.stage_key(request.stage))


def _transition(caller: Caller, request: Any) -> None:
    # Out of every stage: which ones those are is known when they are looked up.
    if names.stage_key(request.stage) == "none":
        demand(caller, MOVE, request.namespace, request.model)
    else:
        _move(caller, request)


def _batch(caller: Caller, request: Any) -> None:
    for move in request.transitions:
        key = names.stage_key(move.stage)
        place = {} if key == "none" else {"stage": key}
        demand(caller, MOVE, request.namespace, move.model, **place)


def _alias(caller: Caller, request: Any) -> None:
    demand(caller, MOVE, request.namespace, request.model, alias=request.alias)


def _report(caller: Caller, request: Any) -> None:
    space = see_namespace(caller, request.namespace)
    if not request.targets and not caller.rights.may_somewhere(REPORT, space):
        raise denied(REPORT, space, caller=caller.name)
    for target in request.targets:
        demand(caller, REPORT, space, target.model, stage=names.stage_key(target.stage))


def _export(caller: Caller, request: Any) -> None:
    whole = not request.namespaces or ALL in request.namespaces or request.with_log
    for space in [ALL] if whole else request.namespaces:
        found = ALL if space == ALL else see_namespace(caller, space)
        caller.rights.demand(ADMINISTER, found, caller=caller.name)


def _watch(caller: Caller, request: Any) -> None:
    for space in request.filter.namespaces or [names.DEFAULT_NAMESPACE]:
        if space != ALL:
            see_namespace(caller, space)


RULES: dict[str, Rule] = {
    "CreateNamespace": _registry(),
    "GetNamespace": _namespace(SEE, "name"),
    "ListNamespaces": _anyone(),
    "UpdateNamespace": Rule(ADMINISTER, _update_namespace),
    "DeleteNamespace": _registry(),
    "CreateModel": Rule(REGISTER, _create_model),
    "GetModel": _found(),
    "ListModels": _namespace(SEE),
    "UpdateModel": _model(EDIT),
    "RenameModel": Rule(EDIT, _rename_model),
    "DeleteModel": _model(EDIT),
    "UndeleteModel": _by_id(EDIT),
    "PurgeModel": _namespace(ADMINISTER),
    "SetModelTags": _model(EDIT),
    "DeleteModelTags": _model(EDIT),
    "CreateModelVersion": _model(REGISTER),
    "GetModelVersion": _found(),
    "ListModelVersions": _namespace(SEE),
    "UpdateModelVersion": Rule(REGISTER, _update_version),
    "DeleteModelVersion": _model(EDIT),
    "UndeleteModelVersion": _model(EDIT),
    "PurgeModelVersion": _namespace(ADMINISTER),
    "SetModelVersionTags": _model(EDIT),
    "DeleteModelVersionTags": _model(EDIT),
    "CopyModelVersion": Rule(REGISTER, _copy_version),
    "ResolveModelVersion": _found(),
    "GetLatestVersions": _found(),
    "SetAlias": Rule(MOVE, _alias),
    "DeleteAlias": Rule(MOVE, _alias),
    "CreateStage": _namespace(ADMINISTER),
    "UpdateStage": _namespace(ADMINISTER),
    "ListStages": _namespace(SEE),
    "DeleteStage": _namespace(ADMINISTER),
    "TransitionStage": Rule(MOVE, _transition),
    "BatchTransitionStages": Rule(MOVE, _batch),
    "RemoveFromStage": Rule(MOVE, _move),
    "RollbackStage": Rule(MOVE, _move),
    "GetStageHistory": _found(),
    "LogMetrics": _model(REGISTER),
    "ListMetrics": _found(),
    "Watch": Rule(SEE, _watch),
    "GetHead": _anyone(),
    "ListEvents": _everywhere_or(SEE),
    "VerifyLog": _registry(),
    "ReportStatus": Rule(REPORT, _report),
    "ListDeployments": _namespace(SEE),
    "GetDeploymentStatus": _found(),
    "ForgetAgent": _namespace(REPORT),
    "CreateWebhook": _namespace(ADMINISTER),
    "GetWebhook": _namespace(ADMINISTER),
    "ListWebhooks": _namespace(ADMINISTER),
    "UpdateWebhook": _namespace(ADMINISTER),
    "DeleteWebhook": _namespace(ADMINISTER),
    "TestWebhook": _namespace(ADMINISTER),
    "ListDeliveries": _namespace(ADMINISTER),
    "RedeliverWebhook": _namespace(ADMINISTER),
    "ExportRegistry": Rule(ADMINISTER, _export),
    "ImportRegistry": _registry(),
    # Whose tokens and grants these are the use cases judge: one's own are one's own affair.
    "CreateToken": _anyone(),
    "ListTokens": _anyone(),
    "RevokeToken": _anyone(),
    "CreateGrant": _anyone(),
    "ListGrants": _anyone(),
    "DeleteGrant": _anyone(),
    "GetCaller": _anyone(),
    "ListRefusals": _registry(),
}
