"""Every RPC and every HTTP route has its rule: one that is added without one fails here."""

from __future__ import annotations

import dataclasses

import pytest

from stagewire import pb
from stagewire.callers import ANONYMOUS, Caller
from stagewire.errors import RegistryError
from stagewire.gateway.paths import SERVED
from stagewire.rights import NOTHING
from stagewire.service import rules
from tests import roles
from tests.contract import protos

METHODS = sorted(method.name for method in protos.methods())
#: What whoever is known at all may call: it tells what is theirs, or nothing about models.
OPEN = frozenset(
    {"ListNamespaces", "GetHead", "ListTokens", "ListGrants", "GetCaller", "RevokeToken"}
    | {"CreateToken", "CreateGrant", "DeleteGrant"}
)
NOBODY = Caller(name="nobody", rights=NOTHING, method=pb.AUTHENTICATION_METHOD_TOKEN)


def without_rule() -> list[str]:
    """Name the RPCs that the contract has and the rules lack, and the other way round."""
    return sorted(set(METHODS) ^ set(rules.RULES))


def test_every_rpc_has_a_rule_and_every_rule_an_rpc() -> None:
    assert without_rule() == []


@pytest.mark.parametrize("method", METHODS)
def test_an_rpc_without_a_rule_is_noticed_and_refused_to_everybody(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(rules.RULES, method)

    assert without_rule() == [method]
    request = protos.request_of(method)
    for caller in (ANONYMOUS, NOBODY, dataclasses.replace(ANONYMOUS, name="root")):
        with pytest.raises(RegistryError) as refusal:
            rules.authorise(method, caller, request)
        assert refusal.value.reason == "PERMISSION_DENIED"


@pytest.mark.parametrize("method", METHODS)
def test_a_rule_lets_nobody_in_who_was_granted_nothing(method: str) -> None:
    request = protos.request_of(method)

    if method in OPEN:
        rules.authorise(method, NOBODY, request)
    elif method == "BatchTransitionStages":
        # It has nothing to judge but its transitions, and none is refused before it is asked.
        request.transitions.add(model="churn")
        with pytest.raises(RegistryError):
            rules.authorise(method, NOBODY, request)
    else:
        with pytest.raises(RegistryError) as refusal:
            rules.authorise(method, NOBODY, request)
        assert refusal.value.code in ("PERMISSION_DENIED", "NOT_FOUND")


def test_every_http_route_is_decided_by_an_rpc() -> None:
    assert {(route.method, route.path) for route in SERVED} == set(roles.ROUTES)
    assert {rpc for rpc, _ in roles.ROUTES.values()} <= set(rules.RULES)
