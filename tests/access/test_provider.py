"""Keys that come, go, and can't be had: a provider is asked seldom, and believed for a while."""

from __future__ import annotations

import base64
import gzip
import json
import ssl
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc.errors import SecurityWarning

from stagewire.access import provider
from stagewire.access.oidc import Verifier
from stagewire.access.provider import (
    LIFETIME_SECONDS,
    MOST_BYTES,
    MOST_WAITING,
    PAUSE_SECONDS,
    STALE_SECONDS,
)
from stagewire.errors import RegistryError
from stagewire.store.database import StartRefusal
from tests.access.issuers import (
    DISCOVERY,
    JWKS,
    NOW,
    Answer,
    Clock,
    Issuer,
    assemble,
    drip,
    encode,
    make_key,
    public_jwk,
    reply,
)
from tests.factories import eventually

if TYPE_CHECKING:
    from http.server import BaseHTTPRequestHandler

# Long enough for every test: only keys end here.
ALWAYS = NOW + 10**7


def reason(verifier: Verifier, token: str) -> str:
    """Verify; tell what it comes to."""
    try:
        verifier.verify(token)
    except RegistryError as error:
        return error.reason
    return "taken"


def rotate(issuer: Issuer, kid: str, *, withdraw: str = "") -> None:
    """Have the provider sign with a new key."""
    issuer.keys[kid] = ("ES256", make_key("ES256", len(kid)))
    if withdraw:
        del issuer.keys[withdraw]


def late(issuer: Issuer, gate: threading.Event) -> Answer:
    """Answer as ever, but not before the gate is open."""

    def answer(listener: BaseHTTPRequestHandler) -> None:
        gate.wait(30)
        issuer.answer(listener)

    return answer


def redirect(status: int, location: str) -> Answer:
    return lambda listener: reply(listener, status, Location=location)


def test_a_new_key_is_asked_for_when_a_token_names_it(issuer: Issuer, clock: Clock) -> None:
    verifier = issuer.verifier(clock)
    verifier.verify(issuer.token())
    rotate(issuer, "second")
    clock.seconds = PAUSE_SECONDS

    assert reason(verifier, issuer.token(kid="second")) == "taken"
    # Where the keys are was known.
    assert issuer.asked == [DISCOVERY, JWKS, JWKS]


def test_a_key_withdrawn_is_missed_within_its_lifetime(issuer: Issuer, clock: Clock) -> None:
    verifier = issuer.verifier(clock)
    token = issuer.token(exp=ALWAYS)
    verifier.verify(token)
    rotate(issuer, "second", withdraw="one")
    clock.seconds = LIFETIME_SECONDS - 1
    assert verifier.known(token) is not None

    clock.seconds = LIFETIME_SECONDS

    assert verifier.known(token) is None
    assert reason(verifier, token) == "CREDENTIALS_INVALID"


def test_a_key_seen_withdrawn_takes_its_tokens_with_it(issuer: Issuer, clock: Clock) -> None:
    verifier = issuer.verifier(clock)
    token = issuer.token(exp=ALWAYS)
    verifier.verify(token)
    rotate(issuer, "second", withdraw="one")
    clock.seconds = PAUSE_SECONDS

    assert reason(verifier, issuer.token(kid="second")) == "taken"

    assert verifier.known(token) is None
    assert reason(verifier, token) == "CREDENTIALS_INVALID"


def test_a_key_of_the_same_name_is_not_the_same_key(issuer: Issuer, clock: Clock) -> None:
    verifier = issuer.verifier(clock)
    token = issuer.token(exp=ALWAYS)
    verifier.verify(token)
    issuer.keys["one"] = ("RS256", make_key("RS256", 9))
    clock.seconds = LIFETIME_SECONDS

    assert reason(verifier, issuer.token(exp=ALWAYS)) == "taken"
    assert verifier.known(token) is None


def test_keys_that_moved_are_found_again(issuer: Issuer, clock: Clock) -> None:
    verifier = issuer.verifier(clock)
    verifier.verify(issuer.token())
    moved = json.dumps({"issuer": issuer.url, "jwks_uri": f"{issuer.origin}/moved"}).encode()
    keys = json.dumps(issuer.jwks).encode()
    issuer.answers[DISCOVERY] = status(200, moved)
    issuer.answers[JWKS] = status(404)
    issuer.answers["/moved"] = status(200, keys)
    clock.seconds = LIFETIME_SECONDS

    assert reason(verifier, issuer.token(exp=ALWAYS)) == "taken"
    assert issuer.asked[-2:] == [DISCOVERY, "/moved"]


def test_random_key_ids_do_not_make_us_ask_each_time(issuer: Issuer, clock: Clock) -> None:
    verifier = issuer.verifier(clock)
    verifier.verify(issuer.token())
    asked = len(issuer.asked)

    for second in range(60):
        clock.seconds = float(second)
        for number in range(20):
            token = issuer.token(header={"kid": f"{second}-{number}"})
            assert reason(verifier, token) == "CREDENTIALS_INVALID"

    assert len(issuer.asked) - asked <= 60 / PAUSE_SECONDS
    assert reason(verifier, issuer.token()) == "taken"


def test_callers_at_once_ask_once(issuer: Issuer) -> None:
    verifier = issuer.verifier()
    gate = threading.Event()
    issuer.answers[DISCOVERY] = late(issuer, gate)
    tokens = [issuer.token(jti=str(number)) for number in range(MOST_WAITING)]
    with ThreadPoolExecutor(MOST_WAITING) as pool:
        found = [pool.submit(reason, verifier, token) for token in tokens]
        eventually(lambda: verifier._provider._waiting._value == 0)
        # All of them wait, and one more would be one too many.
        assert reason(verifier, tokens[0]) == "IDENTITY_PROVIDER_UNAVAILABLE"
        gate.set()
        assert [one.result() for one in found] == ["taken"] * MOST_WAITING

    assert issuer.asked == [DISCOVERY, JWKS]


def test_the_last_keys_are_good_while_the_provider_is_down(issuer: Issuer, clock: Clock) -> None:
    verifier = issuer.verifier(clock)
    token = issuer.token(exp=ALWAYS)
    verifier.verify(token)
    unknown = issuer.token(header={"kid": "another"})
    issuer.stop()

    for age in (1, LIFETIME_SECONDS, 3600, STALE_SECONDS - 1):
        clock.seconds = age
        assert reason(verifier, token) == "taken"
        assert verifier.known(token) is not None
        # Nobody can tell whether the provider has that one by now.
        expected = "CREDENTIALS_INVALID" if age < PAUSE_SECONDS else "IDENTITY_PROVIDER_UNAVAILABLE"
        assert reason(verifier, unknown) == expected

    clock.seconds = STALE_SECONDS
    assert verifier.known(token) is not None
    clock.seconds += LIFETIME_SECONDS
    assert verifier.known(token) is None
    assert reason(verifier, token) == "IDENTITY_PROVIDER_UNAVAILABLE"

    issuer.start()
    assert reason(verifier, token) == "IDENTITY_PROVIDER_UNAVAILABLE"
    clock.seconds += PAUSE_SECONDS
    assert reason(verifier, token) == "taken"


def test_a_provider_that_is_down_at_first_is_asked_again_after_a_pause(
    issuer: Issuer, clock: Clock
) -> None:
    issuer.stop()
    verifier = issuer.verifier(clock)

    with pytest.raises(RegistryError) as caught:
        verifier.fetch_keys()
    assert caught.value.code == "UNAVAILABLE"
    assert caught.value.retry_after_seconds == PAUSE_SECONDS
    assert reason(verifier, issuer.token()) == "IDENTITY_PROVIDER_UNAVAILABLE"

    issuer.start()
    clock.seconds = PAUSE_SECONDS
    verifier.fetch_keys()
    issuer.stop()
    assert reason(verifier, issuer.token()) == "taken"


def test_one_caller_asks_and_the_others_take_the_old_keys(issuer: Issuer, clock: Clock) -> None:
    verifier = issuer.verifier(clock)
    tokens = [issuer.token(jti=str(number), exp=ALWAYS) for number in range(20)]
    verifier.verify(tokens[0])
    gate = threading.Event()
    issuer.answers[DISCOVERY] = late(issuer, gate)
    issuer.asked.clear()
    clock.seconds = LIFETIME_SECONDS

    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(reason, verifier, tokens[1])
        eventually(lambda: issuer.asked == [DISCOVERY])
        assert [reason(verifier, token) for token in tokens[2:]] == ["taken"] * 18
        assert not asking.done()
        gate.set()
        assert asking.result() == "taken"

    assert issuer.asked == [DISCOVERY, JWKS]


def status(number: int, body: bytes = b"") -> Answer:
    return lambda listener: reply(listener, number, body)


def text(body: str) -> Answer:
    return status(200, body.encode())


def discovery(**said: Any) -> Answer:
    return text(json.dumps(said))


def issued_by(issuer: Issuer, name: object) -> Answer:
    """Answer as ever, but with another name for itself."""
    return discovery(issuer=name, jwks_uri=f"{issuer.origin}{JWKS}")


BROKEN: dict[str, tuple[str, Callable[[Issuer], Answer]]] = {
    "no such page": (DISCOVERY, lambda _: status(404)),
    "a fault": (JWKS, lambda issuer: status(500, json.dumps(issuer.jwks).encode())),
    "no JSON": (JWKS, lambda _: text("<html>")),
    "no object": (JWKS, lambda issuer: text(json.dumps([issuer.jwks]))),
    "no UTF": (JWKS, lambda _: status(200, b"\xff\xfe\xfa")),
    "too deep": (JWKS, lambda _: text("[" * 100_000)),
    "too long": (JWKS, lambda issuer: text(json.dumps(issuer.jwks) + " " * MOST_BYTES)),
    "no keys": (JWKS, lambda _: text('{"keys": []}')),
    "keys of no list": (JWKS, lambda issuer: text(json.dumps({"keys": issuer.jwks}))),
    "no list of keys": (JWKS, lambda _: text('{"keys": ["one", null, 5, {}, {"kty": []}]}')),
    "another issuer": (DISCOVERY, lambda issuer: issued_by(issuer, "https://evil.example")),
    "nearly the issuer": (DISCOVERY, lambda issuer: issued_by(issuer, f"{issuer.url}/")),
    "several issuers": (DISCOVERY, lambda issuer: issued_by(issuer, [issuer.url])),
    "no issuer": (DISCOVERY, lambda issuer: issued_by(issuer, None)),
    "no address": (DISCOVERY, lambda issuer: discovery(issuer=issuer.url)),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_provider_that_makes_no_sense_is_not_available(kind: str) -> None:
    with Issuer() as issuer:
        path, answer = BROKEN[kind]
        issuer.answers[path] = answer(issuer)

        assert reason(issuer.verifier(), issuer.token()) == "IDENTITY_PROVIDER_UNAVAILABLE"


@pytest.mark.parametrize(
    "address",
    [
        "http://keys.example/keys",
        "http://10.0.0.1/keys",
        "file:///etc/passwd",
        "https://user:password@127.0.0.1/keys",
        "https://",
        "https://[::1/keys",
        "keys",
        "",
        None,
        5,
    ],
)
def test_keys_are_only_taken_where_nobody_can_change_them_on_the_way(
    issuer: Issuer, address: Any
) -> None:
    issuer.answers[DISCOVERY] = discovery(issuer=issuer.url, jwks_uri=address)

    assert reason(issuer.verifier(), issuer.token()) == "IDENTITY_PROVIDER_UNAVAILABLE"


@pytest.mark.parametrize("path", [DISCOVERY, JWKS])
def test_a_redirect_is_not_followed(issuer: Issuer, path: str) -> None:
    with Issuer() as another:
        for status in (301, 302, 303, 307, 308):
            issuer.answers[path] = redirect(status, f"{another.origin}{path}")
            assert reason(issuer.verifier(), issuer.token()) == "IDENTITY_PROVIDER_UNAVAILABLE"

        assert another.asked == []


def test_what_is_compressed_is_not_blown_up(issuer: Issuer) -> None:
    small = gzip.compress(json.dumps(issuer.jwks).encode())
    issuer.answers[JWKS] = lambda listener: reply(listener, 200, small, Content_Encoding="gzip")

    # Nobody asked for that, and a few bytes could be gigabytes.
    assert reason(issuer.verifier(), issuer.token()) == "IDENTITY_PROVIDER_UNAVAILABLE"


def test_a_provider_that_never_ends_its_answer_is_given_up(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provider, "FETCH_SECONDS", 0.5)
    gate = threading.Event()
    issuer.answers[JWKS] = lambda listener: drip(listener, gate)
    began = time.monotonic()

    assert reason(issuer.verifier(), issuer.token()) == "IDENTITY_PROVIDER_UNAVAILABLE"

    gate.set()
    # Each byte came in time: the whole did not.
    assert time.monotonic() - began < 20


def test_one_broken_key_spoils_no_other(issuer: Issuer) -> None:
    good = public_jwk(make_key("RS256"))
    issuer.more_keys[:] = [
        None,
        "key",
        {},
        {"kty": "RSA"},
        {"kty": ["RSA"]},
        {"kty": "AKP", "kid": "one", "pub": "x"},
        {**good, "e": "AA"},
        {**good, "n": "!" * 400},
        {**good, "n": 5},
        {**good, "use": "nonsense"},
        {**good, "key_ops": "verify"},
        {**good, "kid": 5},
        {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "kid": "one"},
        {"kty": "EC", "crv": "P-1", "x": "AA", "y": "AA"},
        {"kty": "OKP", "crv": "Ed25519", "x": "AA"},
        {"kty": "oct", "k": "AA", "kid": "one"},
    ]

    assert reason(issuer.verifier(), issuer.token()) == "taken"


GIVEN = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=10)
    | st.lists(st.text(max_size=3), max_size=3)
    | st.from_regex(r"[A-Za-z0-9_-]{0,400}", fullmatch=True)
    | st.sampled_from(["sig", "enc", "P-384", "Ed448", "X25519", "RSA", "EC", "OKP", "oct"])
)
FIELDS = ["kty", "use", "alg", "kid", "key_ops", "crv", "x", "y", "n", "e", "d", "p", "q", "x5c"]


@settings(max_examples=500, deadline=None)
@given(
    algorithm=st.sampled_from(["RS256", "ES256", "EdDSA"]),
    changes=st.dictionaries(st.sampled_from(FIELDS), GIVEN, min_size=1, max_size=3),
)
def test_whatever_a_key_is_it_spoils_no_other(algorithm: str, changes: dict[str, Any]) -> None:
    good = public_jwk(make_key("RS256"), kid="good")
    strange = {**public_jwk(make_key(algorithm, 3)), **changes}

    with warnings.catch_warnings():
        # Of a key whose modulus begins with zeros the library warns, and no provider has one.
        warnings.simplefilter("ignore", SecurityWarning)
        kids = [key.jwk.kid for key in provider._read_keys({"keys": [strange, good]})]

    assert kids[-1] == "good"


def test_zeros_do_not_make_a_short_key_long(issuer: Issuer) -> None:
    short = make_key("short")
    published = public_jwk(short, kid="short")
    padded = encode(bytes(128) + base64.urlsafe_b64decode(published["n"] + "=="))
    issuer.more_keys.append({**published, "n": padded})
    token = assemble({"alg": "RS256", "kid": "short"}, issuer.claims(), short, "RS256")

    with pytest.warns(SecurityWarning):
        assert reason(issuer.verifier(), token) == "CREDENTIALS_INVALID"


def test_two_keys_of_one_name_are_told_apart_by_what_they_are_for(issuer: Issuer) -> None:
    key = make_key("ES256", 5)
    issuer.more_keys.append(public_jwk(key, kid="one"))

    verifier = issuer.verifier()

    assert reason(verifier, issuer.token()) == "taken"


def certificates(folder: Path) -> tuple[ssl.SSLContext, Path]:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    return context, folder / "ca.pem"


def test_the_providers_certificate_must_be_trusted(tmp_path: Path) -> None:
    context, authorities = certificates(tmp_path)
    with Issuer(tls=context) as issuer:
        trusting = issuer.verifier(oidc_ca_file=str(authorities))
        assert reason(trusting, issuer.token()) == "taken"
        issuer.asked.clear()

        assert reason(issuer.verifier(), issuer.token()) == "IDENTITY_PROVIDER_UNAVAILABLE"
        assert issuer.asked == []


def test_a_provider_with_tls_has_its_keys_behind_tls(tmp_path: Path) -> None:
    context, authorities = certificates(tmp_path)
    with Issuer() as plain, Issuer(tls=context) as issuer:
        said = {"issuer": issuer.url, "jwks_uri": f"{plain.origin}{JWKS}"}
        issuer.answers[DISCOVERY] = discovery(**said)
        verifier = issuer.verifier(oidc_ca_file=str(authorities))

        assert reason(verifier, issuer.token()) == "IDENTITY_PROVIDER_UNAVAILABLE"
        assert plain.asked == []


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_file_of_authorities_that_is_none_is_said_at_the_start(
    issuer: Issuer, tmp_path: Path, content: str | None
) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)

    with pytest.raises(StartRefusal, match="oidc_ca_file"):
        issuer.verifier(oidc_ca_file=str(path))
