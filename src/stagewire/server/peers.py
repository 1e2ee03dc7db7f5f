"""Who is at the other end of a TLS connection, by the certificate that it showed.

gRPC has verified the certificate when the connection began; it has not looked since, so whoever
relies on a peer looks at `expires` too.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509

from stagewire import names
from stagewire.errors import RegistryError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_CERTIFICATE = "x509_pem_cert"
#: A connection brings the same certificate with each call: parsed once, known from then on.
_KNOWN = 4096


@dataclass(frozen=True, slots=True)
class Peer:
    """A client by its certificate: `cert:` and the name in it.

    `expires` is when the certificate ends, in seconds since 1970.
    """

    name: str
    expires: float


def of(auth_context: Mapping[str, Iterable[bytes]]) -> Peer | None:
    """Return who a call's `auth_context()` shows; None without a certificate that names one."""
    shown = next(iter(auth_context.get(_CERTIFICATE, ())), None)
    return None if shown is None else _parsed(shown)


@functools.lru_cache(_KNOWN)
def _parsed(certificate: bytes) -> Peer | None:
    try:
        found = x509.load_pem_x509_certificate(certificate)
        given = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound):
        # What OpenSSL let pass and this does not read names nobody.
        return None
    name = _name(given)
    return None if name is None else Peer(name, found.not_valid_after_utc.timestamp())


def _name(given: x509.SubjectAlternativeName) -> str | None:
    """Return the first URI, else the first host, else the first address of mail.

    The rest says what else the bearer answers to, and its order nothing about whom it is. Hosts
    are written small, for that is how they compare. A name that can't have grants is none.
    """
    hosts = [host.lower() for host in given.get_values_for_type(x509.DNSName)]
    for found in (
        given.get_values_for_type(x509.UniformResourceIdentifier),
        hosts,
        given.get_values_for_type(x509.RFC822Name),
    ):
        if found:
            return _subject(found[0])
    return None


def _subject(name: str) -> str | None:
    try:
        return names.canonical_subject(f"cert:{name}", "certificate")
    except RegistryError:
        return None
