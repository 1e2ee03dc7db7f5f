"""Names, groups and roles from claims: no name is bent into one, and rules give what they say."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stagewire import claims, rights
from stagewire.claims import MOST_GROUPS, Claims, Condition, Reading, Rule
from stagewire.errors import RegistryError
from stagewire.rights import Scope

END = 2_000_000_000.0


def read(
    said: dict[str, Any], *rules: str, username: str = "sub", groups: str = "groups"
) -> Claims:
    reading = Reading(username, groups, rules=tuple(Rule.parse(rule) for rule in rules))
    return reading.read(said, END)


def refuse(said: dict[str, Any], **where: str) -> str:
    with pytest.raises(RegistryError) as caught:
        read(said, **where)
    assert caught.value.reason == "CREDENTIALS_INVALID"
    return str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "",
        None,
        5,
        ["ana"],
        "a" * 252,
        " ana",
        "ana ",
        "an\na",
        "an\x00a",
        "an\x1b[31ma",
        "an\u202ea",
        "an\u200ba",
        "an\ud800a",
        "an\u2028a",
    ],
)
def test_what_is_no_name_is_refused(name: Any) -> None:
    assert "sub" in refuse({"sub": name})
    if name is not None:
        assert "groups" in refuse({"sub": "ana", "groups": ["ml", name]})


@pytest.mark.parametrize(
    "name", ["ana", "Ana Lía", "repo:org/x:ref:refs/heads/main", "ana@example.com", "*", "a" * 251]
)
def test_a_name_is_taken_as_it_is(name: str) -> None:
    assert read({"sub": name}).subject == f"oidc:{name}"


def test_a_subject_and_a_group_fit_into_a_grant() -> None:
    longest = read({"sub": "a" * 251, "groups": ["b" * 250]})

    assert len(longest.subject) == 256
    assert len("group:" + longest.groups[0]) == 256
    refuse({"sub": "ana", "groups": ["b" * 251]})


def test_groups_are_a_list_or_one() -> None:
    assert read({"sub": "ana"}).groups == ()
    assert read({"sub": "ana", "groups": None}).groups == ()
    assert read({"sub": "ana", "groups": []}).groups == ()
    assert read({"sub": "ana", "groups": "ml"}).groups == ("ml",)
    assert read({"sub": "ana", "groups": ["b", "a", "b"]}).groups == ("b", "a")
    for other in (5, True, {"ml": True}, "", [["ml"]]):
        refuse({"sub": "ana", "groups": other})


def test_more_groups_than_can_be_kept_are_refused_not_cut() -> None:
    groups = [str(number) for number in range(MOST_GROUPS)]

    assert read({"sub": "ana", "groups": groups}).groups == tuple(groups)
    assert str(MOST_GROUPS) in refuse({"sub": "ana", "groups": [*groups, "more"]})


def test_an_address_counts_as_a_name_only_when_it_is_verified() -> None:
    ana = {"email": "ana@example.com"}

    assert read(ana, username="email").subject == "oidc:ana@example.com"
    verified: Any
    for verified in (True, "true"):
        said = {**ana, "email_verified": verified}
        assert read(said, username="email").subject == "oidc:ana@example.com"
    unverified: Any
    for unverified in (False, "false", None, 0, []):
        refuse({**ana, "email_verified": unverified}, username="email")
        refuse({**ana, "email_verified": unverified}, username="/email")
    assert read({"sub": "ana", "email_verified": False}).subject == "oidc:ana"


def test_claims_within_claims_are_found_by_a_pointer() -> None:
    said = {
        "sub": "ana",
        "realm_access": {"roles": ["ml"]},
        "kubernetes.io": {"namespace": "risk", "a/b": {"c~d": "deep"}},
        "https://example.com/groups": ["whole"],
        "a.b": "dotted",
    }

    assert read(said, groups="/realm_access/roles").groups == ("ml",)
    assert read(said, groups="https://example.com/groups").groups == ("whole",)
    assert read(said, username="/kubernetes.io/namespace").subject == "oidc:risk"
    assert read(said, username="/kubernetes.io/a~1b/c~0d").subject == "oidc:deep"
    assert read(said, username="a.b").subject == "oidc:dotted"
    assert read(said, groups="/realm_access/roles/0").groups == ()
    assert read(said, groups="/nowhere/at/all").groups == ()


def test_a_rule_gives_a_role_where_it_says() -> None:
    def roles(rule: str, **said: Any) -> tuple[Scope, ...]:
        return read({"sub": "ana", **said}, rule).roles

    assert roles("team=ml=viewer", team="ml") == (Scope("viewer", "default"),)
    assert roles("team=ml=viewer@risk", team="ml") == (Scope("viewer", "risk"),)
    assert roles("team=ml=admin@*", team=["x", "ml"]) == (Scope("admin", "*"),)
    # The first and the last sign divide.
    assert roles("dn=cn=ml,dc=x=editor", dn=["cn=ml,dc=x"]) == (Scope("editor", "default"),)
    assert roles("mail=a@b.c=editor", mail="a@b.c") == (Scope("editor", "default"),)
    assert roles("/a/b=ml=viewer", a={"b": "ml"}) == (Scope("viewer", "default"),)
    assert roles("sub=ana=viewer") == (Scope("viewer", "default"),)


def test_a_rule_gives_nothing_to_others() -> None:
    for team in ("ML", "ml ", "xml", "", None, True, 1, ["m", "l"], {"ml": 1}, [["ml"]]):
        assert read({"sub": "ana", "team": team}, "team=ml=viewer", "team=true=admin").roles == ()
    assert read({"sub": "ana"}, "team=ml=viewer", "team=None=admin").roles == ()


def test_every_required_claim_must_be_there() -> None:
    texts = ["hd=example.com", "team=ml", "/a/b=x=y"]
    required = tuple(Condition.parse(text) for text in texts)
    good = {"sub": "ana", "hd": "example.com", "team": ["ops", "ml"], "a": {"b": "x=y"}}
    reading = Reading(required=required)

    assert reading.read(good, END).subject == "oidc:ana"
    for claim, value in (
        ("hd", "example.org"),
        ("hd", "EXAMPLE.com"),
        ("hd", None),
        ("hd", {"example.com": 1}),
        ("team", ["ops"]),
        ("team", "xml"),
        ("a", {"b": "x"}),
        ("a", "x=y"),
    ):
        with pytest.raises(RegistryError, match="oidc_required_claims"):
            reading.read({**good, claim: value}, END)


@pytest.mark.parametrize("text", ["", "hd", "hd=", "=example.com", "/a~b=x", "a\nb=x"])
def test_a_requirement_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"can't be|JSON pointer"):
        Condition.parse(text)


def test_roles_add_up_in_the_order_of_the_rules() -> None:
    rules = ["t=a=viewer", "t=b=editor@risk", "u=a=viewer", "t=c=admin@*"]

    found = read({"sub": "ana", "t": ["b", "a"], "u": "a"}, *rules)

    assert found.roles == (Scope("viewer", "default"), Scope("editor", "risk"))


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ("", "write CLAIM=VALUE=ROLE"),
        ("groups", "write CLAIM=VALUE=ROLE"),
        ("groups=ml", "write CLAIM=VALUE=ROLE"),
        ("groups=ml=", "write CLAIM=VALUE=ROLE"),
        ("=ml=viewer", "write CLAIM=VALUE=ROLE"),
        ("groups==viewer", "write CLAIM=VALUE=ROLE"),
        ("groups=ml=viewer@", "write CLAIM=VALUE=ROLE"),
        ("groups=ml=owner", "no role 'owner'; take viewer"),
        ("groups=ml=Viewer", "no role 'Viewer'"),
        ("groups=ml=viewer@Risk", "can't be a namespace"),
        ("groups=ml=viewer@risk*", "can't be a namespace"),
        ("groups=ml=viewer@a@b", "can't be a namespace"),
        ("groups=ml=viewer@" + "a" * 64, "can't be a namespace"),
        ("/a~b=ml=viewer", "JSON pointer"),
        ("a\nb=ml=viewer", "can't be the name of a claim"),
    ],
)
def test_a_rule_that_means_nothing_is_refused_with_what_to_write(rule: str, why: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        Rule.parse(rule)

    assert why in str(caught.value)


@given(
    claim=st.text(min_size=1).filter(lambda text: "=" not in text),
    value=st.text(min_size=1),
    role=st.sampled_from(list(rights.ROLES)),
    namespace=st.sampled_from(["", "@risk", "@*"]),
)
def test_every_rule_that_is_taken_gives_its_role_to_its_value(
    claim: str, value: str, role: str, namespace: str
) -> None:
    try:
        rule = Rule.parse(f"{claim}={value}={role}{namespace}")
    except ValueError:
        assert claim.startswith("/") or not claim.isprintable()
        return

    assert rule.condition == (claim, value)
    assert rule.role == Scope(role, namespace[1:] or "default")
    assert claims.find({claim: value}, claim) == (None if claim.startswith("/") else value)
