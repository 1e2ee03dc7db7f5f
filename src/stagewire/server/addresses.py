"""Where a webhook may lead: every address of a host is judged, and the one judged is connected to.

Looking a name up twice would let it answer differently the second time.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpcore

from stagewire import errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

#: What `ipaddress` may call global and is not, or holds an IPv4 address that it does not look at.
_REFUSED = tuple(
    ipaddress.ip_network(network)
    for network in (
        "100.64.0.0/10",  # carriers' own, where a cloud keeps its metadata
        "168.63.129.16/32",  # Azure's wire server
        "192.0.0.0/24",
        "192.88.99.0/24",  # relays from IPv4 to 6to4
        "198.18.0.0/15",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "::/96",  # IPv4 written as IPv6, long given up
        "64:ff9b:1::/48",  # translation within a network
        "100::/64",
        "2001::/23",  # Teredo and other protocols' own
        "5f00::/16",
        "fc00::/7",
        "fe80::/10",
        "fec0::/10",
        "ff00::/8",
    )
)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_ISATAP = 0x5EFE
# Threads that wait for name servers: a name that hangs must hold up nobody else's.
_RESOLVERS = 32
_ASKING = ThreadPoolExecutor(8, thread_name_prefix="names")
_ANSWER_SECONDS = 5.0


class AddressRefused(Exception):
    """The host leads to an address that is not public."""


def is_public(address: _Address) -> bool:
    """Tell whether an address is anybody's to reach, also by what it holds within."""
    if any(address in network for network in _REFUSED if network.version == address.version):
        return False
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address.sixtofour is not None:
            return is_public(address.sixtofour)
        if address in _NAT64:
            return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        if (int(address) >> 32) & 0xFFFF == _ISATAP:
            return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return address.is_global and not address.is_multicast


def look_up(host: str, port: int) -> list[str]:
    """Ask for a host's addresses. Raises OSError."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise socket.gaierror(f"{host!r} is no name of a host") from error
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def check(host: str, addresses: Iterable[str]) -> None:
    """Refuse a host if any of its addresses is not public: who answers with both means harm."""
    for text in addresses:
        # A scope names an interface of this host, which nobody outside has.
        if "%" in text or not is_public(ipaddress.ip_address(text)):
            raise AddressRefused(host)


def refuse_host(host: str) -> None:
    """Refuse a host that leads to an address that is not public; one that leads nowhere may come.

    Raises WEBHOOK_ADDRESS_REFUSED.
    """
    try:
        # A name server that hangs must not take up the threads that calls are worked on.
        check(host, _ASKING.submit(look_up, host, 0).result(_ANSWER_SECONDS))
    except AddressRefused:
        raise errors.invalid(
            "url",
            f"host {host!r} has an address that is not public",
            reason="WEBHOOK_ADDRESS_REFUSED",
        ) from None
    except (OSError, TimeoutError):
        # The delivery will judge.
        return


class CheckedNetwork(httpcore.AsyncNetworkBackend):
    """Connects to a host at an address that was judged, looked up once for each connection.

    TLS is spoken with the host's name, which is not looked up again.
    """

    def __init__(
        self,
        *,
        allows_private: bool = False,
        look_up: Callable[[str, int], list[str]] = look_up,
    ) -> None:
        """Judge addresses, unless all are allowed, of what `look_up` finds."""
        self._allows_private = allows_private
        self._look_up = look_up
        self._threads = ThreadPoolExecutor(_RESOLVERS, thread_name_prefix="names")
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  # httpcore's own signature
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Look up, judge, and connect to the first address that answers."""
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(self._threads, self._look_up, host, port)
        except OSError as error:
            raise NameUnknown(host) from error
        if not self._allows_private:
            check(host, found)
        failure: Exception = httpcore.ConnectError(f"{host!r} has no address")
        for address in found:
            try:
                return await self._network.connect_tcp(
                    address, port, timeout, local_address, socket_options
                )
            except httpcore.ConnectError as error:
                failure = error
        raise failure

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109, ARG002  # httpcore's own signature
        socket_options: Iterable[Any] | None = None,  # noqa: ARG002  # as above
    ) -> httpcore.AsyncNetworkStream:
        """Refuse: a socket in a folder is this host's own."""
        raise AddressRefused(path)

    async def sleep(self, seconds: float) -> None:
        """Wait, as httpcore asks to between its own attempts."""
        await asyncio.sleep(seconds)

    def close(self) -> None:
        """Let go of the threads, without waiting for name servers."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class NameUnknown(Exception):
    """The host's name was not found."""
