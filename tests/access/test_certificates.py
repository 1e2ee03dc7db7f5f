"""Callers by their certificates: who they are, what they may do, and when that ends."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from stagewire import pb
from stagewire.client import Client, errors
from tests.authorities import HERE, Authority, Issued, put, trusting
from tests.guarded import GuardedServer
from tests.wire.streams import Stream

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAME = "agent-7.example.com"


@pytest.fixture
def authority() -> Authority:
    return Authority()


@pytest.fixture
def server(sqlite_url: str, tmp_path: Path, authority: Authority) -> Iterator[GuardedServer]:
    """Run a server that demands certificates of the authority that issued its own."""
    files = authority.issue(HERE).write(tmp_path / "tls")
    put(tmp_path / "clients.pem", authority.pem)
    ca = str(tmp_path / "clients.pem")
    with GuardedServer(sqlite_url, tmp_path, **files, tls_client_ca_file=ca) as started:
        yield started


def come(server: GuardedServer, authority: Authority, shown: Issued, token: str = "") -> Client:
    """Call with a certificate, and a token where there is one."""
    return Client(server.address, token=token, credentials=trusting(authority, shown))


def allow(server: GuardedServer, authority: Authority, subject: str) -> None:
    """Have the admin, who has a certificate too, let a subject see everything in `default`."""
    with come(server, authority, authority.issue("admin.example.com"), server.secret) as admin:
        scope = pb.Scope(role=pb.ROLE_VIEWER)
        request = pb.CreateGrantRequest(grant=pb.Grant(subject=subject, scope=scope))
        admin.access.CreateGrant(request)


def read_on(stream: Stream) -> None:
    """Read until the stream ends."""
    while True:
        stream.next()


def test_a_certificate_is_its_names_bearer_and_may_do_what_that_was_granted(
    server: GuardedServer, authority: Authority
) -> None:
    with come(server, authority, authority.issue(NAME)) as agent:
        said = agent.access.GetCaller(pb.GetCallerRequest())
        assert (said.subject, said.method) == (
            f"cert:{NAME}",
            pb.AUTHENTICATION_METHOD_CERTIFICATE,
        )
        assert said.expire_time.seconds > time.time()
        with pytest.raises(errors.NamespaceNotFound):
            agent.registry.ListModels(pb.ListModelsRequest())

        allow(server, authority, f"cert:{NAME}")
        agent.registry.ListModels(pb.ListModelsRequest())
        with pytest.raises(errors.PermissionDenied):
            agent.registry.CreateModel(pb.CreateModelRequest(model=pb.Model(name="churn")))


def test_who_shows_a_token_as_well_is_who_the_token_says(
    server: GuardedServer, authority: Authority
) -> None:
    with come(server, authority, authority.issue(NAME), server.secret) as both:
        assert both.access.GetCaller(pb.GetCallerRequest()).subject == "admin"


def test_a_certificate_without_a_name_is_nobody(
    server: GuardedServer, authority: Authority
) -> None:
    with (
        come(server, authority, authority.issue_named()) as nobody,
        pytest.raises(errors.CredentialsMissing),
    ):
        nobody.access.GetCaller(pb.GetCallerRequest())


def test_a_certificate_that_ends_in_mid_stream_ends_the_stream_and_its_connections_calls(
    server: GuardedServer, authority: Authority
) -> None:
    allow(server, authority, f"cert:{NAME}")
    over = datetime.now(UTC) + timedelta(seconds=4)

    with (
        come(server, authority, authority.issue(NAME, not_after=over)) as agent,
        Stream(agent) as stream,
    ):
        stream.next()
        with pytest.raises(errors.CredentialsExpired):
            read_on(stream)
        # Certificates count whole seconds.
        assert -1 <= time.time() - over.timestamp() < 5
        with pytest.raises(errors.CredentialsExpired):
            agent.access.GetCaller(pb.GetCallerRequest())
