"""Where and how the SDK connects: to which address, by TLS or in clear, and as whom.

What is not given comes from the environment. A token goes to another host in clear only where
that is allowed in so many words.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio

from stagewire import hosts
from stagewire.client import channels
from stagewire.client.tokens import Token

#: Where a server listens unless told otherwise.
DEFAULT_ADDRESS = "127.0.0.1:50051"
#: Spelled before an address, these say whether TLS is spoken there.
_SCHEMES = {"grpcs": True, "grpc": False}
_RESOLVERS = ("dns", "ipv4", "ipv6", "passthrough", "unix", "unix-abstract", "vsock", "xds")
_WORDS = {
    **dict.fromkeys(("1", "true", "yes", "on"), True),
    **dict.fromkeys(("0", "false", "no", "off"), False),
}


@dataclass(frozen=True, slots=True)
class Connection:
    """Where a registry is, how it is spoken to, and who speaks."""

    address: str
    credentials: grpc.ChannelCredentials | None
    token: Token

    def open(self) -> grpc.Channel:
        """Make a channel; it connects with the first call."""
        if self.credentials is None:
            return grpc.insecure_channel(self.address, channels.OPTIONS)
        return grpc.secure_channel(self.address, self.credentials, channels.OPTIONS)

    def open_async(self, *interceptors: grpc.aio.ClientInterceptor) -> grpc.aio.Channel:
        """Make a channel for the running event loop."""
        if self.credentials is None:
            return grpc.aio.insecure_channel(
                self.address, channels.OPTIONS, interceptors=interceptors
            )
        return grpc.aio.secure_channel(
            self.address, self.credentials, channels.OPTIONS, interceptors=interceptors
        )


@dataclass(frozen=True, slots=True)
class _Files:
    """The files of TLS: whom the client trusts, and what it shows."""

    ca: str | Path | None
    certificate: str | Path | None
    key: str | Path | None

    def __bool__(self) -> bool:
        return bool(self.ca or self.certificate or self.key)


def settle(
    address: str | None = None,
    *,
    token: str | None = None,
    token_file: str | Path | None = None,
    ca_file: str | Path | None = None,
    certificate_file: str | Path | None = None,
    key_file: str | Path | None = None,
    tls: bool | None = None,
    allow_plaintext: bool | None = None,
    credentials: grpc.ChannelCredentials | None = None,
) -> Connection:
    """Settle how to connect, from what is given, else from the environment.

    TLS is spoken where the address says `grpcs://`, where `tls` says so, and where any file of
    TLS is named. Raises OSError for a file that can't be read, and ValueError for what does not
    go together, and for a token that would go to another host in clear.
    """
    target, said = _parsed(address or os.environ.get("STAGEWIRE_ADDRESS") or DEFAULT_ADDRESS)
    bearer = _token(token, token_file)
    if credentials is None:
        given = _Files(ca_file, certificate_file, key_file)
        decided = _decided(said=said, tls=tls, given=given)
        credentials = _credentials(given, decided=decided)
    elif said is False or tls is False:
        raise ValueError("`credentials` are for TLS, which the address or `tls` turns off")
    in_clear = credentials is None and not hosts.is_here(target)
    if allow_plaintext is None:
        allow_plaintext = _word("STAGEWIRE_ALLOW_PLAINTEXT")
    if bearer and in_clear and not allow_plaintext:
        raise ValueError(
            f"the token would go to {target} in clear, and whoever is on the way could take it; "
            f"speak TLS (grpcs://{target}), or allow plaintext"
        )
    return Connection(target, credentials, bearer)


def _parsed(address: str) -> tuple[str, bool | None]:
    """Tell a target, and whether its spelling says that TLS is spoken."""
    scheme, separator, rest = address.partition("://")
    if not separator or scheme in _RESOLVERS:
        return address, None
    target = rest.rstrip("/")
    if scheme not in _SCHEMES or not target or "/" in target:
        raise ValueError(f"{address!r} is no HOST:PORT, grpc://HOST:PORT or grpcs://HOST:PORT")
    return target, _SCHEMES[scheme]


def _token(token: str | None, file: str | Path | None) -> Token:
    if token is not None:
        return Token(token)
    if file is not None:
        return Token(file=file)
    if text := os.environ.get("STAGEWIRE_TOKEN"):
        return Token(text)
    return Token(file=os.environ.get("STAGEWIRE_TOKEN_FILE") or None)


def _decided(*, said: bool | None, tls: bool | None, given: _Files) -> bool | None:
    """Tell whether TLS is spoken; None where only the environment could say."""
    if said is not None and tls is not None and said != tls:
        raise ValueError("the address says one thing of TLS and `tls` another; leave one out")
    decided = tls if said is None else said
    if decided is False and given:
        raise ValueError("files of TLS are given, and the address or `tls` turns TLS off")
    return True if given else decided


def _credentials(given: _Files, *, decided: bool | None) -> grpc.ChannelCredentials | None:
    files = _Files(
        given.ca or os.environ.get("STAGEWIRE_CA_FILE"),
        given.certificate or os.environ.get("STAGEWIRE_CERT_FILE"),
        given.key or os.environ.get("STAGEWIRE_KEY_FILE"),
    )
    if decided is None:
        decided = _word("STAGEWIRE_TLS") or (_word("STAGEWIRE_TLS") is None and bool(files))
    if not decided:
        return None
    if bool(files.certificate) != bool(files.key):
        raise ValueError("a certificate and its key go together; name both files, or neither")
    return grpc.ssl_channel_credentials(
        *(None if path is None else _pem(path) for path in (files.ca, files.key, files.certificate))
    )


def _pem(path: str | Path) -> bytes:
    data = Path(path).read_bytes()
    if b"-----BEGIN " not in data:
        # gRPC would say so in its log alone, and every call would fail as if nobody answered.
        raise ValueError(f"{path} holds no PEM")
    return data


def _word(variable: str) -> bool | None:
    """Read yes or no from the environment; None where it says nothing."""
    word = os.environ.get(variable, "")
    if not word:
        return None
    if word.lower() not in _WORDS:
        raise ValueError(f"{variable} is {word!r}; say true or false")
    return _WORDS[word.lower()]
