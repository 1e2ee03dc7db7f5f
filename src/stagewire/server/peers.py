"""Who is at the other end of a TLS connection, by the certificate that it showed.

gRPC has verified the certificate when the connection began; it has not looked since, so whoever
relies on a peer looks at `expire_time` too.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

_CERTIFICATE = "x509_pem_cert"
#: A connection brings the same certificate with each call: parsed once, known from then on.
_KNOWN = 4096
_LONGEST = 512


@dataclass(frozen=True, slots=True)
class Peer:
    """A client by its certificate: `cert:` and the name in it, and until when that holds."""

    name: str
    expire_time: datetime


def of(auth_context: Mapping[str, Iterable[bytes]]) -> Peer | None:
    """Return who a call's `auth_context()` shows; None without a certificate that names one."""
    shown = next(iter(auth_context.get(_CERTIFICATE, ())), None)
    return None if shown is None else _parsed(shown)


@functools.lru_cache(_KNOWN)
def _parsed(certificate: bytes) -> Peer | None:
    try:
        found = x509.load_pem_x509_certificate(certificate)
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound):
        # What OpenSSL let pass and this does not read names nobody.
        return None
    name = _name(names)
    return None if name is None else Peer(f"cert:{name}", found.not_valid_after_utc)


def _name(names: x509.SubjectAlternativeName) -> str | None:
    """Return the first URI, else the first host, else the first address of mail.

    The rest says what else the bearer answers to, and its order nothing about whom it is. Hosts
    are written small, for that is how they compare.
    """
    hosts = [host.lower() for host in names.get_values_for_type(x509.DNSName)]
    for found in (
        names.get_values_for_type(x509.UniformResourceIdentifier),
        hosts,
        names.get_values_for_type(x509.RFC822Name),
    ):
        if found:
            name = found[0]
            return name if name.isprintable() and len(name) <= _LONGEST else None
    return None
