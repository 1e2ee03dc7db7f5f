"""What grants add up to: judged against every place of a small universe, one by one."""

from __future__ import annotations

import shlex
from dataclasses import replace
from itertools import product

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stagewire import pb, rights
from stagewire.callers import Caller
from stagewire.errors import RegistryError
from stagewire.rights import (
    ADMINISTER,
    ALL,
    MOVE,
    NARROWED_BY_ALIAS,
    NARROWED_BY_STAGE,
    REPORT,
    ROLES,
    SEE,
    Permission,
    Rights,
    Scope,
)
from stagewire.service import grants
from stagewire.store import schema, visibility
from stagewire.store.transactions import Tx

SPACES = ("a", "b")
# Every name of three letters or fewer: as many as tell any two patterns of two letters apart.
MODELS = tuple("".join(word) for n in (1, 2, 3) for word in product("xy", repeat=n))
PATTERNS = (ALL, "x", "y", "xy", "yx", "x*", "y*", "xy*", "xx*")
STAGES = ("Production", "Staging")
ALIASES = ("champion", "other")
PLACES = ({}, *({"stage": s.lower()} for s in STAGES), *({"alias": a} for a in ALIASES))
DEEDS = [(p, place) for p, place in product(Permission, PLACES) if p in (MOVE, REPORT) or not place]


@st.composite
def scopes(draw: st.DrawFn) -> Scope:
    """Make what may be granted, and nothing else."""
    role = draw(st.sampled_from(sorted(ROLES)))
    scope = Scope(
        role,
        draw(st.sampled_from((*SPACES, ALL))),
        ALL if role == "admin" else draw(st.sampled_from(PATTERNS)),
    )
    narrowed = [scope]
    if role in NARROWED_BY_STAGE:
        narrowed += [replace(scope, stage=stage) for stage in STAGES]
    if role in NARROWED_BY_ALIAS:
        narrowed += [replace(scope, alias=alias) for alias in ALIASES]
    return draw(st.sampled_from(narrowed))


SETS = st.frozensets(scopes(), max_size=5)


def matches(pattern: str, model: str) -> bool:
    return model.startswith(pattern.removesuffix(ALL)) if ALL in pattern else model == pattern


def allows(scope: Scope, permission: Permission, space: str, model: str, **place: str) -> bool:
    """Say plainly what one grant allows."""
    at_place = (
        not place
        or not (scope.stage or scope.alias)
        or place == {"stage": scope.stage.lower()}
        or place == {"alias": scope.alias}
    )
    covered = scope.namespace in (ALL, space) and matches(scope.model, model)
    return bool(covered and at_place and ROLES[scope.role] & permission)


def deeds(found: Rights) -> set[object]:
    """List everything that may be done to any model of the universe."""
    return {
        (permission, space, model, *place.items())
        for (permission, place), space, model in product(DEEDS, SPACES, MODELS)
        if found.may(permission, space, model, **place)
    }


def sights(found: Rights) -> set[object]:
    models = {(s, m) for s, m in product((*SPACES, "later"), MODELS) if found.sees(s, m)}
    spaces = {s for s in (*SPACES, "later") if found.sees_namespace(s)}
    # Webhooks and grants are shown to those who run their namespace, and to nobody else.
    run = {s for s in (*SPACES, ALL) if found.administers(s)}
    return {frozenset(models), ("spaces", *sorted(spaces)), ("run", *sorted(run))}


@given(SETS)
def test_what_may_be_done_is_the_sum_of_the_grants(granted: frozenset[Scope]) -> None:
    found = rights.of(granted)

    for (permission, place), space, model in product(DEEDS, SPACES, MODELS):
        expected = any(allows(g, permission, space, model, **place) for g in granted)
        assert found.may(permission, space, model, **place) == expected


@given(SETS)
def test_a_namespace_is_run_only_by_a_grant_on_all_of_it(granted: frozenset[Scope]) -> None:
    found = rights.of(granted)

    for permission, space in product(Permission, (*SPACES, ALL)):
        expected = any(
            g.model == ALL and g.namespace in (ALL, space) and ROLES[g.role] & permission
            for g in granted
        )
        # Whoever administers the whole registry may do what nobody granted them.
        assert found.may(permission, space) == (expected or found.everything)


@given(SETS)
def test_seeing_is_what_every_grant_allows(granted: frozenset[Scope]) -> None:
    found = rights.of(granted)

    for space, model in product(SPACES, MODELS):
        assert found.sees(space, model) == found.may(SEE, space, model)
    for space in SPACES:
        assert found.sees_namespace(space) == any(g.namespace in (ALL, space) for g in granted)


@given(SETS, SETS)
def test_another_grant_takes_nothing_away(some: frozenset[Scope], more: frozenset[Scope]) -> None:
    both = rights.of(some | more)

    assert deeds(rights.of(some)) | deeds(rights.of(more)) == deeds(both)


@given(SETS, SETS)
def test_a_tokens_scopes_never_add_anything(
    granted: frozenset[Scope], narrowed_to: frozenset[Scope]
) -> None:
    plain, narrowed = rights.of(granted), rights.of(granted, narrowed_to)

    if not narrowed_to:
        assert deeds(narrowed) == deeds(plain)
        return
    assert deeds(narrowed) <= deeds(plain) & deeds(rights.of(narrowed_to))
    if not plain.everything:
        assert not narrowed.everything
    for space in (*SPACES, ALL):
        assert narrowed.administers(space) <= plain.administers(space)


@given(scopes(), scopes())
def test_a_token_may_do_what_a_grant_and_a_scope_both_allow(one: Scope, other: Scope) -> None:
    narrowed = rights.of(frozenset({one}), frozenset({other}))
    both = deeds(rights.of(frozenset({one}))) & deeds(rights.of(frozenset({other})))

    # At no place at all is no moving: two places that differ have none in common.
    nowhere = {
        (permission, space, model)
        for permission, space, model in product((MOVE, REPORT), SPACES, MODELS)
        if not any(narrowed.may(permission, space, model, **place) for place in PLACES[1:])
    }
    assert deeds(narrowed) == both - nowhere


@given(SETS, SETS)
def test_an_epoch_tells_what_may_be_seen_and_nothing_else(
    some: frozenset[Scope], others: frozenset[Scope]
) -> None:
    one, other = rights.of(some), rights.of(others)

    assert (one.epoch == other.epoch) == (sights(one) == sights(other))


@given(SETS, SETS)
def test_what_is_shown_of_a_caller_promises_nothing_more(
    granted: frozenset[Scope], narrowed_to: frozenset[Scope]
) -> None:
    found = rights.of(granted, narrowed_to)
    shown = rights.scopes_of(found.allowances)

    # Each is a scope that might be granted, and together they allow nothing that is not.
    for scope in shown:
        role = pb.Role.Value(f"ROLE_{scope.role.upper()}")
        grants.checked(
            pb.Scope(
                role=role,
                namespace=scope.namespace,
                model=scope.model,
                stage=scope.stage,
                alias=scope.alias,
            ),
            "scope",
        )
    again = rights.of(frozenset(shown))
    assert deeds(again) <= deeds(found)
    assert sights(again) == sights(found)


@given(
    SETS,
    st.sampled_from(DEEDS),
    st.sampled_from((*SPACES, ALL)),
    st.sampled_from((ALL, *MODELS)),
)
def test_a_refusal_names_the_grant_that_allows_just_that(
    granted: frozenset[Scope], deed: tuple[Permission, dict[str, str]], space: str, model: str
) -> None:
    permission, place = deed
    model = ALL if ALL in (space, model) or permission is ADMINISTER else model
    found = rights.of(granted)
    if found.may(permission, space, model, **place):
        found.demand(permission, space, model, **place)
        return

    with pytest.raises(RegistryError) as caught:
        found.demand(permission, space, model, caller="ann", **place)
    refusal = caught.value

    named = dict(refusal.metadata)
    assert refusal.reason == "PERMISSION_DENIED"
    assert named.pop("subject") == "ann"
    helped = rights.of(granted | {Scope(**named)})
    helped.demand(permission, space, model, **place)
    # It is on that model alone, and of all roles none that would do allows less.
    alone = rights.of(frozenset({Scope(**named)}))
    least = ROLES[named["role"]]
    assert named["namespace"] == space
    assert named["model"] == model
    assert alone.may(permission, space, model, **place)
    assert not any(
        allowed & permission and allowed != least and allowed in least for allowed in ROLES.values()
    )
    elsewhere = [p for p in PLACES[1:] if place and p != place]
    assert not any(alone.may(permission, space, model, **p) for p in elsewhere)


@pytest.mark.parametrize("name", ["it's", "x; reboot", "$(reboot)", "a b", "`id`", "模型"])
def test_the_command_in_a_refusal_means_the_same_to_a_shell(name: str) -> None:
    refusal = rights.denied(MOVE, "team", name, alias="best", caller=name)

    words = shlex.split(refusal.message.partition("allow it: ")[2])

    options = ["--role", "approver", "--namespace", "team", "--model", name, "--alias", "best"]
    # What looks like an option is said to be none.
    given = [*options, "--", name] if name.startswith("-") else [name, *options]
    assert words == ["stagewire", "grant", "create", *given]


# What is looked at is the same each time.
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(granted=SETS, space=st.sampled_from((*SPACES, "later")))
def test_a_list_shows_on_both_databases_what_may_be_seen(
    tx: Tx, granted: frozenset[Scope], space: str
) -> None:
    tx.begin(Caller(name="ann", rights=rights.of(granted)), SEE)

    _assert_shown(tx, space)


@pytest.mark.parametrize("kind", [ALL, ""], ids=["prefixes", "names"])
def test_a_thousand_grants_list_as_one_does(tx: Tx, kind: str) -> None:
    granted = frozenset(Scope("viewer", "a", f"y{n:04}{kind}") for n in range(3000))
    tx.begin(Caller(name="ann", rights=rights.of(granted | {Scope("viewer", "a", "x*")})), SEE)

    _assert_shown(tx, "a")


def _assert_shown(tx: Tx, space: str) -> None:
    # In SQL a name is judged by the namespace that is listed, whose it is said to be.
    statement = sa.select(schema.Name.name).where(visibility.models(tx, space, schema.Name.name))

    shown = sorted(row.name for row in tx.rows(statement))

    assert shown == sorted(name for name in ODD if tx.rights.sees(space, name))


ODD = (*MODELS, "X", "x\U0010ffff", "x\ud7ff", "x\ue000", "w", "x y", "x%", "y\u0301")


@pytest.fixture
def tx(connection: sa.Connection) -> Tx:
    """Give a transaction that knows every name of the universe."""
    connection.execute(
        sa.insert(schema.Namespace),
        {"name": "a", "description": "", "revision": 1, "create_time": 1, "update_time": 1},
    )
    rows = [{"namespace": "a", "name": name, "next_number": 1} for name in ODD]
    connection.execute(sa.insert(schema.Name), rows)
    return Tx(connection)
