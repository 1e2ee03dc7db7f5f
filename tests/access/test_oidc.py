"""Which tokens are taken, from a real provider with real keys; and that no other one is."""

from __future__ import annotations

import json
import warnings
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stagewire.access import oidc
from stagewire.access.oidc import MOST_CHARACTERS, Verifier
from stagewire.claims import Claims
from stagewire.errors import RegistryError
from stagewire.rights import Scope
from stagewire.settings import ALGORITHMS
from tests.access.issuers import (
    AUDIENCE,
    NOW,
    Clock,
    Issuer,
    assemble,
    encode,
    make_key,
    public_jwk,
    public_pem,
)

LEEWAY = 30


def refuse(verifier: Verifier, token: str, reason: str = "CREDENTIALS_INVALID") -> str:
    """Have a token refused; tell why."""
    with pytest.raises(RegistryError) as caught:
        verifier.verify(token)
    assert caught.value.reason == reason
    assert verifier.known(token) is None
    # Nothing that was sent comes back, so that no log and no screen has it.
    assert not any(part in str(caught.value) for part in token.split(".") if len(part) > 4)
    return str(caught.value)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_token_of_the_provider_says_who_calls(algorithm: str) -> None:
    with Issuer(algorithm) as issuer:
        claims = issuer.verifier().verify(issuer.token(groups=["ml", "risk"]))

    assert claims == Claims("oidc:ana", ("ml", "risk"), (), NOW + 600 + LEEWAY)


def test_the_libraries_warnings_do_not_come_with_every_call() -> None:
    with Issuer("EdDSA") as issuer, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        issuer.more_keys.append(public_jwk(make_key("short"), kid="short"))
        issuer.verifier().verify(issuer.token())

    assert caught == []


def test_a_verified_token_is_known_until_it_ends(issuer: Issuer, clock: Clock) -> None:
    verifier = issuer.verifier(clock)
    token = issuer.token(exp=NOW + 60)

    assert verifier.known(token) is None
    claims = verifier.verify(token)
    assert verifier.known(token) == claims

    clock.seconds = 60 + LEEWAY - 1
    assert verifier.known(token) == claims
    clock.seconds = 60 + LEEWAY
    assert verifier.known(token) is None
    refuse(verifier, token, "CREDENTIALS_EXPIRED")


def test_a_token_of_other_letters_is_not_known(issuer: Issuer) -> None:
    verifier = issuer.verifier()
    token = issuer.token()
    verifier.verify(token)

    assert verifier.known(token[:-1]) is None
    assert verifier.known(token + "\ud800") is None
    assert verifier.known(token + "x" * MOST_CHARACTERS) is None


def test_what_is_known_of_tokens_is_bounded(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oidc, "CACHE_BYTES", 100_000)
    verifier = issuer.verifier()
    groups = [f"{number:03}" + "g" * 50 for number in range(50)]
    tokens = [issuer.token(jti=str(number), groups=groups) for number in range(40)]
    for token in tokens:
        verifier.verify(token)

    known = [verifier.known(token) is not None for token in tokens]

    assert known[-1]
    assert 5 < sum(known) < 20


def test_a_token_without_a_key_id_means_the_only_key(issuer: Issuer) -> None:
    nameless = issuer.token(header={"kid": None})
    null = assemble({"alg": "RS256", "kid": None}, issuer.claims(), issuer.keys["one"][1], "RS256")

    refuse(issuer.verifier(), null)
    assert issuer.verifier().verify(nameless).subject == "oidc:ana"

    issuer.keys["two"] = ("RS256", make_key("RS256", 2))
    refuse(issuer.verifier(), nameless)


def test_one_audience_of_several_is_enough(issuer: Issuer) -> None:
    token = issuer.token(aud=["account", AUDIENCE], azp="cli")

    assert issuer.verifier().verify(token).subject == "oidc:ana"


@pytest.mark.parametrize(
    ("claims", "reason", "why"),
    [
        ({"iss": "https://elsewhere.example"}, "CREDENTIALS_INVALID", "oidc_issuer"),
        ({"iss": None}, "CREDENTIALS_INVALID", "oidc_issuer"),
        ({"iss": ["x"]}, "CREDENTIALS_INVALID", "oidc_issuer"),
        ({"aud": "another"}, "CREDENTIALS_INVALID", "oidc_audience"),
        ({"aud": ["account", "another"]}, "CREDENTIALS_INVALID", "oidc_audience"),
        ({"aud": []}, "CREDENTIALS_INVALID", "oidc_audience"),
        ({"aud": None}, "CREDENTIALS_INVALID", "oidc_audience"),
        ({"aud": {AUDIENCE: 1}}, "CREDENTIALS_INVALID", "oidc_audience"),
        ({"aud": [AUDIENCE, 1]}, "CREDENTIALS_INVALID", "oidc_audience"),
        ({"exp": None}, "CREDENTIALS_INVALID", "exp"),
        ({"exp": str(NOW + 600)}, "CREDENTIALS_INVALID", "exp"),
        ({"exp": True}, "CREDENTIALS_INVALID", "exp"),
        ({"exp": NOW - LEEWAY}, "CREDENTIALS_EXPIRED", "ended"),
        ({"exp": -(10**400)}, "CREDENTIALS_EXPIRED", "ended"),
        ({"nbf": NOW + LEEWAY + 1}, "CREDENTIALS_INVALID", "not valid yet"),
        ({"nbf": "soon"}, "CREDENTIALS_INVALID", "not valid yet"),
        ({"iat": NOW + LEEWAY + 1}, "CREDENTIALS_INVALID", "future"),
        ({"azp": 5}, "CREDENTIALS_INVALID", "azp"),
        ({"azp": ""}, "CREDENTIALS_INVALID", "azp"),
        ({"jti": 5}, "CREDENTIALS_INVALID", "jti"),
        ({"events": {}}, "CREDENTIALS_INVALID", "event"),
        ({"cnf": {"jkt": "x"}}, "CREDENTIALS_INVALID", "bound to a key"),
        ({"sub": None}, "CREDENTIALS_INVALID", "sub"),
        ({"sub": 5}, "CREDENTIALS_INVALID", "sub"),
    ],
)
def test_a_claim_that_is_wrong_is_refused(
    issuer: Issuer, claims: dict[str, Any], reason: str, why: str
) -> None:
    assert why in refuse(issuer.verifier(), issuer.token(**claims), reason)


def test_clocks_may_differ_by_the_leeway(issuer: Issuer) -> None:
    verifier = issuer.verifier()

    verifier.verify(issuer.token(exp=NOW - LEEWAY + 1))
    verifier.verify(issuer.token(nbf=NOW + LEEWAY, iat=NOW + LEEWAY))


def test_an_end_beyond_all_time_is_the_end_of_time(issuer: Issuer) -> None:
    claims = issuer.verifier().verify(issuer.token(exp=10**400))

    assert claims.expires == 253_402_300_799


@pytest.mark.parametrize(
    "header",
    [
        {"typ": "logout+jwt"},
        {"typ": "secevent+jwt"},
        {"typ": 5},
        {"alg": 5},
        {"alg": "rs256"},
        {"alg": "RS256 "},
        {"kid": 5},
        {"kid": ["one"]},
        {"kid": ""},
        {"crit": ["exp"], "exp": 1},
        {"crit": []},
        {"crit": "b64"},
        {"crit": 5},
        {"b64": False},
        {"crit": ["b64"], "b64": False},
        {"x5c": 5},
        {"jku": "file:///etc/passwd"},
    ],
)
def test_a_header_that_is_not_plain_is_refused(issuer: Issuer, header: dict[str, Any]) -> None:
    refuse(issuer.verifier(), issuer.token(header=header))


@pytest.mark.parametrize("typ", ["JWT", "jwt", "at+jwt", "application/at+jwt"])
def test_an_access_or_identity_token_is_taken(issuer: Issuer, typ: str) -> None:
    token = issuer.token(header={"typ": typ, "x5t": "x", "nonce": "n"})

    assert issuer.verifier().verify(token).subject == "oidc:ana"


def test_the_public_key_is_no_secret_to_sign_with(issuer: Issuer) -> None:
    key = issuer.keys["one"][1]
    for secret in (public_pem(key), json.dumps(issuer.jwks["keys"][0]).encode(), b""):
        token = assemble({"alg": "HS256", "kid": "one"}, issuer.claims(), secret, "HS256")
        refuse(issuer.verifier(), token)
    # Not even where the provider publishes one as a key.
    issuer.more_keys.append({"kty": "oct", "kid": "shared", "k": encode(b"x" * 32)})
    token = assemble({"alg": "HS256", "kid": "shared"}, issuer.claims(), b"x" * 32, "HS256")
    refuse(issuer.verifier(), token)


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE", ""])
def test_a_token_must_be_signed(issuer: Issuer, algorithm: str) -> None:
    header, claims = {"alg": algorithm, "kid": "one"}, issuer.claims()
    unsigned = f"{encode(json.dumps(header).encode())}.{encode(json.dumps(claims).encode())}."

    refuse(issuer.verifier(), unsigned)
    refuse(issuer.verifier(), unsigned + encode(b"signature"))


def test_only_algorithms_of_the_settings_are_taken(issuer: Issuer) -> None:
    text = refuse(issuer.verifier(oidc_algorithms=["ES256", "PS256"]), issuer.token())

    assert "oidc_algorithms" in text


def test_a_key_signs_in_the_way_that_it_is_published_for(issuer: Issuer) -> None:
    key = issuer.keys["one"][1]
    for algorithm in ("PS256", "RS384"):
        header = {"alg": algorithm, "kid": "one"}
        refuse(issuer.verifier(), assemble(header, issuer.claims(), key, algorithm))


def test_a_key_for_encryption_verifies_nothing(issuer: Issuer) -> None:
    key = make_key("RS256", 2)
    issuer.more_keys.append(public_jwk(key, kid="enc", use="enc"))
    issuer.more_keys.append(public_jwk(key, kid="ops", key_ops=["encrypt"]))

    for kid in ("enc", "ops"):
        header = {"alg": "RS256", "kid": kid}
        refuse(issuer.verifier(), assemble(header, issuer.claims(), key, "RS256"))


def test_short_keys_are_not_trusted(issuer: Issuer) -> None:
    issuer.keys["short"] = ("RS256", make_key("short"))

    refuse(issuer.verifier(), issuer.token(kid="short"))


def test_a_key_in_the_token_is_never_trusted(issuer: Issuer) -> None:
    own = make_key("RS256", 7)
    with Issuer(keys={"one": ("RS256", own)}) as another:
        for more in (
            {"jwk": public_jwk(own, kid="one")},
            {"jku": f"{another.origin}/realms/ml/keys"},
            {"x5u": f"{another.origin}/realms/ml/keys"},
        ):
            header = {"alg": "RS256", "kid": "one", **more}
            refuse(issuer.verifier(), assemble(header, issuer.claims(), own, "RS256"))

        assert another.asked == []


def test_a_changed_token_is_refused(issuer: Issuer) -> None:
    verifier = issuer.verifier()
    token = issuer.token()
    header, payload, signature = token.split(".")
    admin = encode(json.dumps(issuer.claims(sub="admin")).encode())

    for changed in (
        f"{header}.{admin}.{signature}",
        f"{header}.{payload}.",
        f"{header}.{payload}.{signature[:-4]}",
        f"{header}.{payload}.{signature}=",
        f"{header}.{payload}={'.'}{signature}",
        f"{header}=.{payload}.{signature}",
        f"{header}.{payload}.{signature}.",
        f"{header}.{payload}",
        f".{payload}.{signature}",
        f"{header}..{signature}",
        f"{header}.{payload}\ud800.{signature}",
        f"{header}.{payload}\u00e9.{signature}",
        f" {token}",
        f"{token}\n",
        f"{token}.{token}",
        "..",
        "",
        "sw_id_secret",
        "é.é.é",
        "\ud800.a.b",
    ):
        refuse(verifier, changed)


def test_an_encrypted_token_is_refused_with_the_remedy(issuer: Issuer) -> None:
    assert "only sign it" in refuse(issuer.verifier(), "eyJh.b.c.d.e")


def test_a_huge_token_is_refused_unread(issuer: Issuer) -> None:
    token = issuer.token(padding="x" * MOST_CHARACTERS)

    assert str(MOST_CHARACTERS) in refuse(issuer.verifier(), token)
    assert issuer.asked == []


def signed(issuer: Issuer, payload: str, header: str = '{"alg":"RS256","kid":"one"}') -> str:
    """Have the provider sign what it would not."""
    return assemble(header, payload, issuer.keys["one"][1], "RS256")


def test_json_that_can_be_read_in_two_ways_is_refused(issuer: Issuer) -> None:
    verifier = issuer.verifier()
    plain = json.dumps(issuer.claims())
    twice = plain[:-1] + ', "sub": "admin"}'

    verifier.verify(signed(issuer, plain))
    refuse(verifier, signed(issuer, twice))
    refuse(verifier, signed(issuer, plain[:-1] + ', "a": {"b": 1, "b": 2}}'))
    refuse(verifier, signed(issuer, plain, '{"alg":"RS256","alg":"RS256","kid":"one"}'))
    refuse(verifier, signed(issuer, plain, '{"alg":"none","kid":"one","alg":"RS256"}'))


@pytest.mark.parametrize(
    "payload",
    [
        "[" * 10_000,
        '{"a":' * 2_000,
        "{}",
        "[]",
        "null",
        '"text"',
        "",
        "\ufeff{}",
        '{"exp": NaN}',
        '{"exp": Infinity}',
        '{"exp": 1' + "0" * 5_000 + "}",
        "{'sub': 'ana'}",
        "\x00",
        "\ud800",
    ],
)
def test_claims_that_are_no_claims_are_refused(issuer: Issuer, payload: str) -> None:
    refuse(issuer.verifier(), signed(issuer, payload))


def test_an_expiry_that_is_no_number_does_not_last_for_ever(issuer: Issuer) -> None:
    plain = json.dumps(issuer.claims(exp=12345))

    for never in ("1e999", "NaN", "Infinity", '"9999999999"', "[9999999999]", "null"):
        refuse(issuer.verifier(), signed(issuer, plain.replace("12345", never)))


@pytest.mark.parametrize(
    "header", ["[" * 10_000, '{"alg":' * 2_000, "[]", "null", "5", '"alg"', ""]
)
def test_a_header_that_is_no_header_is_refused(issuer: Issuer, header: str) -> None:
    refuse(issuer.verifier(), signed(issuer, "{}", header))


def test_a_token_of_another_provider_does_not_make_us_ask_ours(issuer: Issuer) -> None:
    with Issuer() as another:
        refuse(issuer.verifier(), another.token())

    assert issuer.asked == []


def test_names_groups_and_roles_come_from_the_claims_of_the_settings(issuer: Issuer) -> None:
    verifier = issuer.verifier(
        oidc_username_claim="preferred_username",
        oidc_groups_claim="/realm_access/roles",
        oidc_roles=["team=ml=editor", "/realm_access/roles=ops=admin@*", "team=risk=viewer@risk"],
    )

    claims = verifier.verify(
        issuer.token(preferred_username="Ana Lía", realm_access={"roles": ["ops"]}, team="ml")
    )

    assert claims.subject == "oidc:Ana Lía"
    assert claims.groups == ("ops",)
    assert claims.roles == (Scope("editor", "default"), Scope("admin", "*"))


def test_a_provider_that_vouches_for_everybody_is_narrowed_to_ours(issuer: Issuer) -> None:
    verifier = issuer.verifier(oidc_required_claims=["repository_owner=example"])

    assert verifier.verify(issuer.token(repository_owner="example")).subject == "oidc:ana"
    assert "repository_owner" in refuse(verifier, issuer.token(repository_owner="others"))
    refuse(verifier, issuer.token())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda children: (
        st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=9), children, max_size=4)
    ),
    max_leaves=10,
)
NAMES = ["iss", "aud", "sub", "exp", "nbf", "iat", "jti", "azp", "groups", "events", "cnf", "team"]
HEADERS = ["alg", "kid", "typ", "crit", "b64", "jwk", "jku", "x5u", "x5c", "x5t", "cty", "zip"]


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    claims=st.dictionaries(st.sampled_from(NAMES), JSON, max_size=4),
    header=st.dictionaries(st.sampled_from(HEADERS), JSON, max_size=3),
)
def test_whatever_the_provider_signs_is_taken_with_a_name_or_refused(
    hostile: tuple[Issuer, Verifier], claims: dict[str, Any], header: dict[str, Any]
) -> None:
    issuer, verifier = hostile
    token = issuer.token(header=header, **claims)
    found: Claims | str
    try:
        found = verifier.verify(token)
    except RegistryError as error:
        found = error.reason

    if isinstance(found, Claims):
        assert found.subject.startswith("oidc:")
        assert all(name.isprintable() for name in (found.subject, *found.groups))
        assert verifier.known(token) == found
    else:
        assert found in {"CREDENTIALS_INVALID", "CREDENTIALS_EXPIRED"}


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(token=st.text(max_size=60) | st.from_regex(r"[A-Za-z0-9_=-]*\.[\w=-]*\.[\w=-]*"))
def test_whatever_else_is_sent_is_refused(hostile: tuple[Issuer, Verifier], token: str) -> None:
    with pytest.raises(RegistryError) as caught:
        hostile[1].verify(token)

    assert caught.value.reason == "CREDENTIALS_INVALID"


@pytest.fixture
def hostile(issuer: Issuer) -> tuple[Issuer, Verifier]:
    return issuer, issuer.verifier(oidc_roles=["team=ml=editor"])
