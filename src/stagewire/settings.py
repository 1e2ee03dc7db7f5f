"""What the server can be told: flag over environment (`STAGEWIRE_…`) over default."""

from __future__ import annotations

import ipaddress
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from stagewire import claims
from stagewire.sources import Policy

#: How an identity provider may sign: with a key of its own, never with one that is shared.
ALGORITHMS = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA", "Ed25519"),
)


#: Providers that vouch for the whole world: who is known to them is nobody in particular.
PUBLIC_ISSUERS = frozenset(
    {
        "https://accounts.google.com",
        "https://gitlab.com",
        "https://token.actions.githubusercontent.com",
    }
)


class Settings(BaseSettings):
    """The server's settings; each is also an environment variable with the prefix STAGEWIRE_."""

    model_config = SettingsConfigDict(env_prefix="STAGEWIRE_", env_nested_delimiter="__")

    database_url: str = Field(
        default="sqlite:///data/stagewire.db",
        description="sqlite:///FILE or postgresql+psycopg://USER@HOST/NAME",
    )
    trust_storage: bool = Field(
        default=False,
        description="serve from a PostgreSQL with fsync, full_page_writes or synchronous_commit "
        "off, because the storage below it loses nothing",
    )
    http_address: str = Field(
        default="127.0.0.1:8080",
        description="where HTTP listens, for MLflow's clients; port 0 picks a free one, empty "
        "turns it off",
    )
    public_url: str = Field(
        default="",
        description="where HTTP is reached from elsewhere, such as https://registry.example.com",
    )
    grpc_address: str = Field(
        default="127.0.0.1:50051", description="where gRPC listens; port 0 picks a free one"
    )
    auth: Literal["auto", "on", "off"] = Field(
        default="auto",
        description="whether it matters who calls: on, off, or on as soon as there is a token, "
        "--oidc-issuer or --tls-client-ca-file, or the server listens beyond this host",
    )
    bootstrap_token_file: str = Field(
        default="",
        description="names the first admin's token, as `stagewire admin bootstrap` writes it or as "
        "it is, adopted while nobody is an admin; beside an SQLite file it is FILE.bootstrap",
    )
    tls_certificate_file: str = Field(
        default="",
        description="the server's certificate and its chain, as PEM: gRPC and HTTP speak TLS, and "
        "take a new one without a restart",
    )
    tls_key_file: str = Field(
        default="", description="the certificate's private key, as PEM without a passphrase"
    )
    tls_client_ca_file: str = Field(
        default="",
        description="authorities, as PEM, one of which must have issued the certificate that a "
        "client of gRPC shows; none is asked for otherwise",
    )
    allow_plaintext: bool = Field(
        default=False,
        description="listen beyond this host without TLS: whoever is on the way reads and changes "
        "everything, tokens too",
    )
    allow_anonymous: bool = Field(
        default=False,
        description="listen beyond this host without access control: whoever reaches the server "
        "may do everything",
    )
    source_policy: Policy = Field(
        default="traversal",
        description="which sources versions may have: permissive takes any, traversal refuses "
        "what climbs out of its path and local paths outside their run, strict refuses "
        "another run's besides",
    )
    source_roots: list[str] = Field(
        default_factory=list, description="folders whose local paths may be sources without a run"
    )
    upstream_tracking_uri: str = Field(
        default="",
        description="an MLflow tracking server, such as http://tracking:5000, that gets what is "
        "not the registry's",
    )
    log_level: str = Field(default="info", description="debug, info, warning or error")
    pool_threads: int = Field(default=64, ge=1, description="unary calls worked on at once")
    max_pending_calls: int = Field(
        default=1000, ge=1, description="unary calls admitted before OVERLOADED"
    )
    max_grpc_connections: int = Field(
        default=20_000, ge=1, description="gRPC connections before a new one is closed at once"
    )
    max_http_connections: int = Field(
        default=4_000, ge=0, description="HTTP connections before a new one gets a 503; 0: any"
    )
    max_http_connections_per_address: int = Field(
        default=1_000,
        ge=0,
        description="HTTP connections of one address before a new one gets a 429; 0: any, for "
        "servers behind a proxy",
    )
    caller_requests_per_second: int = Field(
        default=1000,
        ge=0,
        description="calls a second that one known caller may make before RATE_LIMITED, two "
        "seconds' worth of them at once; 0 turns it off",
    )
    refused_calls_per_second: int = Field(
        default=10,
        ge=0,
        description="calls a second with wrong or no credentials that one address may make "
        "before RATE_LIMITED, ten seconds' worth of them at once; 0 turns it off",
    )
    max_watches_per_caller: int = Field(
        default=10_000,
        ge=0,
        description="streams of one known caller before QUOTA_EXCEEDED; 0 turns it off",
    )
    max_watches: int = Field(default=20_000, ge=0, description="streams before TOO_MANY_WATCHES")
    max_starting_watches: int = Field(
        default=5_000, ge=1, description="streams that may be about to begin before the same"
    )
    bookmark_interval_seconds: float = Field(
        default=15.0, gt=0, description="an idle watch says something this often"
    )
    stream_lifetime_seconds: float = Field(
        default=300.0, gt=0, description="a watch ends, in order, after one to two times this"
    )
    slow_consumer_seconds: float = Field(
        default=30.0,
        gt=0,
        description="a watch, or an answer over HTTP, ends when nothing of it is taken for so long",
    )
    poll_interval_seconds: float = Field(
        default=1.0, gt=0, description="the log is looked at so often whatever else wakes the tail"
    )
    listen: bool = Field(
        default=True,
        description="hear of other servers' commits by PostgreSQL's NOTIFY; a proxy that pools "
        "transactions keeps them back",
    )
    poll_interval_unheard_seconds: float = Field(
        default=0.2, gt=0, description="the poll where commits of others are not heard of"
    )
    freshness_seconds: float = Field(
        default=5.0,
        gt=0,
        description="NOT_SERVING, and the end of every watch, when the log could not be looked "
        "at for so long",
    )
    ring_bytes: int = Field(
        default=32 * 1024 * 1024, ge=0, description="recent changes kept in memory for watches"
    )
    hot_bytes: int = Field(
        default=64 * 1024 * 1024, ge=0, description="answers of hot reads kept in memory"
    )
    drain_seconds: float = Field(
        default=5.0, ge=0, description="between NOT_SERVING and the first Goodbye"
    )
    goodbye_seconds: float = Field(
        default=10.0, ge=0, description="Goodbyes are spread over so long at shutdown"
    )
    stop_seconds: float = Field(
        default=15.0, ge=0, description="running calls may take so long at shutdown"
    )
    secrets_key_file: str = Field(
        default="",
        description="keys that secrets of webhooks are encrypted with, one a line: the first "
        "encrypts, all decrypt; beside an SQLite file one is made",
    )
    webhook_allowed_schemes: list[str] = Field(
        default=["https"], description="schemes that URLs of webhooks may have"
    )
    webhook_allow_private_addresses: bool = Field(
        default=False,
        description="let webhooks lead into private networks, and to this host; whoever may "
        "create one can then reach them",
    )
    webhook_timeout_seconds: float = Field(
        default=10.0, gt=0, description="a webhook's receiver must answer within this"
    )
    webhook_retry_seconds: float = Field(
        default=1.0,
        gt=0,
        description="the longest pause after a first failed delivery; doubled each time",
    )
    webhook_retry_most_seconds: float = Field(
        default=600.0, gt=0, description="the longest pause between attempts at a delivery"
    )
    webhook_give_up_seconds: float = Field(
        default=259_200.0,
        ge=0,
        description="a delivery is dead, and the next one's turn, when nothing got through for so "
        "long",
    )
    webhook_senders: int = Field(default=64, ge=1, description="deliveries under way at once")
    webhook_history: int = Field(
        default=10_000, ge=1, description="deliveries of a webhook that are kept"
    )
    webhook_lease_seconds: float = Field(
        default=30.0,
        gt=0,
        description="another server takes over the webhooks of one that was killed after so long",
    )
    webhook_poll_seconds: float = Field(
        default=5.0, gt=0, description="webhooks look at the log so often whatever wakes them"
    )

    oidc_issuer: str = Field(
        default="",
        description="an OpenID Connect provider whose JSON Web Tokens are taken, such as "
        "https://login.example.com/realms/ml, exactly as it calls itself",
    )
    oidc_audience: str = Field(
        default="",
        validate_default=True,
        description="what a token of the provider must be for; needed with an issuer",
    )
    oidc_username_claim: str = Field(
        default="sub",
        description="the claim with the caller's name, which becomes oidc:NAME; a nested one as "
        "a JSON pointer",
    )
    oidc_groups_claim: str = Field(
        default="groups",
        description="the claim with the caller's groups, such as groups or /realm_access/roles",
    )
    oidc_required_claims: list[str] = Field(
        default_factory=list,
        validate_default=True,
        description="CLAIM=VALUE, such as repository_owner=example: tokens without it are "
        "refused; needed with a provider that vouches for everybody, as GitHub and Google do",
    )
    oidc_roles: list[str] = Field(
        default_factory=list,
        description="CLAIM=VALUE=ROLE or CLAIM=VALUE=ROLE@NAMESPACE, such as "
        "groups=ml-admins=admin@*: a role for whoever's claim has the value, in the namespace "
        "default unless one is given",
    )
    oidc_algorithms: list[str] = Field(
        default=list(ALGORITHMS), description="how the provider's tokens may be signed"
    )
    oidc_ca_file: str = Field(
        default="",
        description="the authorities, in PEM, that the provider's certificate is checked against "
        "instead of the system's",
    )
    oidc_leeway_seconds: int = Field(
        default=30, ge=0, le=600, description="the provider's clock may be off by so much"
    )

    @field_validator("oidc_issuer")
    @classmethod
    def _check_issuer(cls, url: str) -> str:
        if url and not is_secure_url(url, loopback=True):
            raise ValueError("must be https://HOST/PATH, or http:// on this host's loopback")
        if "?" in url or "#" in url:
            raise ValueError("must be without query and fragment")
        return url

    @field_validator("oidc_audience")
    @classmethod
    def _check_audience(cls, audience: str, given: ValidationInfo) -> str:
        if given.data.get("oidc_issuer") and not audience:
            raise ValueError(
                "must be set together with oidc_issuer, to the audience that the provider puts "
                "into tokens for this registry; else tokens for others would be taken"
            )
        return audience

    @field_validator("oidc_username_claim", "oidc_groups_claim")
    @classmethod
    def _check_claim(cls, claim: str) -> str:
        claims.check_claim(claim)
        return claim

    @field_validator("oidc_required_claims")
    @classmethod
    def _check_required(cls, conditions: list[str], given: ValidationInfo) -> list[str]:
        for condition in conditions:
            claims.Condition.parse(condition)
        issuer = (given.data.get("oidc_issuer") or "").rstrip("/")
        if issuer in PUBLIC_ISSUERS and not conditions:
            raise ValueError(
                f"must be set, because {issuer} vouches for the whole world: name a claim that "
                "only yours have, such as repository_owner=example, namespace_path=example or "
                "hd=example.com"
            )
        return conditions

    @field_validator("oidc_roles")
    @classmethod
    def _check_roles(cls, rules: list[str]) -> list[str]:
        for rule in rules:
            claims.Rule.parse(rule)
        return rules

    @field_validator("oidc_algorithms")
    @classmethod
    def _check_algorithms(cls, algorithms: list[str]) -> list[str]:
        others = [name for name in algorithms if name not in ALGORITHMS]
        if others or not algorithms:
            raise ValueError(f"must be some of {', '.join(ALGORITHMS)}")
        return algorithms

    @field_validator("upstream_tracking_uri")
    @classmethod
    def _check_upstream(cls, uri: str) -> str:
        if uri:
            parts = urlsplit(uri)
            if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
                raise ValueError("must be http://HOST:PORT or https://HOST:PORT")
            if parts.username is not None or parts.query or parts.fragment:
                raise ValueError("must be without credentials, query and fragment")
        return uri


def is_secure_url(url: str, *, loopback: bool) -> bool:
    """Tell whether nobody on the way can change what a URL leads to: https, or this very host."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return False
    if not host or port == 0 or parts.username is not None or not url.isprintable():
        return False
    if parts.scheme == "https":
        return True
    return loopback and parts.scheme == "http" and _is_loopback(host)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
