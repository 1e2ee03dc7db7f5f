"""Every role against every RPC, on real databases: what the table says, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from stagewire import errors, names, pb, rights
from stagewire.callers import ANONYMOUS, Caller
from stagewire.rights import Scope
from stagewire.service import rules
from tests import roles
from tests.contract import protos
from tests.factories import hand_out_sessions, model, refused, version
from tests.roles import ANSWERED, DENIED, NOT_FOUND, Scene

if TYPE_CHECKING:
    from stagewire.service.registry import Registry

#: Whose work is the server's, beside the service: there the rules are asked alone.
STREAMS = frozenset({"Watch", "ExportRegistry"})


def caller(*scopes: pb.Scope, narrowed_to: tuple[pb.Scope, ...] = (), name: str = "ann") -> Caller:
    """Give one who has these roles, by a token that may be narrowed."""
    return Caller(
        name=name,
        rights=rights.of(_scopes(scopes), _scopes(narrowed_to)),
        method=pb.AUTHENTICATION_METHOD_TOKEN,
    )


def _scopes(scopes: tuple[pb.Scope, ...]) -> frozenset[Scope]:
    return frozenset(
        Scope(
            pb.Role.Name(scope.role).removeprefix("ROLE_").lower(),
            names.namespace_or_default(scope.namespace),
            scope.model or "*",
            names.stage_key(scope.stage),
            scope.alias,
        )
        for scope in scopes
    )


def outcome(registry: Registry, method: str, request: Any, who: Caller) -> str:
    """Call, and say in the table's words what came of it."""
    try:
        if method in STREAMS:
            rules.authorise(method, who, request)
        else:
            getattr(registry, method)(request, who)
    except errors.RegistryError as error:
        if error.reason == "SHUTTING_DOWN":
            # What a webhook's trial is told in a process that sends nothing.
            return ANSWERED
        return {"PERMISSION_DENIED": DENIED, "NOT_FOUND": NOT_FOUND}.get(error.code, error.reason)
    return ANSWERED


@pytest.fixture
def scene(registry: Registry) -> Scene:
    """Prepare a registry that has an admin, as every one does whose access is controlled."""
    hand_out_sessions(registry)
    made = Scene(lambda method, request: getattr(registry, method)(request, ANONYMOUS))
    made.do("CreateToken", pb.CreateTokenRequest(token=pb.Token(subject="root")))
    root = pb.Grant(subject="root", scope=roles.ROLES["root"][0])
    made.do("CreateGrant", pb.CreateGrantRequest(grant=root))
    return made


def test_the_table_has_every_rpc_and_every_role() -> None:
    table = roles.expected()

    assert set(table) == {method.name for method in protos.methods()} == set(roles.REQUESTS)
    assert all(set(row) == set(roles.ROLES) for row in table.values())


@pytest.mark.parametrize("method", roles.expected())
def test_each_role_may_call_what_it_is_for(registry: Registry, scene: Scene, method: str) -> None:
    expected = roles.expected()[method]
    found = {}
    request = scene.request(method)
    for role, scopes in roles.ROLES.items():
        found[role] = outcome(registry, method, request, caller(*scopes))
        if found[role] == ANSWERED:
            request = scene.request(method)

    assert found == expected


@pytest.mark.parametrize("method", roles.expected())
def test_a_token_narrowed_to_a_role_may_call_what_the_role_may(
    registry: Registry, scene: Scene, method: str
) -> None:
    expected = {role: told for role, told in roles.expected()[method].items() if role != "nobody"}
    found = {}
    request = scene.request(method)
    for role in expected:
        who = caller(*roles.ROLES["root"], narrowed_to=roles.ROLES[role])
        found[role] = outcome(registry, method, request, who)
        if found[role] == ANSWERED:
            request = scene.request(method)

    assert found == expected


def test_a_registrar_says_when_files_are_there_and_nothing_else(registry: Registry) -> None:
    model(registry)
    version(registry, status=pb.MODEL_VERSION_STATUS_PENDING_REGISTRATION)
    ready = pb.UpdateModelVersionRequest(
        model="churn",
        version=1,
        update=pb.ModelVersionUpdate(status=pb.MODEL_VERSION_STATUS_READY, description="mine"),
        update_mask=FieldMask(paths=["status"]),
    )
    registrar = caller(*roles.ROLES["registrar"])

    told = registry.UpdateModelVersion(ready, registrar).version

    assert (told.status, told.description) == (pb.MODEL_VERSION_STATUS_READY, "")
    ready.update_mask.paths.append("description")
    with refused("PERMISSION_DENIED"):
        registry.UpdateModelVersion(ready, registrar)


def test_a_refusal_names_the_grant_that_would_do(registry: Registry) -> None:
    model(registry)
    version(registry)
    move = pb.TransitionStageRequest(model="churn", version=1, stage="Production")
    viewer = caller(*roles.ROLES["viewer"])

    with refused("PERMISSION_DENIED") as told:
        registry.TransitionStage(move, viewer)
    named = dict(told.error.metadata)
    subject, role = named.pop("subject"), named.pop("role")
    wanted = pb.Scope(role=pb.Role.Value(f"ROLE_{role.upper()}"), **named)
    request = pb.CreateGrantRequest(grant=pb.Grant(subject=subject, scope=wanted))
    granted = registry.CreateGrant(request, ANONYMOUS).grant

    registry.TransitionStage(move, caller(*roles.ROLES["viewer"], granted.scope))
    move.stage = "Staging"
    with refused("PERMISSION_DENIED"):
        registry.TransitionStage(move, caller(*roles.ROLES["viewer"], granted.scope))
