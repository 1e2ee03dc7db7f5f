"""Namespaces: one registry for each team."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from stagewire import pb
from stagewire.callers import ANONYMOUS
from stagewire.errors import RegistryError
from tests.factories import delete, found, head, last_event, model, refused

if TYPE_CHECKING:
    from stagewire.service.registry import Registry


def create(registry: Registry, name: str, **fields: Any) -> pb.CreateNamespaceResponse:
    request = pb.CreateNamespaceRequest(namespace=pb.Namespace(name=name, **fields))
    return registry.CreateNamespace(request, ANONYMOUS)


def remove(registry: Registry, name: str, **fields: Any) -> pb.DeleteNamespaceResponse:
    return registry.DeleteNamespace(pb.DeleteNamespaceRequest(name=name, **fields), ANONYMOUS)


def get(registry: Registry, name: str) -> pb.Namespace:
    return registry.GetNamespace(pb.GetNamespaceRequest(name=name), ANONYMOUS).namespace


def test_default_is_the_first_thing_in_the_log(registry: Registry) -> None:
    event = last_event(registry)

    assert event.revision == get(registry, "default").revision == 1
    assert event.payload.actor == "stagewire"


def test_bootstrapping_again_changes_nothing(registry: Registry) -> None:
    registry.bootstrap()

    assert head(registry) == 1


def test_a_namespace_is_answered_whole_as_it_can_be_read(registry: Registry) -> None:
    answer = create(registry, "risk", description="the risk team")

    assert answer.namespace == get(registry, "risk")
    assert answer.namespace.description == "the risk team"
    assert answer.namespace.revision == answer.revision == head(registry) == 2
    assert answer.namespace.create_time == answer.namespace.update_time


def test_a_namespace_comes_with_the_default_stages_in_the_same_revision(
    registry: Registry,
) -> None:
    answer = create(registry, "risk")

    stages = registry.ListStages(pb.ListStagesRequest(namespace="risk"), ANONYMOUS).stages
    assert [s.name for s in stages] == ["Staging", "Production", "Archived"]
    assert {s.revision for s in stages} == {answer.revision}


def test_a_namespace_can_be_tried_first(registry: Registry) -> None:
    request = pb.CreateNamespaceRequest(namespace=pb.Namespace(name="risk"), validate_only=True)

    answer = registry.CreateNamespace(request, ANONYMOUS)

    assert (answer.namespace.name, answer.revision) == ("risk", 0)
    with refused("NAMESPACE_NOT_FOUND"):
        get(registry, "risk")


def test_a_namespace_is_made_once(registry: Registry) -> None:
    with refused("NAMESPACE_EXISTS"):
        create(registry, "default")


@pytest.mark.parametrize("name", ["", "Risk", "-a", "a-", "a b", "a/b", "*", "x" * 64, "é"])
def test_what_is_no_name_is_refused(registry: Registry, name: str) -> None:
    with refused("INVALID_FIELD"):
        create(registry, name)


def test_namespaces_are_listed_by_name_in_pages(registry: Registry) -> None:
    for name in ("b", "a-1", "c"):
        create(registry, name)

    first = registry.ListNamespaces(pb.ListNamespacesRequest(page_size=3), ANONYMOUS)
    request = pb.ListNamespacesRequest(page_size=3, page_token=first.next_page_token)
    second = registry.ListNamespaces(request, ANONYMOUS)

    listed = [*first.namespaces, *second.namespaces]
    assert [n.name for n in listed] == ["a-1", "b", "c", "default"]
    assert listed[1] == get(registry, "b")
    assert second.next_page_token == ""


def test_one_name_may_be_a_model_in_each_namespace(registry: Registry) -> None:
    create(registry, "risk")

    here, there = model(registry), model(registry, namespace="risk")

    assert here.id != there.id
    assert found(registry, namespace="risk").model == there


def test_an_empty_namespace_goes_with_its_stages(registry: Registry) -> None:
    create(registry, "risk")

    answer = remove(registry, "risk")

    assert answer.revision == head(registry) == 3
    with refused("NAMESPACE_NOT_FOUND"):
        get(registry, "risk")
    kinds = [r.change.kind for r in last_event(registry).payload.records]
    assert kinds == [pb.CHANGE_KIND_STAGE_DELETED] * 3 + [pb.CHANGE_KIND_NAMESPACE_DELETED]
    assert create(registry, "risk").revision == 4


def test_a_namespace_with_models_stays_deleted_ones_included(registry: Registry) -> None:
    create(registry, "risk")
    model(registry, namespace="risk")
    with refused("NAMESPACE_NOT_EMPTY"):
        remove(registry, "risk")

    registry.DeleteModel(pb.DeleteModelRequest(namespace="risk", model="churn"), ANONYMOUS)

    with refused("NAMESPACE_NOT_EMPTY"):
        remove(registry, "risk")


def test_default_stays(registry: Registry) -> None:
    with refused("NAMESPACE_PROTECTED"):
        remove(registry, "default")


def test_deleting_refuses_a_revision_that_is_not_the_namespaces(registry: Registry) -> None:
    made = create(registry, "risk").namespace

    with refused("REVISION_MISMATCH"):
        remove(registry, "risk", expected_revision=made.revision - 1)

    assert remove(registry, "risk", expected_revision=made.revision).revision == 3


def test_what_names_no_namespace_is_not_found(registry: Registry) -> None:
    with refused("NAMESPACE_NOT_FOUND"):
        remove(registry, "nowhere")
    with refused("NAMESPACE_NOT_FOUND"):
        model(registry, namespace="nowhere")
    with refused("NAMESPACE_NOT_FOUND"):
        found(registry, namespace="nowhere")
    model(registry)
    delete(registry)
    with refused("MODEL_NOT_FOUND"):
        found(registry)


def test_a_namespace_deleted_while_models_are_made_in_it_is_kept_or_gone_whole(
    registry: Registry,
) -> None:
    def attempt(number: int) -> str:
        try:
            if number % 4 == 0:
                remove(registry, "risk")
            else:
                model(registry, f"m{number}", namespace="risk")
        except RegistryError as error:
            return error.reason
        return "deleted" if number % 4 == 0 else "made"

    for _ in range(5):
        create(registry, "risk")
        with ThreadPoolExecutor(8) as pool:
            outcomes = set(pool.map(attempt, range(8)))
        if "made" in outcomes:
            assert "deleted" not in outcomes
            break
        assert outcomes == {"deleted", "NAMESPACE_NOT_FOUND"}

    verified = registry.VerifyLog(pb.VerifyLogRequest(), ANONYMOUS)
    assert (verified.intact, verified.last_revision) == (True, head(registry))
