"""Which addresses lead no further than this host; needs nothing but the standard library.

What is not certainly this host counts as another: a name may be mapped anywhere.
"""

from __future__ import annotations

import ipaddress

_THIS_HOST = "localhost"
_SOCKET_FILES = ("unix:", "unix-abstract:")
#: How gRPC spells lists of addresses, and names that it asks DNS for.
_LISTS = ("ipv4:", "ipv6:")
_DNS = "dns:"


def is_here(address: str) -> bool:
    """Tell whether `HOST:PORT`, a socket file's name or any other of gRPC's targets is here."""
    if address.startswith(_SOCKET_FILES):
        return True
    for scheme in _LISTS:
        if address.startswith(scheme):
            return all(map(_leads_here, address.removeprefix(scheme).split(",")))
    if address.startswith(_DNS):
        # dns:NAME, or dns://SERVER/NAME.
        address = address.removeprefix(_DNS).rpartition("/")[2]
    return _leads_here(address)


def _leads_here(address: str) -> bool:
    host = address
    if address.startswith("["):
        host = address[1:].partition("]")[0]
    elif address.count(":") == 1:
        host = address.partition(":")[0]
    if host == _THIS_HOST:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
