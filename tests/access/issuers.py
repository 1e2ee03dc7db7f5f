"""An identity provider: a real HTTP server on loopback, whose keys sign as a test wants.

Tokens are put together here by hand, with cryptography alone: what verifies them is then not
what made them, and a test can write what no library would.
"""

from __future__ import annotations

import base64
import contextlib
import hmac
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from stagewire.access.oidc import Verifier
from stagewire.settings import Settings

if TYPE_CHECKING:
    import ssl
    from types import TracebackType

DISCOVERY = "/realms/ml/.well-known/openid-configuration"
JWKS = "/realms/ml/keys"
AUDIENCE = "stagewire"
#: When tests take place, in seconds since 1970.
NOW = 1_800_000_000

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

_HASHES = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}
_CURVES = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}


class Clock:
    """Goes when a test lets it."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def wall(self) -> float:
        """Seconds since 1970."""
        return NOW + self.seconds

    def monotonic(self) -> float:
        """Seconds since some time."""
        return 1000 + self.seconds


def encode(data: bytes) -> str:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _number(value: int, size: int) -> str:
    return encode(value.to_bytes(size, "big"))


@cache
def make_key(algorithm: str, which: int = 0) -> PrivateKey:
    """Make a key for an algorithm; the same one for the same `which`, for RSA keys take long."""
    if algorithm in _CURVES:
        return ec.generate_private_key(_CURVES[algorithm])
    if algorithm in ("EdDSA", "Ed25519"):
        return ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(65537, 1024 if algorithm == "short" else 2048)


def public_jwk(key: PrivateKey, **more: Any) -> dict[str, Any]:
    """Write a public key as the provider publishes it."""
    if isinstance(key, rsa.RSAPrivateKey):
        numbers = key.public_key().public_numbers()
        size = key.key_size // 8
        return {"kty": "RSA", "n": _number(numbers.n, size), "e": _number(numbers.e, 3), **more}
    if isinstance(key, ec.EllipticCurvePrivateKey):
        point = key.public_key().public_numbers()
        size = (key.key_size + 7) // 8
        curve = {256: "P-256", 384: "P-384", 521: "P-521"}[key.key_size]
        x, y = _number(point.x, size), _number(point.y, size)
        return {"kty": "EC", "crv": curve, "x": x, "y": y, **more}
    raw = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return {"kty": "OKP", "crv": "Ed25519", "x": encode(raw), **more}


def public_pem(key: PrivateKey) -> bytes:
    """Write a public key as PEM."""
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def sign(key: PrivateKey | bytes, algorithm: str, text: str) -> bytes:
    """Sign as an algorithm says; with bytes, as HMAC does."""
    data = text.encode()
    if isinstance(key, bytes):
        return hmac.digest(key, data, "sha" + algorithm[-3:])
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(data)
    made = _HASHES[algorithm[-3:]]
    if isinstance(key, ec.EllipticCurvePrivateKey):
        r, s = decode_dss_signature(key.sign(data, ec.ECDSA(made)))
        size = (key.key_size + 7) // 8
        return r.to_bytes(size, "big") + s.to_bytes(size, "big")
    if algorithm.startswith("PS"):
        pss = padding.PSS(padding.MGF1(made), salt_length=made.digest_size)
        return key.sign(data, pss, made)
    return key.sign(data, padding.PKCS1v15(), made)


def assemble(
    header: dict[str, Any] | str, payload: dict[str, Any] | str, key: PrivateKey | bytes, alg: str
) -> str:
    """Make a token of any header and payload, given as objects or as written."""
    parts = [one if isinstance(one, str) else json.dumps(one) for one in (header, payload)]
    text = ".".join(encode(part.encode("utf-8", "surrogatepass")) for part in parts)
    return f"{text}.{encode(sign(key, alg, text))}"


Answer = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class Issuer:
    """Listens while entered; `answers` overrides what a path answers."""

    algorithm: str = "RS256"
    tls: ssl.SSLContext | None = None
    keys: dict[str, tuple[str, PrivateKey]] = field(default_factory=dict)
    #: Keys as published, beside those above.
    more_keys: list[Any] = field(default_factory=list)
    answers: dict[str, Answer] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    port: int = 0

    def __enter__(self) -> Self:
        self.keys.setdefault("one", (self.algorithm, make_key(self.algorithm)))
        self.start()
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Listen, on the same port as before."""
        issuer = self

        class Listener(BaseHTTPRequestHandler):
            def do_GET(self) -> None:  # http.server's own name
                issuer.asked.append(self.path)
                issuer.answers.get(self.path, issuer.answer)(self)

            def log_message(self, *args: object) -> None:
                pass

        self._server: ThreadingHTTPServer | None = ThreadingHTTPServer(
            ("127.0.0.1", self.port), Listener
        )
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        if self.tls is not None:
            self._server.socket = self.tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def stop(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
            self._server = None

    @property
    def origin(self) -> str:
        """Where it is."""
        return f"{'http' if self.tls is None else 'https'}://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """What it calls itself."""
        return f"{self.origin}/realms/ml"

    @property
    def jwks(self) -> dict[str, Any]:
        """The keys, as published."""
        own = [public_jwk(key, kid=kid, alg=alg) for kid, (alg, key) in self.keys.items()]
        return {"keys": [*self.more_keys, *own]}

    def answer(self, listener: BaseHTTPRequestHandler) -> None:
        """Answer as a provider does."""
        said = {
            DISCOVERY: {"issuer": self.url, "jwks_uri": f"{self.origin}{JWKS}"},
            JWKS: self.jwks,
        }.get(listener.path)
        reply(listener, 404 if said is None else 200, json.dumps(said).encode())

    def settings(self, **given: Any) -> Settings:
        """Settings of a server that trusts this provider."""
        return Settings(oidc_issuer=self.url, oidc_audience=AUDIENCE, **given)

    def verifier(self, clock: Clock | None = None, **given: Any) -> Verifier:
        """What the server verifies with."""
        clock = clock or Clock()
        return Verifier(self.settings(**given), clock=clock.wall, monotonic=clock.monotonic)

    def claims(self, **claims: Any) -> dict[str, Any]:
        """Claims of an ordinary token; those given as None are left out."""
        said = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": "ana",
            "iat": NOW - 10,
            "exp": NOW + 600,
            **claims,
        }
        return {name: value for name, value in said.items() if value is not None}

    def token(self, *, kid: str = "one", header: dict[str, Any] | None = None, **said: Any) -> str:
        """Make a token."""
        algorithm, key = self.keys[kid]
        given = {"alg": algorithm, "typ": "JWT", "kid": kid, **(header or {})}
        given = {name: value for name, value in given.items() if value is not None}
        return assemble(given, self.claims(**said), key, algorithm)


def reply(listener: BaseHTTPRequestHandler, status: int, body: bytes = b"", **headers: str) -> None:
    """Answer a request."""
    listener.send_response(status)
    for name, value in headers.items():
        listener.send_header(name.replace("_", "-"), value)
    listener.send_header("Content-Length", str(len(body)))
    listener.end_headers()
    # Whoever asked may have given up.
    with contextlib.suppress(ConnectionError):
        listener.wfile.write(body)


def drip(listener: BaseHTTPRequestHandler, until: threading.Event) -> None:
    """Answer with a byte now and then, and never to the end."""
    listener.send_response(200)
    listener.end_headers()
    deadline = time.monotonic() + 30
    with contextlib.suppress(ConnectionError):
        while not until.wait(0.05) and time.monotonic() < deadline:
            listener.wfile.write(b" ")
