"""An identity provider's keys: discovered, kept for a while, and asked for anew when one is new.

However many tokens come, and whatever keys they name, the provider is asked once in a while and
by one at a time. While it can't be reached its last keys are good for some hours.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
import structlog
from cryptography.exceptions import UnsupportedAlgorithm
from joserfc import jwk
from joserfc.errors import JoseError
from joserfc.jwa import JWS_ALGORITHMS

from stagewire.errors import RegistryError
from stagewire.settings import is_secure_url

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

log = structlog.get_logger("stagewire.access")

#: Keys are asked for anew after so long, so that one withdrawn is soon no longer trusted.
LIFETIME_SECONDS = 300.0
#: The provider is asked again, for a key that it may have by now or after a failure, at soonest.
PAUSE_SECONDS = 10.0
#: Keys are good for so long while the provider can't be reached. Tokens mostly end before that.
STALE_SECONDS = 4 * 3600.0
#: Discovery and keys together must have arrived within this.
FETCH_SECONDS = 5.0
#: What a provider says may have so many bytes; large ones have about 20,000.
MOST_BYTES = 512 * 1024
#: Calls that may wait for the provider's answer: each holds a thread.
MOST_WAITING = 8

_MOST_KEYS = 200
_KINDS = frozenset({"RSA", "EC", "OKP"})
_LEAST_RSA_BITS = 2048
_BROKEN = (
    JoseError,
    UnsupportedAlgorithm,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    OverflowError,
)
_ALGORITHMS = {algorithm.name: algorithm for algorithm in JWS_ALGORITHMS}


class ProviderUnusable(Exception):
    """The provider can't be reached, or what it says can't be used; the text is for the log."""


@dataclass(frozen=True, slots=True)
class Key:
    """A public key, and what tells it from every other."""

    jwk: jwk.Key
    thumbprint: str


@dataclass(frozen=True, slots=True)
class _Keys:
    keys: tuple[Key, ...]
    thumbprints: frozenset[str]
    jwks_uri: str
    fetched: float

    def find(self, kid: str | None, algorithm: str) -> Key | None:
        """Give the key that a token names, if it is one for this algorithm.

        A token without a name means the only one there is.
        """
        fitting = [
            key
            for key in self.keys
            if (kid is None or key.jwk.kid == kid) and _fits(key.jwk, algorithm)
        ]
        return fitting[0] if len(fitting) == 1 or (fitting and kid is not None) else None


class Provider:
    """Keeps the keys of one provider. For any thread."""

    def __init__(
        self,
        issuer: str,
        *,
        trusted: ssl.SSLContext,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Ask `issuer`, whose certificate must be one that is trusted here."""
        self._issuer = issuer
        self._trusted = trusted
        self._clock = clock
        self._turn = threading.Lock()
        self._waiting = threading.BoundedSemaphore(MOST_WAITING)
        self._kept: _Keys | None = None
        self._asked: float | None = None
        self._failed = False

    def holds(self, thumbprint: str) -> bool:
        """Tell whether a key is among those that the provider had when it was last asked."""
        return self._kept is not None and thumbprint in self._kept.thumbprints

    def find(self, kid: str | None, algorithm: str) -> Key | None:
        """Give the key that a token names, or None where the provider has none such.

        May ask the provider. Refuses IDENTITY_PROVIDER_UNAVAILABLE where that would be needed,
        and it can't be reached.
        """
        kept = self._current()
        found = kept.find(kid, algorithm)
        if found is None:
            found = self._renew(kept).find(kid, algorithm)
        return found

    def fetch(self) -> None:
        """Get the keys if there are none yet. Refuses IDENTITY_PROVIDER_UNAVAILABLE."""
        self._current()

    def _current(self) -> _Keys:
        kept = self._kept
        age = float("inf") if kept is None else self._clock() - kept.fetched
        if kept is None or age >= STALE_SECONDS:
            return self._renew(kept)
        if age >= LIFETIME_SECONDS and not self._turn.locked():
            # One asks, and the others go on with what there is.
            with contextlib.suppress(RegistryError):
                return self._renew(kept)
        return kept

    def _renew(self, seen: _Keys | None) -> _Keys:
        """Give newer keys than those seen; the same if the provider was asked just now."""
        if self._rests() and not self._turn.locked():
            return self._rested(seen)
        if not self._waiting.acquire(blocking=False):
            raise self._unavailable()
        try:
            with self._turn:
                if self._kept is not seen or self._rests():
                    return self._rested(seen)
                self._asked = self._clock()
                self._failed = True
                self._kept = self._ask(seen)
                self._failed = False
                return self._kept
        except ProviderUnusable as error:
            log.warning("identity provider unusable", issuer=self._issuer, error=str(error))
            raise self._unavailable() from error
        finally:
            self._waiting.release()

    def _rests(self) -> bool:
        return self._asked is not None and self._clock() - self._asked < PAUSE_SECONDS

    def _rested(self, seen: _Keys | None) -> _Keys:
        kept = self._kept
        # Whether a failure or somebody else's question: what was seen is all there is to say.
        if kept is None or (kept is seen and self._failed):
            raise self._unavailable()
        return kept

    def _unavailable(self) -> RegistryError:
        asked = self._clock() if self._asked is None else self._asked
        return RegistryError(
            "IDENTITY_PROVIDER_UNAVAILABLE",
            "the identity provider can't be asked for its keys, so the token can't be verified;"
            " try again, and if it lasts look at the server's log",
            retry_after_seconds=max(1.0, asked + PAUSE_SECONDS - self._clock()),
        )

    def _ask(self, seen: _Keys | None) -> _Keys:
        """Ask for the keys; for where they are only when what is known of it is old."""
        asked = self._clock()
        known = ""
        if seen is not None and asked - seen.fetched < LIFETIME_SECONDS:
            known = seen.jwks_uri
        jwks_uri, found = asyncio.run(self._fetch(known))
        keys = tuple(_read_keys(found))
        if not keys:
            raise ProviderUnusable(f"{jwks_uri} has no key that could sign tokens")
        thumbprints = frozenset(key.thumbprint for key in keys)
        if seen is None or seen.thumbprints != thumbprints:
            kids = [key.jwk.kid for key in keys]
            log.info("identity provider's keys", issuer=self._issuer, kids=kids)
        return _Keys(keys, thumbprints, jwks_uri, asked)

    async def _fetch(self, jwks_uri: str) -> tuple[str, Any]:
        url = self._issuer
        try:
            async with (
                asyncio.timeout(FETCH_SECONDS),
                httpx.AsyncClient(verify=self._trusted, timeout=FETCH_SECONDS) as client,
            ):
                if not jwks_uri:
                    url = self._issuer.rstrip("/") + "/.well-known/openid-configuration"
                    jwks_uri = self._check_discovery(url, await _get(client, url))
                url = jwks_uri
                return jwks_uri, await _get(client, url)
        except TimeoutError as error:
            raise ProviderUnusable(f"{url} took too long") from error
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, RecursionError) as error:
            raise ProviderUnusable(f"{url}: {type(error).__name__} {error}") from error

    def _check_discovery(self, url: str, found: Any) -> str:
        issuer, jwks_uri = found.get("issuer"), found.get("jwks_uri")
        if issuer != self._issuer:
            raise ProviderUnusable(f"{url} is about {issuer!r}, not about {self._issuer!r}")
        loopback = self._issuer.startswith("http:")
        if not isinstance(jwks_uri, str) or not is_secure_url(jwks_uri, loopback=loopback):
            raise ProviderUnusable(f"{url} has its keys at {jwks_uri!r}, which is no https://")
        return jwks_uri


async def _get(client: httpx.AsyncClient, url: str) -> Any:
    # Compressed, a few bytes could be gigabytes.
    headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
    async with client.stream("GET", url, headers=headers) as response:
        if response.status_code != httpx.codes.OK:
            # A redirect too: where keys are is for the discovery to say.
            raise ProviderUnusable(f"{url} answered with status {response.status_code}")
        body = bytearray()
        async for piece in response.aiter_raw():
            body += piece
            if len(body) > MOST_BYTES:
                raise ProviderUnusable(f"{url} says more than {MOST_BYTES} bytes")
    found = json.loads(body)
    if not isinstance(found, dict):
        raise ProviderUnusable(f"{url} does not answer with a JSON object")
    return found


def _read_keys(found: dict[str, Any]) -> Iterator[Key]:
    """Give the keys that can verify; those of other kinds, or broken ones, spoil none of them."""
    given = found.get("keys")
    for data in given[:_MOST_KEYS] if isinstance(given, list) else ():
        with contextlib.suppress(*_BROKEN):
            if data["kty"] not in _KINDS or data.get("use") == "enc":
                continue
            # The library would warn of a short one each time.
            if data["kty"] == "RSA" and len(data["n"]) * 6 < _LEAST_RSA_BITS:
                continue
            key = jwk.import_key(data)
            if not isinstance(key, jwk.RSAKey) or key.public_key.key_size >= _LEAST_RSA_BITS:
                yield Key(key, key.thumbprint())


def _fits(key: jwk.Key, algorithm: str) -> bool:
    try:
        _ALGORITHMS[algorithm].check_key(key)
    except JoseError:
        return False
    return True
