"""JSON Web Tokens of an OpenID Connect provider: verified once, then known until they end.

Only the provider's own keys are trusted, and only the algorithms that the server allows; what a
token says about how to verify it is never followed. No refusal repeats any of a token.
"""

from __future__ import annotations

import base64
import hashlib
import json
import ssl
import threading
import time
from typing import TYPE_CHECKING, Any

from cachetools import TLRUCache
from joserfc import jws
from joserfc.errors import ExpiredTokenError, InvalidClaimError, JoseError, MissingClaimError
from joserfc.jwt import JWTClaimsRegistry

from stagewire.access.provider import LIFETIME_SECONDS, Provider
from stagewire.claims import Claims, Condition, Reading, Rule, refused
from stagewire.errors import RegistryError
from stagewire.store.database import StartRefusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from joserfc.jwa import JWSAlgModel

    from stagewire.settings import Settings

__all__ = ["MOST_CHARACTERS", "Claims", "Verifier"]

#: A longer token is refused unread. Providers' own are a tenth of it.
MOST_CHARACTERS = 16 * 1024
#: Some ten thousand callers' claims.
CACHE_BYTES = 16 * 1024 * 1024
# What a kept token costs beside its claims, which are shorter than itself.
_OVERHEAD_BYTES = 1000
# The end of the year 9999: later ends are as good as this, and fit everywhere.
_LATEST = 253_402_300_799
# Of a token that says who its bearer is; a logout token, say, has another.
_TYPES = frozenset({"jwt", "at+jwt"})
_SEGMENTS = 3
_ENCRYPTED_SEGMENTS = 5

_WRONG = {
    "iss": "is not of the provider that this server trusts; take one of its `oidc_issuer`",
    "aud": "is not for this registry; ask for one with the audience that the server's"
    " `oidc_audience` names",
    "exp": "does not say when it ends; let the provider set `exp`",
    "nbf": "is not valid yet; wait, or set the clocks right",
    "iat": "is from the future; set the clocks right",
}


class _Known(TLRUCache[bytes, tuple[Claims, str]]):
    """Claims of verified tokens and the keys that verified them, by the tokens' hashes."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(
            CACHE_BYTES,
            # Verified again now and then, so that a key withdrawn is missed.
            ttu=lambda _key, kept, now: min(kept[0].expires, now + LIFETIME_SECONDS),
            timer=clock,
            getsizeof=lambda kept: _size(kept[0]),
        )


class _Signatures(jws.JWSRegistry):
    """The library's rules for headers and sizes, with the algorithms that the server allows."""

    max_header_length = MOST_CHARACTERS
    max_payload_length = MOST_CHARACTERS
    max_signature_length = MOST_CHARACTERS

    def get_alg(self, name: str) -> JWSAlgModel:
        """Give an allowed algorithm, without the library's warnings of what the server allows."""
        if name not in (self.allowed or ()):
            raise refused("is signed in a way that this server's `oidc_algorithms` do not allow")
        return self.algorithms[name]


class Verifier:
    """Verifies tokens of the settings' provider. For any thread."""

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Trust `oidc_issuer`. Raises StartRefusal for a file of authorities that is none."""
        try:
            trusted = ssl.create_default_context(cafile=settings.oidc_ca_file or None)
        except OSError as error:
            text = f"oidc_ca_file {settings.oidc_ca_file!r} holds no certificates in PEM: {error}"
            raise StartRefusal(text) from error
        self._provider = Provider(settings.oidc_issuer, trusted=trusted, clock=monotonic)
        self._issuer = settings.oidc_issuer
        self._leeway = settings.oidc_leeway_seconds
        self._clock = clock
        self._reading = Reading(
            settings.oidc_username_claim,
            settings.oidc_groups_claim,
            tuple(Condition.parse(claim) for claim in settings.oidc_required_claims),
            tuple(Rule.parse(rule) for rule in settings.oidc_roles),
        )
        self._signatures = _Signatures(
            algorithms=settings.oidc_algorithms, strict_check_header=False
        )
        self._times = JWTClaimsRegistry(
            now=lambda: int(clock()),
            leeway=self._leeway,
            iss={"essential": True, "value": self._issuer},
            aud={"essential": True, "values": [settings.oidc_audience]},
            exp={"essential": True},
        )
        self._known = _Known(clock)
        self._lock = threading.Lock()

    def known(self, token: str) -> Claims | None:
        """Give what is known of a token that was verified; None where `verify` has to say."""
        if len(token) > MOST_CHARACTERS:
            return None
        digest = _digest(token)
        with self._lock:
            kept = self._known.get(digest)
        return kept[0] if kept is not None and self._provider.holds(kept[1]) else None

    def fetch_keys(self) -> None:
        """Get the provider's keys before anybody needs them; blocks for some seconds at most.

        Refuses IDENTITY_PROVIDER_UNAVAILABLE.
        """
        self._provider.fetch()

    def verify(self, token: str) -> Claims:
        """Verify a token; blocks while the provider is asked, some seconds at most.

        Refuses CREDENTIALS_INVALID, CREDENTIALS_EXPIRED, IDENTITY_PROVIDER_UNAVAILABLE.
        """
        header = _read_header(token)
        self._signatures.get_alg(header["alg"])
        try:
            signed = jws.extract_compact(token.encode(), registry=self._signatures)
            said = _read_object(signed.payload, "has claims")
            # Before the provider is asked for the key of a token that is none of its own.
            if said.get("iss") != self._issuer:
                raise refused(_WRONG["iss"])
            key = self._provider.find(header.get("kid"), header["alg"])
            if key is None:
                raise refused(
                    "is signed with a key that the provider does not have; if that key is quite"
                    " new, try again in some seconds"
                )
            if not jws.validate_compact(signed, key.jwk, registry=self._signatures):
                raise refused("has a signature that is not the provider's; send it whole")
            expires = self._check(said)
        except JoseError as error:
            raise refused("can't be read; send it as the provider gave it") from error
        claims = self._reading.read(said, expires)
        with self._lock:
            self._known[_digest(token)] = (claims, key.thumbprint)
        return claims

    def _check(self, said: dict[str, Any]) -> float:
        """Check the claims of a token whose signature is right; tell when it ends."""
        try:
            self._times.validate(said)
        except ExpiredTokenError as error:
            text = "the identity provider's token has ended; get a new one"
            raise RegistryError("CREDENTIALS_EXPIRED", text) from error
        except (InvalidClaimError, MissingClaimError) as error:
            claim = error.claim.partition(",")[0]
            what = _WRONG.get(claim, f"has a claim `{claim}` that is not what it must be")
            raise refused(what) from error
        azp = said.get("azp", "-")
        if not isinstance(azp, str) or not azp:
            raise refused("has a claim `azp` that is no text")
        if "events" in said:
            raise refused("tells of an event, and not who its bearer is; take another kind")
        if said.get("cnf") is not None:
            raise refused("is bound to a key whose proof this server can't ask for; take another")
        return float(min(said["exp"] + self._leeway, _LATEST))


def _read_header(token: str) -> dict[str, Any]:
    """Read what a token says of itself. Refuses CREDENTIALS_INVALID."""
    if len(token) > MOST_CHARACTERS:
        raise refused(
            f"has more than {MOST_CHARACTERS} characters; let the provider put less into it"
        )
    segments = token.count(".") + 1
    if segments == _ENCRYPTED_SEGMENTS:
        raise refused("is encrypted; let the provider only sign it")
    if segments != _SEGMENTS or not token.isascii():
        raise refused("is no JSON Web Token; send it as the provider gave it")
    encoded = token.partition(".")[0]
    try:
        decoded = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
    except ValueError as error:
        raise refused("can't be read; send it as the provider gave it") from error
    header = _read_object(decoded, "has a header")
    # No extension is known here, and one is not to be passed over.
    if "crit" in header or "b64" in header:
        raise refused("asks for an extension that this server does not know")
    if not all(isinstance(header.get(name, ""), str) for name in ("alg", "kid", "typ")):
        raise refused("has a header whose `alg`, `kid` or `typ` is no text")
    if "alg" not in header:
        raise refused("does not say how it is signed")
    kind = header.get("typ", "JWT").lower().removeprefix("application/")
    if kind not in _TYPES:
        raise refused("is of a kind that does not say who its bearer is; take an access token")
    return header


def _read_object(data: bytes, what: str) -> dict[str, Any]:
    """Read a JSON object in the one way that it can be read. Refuses CREDENTIALS_INVALID."""
    try:
        found = json.loads(data, object_pairs_hook=_unambiguous, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise refused(f"{what} that can't be read; send it as the provider gave it") from error
    if not isinstance(found, dict):
        raise refused(f"{what} that can't be read; send it as the provider gave it")
    return found


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    # Which of two equal names counts is not the same for every reader.
    if len(found) != len(pairs):
        raise ValueError("a name is there twice")
    return found


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def _size(claims: Claims) -> int:
    return _OVERHEAD_BYTES + sum(len(group) + 64 for group in claims.groups)
