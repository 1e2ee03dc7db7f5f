"""The first admin's token, adopted by a real server, and only while nobody is an admin."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from stagewire import pb
from stagewire.access import bootstrap
from stagewire.client import Client, errors
from stagewire.service import tokens
from stagewire.store.database import StartRefusal
from tests.factories import sql
from tests.servers import RunningServer

if TYPE_CHECKING:
    from pathlib import Path


def named(folder: Path) -> tuple[dict[str, str], str]:
    """Make a first admin's token; give the setting that names its file, and the secret."""
    id_, secret = tokens.mint()
    path = folder / f"{id_}.bootstrap"
    bootstrap.write(path, id_, secret)
    return {"bootstrap_token_file": str(path)}, secret


def who(server: RunningServer, secret: str) -> str:
    with Client(server.address, token=secret) as client:
        caller = client.access.GetCaller(pb.GetCallerRequest())
        roles = [(scope.role, scope.namespace) for scope in caller.scopes]
        return "admin" if (pb.ROLE_ADMIN, "*") in roles else "nobody much"


def test_the_file_makes_its_bearer_the_admin(database_url: str, tmp_path: Path) -> None:
    setting, secret = named(tmp_path)

    with RunningServer(database_url, **setting) as server:
        assert who(server, secret) == "admin"
    # Also after the file is gone, and beside another one: there is an admin now.
    other, others = named(tmp_path)
    with RunningServer(database_url, **other) as server:
        assert who(server, secret) == "admin"
        with pytest.raises(errors.CredentialsInvalid):
            who(server, others)


def test_tokens_of_others_do_not_stand_in_the_admins_way(database_url: str, tmp_path: Path) -> None:
    with RunningServer(database_url) as server, Client(server.address) as client:
        client.access.CreateToken(pb.CreateTokenRequest(token=pb.Token(subject="ci")))
    setting, secret = named(tmp_path)

    with RunningServer(database_url, **setting) as server:
        assert who(server, secret) == "admin"


def test_an_admin_whose_tokens_ended_makes_room_for_another(
    database_url: str, tmp_path: Path
) -> None:
    first, _ = named(tmp_path)
    with RunningServer(database_url, **first):
        pass
    sql(database_url, "UPDATE tokens SET expire_time = 1")
    second, secret = named(tmp_path)

    with RunningServer(database_url, **second) as server:
        assert who(server, secret) == "admin"


def test_a_revoked_token_is_not_adopted_again(database_url: str, tmp_path: Path) -> None:
    setting, secret = named(tmp_path)
    with RunningServer(database_url, **setting) as server:
        assert who(server, secret) == "admin"
    with RunningServer(database_url, auth="off") as server, Client(server.address) as client:
        (token,) = client.access.ListTokens(pb.ListTokensRequest()).tokens
        client.access.RevokeToken(pb.RevokeTokenRequest(id=token.id))

    with pytest.raises(StartRefusal, match="stagewire admin bootstrap"):
        RunningServer(database_url, **setting).__enter__()


def test_a_file_that_holds_something_else_stops_the_start(
    database_url: str, tmp_path: Path
) -> None:
    path = tmp_path / "bootstrap"
    path.write_text("hunter2")

    with pytest.raises(StartRefusal, match=f"{path} holds no token"):
        RunningServer(database_url, bootstrap_token_file=str(path)).__enter__()


def test_grants_of_one_namespace_are_listed_with_those_of_all(
    database_url: str, tmp_path: Path
) -> None:
    setting, secret = named(tmp_path)
    with (
        RunningServer(database_url, **setting) as server,
        Client(server.address, token=secret) as client,
    ):
        for subject, space in (("a", "default"), ("b", "risk"), ("c", "*")):
            if space == "risk":
                client.namespaces.CreateNamespace(
                    pb.CreateNamespaceRequest(namespace=pb.Namespace(name=space))
                )
            scope = pb.Scope(role=pb.ROLE_VIEWER, namespace=space)
            client.access.CreateGrant(
                pb.CreateGrantRequest(grant=pb.Grant(subject=subject, scope=scope))
            )

        def listed(namespace: str) -> set[str]:
            answer = client.access.ListGrants(pb.ListGrantsRequest(namespace=namespace))
            return {grant.subject for grant in answer.grants}

        assert listed("risk") == {"b", "c", "admin"}
        assert listed("*") == listed("") == {"a", "b", "c", "admin"}
