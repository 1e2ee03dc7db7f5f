"""Whom a client's certificate names, as gRPC shows it on a real connection."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Self

import grpc
import pytest
from cryptography import x509
from cryptography.x509 import DNSName, RFC822Name, UniformResourceIdentifier
from cryptography.x509.oid import NameOID

from stagewire.server import peers
from stagewire.server.certificates import Certificates, Files
from tests.authorities import HERE, Authority, Issued, put, trusting

if TYPE_CHECKING:
    from pathlib import Path

    from stagewire.server.peers import Peer

SPIFFE = UniformResourceIdentifier("spiffe://example.org/agent")


class Door:
    """A server that lets in whom the authority knows, and says who that was."""

    def __init__(self, folder: Path, authority: Authority) -> None:
        self.seen: list[Peer | None] = []
        self._authority = authority
        self._server = grpc.aio.server()
        authority.issue(HERE).write(folder)
        put(folder / "clients.pem", authority.pem)
        files = Files(folder / "tls.crt", folder / "tls.key", folder / "clients.pem")
        certificates = Certificates(files)
        handler: grpc.RpcMethodHandler[Any, Any] = grpc.unary_unary_rpc_method_handler(self._knock)
        generic = grpc.method_handlers_generic_handler("Door", {"Knock": handler})
        self._server.add_generic_rpc_handlers((generic,))
        self._port = self._server.add_secure_port(f"{HERE}:0", certificates.for_grpc())

    async def _knock(self, _request: bytes, context: Any) -> bytes:
        self.seen.append(peers.of(context.auth_context()))
        return b""

    async def __aenter__(self) -> Self:
        await self._server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop(0)

    async def knock(self, shown: Issued) -> Peer | None:
        """Come with a certificate; return who that is."""
        credentials = trusting(self._authority, shown)
        async with grpc.aio.secure_channel(f"{HERE}:{self._port}", credentials) as channel:
            ask: Any = channel.unary_unary("/Door/Knock")
            await ask(b"", timeout=10)
        return self.seen[-1]


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.mark.parametrize(
    ("names", "known"),
    [
        ([DNSName("ci.example.com")], "cert:ci.example.com"),
        ([DNSName("CI.Example.COM")], "cert:ci.example.com"),
        ([DNSName("a.example.com"), DNSName("b.example.com")], "cert:a.example.com"),
        ([RFC822Name("ann@example.com"), DNSName("ci.example.com")], "cert:ci.example.com"),
        ([RFC822Name("ann@example.com")], "cert:ann@example.com"),
        (
            [DNSName("ci.example.com"), RFC822Name("ann@example.com"), SPIFFE],
            "cert:spiffe://example.org/agent",
        ),
        ([], None),
        ([x509.DirectoryName(x509.Name([]))], None),
        ([DNSName("ci.example.com\nadmin")], None),
        ([DNSName("x" * 600)], None),
    ],
)
async def test_a_certificate_names_its_uri_else_its_host_else_its_mail(
    tmp_path: Path, authority: Authority, names: list[x509.GeneralName], known: str | None
) -> None:
    async with Door(tmp_path, authority) as door:
        peer = await door.knock(authority.issue_named(*names))

    assert (peer.name if peer else None) == known


async def test_a_common_name_is_nobody(tmp_path: Path, authority: Authority) -> None:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "admin")])

    async with Door(tmp_path, authority) as door:
        peer = await door.knock(authority.issue_named(subject=subject))

    assert peer is None


async def test_a_peer_is_known_until_its_certificate_ends(
    tmp_path: Path, authority: Authority
) -> None:
    end = (datetime.now(UTC) + timedelta(hours=3)).replace(microsecond=0)

    async with Door(tmp_path, authority) as door:
        peer = await door.knock(authority.issue("ci.example.com", not_after=end))

    assert peer is not None
    assert peer.expires == end.timestamp()


async def test_a_certificate_is_parsed_once(tmp_path: Path, authority: Authority) -> None:
    mine = authority.issue("once.example.com")

    async with Door(tmp_path, authority) as door:
        before = peers._parsed.cache_info()
        first, second = await door.knock(mine), await door.knock(mine)

    after = peers._parsed.cache_info()
    assert first is second is not None
    assert (after.misses - before.misses, after.hits - before.hits) == (1, 1)


def test_who_shows_no_certificate_is_nobody() -> None:
    assert peers.of({}) is None
    assert peers.of({"transport_security_type": [b"ssl"]}) is None
    assert peers.of({"x509_pem_cert": [b"no certificate"]}) is None
