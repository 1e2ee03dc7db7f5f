"""TLS on real sockets: both listeners, a certificate that is renewed, clients that show theirs."""

from __future__ import annotations

import contextlib
import socket
import ssl
import warnings
from typing import TYPE_CHECKING, Any

import grpc
import httpx
import pytest
import structlog
from cryptography.hazmat.primitives.asymmetric import ec

from stagewire import pb
from stagewire.client import AsyncClient, Client, Snapshot, StagewireError
from tests.authorities import HERE, Authority, Issued, private_pem, put, trusting
from tests.factories import eventually
from tests.servers import RunningServer
from tests.wire.streams import Stream, watch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NEVER = 5.0


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def other() -> Authority:
    return Authority()


@pytest.fixture
def encrypted(sqlite_url: str, tmp_path: Path, authority: Authority) -> Iterator[RunningServer]:
    """Run a server with a certificate of the authority's, in a folder that tests write to."""
    files = authority.issue(HERE, "localhost").write(tmp_path / "tls")
    with RunningServer(sqlite_url, **files) as running:
        yield running


@contextlib.contextmanager
def speaking(server: RunningServer, authority: Authority) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.http_url, verify=context(authority), timeout=10) as http:
        yield http


def context(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=authority.pem.decode())


def head(server: RunningServer, credentials: grpc.ChannelCredentials) -> pb.GetHeadResponse:
    """Ask over a connection of its own; without TLS's consent there is no answer."""
    with grpc.secure_channel(server.address, credentials) as channel:
        ask = channel.unary_unary(
            "/modelregistry.v1.WatchService/GetHead",
            request_serializer=pb.GetHeadRequest.SerializeToString,
            response_deserializer=pb.GetHeadResponse.FromString,
        )
        answer: pb.GetHeadResponse = ask(pb.GetHeadRequest(), timeout=NEVER)
        return answer


def is_answered(server: RunningServer, credentials: grpc.ChannelCredentials) -> bool:
    try:
        head(server, credentials)
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.UNAVAILABLE:
            raise
        return False
    return True


def shown(address: str, *, name: str | None, version: ssl.TLSVersion | None = None) -> Any:
    """Shake hands and return what protocol was spoken, and the certificate that was shown."""
    host, _, port = address.rpartition(":")
    trusts_all = ssl.create_default_context()
    trusts_all.check_hostname = False
    trusts_all.verify_mode = ssl.CERT_NONE
    trusts_all.set_alpn_protocols(["h2", "http/1.1"])
    if version is not None:
        trusts_all.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            trusts_all.minimum_version = trusts_all.maximum_version = version
    with (
        socket.create_connection((host, int(port)), timeout=10) as plain,
        trusts_all.wrap_socket(plain, server_hostname=name) as spoken,
    ):
        return spoken.version(), spoken.getpeercert(binary_form=True)


def test_both_listeners_speak_tls(encrypted: RunningServer, authority: Authority) -> None:
    with (
        Client(encrypted.address, credentials=trusting(authority)) as client,
        speaking(encrypted, authority) as http,
    ):
        client.registry.CreateModel(pb.CreateModelRequest(model=pb.Model(name="churn")))
        found = http.get("/api/2.0/mlflow/registered-models/get", params={"name": "churn"})

    assert encrypted.http_url.startswith("https://")
    assert found.json()["registered_model"]["name"] == "churn"


async def test_both_clients_show_what_they_have(
    mutual: RunningServer, authority: Authority, other: Authority, tmp_path: Path
) -> None:
    other.issue("ci.example.com").write(tmp_path / "mine")
    put(tmp_path / "ca.crt", authority.pem)
    given: dict[str, Any] = {
        "ca_file": tmp_path / "ca.crt",
        "certificate_file": tmp_path / "mine" / "tls.crt",
        "key_file": tmp_path / "mine" / "tls.key",
    }

    async with AsyncClient(mutual.address, **given) as waiting:
        head = await waiting.watches.GetHead(pb.GetHeadRequest())
        async with waiting.watch() as watch:
            assert isinstance(await anext(watch), Snapshot)
    with Client(f"grpcs://{mutual.address}", **given) as client:
        assert client.watches.GetHead(pb.GetHeadRequest()).log_id == head.log_id


def test_whoever_speaks_in_clear_is_not_answered(encrypted: RunningServer) -> None:
    with Client(encrypted.address, timeout_seconds=1) as client, pytest.raises(StagewireError):
        client.watches.GetHead(pb.GetHeadRequest())
    with pytest.raises(httpx.TransportError):
        httpx.get(encrypted.http_url.replace("https", "http") + "/health")


def test_a_client_that_trusts_another_authority_leaves(
    encrypted: RunningServer, other: Authority
) -> None:
    assert not is_answered(encrypted, trusting(other))
    with speaking(encrypted, other) as http, pytest.raises(httpx.ConnectError):
        http.get("/health")


@pytest.mark.parametrize("listener", ["grpc", "http"])
def test_tls_before_1_2_is_not_spoken(encrypted: RunningServer, listener: str) -> None:
    server = encrypted.server
    address = server.address if listener == "grpc" else server.http_address

    spoken, _ = shown(address, name=HERE, version=ssl.TLSVersion.TLSv1_2)

    assert spoken == "TLSv1.2"
    with pytest.raises((ssl.SSLError, ConnectionError)):
        shown(address, name=HERE, version=ssl.TLSVersion.TLSv1_1)


@pytest.mark.parametrize("name", [HERE, "localhost", None])
def test_a_renewed_certificate_is_shown_to_whoever_comes_then(
    encrypted: RunningServer, authority: Authority, tmp_path: Path, name: str | None
) -> None:
    server = encrypted.server
    renewed = authority.issue(HERE, "localhost")
    renewed.write(tmp_path / "tls")

    for at in (server.address, server.http_address):
        eventually(lambda: shown(at, name=name)[1] == der(renewed))  # noqa: B023  # called at once


def test_connections_live_on_when_the_certificate_is_renewed(
    encrypted: RunningServer, authority: Authority, other: Authority, tmp_path: Path
) -> None:
    with (
        Client(encrypted.address, credentials=trusting(authority)) as old,
        speaking(encrypted, authority) as http,
        Stream(old, watch()) as stream,
    ):
        stream.hello()
        assert http.get("/health").text == "OK"
        other.issue(HERE).write(tmp_path / "tls")
        eventually(lambda: is_answered(encrypted, trusting(other)))

        old.registry.CreateModel(pb.CreateModelRequest(model=pb.Model(name="churn")))

        assert stream.transaction().changes[0].model == "churn"
        assert http.get("/health").text == "OK"
        assert not is_answered(encrypted, trusting(authority))
        with speaking(encrypted, authority) as late, pytest.raises(httpx.ConnectError):
            late.get("/health")
        with speaking(encrypted, other) as late:
            assert late.get("/health").text == "OK"


def test_a_bad_new_pair_is_logged_once_and_the_old_one_stays(
    encrypted: RunningServer, authority: Authority, tmp_path: Path
) -> None:
    folder = tmp_path / "tls"
    before = shown(encrypted.address, name=HERE)[1]
    renewed = authority.issue(HERE)

    with structlog.testing.capture_logs() as lines:
        put(folder / "tls.crt", renewed.certificate)
        eventually(lambda: said(lines, "warning"))
        certificates = encrypted.server.certificates
        assert certificates is not None
        certificates.look()
        served = [shown(at, name=HERE)[1] for at in addresses(encrypted)]
        put(folder / "tls.key", renewed.key)
        eventually(lambda: said(lines, "info"))

    assert served == [before, before]
    (warning,) = said(lines, "warning")
    assert "is not the key of the first certificate" in warning["why"]
    assert [shown(at, name=HERE)[1] for at in addresses(encrypted)] == [der(renewed)] * 2


@pytest.mark.parametrize("damage", ["gone", "garbage", "empty"])
def test_files_that_go_bad_take_nothing_away(
    encrypted: RunningServer, authority: Authority, tmp_path: Path, damage: str
) -> None:
    path = tmp_path / "tls" / "tls.crt"

    with structlog.testing.capture_logs() as lines:
        if damage == "gone":
            path.unlink()
        else:
            put(path, b"-----BEGIN CERTIFICATE-----\nx" if damage == "garbage" else b"")
        eventually(lambda: said(lines, "warning"))

    assert is_answered(encrypted, trusting(authority))
    with speaking(encrypted, authority) as http:
        assert http.get("/health").text == "OK"


def addresses(server: RunningServer) -> tuple[str, str]:
    return server.address, server.server.http_address


def said(lines: Any, level: str) -> list[Any]:
    """Return what was logged of certificates at a level."""
    return [one for one in lines if one["log_level"] == level and "certificate" in one["event"]]


def der(issued: Issued) -> bytes:
    first = issued.certificate.partition(b"-----END CERTIFICATE-----")[0]
    return ssl.PEM_cert_to_DER_cert((first + b"-----END CERTIFICATE-----\n").decode())


@pytest.fixture
def mutual(
    sqlite_url: str, tmp_path: Path, authority: Authority, other: Authority
) -> Iterator[RunningServer]:
    """Run a server whose clients must show a certificate of the other authority's."""
    files = authority.issue(HERE).write(tmp_path / "tls")
    put(tmp_path / "tls" / "clients.pem", other.pem)
    ca = str(tmp_path / "tls" / "clients.pem")
    # Whom a certificate lets in, not what they may do then.
    with RunningServer(sqlite_url, **files, tls_client_ca_file=ca, auth="off") as running:
        yield running


def test_a_client_whose_certificate_the_authority_issued_is_let_in(
    mutual: RunningServer, authority: Authority, other: Authority
) -> None:
    assert is_answered(mutual, trusting(authority, other.issue("ci.example.com")))


def test_a_client_without_a_good_certificate_is_not(
    mutual: RunningServer, authority: Authority, other: Authority
) -> None:
    refused = [
        None,
        authority.issue("ci.example.com"),
        Authority().issue("ci.example.com"),
        other.expired("ci.example.com"),
    ]

    assert [is_answered(mutual, trusting(authority, one)) for one in refused] == [False] * 4


def test_the_authorities_of_clients_are_renewed_too(
    mutual: RunningServer, authority: Authority, other: Authority, tmp_path: Path
) -> None:
    third = Authority()
    new, old = third.issue("ci.example.com"), other.issue("ci.example.com")
    assert not is_answered(mutual, trusting(authority, new))

    put(tmp_path / "tls" / "clients.pem", third.pem)

    eventually(lambda: is_answered(mutual, trusting(authority, new)))
    assert not is_answered(mutual, trusting(authority, old))


def test_http_asks_for_no_certificate(mutual: RunningServer, authority: Authority) -> None:
    with speaking(mutual, authority) as http:
        assert http.get("/health").text == "OK"


def test_an_encrypted_key_does_not_wait_for_somebody_to_type(
    encrypted: RunningServer, tmp_path: Path
) -> None:
    key = private_pem(ec.generate_private_key(ec.SECP256R1()), b"secret")

    with structlog.testing.capture_logs() as lines:
        put(tmp_path / "tls" / "tls.key", key)
        eventually(lambda: said(lines, "warning"))

    assert "is encrypted; decrypt it" in said(lines, "warning")[0]["why"]
