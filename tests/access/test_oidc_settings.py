"""What the server refuses to be told of a provider, in words that say what to tell it."""

from __future__ import annotations

import pydantic
import pytest
from typer.testing import CliRunner

from stagewire.cli.main import app
from stagewire.settings import ALGORITHMS, PUBLIC_ISSUERS, Settings


def test_without_an_issuer_nothing_is_asked_for() -> None:
    assert Settings(oidc_issuer="").oidc_audience == ""


@pytest.mark.parametrize(
    "issuer",
    [
        "https://login.example.com",
        "https://login.example.com/",
        "https://login.example.com:8443/realms/ml",
        "http://127.0.0.1:8080/realms/ml",
        "http://[::1]:8080",
        "http://localhost:8080",
    ],
)
def test_an_issuer_is_taken_as_it_calls_itself(issuer: str) -> None:
    assert Settings(oidc_issuer=issuer, oidc_audience="stagewire").oidc_issuer == issuer


@pytest.mark.parametrize(
    "issuer",
    [
        "login.example.com",
        "http://login.example.com",
        "http://10.0.0.1",
        "http://127.0.0.1.example.com",
        "http://localhost.example.com",
        "https://",
        "https://login.example.com:0",
        "https://login.example.com:port",
        "https://me:secret@login.example.com",
        "https://login.example.com?tenant=1",
        "https://login.example.com#ml",
        "https://login.example.com/\n",
        "https://[::1",
        "ftp://login.example.com",
        "file:///etc",
    ],
)
def test_an_issuer_that_others_could_play_is_refused(issuer: str) -> None:
    with pytest.raises(pydantic.ValidationError, match="must be"):
        Settings(oidc_issuer=issuer, oidc_audience="stagewire")


def test_an_issuer_needs_an_audience() -> None:
    with pytest.raises(
        pydantic.ValidationError, match=r"oidc_audience\n.*together with oidc_issuer"
    ):
        Settings(oidc_issuer="https://login.example.com")


@pytest.mark.parametrize("issuer", sorted(PUBLIC_ISSUERS))
def test_a_provider_for_the_whole_world_needs_a_claim_that_only_ours_have(issuer: str) -> None:
    for spelled in (issuer, f"{issuer}/"):
        with pytest.raises(pydantic.ValidationError, match=r"oidc_required_claims\n.*whole world"):
            Settings(oidc_issuer=spelled, oidc_audience="stagewire")

    ours = ["repository_owner=example"]
    Settings(oidc_issuer=issuer, oidc_audience="stagewire", oidc_required_claims=ours)
    # An enterprise's own is not the world's.
    Settings(oidc_issuer=f"{issuer}/example", oidc_audience="stagewire")


@pytest.mark.parametrize("text", ["hd", "hd=", "=example.com"])
def test_a_requirement_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(pydantic.ValidationError, match="write CLAIM=VALUE"):
        Settings(oidc_required_claims=[text])


@pytest.mark.parametrize("algorithm", ["HS256", "none", "rs256", "ES256K", ""])
def test_no_secret_is_shared_with_the_provider(algorithm: str) -> None:
    with pytest.raises(pydantic.ValidationError, match="RS256"):
        Settings(oidc_algorithms=["RS256", algorithm])
    with pytest.raises(pydantic.ValidationError, match="RS256"):
        Settings(oidc_algorithms=[])

    assert not any(name.startswith("HS") for name in ALGORITHMS)


@pytest.mark.parametrize("name", ["oidc_username_claim", "oidc_groups_claim"])
def test_a_claim_must_have_a_name(name: str) -> None:
    for claim in ("", "a\nb", "/a~b"):
        with pytest.raises(pydantic.ValidationError, match=name):
            Settings(**{name: claim})  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize("seconds", [-1, 601])
def test_clocks_may_not_be_off_by_any_amount(seconds: int) -> None:
    with pytest.raises(pydantic.ValidationError, match="oidc_leeway_seconds"):
        Settings(oidc_leeway_seconds=seconds)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--oidc-roles", "groups=ml=owner"], "there is no role 'owner'; take viewer"),
        (["--oidc-issuer", "http://login.example.com"], "must be https://HOST/PATH"),
        (["--oidc-issuer", "https://login.example.com"], "--oidc-audience or"),
    ],
)
def test_the_command_says_which_option_is_wrong(given: list[str], said: str) -> None:
    result = CliRunner().invoke(app, ["serve", *given])

    assert result.exit_code == 2
    assert said in " ".join(result.output.replace("│", " ").split())
