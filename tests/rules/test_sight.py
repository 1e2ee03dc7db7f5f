"""What may be seen: by look-ups the same as grant by grant, and told apart by its epoch."""

from __future__ import annotations

import fnmatch
import itertools

import hypothesis.strategies as st
from hypothesis import given

from stagewire import rights
from stagewire.rights import ALL, EVERYTHING, Allowance, Scope

SPACES = ("default", "risk")
PLACES = (*SPACES, "elsewhere")
# Every pattern below is told from every other by some of these.
NAMES = ["".join(letters) for n in (1, 2, 3) for letters in itertools.product("abc", repeat=n)]
MODELS = st.sampled_from([ALL, "a", "b", "a*", "b*", "ab", "ab*", "aa", "aab"])
SCOPES = st.frozensets(
    st.builds(
        Scope,
        st.sampled_from(["viewer", "editor", "deployer"]),
        st.sampled_from([*SPACES, ALL]),
        MODELS,
    ),
    max_size=6,
)


def covers(scope: Scope, space: str, name: str) -> bool:
    if scope.namespace not in (ALL, space):
        return False
    return fnmatch.fnmatchcase(name, scope.model)


def seen(scopes: frozenset[Scope]) -> set[tuple[str, str]]:
    """Name what may be seen, grant by grant."""
    return {(s, n) for s in PLACES for n in NAMES if any(covers(one, s, n) for one in scopes)}


@given(SCOPES)
def test_what_is_seen_is_what_some_grant_shows(scopes: frozenset[Scope]) -> None:
    found = rights.of(scopes)

    assert {(s, n) for s in PLACES for n in NAMES if found.sees(s, n)} == seen(scopes)


@given(SCOPES)
def test_a_sight_is_as_short_as_can_be(scopes: frozenset[Scope]) -> None:
    sight = rights.of(scopes).sight

    whole = seen(frozenset(Scope("viewer", *one) for one in sight))
    assert whole == seen(scopes)
    for one in sight:
        rest = frozenset(Scope("viewer", *other) for other in sight if other != one)
        assert seen(rest) < whole or not seen(frozenset({Scope("viewer", *one)}))


@given(SCOPES, SCOPES)
def test_epochs_are_equal_where_the_same_is_seen_and_nowhere_else(
    one: frozenset[Scope], other: frozenset[Scope]
) -> None:
    same = seen(one) == seen(other)

    assert (rights.of(one).epoch == rights.of(other).epoch) == same


def test_who_administers_sees_more_than_models() -> None:
    viewer, admin = Scope("viewer"), Scope("admin")

    assert rights.of(frozenset({viewer})).epoch != rights.of(frozenset({admin})).epoch


def test_who_administers_everything_sees_what_everybody_sees_without_access_control() -> None:
    admin = rights.of(frozenset({Scope("admin", ALL), Scope("viewer", model="a")}))

    assert admin.epoch == EVERYTHING.epoch


def test_the_sight_of_ten_thousand_grants_is_found_soon() -> None:
    scopes = frozenset(Scope("viewer", model=f"model-{n}") for n in range(10_000))

    found = rights.Rights(Allowance.of(scope) for scope in scopes)

    assert len(found.sight) == 10_000
    assert found.sees("default", "model-9999")
    assert not found.sees("default", "model-10000")
