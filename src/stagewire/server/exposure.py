"""Who can reach the server: beyond this host it speaks TLS and asks who calls, or says it won't.

Pure checks of addresses against what the settings allow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stagewire import hosts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stagewire.settings import Settings


class Exposed(ValueError):
    """An address would let in whoever comes; the text says the remedy."""


def listening(settings: Settings) -> tuple[str, str]:
    """Return where gRPC and HTTP are to listen; what is no address is refused by who listens."""
    # gRPC would take one without a port, HTTP does not.
    http = settings.http_address
    return settings.grpc_address, http if ":" in http else ""


def reachable(addresses: Sequence[str]) -> list[str]:
    """Return those addresses that may be reached from other hosts."""
    return [address for address in addresses if address and not hosts.is_here(address)]


def refuse_plaintext(addresses: Sequence[str], *, encrypted: bool, allowed: bool) -> None:
    """Refuse to listen beyond this host without TLS."""
    exposed = reachable(addresses)
    if exposed and not encrypted and not allowed:
        raise Exposed(
            f"{' and '.join(exposed)} can be reached from other hosts, without TLS; give "
            "--tls-certificate-file and --tls-key-file, listen on 127.0.0.1, or accept that "
            "everything passes in clear with --allow-plaintext"
        )


def refuse_anonymous(addresses: Sequence[str], *, authenticates: bool, allowed: bool) -> None:
    """Refuse to listen beyond this host without access control."""
    exposed = reachable(addresses)
    if exposed and not authenticates and not allowed:
        raise Exposed(
            f"{' and '.join(exposed)} can be reached from other hosts, by whoever comes; turn "
            "access control on with --auth on, listen on 127.0.0.1, or accept that everybody may "
            "do everything with --allow-anonymous"
        )
