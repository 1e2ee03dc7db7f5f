"""Letters on the wire: each format's body, headers and signature, and one attempt to deliver.

A redirect is not followed, a proxy not used, and what a receiver says is not read.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpcore
from standardwebhooks import Webhook as Signer

from stagewire import pb
from stagewire.hooks import SecretUnreadable
from stagewire.server.addresses import AddressRefused, CheckedNetwork, NameUnknown
from stagewire.service.deliveries import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from stagewire.hooks import Vault
    from stagewire.service.deliveries import Letter

_TAKEN = range(200, 300)
_STANDARD_SECRET = "whsec_"  # noqa: S105  # what a secret begins with
_WORDS = {
    "address": "the host leads to an address that is not public",
    "connect": "no connection could be made",
    "protocol": "the receiver does not speak HTTP as it should",
    "resolve": "the host's name was not found",
    "secret": "the secret can't be decrypted: its key is gone from the file of keys",
    "timeout": "the receiver did not answer in time",
    "tls": "the receiver's certificate is not trusted, or TLS failed",
}


def write(letter: Letter, secret: str | None, now: int) -> tuple[bytes, dict[str, str]]:
    """Write a letter's body and headers, signed at `now`, in seconds since 1970."""
    if letter.format == pb.WEBHOOK_FORMAT_CLOUDEVENTS:
        return _cloud_event(letter, secret, now)
    return _mlflow(letter, secret, now)


def _mlflow(letter: Letter, secret: str | None, now: int) -> tuple[bytes, dict[str, str]]:
    entity, _, action = letter.happening.event.partition(".")
    content: dict[str, Any] = {
        "entity": entity,
        "action": action,
        "timestamp": letter.time.isoformat(),
        "data": letter.happening.data,
    }
    if letter.namespace != "default":
        content["workspace"] = letter.namespace
    body = json.dumps(content)
    headers = {
        "Content-Type": "application/json",
        "X-MLflow-Delivery-Id": letter.id,
        "X-MLflow-Timestamp": str(now),
    }
    if secret:
        # MLflow signs as Standard Webhooks do, with the whole text as the key.
        headers["X-MLflow-Signature"] = _signature(secret.encode(), letter.id, now, body)
    return body.encode(), headers


def _cloud_event(letter: Letter, secret: str | None, now: int) -> tuple[bytes, dict[str, str]]:
    data = letter.happening.data
    subject = f"models/{quote(str(data.get('name', '')), safe='')}"
    if "version" in data:
        subject += f"/versions/{data['version']}"
    content = {
        "specversion": "1.0",
        "id": letter.id,
        "source": f"/stagewire/{letter.log_id}/namespaces/{letter.namespace}",
        "type": f"stagewire.{letter.happening.event}",
        "subject": subject,
        "time": letter.time.isoformat().replace("+00:00", "Z"),
        "datacontenttype": "application/json",
        # CloudEvents' integers have 32 bits.
        "revision": str(letter.revision),
        "data": data,
    }
    body = json.dumps(content)
    headers = {
        "Content-Type": "application/cloudevents+json; charset=utf-8",
        "webhook-id": letter.id,
        "webhook-timestamp": str(now),
    }
    if secret:
        standard = secret.startswith(_STANDARD_SECRET)
        key = secret if standard else secret.encode()
        headers["webhook-signature"] = _signature(key, letter.id, now, body)
    return body.encode(), headers


def _signature(key: str | bytes, id_: str, now: int, body: str) -> str:
    return Signer(key).sign(id_, datetime.fromtimestamp(now, tz=UTC), body)


class Post:
    """Delivers letters; so many at once, each with a connection of its own."""

    def __init__(
        self,
        vault: Vault,
        *,
        timeout_seconds: float,
        most: int,
        network: CheckedNetwork,
        trusted: ssl.SSLContext | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Deliver over `network`, with the host's trusted authorities unless given others."""
        self._vault = vault
        self._timeout = timeout_seconds
        self._turns = asyncio.Semaphore(most)
        self._network = network
        self._clock = clock
        # No connection is kept: its address was judged for one attempt.
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=trusted or ssl.create_default_context(),
            max_connections=None,
            max_keepalive_connections=0,
            network_backend=network,
        )

    async def deliver(self, letter: Letter) -> Outcome:
        """Make one attempt."""
        async with self._turns:
            try:
                secret = None if letter.secret is None else self._vault.decrypt(letter.secret)
                body, headers = write(letter, secret, int(self._clock()))
            except (SecretUnreadable, ValueError):
                return _failed("secret")
            return await self._send(letter.url, body, headers)

    async def _send(self, url: str, body: bytes, headers: dict[str, str]) -> Outcome:
        try:
            async with (
                asyncio.timeout(self._timeout),
                self._pool.stream(
                    "POST",
                    url,
                    headers=[*headers.items(), ("Accept", "*/*"), ("User-Agent", "stagewire")],
                    content=body,
                    extensions={"timeout": dict.fromkeys(_PHASES, self._timeout)},
                ) as response,
            ):
                return self._outcome(response)
        except AddressRefused:
            return _failed("address")
        except NameUnknown:
            return _failed("resolve")
        except (TimeoutError, httpcore.TimeoutException):
            return _failed("timeout")
        except httpcore.ConnectError as error:
            return _failed("tls" if _is_tls(error) else "connect")
        except httpcore.NetworkError:
            return _failed("connect")
        except (httpcore.ProtocolError, httpcore.UnsupportedProtocol, ValueError):
            return _failed("protocol")

    def _outcome(self, response: httpcore.Response) -> Outcome:
        status = response.status
        if status in _TAKEN:
            return Outcome(status)
        said = dict(response.headers)
        after = said.get(b"Retry-After") or said.get(b"retry-after") or b""
        text = f"the receiver answered with status {status}"
        return Outcome(status, "status", text, self._retry_after(after.decode("latin-1")))

    def _retry_after(self, text: str) -> float | None:
        """Read a number of seconds or a date."""
        with suppress(ValueError):
            return max(0.0, float(int(text)))
        with suppress(ValueError, TypeError):
            return max(0.0, parsedate_to_datetime(text).timestamp() - self._clock())
        return None

    async def close(self) -> None:
        """Let go of what is open."""
        await self._pool.aclose()
        self._network.close()


_PHASES = ("connect", "read", "write", "pool")


def _failed(error: str) -> Outcome:
    return Outcome(0, error, _WORDS[error])


def _is_tls(error: BaseException) -> bool:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return True
        cause = cause.__cause__ or cause.__context__
    return False
