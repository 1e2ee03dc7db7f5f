"""Tokens as well-known providers shape them, read by the settings that are told for each."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest

from stagewire.errors import RegistryError
from stagewire.rights import Scope
from tests.access.issuers import AUDIENCE, NOW, Issuer


class Shape(NamedTuple):
    """What a provider says, what the server is told, and who calls then."""

    claims: dict[str, Any]
    told: dict[str, Any]
    subject: str
    groups: tuple[str, ...] = ()
    roles: tuple[Scope, ...] = ()
    header: Mapping[str, Any] = MappingProxyType({})


SHAPES = {
    "keycloak": Shape(
        {
            "aud": [AUDIENCE, "account"],
            "azp": "ml-cli",
            "typ": "Bearer",
            "sub": "5b7c3f0e-2f8a-4f0e-9a57-0d6c8c1f3a11",
            "preferred_username": "ana",
            "email": "ana@example.com",
            "email_verified": False,
            "realm_access": {"roles": ["ml-admins", "offline_access"]},
            "resource_access": {"account": {"roles": ["view-profile"]}},
            "acr": "1",
            "allowed-origins": ["/*"],
            "scope": "openid profile",
            "sid": "x",
        },
        {
            "oidc_username_claim": "preferred_username",
            "oidc_groups_claim": "/realm_access/roles",
            "oidc_roles": ["/realm_access/roles=ml-admins=admin@*"],
        },
        "oidc:ana",
        ("ml-admins", "offline_access"),
        (Scope("admin", "*"),),
    ),
    "entra, second version": Shape(
        {
            "azp": "0a1b2c3d-0000-0000-0000-000000000000",
            "azpacr": "1",
            "groups": ["0760b6cf-170e-4a14-91b3-4b78e0739963"],
            "roles": ["Registry.Editor"],
            "name": "Ana Lía",
            "oid": "cb7eda1b-d09a-40ae-b8bb-37836ebc6abd",
            "preferred_username": "ana@example.com",
            "scp": "access",
            "tid": "833ced3d-cb2e-41de-92f1-29e2af035ddc",
            "uti": "x",
            "ver": "2.0",
            "nbf": NOW - 10,
        },
        {"oidc_username_claim": "oid", "oidc_roles": ["roles=Registry.Editor=editor"]},
        "oidc:cb7eda1b-d09a-40ae-b8bb-37836ebc6abd",
        ("0760b6cf-170e-4a14-91b3-4b78e0739963",),
        (Scope("editor", "default"),),
        {"x5t": "abc"},
    ),
    "entra, too many groups": Shape(
        {
            "oid": "cb7eda1b",
            "_claim_names": {"groups": "src1"},
            "_claim_sources": {"src1": {"endpoint": "https://graph.example/ana"}},
            "roles": ["Registry.Editor"],
        },
        {"oidc_username_claim": "oid", "oidc_groups_claim": "roles"},
        "oidc:cb7eda1b",
        ("Registry.Editor",),
    ),
    "google": Shape(
        {
            "azp": f"{AUDIENCE}",
            "sub": "110169484474386276334",
            "hd": "example.com",
            "email": "ana@example.com",
            "email_verified": True,
            "at_hash": "x",
        },
        {
            "oidc_username_claim": "email",
            "oidc_required_claims": ["hd=example.com"],
            "oidc_roles": ["hd=example.com=viewer"],
        },
        "oidc:ana@example.com",
        (),
        (Scope("viewer", "default"),),
    ),
    "github": Shape(
        {
            "sub": "repo:example/churn:ref:refs/heads/main",
            "ref": "refs/heads/main",
            "repository": "example/churn",
            "repository_owner": "example",
            "repository_owner_id": "65",
            "repository_id": "74",
            "event_name": "push",
            "job_workflow_ref": "example/churn/.github/workflows/train.yml@refs/heads/main",
            "jti": "x",
            "nbf": NOW - 300,
        },
        {
            "oidc_required_claims": ["repository_owner_id=65"],
            "oidc_groups_claim": "repository",
            "oidc_roles": ["sub=repo:example/churn:ref:refs/heads/main=registrar"],
        },
        "oidc:repo:example/churn:ref:refs/heads/main",
        ("example/churn",),
        (Scope("registrar", "default"),),
        {"x5t": "abc"},
    ),
    "gitlab": Shape(
        {
            "sub": "project_path:example/churn:ref_type:branch:ref:main",
            "namespace_path": "example",
            "namespace_id": "72",
            "project_path": "example/churn",
            "project_id": "20",
            "ref": "main",
            "ref_protected": "true",
            "user_email": "ana@example.com",
            "groups_direct": ["example/ml"],
        },
        {
            "oidc_required_claims": ["namespace_path=example", "ref_protected=true"],
            "oidc_groups_claim": "project_path",
            "oidc_roles": ["project_path=example/churn=registrar@risk"],
        },
        "oidc:project_path:example/churn:ref_type:branch:ref:main",
        ("example/churn",),
        (Scope("registrar", "risk"),),
    ),
    "kubernetes": Shape(
        {
            "aud": [AUDIENCE],
            "sub": "system:serviceaccount:serving:churn-agent",
            "kubernetes.io": {
                "namespace": "serving",
                "node": {"name": "a", "uid": "b"},
                "serviceaccount": {"name": "churn-agent", "uid": "c"},
                "warnafter": NOW + 500,
            },
        },
        {
            "oidc_groups_claim": "/kubernetes.io/namespace",
            "oidc_roles": ["/kubernetes.io/namespace=serving=deployer"],
        },
        "oidc:system:serviceaccount:serving:churn-agent",
        ("serving",),
        (Scope("deployer", "default"),),
        {"typ": None},
    ),
    "auth0": Shape(
        {
            "aud": [AUDIENCE, "https://example.auth0.com/userinfo"],
            "azp": "x",
            "sub": "auth0|5f7c8ec7c33c6c004bbafe82",
            "https://example.com/groups": ["ml"],
            "scope": "openid",
        },
        {"oidc_groups_claim": "https://example.com/groups"},
        "oidc:auth0|5f7c8ec7c33c6c004bbafe82",
        ("ml",),
        (),
        {"typ": "at+jwt"},
    ),
}


@pytest.mark.parametrize("provider", SHAPES)
def test_the_settings_for_a_provider_say_who_calls(issuer: Issuer, provider: str) -> None:
    shape = SHAPES[provider]
    token = issuer.token(header=dict(shape.header), **shape.claims)

    found = issuer.verifier(**shape.told).verify(token)

    assert (found.subject, found.groups, found.roles) == shape[2:5]


@pytest.mark.parametrize(
    ("provider", "claims"),
    [
        ("google", {"hd": None, "email": "ana@gmail.example"}),
        ("google", {"email_verified": False}),
        ("github", {"repository_owner_id": "66"}),
        ("gitlab", {"ref_protected": "false"}),
        ("keycloak", {"aud": "account"}),
        ("kubernetes", {"aud": ["https://kubernetes.default.svc"]}),
    ],
)
def test_whom_a_provider_knows_besides_is_not_let_in(
    issuer: Issuer, provider: str, claims: dict[str, Any]
) -> None:
    shape = SHAPES[provider]
    token = issuer.token(**{**shape.claims, **claims})

    with pytest.raises(RegistryError):
        issuer.verifier(**shape.told).verify(token)
