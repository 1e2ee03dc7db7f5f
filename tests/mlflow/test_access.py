"""MLflow's unmodified clients where it matters who calls: tokens, passwords, readable refusals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from stagewire import pb
from stagewire.access import bootstrap
from stagewire.client import Client
from stagewire.service import tokens
from tests.mlflow.processes import CLIENTS, RELEASES, Release, run_inside

if TYPE_CHECKING:
    from tests.mlflow.conftest import StartStagewire

HIDDEN = "hidden"


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def laws(
    request: pytest.FixtureRequest,
    start_stagewire: StartStagewire,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, str]:
    """Serve a registry that asks who calls; give what the laws are told of it."""
    file = tmp_path_factory.mktemp("admin") / "bootstrap"
    id_, secret = tokens.mint()
    bootstrap.write(file, id_, secret)
    served = start_stagewire(request.param, bootstrap_token_file=file)
    with Client(served.grpc, token=secret) as admin:

        def token(subject: str) -> pb.CreateTokenResponse:
            request = pb.CreateTokenRequest(token=pb.Token(subject=subject))
            return admin.access.CreateToken(request)

        for subject, role in (("trainer", pb.ROLE_REGISTRAR), ("viewer", pb.ROLE_VIEWER)):
            scope = pb.Scope(role=role, model="seen-*")
            grant = pb.Grant(subject=subject, scope=scope)
            admin.access.CreateGrant(pb.CreateGrantRequest(grant=grant))
        admin.create_version(HIDDEN, source="s3://models/hidden")
        revoked = token("viewer")
        admin.access.RevokeToken(pb.RevokeTokenRequest(id=revoked.token.id))
        return {
            "REGISTRY": served.url,
            "HIDDEN": HIDDEN,
            "TRAINER": token("trainer").secret,
            "VIEWER": token("viewer").secret,
            "REVOKED": revoked.secret,
        }


@pytest.mark.timeout(300)
@pytest.mark.parametrize("release", RELEASES)
def test_an_unmodified_client_says_who_calls_and_can_read_a_refusal(
    laws: dict[str, str], release: Release
) -> None:
    run_inside(release, str(CLIENTS / "access"), **laws)
