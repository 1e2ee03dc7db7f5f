"""What webhooks are held to: the schemes and addresses that they may have, and their secrets' keys.

A secret leaves here encrypted or not at all; neither a key nor a secret is ever in a text.
"""

from __future__ import annotations

import os
import re
import urllib.parse
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stagewire import errors

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cryptography.fernet import MultiFernet

_PRINTABLE = re.compile(r"[!-~]+")
_LARGEST_PORT = 65_535


class SecretUnreadable(Exception):
    """A secret was encrypted with a key that is no longer here."""


class Vault:
    """Encrypts secrets with the first key of a file, and decrypts with any of them.

    A file of one key a line is read anew whenever it has changed, so that keys are turned over
    without a restart. With `makes` a file that is not there is made, for its owner's eyes only.
    """

    def __init__(self, path: Path | None = None, *, makes: bool = False) -> None:
        """Keep keys at `path`; without one there are none, and no secret is taken."""
        self._path = path
        self._makes = makes
        self._read: tuple[tuple[int, int], MultiFernet] | None = None

    def encrypt(self, secret: str) -> bytes:
        """Encrypt a secret. Refuses SECRETS_KEY_MISSING."""
        fernet = self._fernet(make=self._makes)
        if fernet is None:
            raise errors.precondition(
                "SECRETS_KEY_MISSING",
                "secret",
                "the server has no key to encrypt secrets with; put one into a file that every "
                "replica reads, and name it in STAGEWIRE_SECRETS_KEY_FILE",
            )
        return fernet.encrypt(secret.encode())

    def decrypt(self, token: bytes) -> str:
        """Decrypt a secret. Raises SecretUnreadable when no key fits."""
        from cryptography.fernet import InvalidToken  # noqa: PLC0415  # the CLI comes by here

        fernet = self._fernet(make=False)
        if fernet is None:
            raise SecretUnreadable
        try:
            return fernet.decrypt(token).decode()
        except InvalidToken:
            raise SecretUnreadable from None

    def check(self) -> None:
        """Read the keys, if there are any. Raises ValueError, saying what is wrong."""
        self._fernet(make=False)

    def _fernet(self, *, make: bool) -> MultiFernet | None:
        from cryptography.fernet import Fernet, MultiFernet  # noqa: PLC0415  # as above

        if self._path is None:
            return None
        if make and not self._path.exists():
            _write_new(self._path, Fernet.generate_key())
        try:
            status = self._path.stat()
        except FileNotFoundError:
            if self._makes:
                return None
            raise ValueError(f"there is no file of keys at {self._path}") from None
        stamp = (status.st_mtime_ns, status.st_size)
        if self._read is None or self._read[0] != stamp:
            keys = self._path.read_text().split()
            try:
                self._read = (stamp, MultiFernet([Fernet(key) for key in keys]))
            except ValueError:
                raise ValueError(
                    f"{self._path} holds no keys, or something else: give one a line, each of 32 "
                    "random bytes in URL-safe base64"
                ) from None
        return self._read[1]


def _write_new(path: Path, key: bytes) -> None:
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return
    with os.fdopen(handle, "wb") as file:
        file.write(key + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _lookup_nothing(_host: str) -> None:
    """Leave an address for the delivery to judge."""


@dataclass(frozen=True, slots=True)
class HookRules:
    """What a webhook must keep to.

    `refuse_host` raises WEBHOOK_ADDRESS_REFUSED for a host that is known to lead to an address
    that is not allowed; deliveries judge again, whatever it says.
    """

    vault: Vault
    schemes: tuple[str, ...] = ("https",)
    refuse_host: Callable[[str], None] = _lookup_nothing

    def check_url(self, url: str, path: str) -> None:
        """Refuse a URL that nothing may be posted to; `path` names the field."""
        if not url.strip():
            raise errors.invalid(path, f"Webhook URL cannot be empty or just whitespace: {url!r}")
        try:
            parsed = urllib.parse.urlsplit(url)
            port = parsed.port
        except ValueError:
            raise errors.invalid(path, "is no URL, or its port is no number") from None
        if parsed.scheme not in self.schemes:
            raise errors.invalid(
                path,
                f"Invalid webhook URL scheme: {parsed.scheme!r}. "
                f"Allowed schemes are: {', '.join(self.schemes)}.",
            )
        if not parsed.hostname:
            raise errors.invalid(path, f"Webhook URL must include a hostname: {url!r}")
        if "@" in parsed.netloc:
            raise errors.invalid(path, "must hold no user or password; give a secret instead")
        if not _PRINTABLE.fullmatch(url) or "\\" in url:
            raise errors.invalid(path, "holds a character that belongs percent-encoded")
        if "#" in url:
            raise errors.invalid(path, "must hold no fragment: it is never sent")
        if port is not None and not 0 < port <= _LARGEST_PORT:
            raise errors.invalid(path, "has a port that does not exist")
        self.refuse_host(parsed.hostname)


def origin(url: str) -> str:
    """Give a URL's scheme, host and port: paths and queries are often secrets."""
    parsed = urllib.parse.urlsplit(url)
    return f"{parsed.scheme}://{parsed.netloc}"


#: For a registry that serves nobody: no keys, https, and no addresses looked up.
NO_HOOKS = HookRules(Vault())
