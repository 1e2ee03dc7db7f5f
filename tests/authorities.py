"""Authorities that issue certificates for tests, and files where servers and clients find them."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

HERE = "127.0.0.1"


@dataclass(frozen=True)
class Issued:
    """A certificate and its key, as PEM."""

    certificate: bytes
    key: bytes

    def write(self, folder: Path) -> dict[str, str]:
        """Put the pair where a server reads it, whole; return the settings that say so."""
        folder.mkdir(exist_ok=True)
        put(folder / "tls.crt", self.certificate)
        put(folder / "tls.key", self.key)
        return {
            "tls_certificate_file": str(folder / "tls.crt"),
            "tls_key_file": str(folder / "tls.key"),
        }


def put(path: Path, data: bytes) -> None:
    """Write a file as tools for certificates do: never half of it."""
    beside = path.with_suffix(".new")
    beside.write_bytes(data)
    shutil.move(beside, path)


class Authority:
    """One authority."""

    def __init__(self) -> None:
        self._ca = trustme.CA()
        self.pem = self._ca.cert_pem.bytes()

    def issue(self, *identities: str, **more: Any) -> Issued:
        """Issue a certificate for hosts and mail addresses."""
        made = self._ca.issue_cert(*identities, **more)
        chain = b"".join(pem.bytes() for pem in made.cert_chain_pems)
        return Issued(chain, made.private_key_pem.bytes())

    def expired(self, *identities: str) -> Issued:
        """Issue a certificate that held until yesterday."""
        now = datetime.now(UTC)
        return self.issue(
            *identities, not_before=now - timedelta(days=9), not_after=now - timedelta(days=1)
        )

    def issue_named(
        self, *names: x509.GeneralName, key: Any = None, subject: x509.Name | None = None
    ) -> Issued:
        """Issue a certificate for names of any kind, in this order, and a key of any kind."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        authority = x509.load_pem_x509_certificate(self.pem)
        signer = serialization.load_pem_private_key(self._ca.private_key_pem.bytes(), None)
        assert isinstance(signer, ec.EllipticCurvePrivateKey)
        now = datetime.now(UTC)
        draft = (
            x509.CertificateBuilder()
            .subject_name(subject or x509.Name([]))
            .issuer_name(authority.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
        )
        if names:
            draft = draft.add_extension(x509.SubjectAlternativeName(names), critical=True)
        return Issued(
            draft.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM),
            private_pem(key),
        )


def private_pem(key: Any, passphrase: bytes = b"") -> bytes:
    """Write a private key as PEM."""
    pem: bytes = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(passphrase)
        if passphrase
        else serialization.NoEncryption(),
    )
    return pem


def trusting(authority: Authority, shown: Issued | None = None) -> grpc.ChannelCredentials:
    """Trust an authority, and show a certificate of one's own if there is one."""
    if shown is None:
        return grpc.ssl_channel_credentials(authority.pem)
    return grpc.ssl_channel_credentials(authority.pem, shown.key, shown.certificate)
