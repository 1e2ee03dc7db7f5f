"""The server's certificate: gRPC and HTTP serve one pair, and a new one when the files change.

What is served has always been checked whole: a new pair that is bad is logged, and the old one
is served on until the files are good.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import structlog
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

    from stagewire.settings import Settings

log = structlog.get_logger("stagewire.server")

#: What a tool for certificates has replaced is served after so long.
LOOK_SECONDS = 1.0
_LEAST_RSA_BITS = 2048


class BadCertificate(ValueError):
    """The files hold nothing that can be served; the text says the remedy."""


@dataclass(frozen=True, slots=True)
class Files:
    """Where the pair is, and who must have issued the certificates of clients."""

    certificate: Path
    key: Path
    client_ca: Path | None = None


def files(settings: Settings) -> Files | None:
    """Read from the settings which files there are; None without TLS. Refuses half a pair."""
    certificate, key = settings.tls_certificate_file, settings.tls_key_file
    client_ca = settings.tls_client_ca_file
    if certificate and key:
        return Files(Path(certificate), Path(key), Path(client_ca) if client_ca else None)
    if certificate:
        raise BadCertificate("--tls-certificate-file needs its key; say --tls-key-file too")
    if key or client_ca:
        given = "--tls-key-file" if key else "--tls-client-ca-file"
        raise BadCertificate(f"{given} needs a certificate; say --tls-certificate-file too")
    return None


@dataclass(frozen=True, slots=True)
class Pair:
    """What the files hold at one moment."""

    certificate: bytes
    key: bytes = field(repr=False)
    client_ca: bytes | None


class Certificates:
    """The pair that is served now: credentials for gRPC, a context for HTTP."""

    def __init__(self, files: Files) -> None:
        """Read the files. Refuses with BadCertificate what can't be served."""
        self._files = files
        self._pair, self._context = load(files)
        #: What gRPC has; it asks at every handshake whether there is anything else.
        self._given = self._pair
        self._complaint = ""
        _tell("certificate loaded", self._pair)

    def for_grpc(self) -> grpc.ServerCredentials:
        """Give gRPC's credentials; with authorities of clients they demand a certificate."""
        return grpc.dynamic_ssl_server_credentials(
            _configuration(self._given),
            # Its types know no "nothing new", which its documents ask for.
            self._news,  # type: ignore[arg-type]
            require_client_authentication=self._files.client_ca is not None,
        )

    def for_http(self) -> ssl.SSLContext:
        """Give a context that begins each handshake and goes on with the newest pair's.

        Loading a new pair into a context that is in use would leave it without one when the
        files change meanwhile.
        """
        door = self._context
        door.sni_callback = self._admit
        return door

    async def run(self) -> None:
        """Look at the files again and again."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            # In a thread: where a folder hangs, the loop must not.
            await asyncio.to_thread(self.look)

    def look(self) -> None:
        """Take a new pair if there is a good one; say once why a new one is not taken."""
        try:
            if _read(self._files) == self._pair:
                self._complaint = ""
                return
            self._pair, self._context = load(self._files)
        except BadCertificate as error:
            if self._complaint != str(error):
                self._complaint = str(error)
                log.warning("new certificate not taken, the old one stays", why=self._complaint)
        else:
            self._complaint = ""
            _tell("certificate renewed", self._pair)

    def _news(self) -> grpc.ServerCertificateConfiguration | None:
        """Give a pair that gRPC has not; called at each handshake, on threads of its own."""
        pair = self._pair
        if pair is self._given:
            return None
        self._given = pair
        return _configuration(pair)

    def _admit(self, handshake: ssl.SSLObject, _name: str | None, _door: ssl.SSLContext) -> None:
        """Go on with the newest pair; called at each handshake, also without a name."""
        handshake.context = self._context


def load(files: Files) -> tuple[Pair, ssl.SSLContext]:
    """Read a pair and check that it can be served. Refuses with BadCertificate."""
    pair = _read(files)
    _check(pair, files)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        # Without a passphrase OpenSSL would ask the terminal for one.
        context.load_cert_chain(files.certificate, files.key, password="")
    except OSError as error:
        raise BadCertificate(f"{files.certificate} can't be served: {error}") from error
    if _read(files) != pair:
        raise BadCertificate(f"{files.certificate} is being replaced; try again when it is done")
    return pair, context


def _read(files: Files) -> Pair:
    return Pair(
        _bytes(files.certificate),
        _bytes(files.key),
        None if files.client_ca is None else _bytes(files.client_ca),
    )


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        text = f"{path} can't be read ({error.strerror}); the server's user must be able to"
        raise BadCertificate(text) from error


def _check(pair: Pair, files: Files) -> None:
    leaf = _certificates(pair.certificate, files.certificate)[0]
    key = _key(pair.key, files.key)
    if key.public_key() != leaf.public_key():
        raise BadCertificate(
            f"{files.key} is not the key of the first certificate in {files.certificate}; the "
            "server's own comes first, the chain after it"
        )
    if not _speaks(key):
        raise BadCertificate(
            f"{files.key} is of a kind that gRPC does not speak; use RSA with at least "
            f"{_LEAST_RSA_BITS} bits, or an elliptic curve, P-256 or P-384"
        )
    if pair.client_ca is not None and files.client_ca is not None:
        _certificates(pair.client_ca, files.client_ca)


def _certificates(data: bytes, path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError as error:
        raise BadCertificate(f"{path} holds no certificates in PEM, or a damaged one") from error


def _key(data: bytes, path: Path) -> PrivateKeyTypes:
    try:
        return load_pem_private_key(data, password=None)
    except TypeError as error:
        text = f"{path} is encrypted; decrypt it, and let only the server's user read it"
        raise BadCertificate(text) from error
    except ValueError as error:
        raise BadCertificate(f"{path} holds no private key in PEM, or a damaged one") from error


def _speaks(key: PrivateKeyTypes) -> bool:
    """Tell whether gRPC's TLS can use a key: others fail at the first handshake, unexplained."""
    if isinstance(key, rsa.RSAPrivateKey):
        return key.key_size >= _LEAST_RSA_BITS
    return isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(
        key.curve, ec.SECP256R1 | ec.SECP384R1
    )


def _configuration(pair: Pair) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(pair.key, pair.certificate)], root_certificates=pair.client_ca
    )


def _tell(event: str, pair: Pair) -> None:
    leaf = x509.load_pem_x509_certificate(pair.certificate)
    expire_time = leaf.not_valid_after_utc
    said = log.warning if expire_time < datetime.now(UTC) else log.info
    said(event, subject=leaf.subject.rfc4514_string(), expire_time=expire_time.isoformat())
