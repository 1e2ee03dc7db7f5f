"""Aliases: movable names for one version of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from stagewire import pb
from stagewire.callers import ANONYMOUS
from tests.factories import alias, found, head, last_event, numbered, refused, versions

if TYPE_CHECKING:
    from stagewire.service.registry import Registry


def unset(registry: Registry, text: str = "champion") -> pb.DeleteAliasResponse:
    return registry.DeleteAlias(pb.DeleteAliasRequest(model="churn", alias=text), ANONYMOUS)


def test_an_alias_points_at_the_version_it_was_set_on(registry: Registry) -> None:
    versions(registry, 2)

    answer = alias(registry, 1)

    assert answer.version == numbered(registry, 1)
    assert list(answer.version.aliases) == ["champion"]
    assert (answer.previous_version, answer.revision) == (0, head(registry))
    assert answer.version.revision == answer.revision


def test_an_alias_is_moved_only_when_told_so(registry: Registry) -> None:
    versions(registry, 2)
    alias(registry, 1)

    with refused("ALIAS_EXISTS") as caught:
        alias(registry, 2)

    assert caught.error.metadata == {"version": "1"}
    moved = alias(registry, 2, reassign=True)
    assert moved.previous_version == 1
    assert dict(found(registry).aliases) == {"champion": 2}
    assert list(numbered(registry, 1).aliases) == []


def test_a_moved_alias_is_a_change_of_both_versions_in_one_revision(registry: Registry) -> None:
    versions(registry, 2)
    alias(registry, 1)

    answer = alias(registry, 2, reassign=True)

    assert numbered(registry, 1).revision == numbered(registry, 2).revision == answer.revision
    records = last_event(registry).payload.records
    assert [(r.change.version, list(r.before.aliases), list(r.after.aliases)) for r in records] == [
        (1, ["champion"], []),
        (2, [], ["champion"]),
    ]
    assert {r.change.kind for r in records} == {pb.CHANGE_KIND_ALIASES_CHANGED}


def test_an_alias_set_where_it_is_takes_no_revision(registry: Registry) -> None:
    versions(registry, 1)
    first = alias(registry, 1)

    again = alias(registry, 1)

    assert again.version == first.version
    assert (again.previous_version, again.revision) == (1, first.revision)


def test_a_version_has_many_aliases_in_their_order(registry: Registry) -> None:
    versions(registry, 1)

    for text in ("b", "a", "C"):
        alias(registry, 1, text)

    assert list(numbered(registry, 1).aliases) == ["C", "a", "b"]


def test_aliases_that_differ_in_case_are_two(registry: Registry) -> None:
    versions(registry, 2)

    alias(registry, 1, "champion")
    alias(registry, 2, "Champion")

    assert dict(found(registry).aliases) == {"champion": 1, "Champion": 2}


@pytest.mark.parametrize(
    "text", ["latest", "LATEST", "v1", "V12", "", "a b", "a/b", "e\u0301", "x" * 256]
)
def test_what_could_be_taken_for_something_else_is_no_alias(registry: Registry, text: str) -> None:
    versions(registry, 1)

    with refused("INVALID_FIELD"):
        alias(registry, 1, text)


def test_an_alias_may_be_set_again_after_it_was_removed(registry: Registry) -> None:
    versions(registry, 2)
    alias(registry, 1)

    removed = unset(registry)
    alias(registry, 2)

    assert (removed.version.version, list(removed.version.aliases)) == (1, [])
    assert dict(found(registry).aliases) == {"champion": 2}


def test_an_alias_that_is_not_there_is_not_found(registry: Registry) -> None:
    versions(registry, 1)

    with refused("ALIAS_NOT_FOUND") as caught:
        unset(registry)

    assert caught.error.resource_name == "champion"


def test_an_alias_needs_a_living_version(registry: Registry) -> None:
    versions(registry, 1)

    with refused("VERSION_NOT_FOUND"):
        alias(registry, 2)


def test_removing_refuses_a_revision_that_is_not_the_versions(registry: Registry) -> None:
    versions(registry, 1)
    made = alias(registry, 1).version

    with refused("REVISION_MISMATCH"):
        registry.DeleteAlias(
            pb.DeleteAliasRequest(
                model="churn", alias="champion", expected_revision=made.revision - 1
            ),
            ANONYMOUS,
        )
