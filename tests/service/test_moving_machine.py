"""Whatever was done to a registry, its export restores it byte for byte."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import precondition, rule
from hypothesis.stateful import run_state_machine_as_test as run

from stagewire import errors, pb
from stagewire.callers import ANONYMOUS
from stagewire.service.registry import Registry
from tests.moving import content, exported, imported
from tests.service.test_state_machine import NAMES, NUMBERS, Agreement, fresh

__all__ = ["fresh"]

KEYS = st.sampled_from(["team", "a b", "ключ", "x" * 250])
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)


class Moves(Agreement):
    """Does what the registry's own machine does and more, and restores what came of it."""

    size: int

    def attempt(self, request: object) -> None:
        """Call an operation; whether it is refused does not matter here."""
        method = type(request).__name__.removesuffix("Request")
        try:
            getattr(self.registry, method)(request, ANONYMOUS)
        except errors.RegistryError:
            return

    @rule(name=NAMES, key=KEYS, value=TEXTS | st.just("x" * 2000))
    def tag_model(self, name: str, key: str, value: str) -> None:
        self.attempt(pb.SetModelTagsRequest(model=name, tags={key: value}))

    @rule(name=NAMES, number=NUMBERS, key=KEYS, value=TEXTS | st.just("x" * 2000))
    def tag_version(self, name: str, number: int, key: str, value: str) -> None:
        self.attempt(pb.SetModelVersionTagsRequest(model=name, version=number, tags={key: value}))

    @rule(
        name=NAMES,
        number=NUMBERS,
        value=st.floats() | st.sampled_from([0.0, -0.0]),
        step=st.integers(-(2**63), 2**63 - 1),
    )
    def measure(self, name: str, number: int, value: float, step: int) -> None:
        point = pb.Metric(key="auc", value=value, step=step)
        self.attempt(pb.LogMetricsRequest(model=name, version=number, metrics=[point]))

    @rule(number=NUMBERS, whole=st.booleans())
    def purge(self, number: int, whole: bool) -> None:
        """Purge where the simple registry, which knows no purge, does not look."""
        place: dict[str, Any] = {"namespace": "elsewhere", "model": "a"}
        self.attempt(pb.CreateNamespaceRequest(namespace=pb.Namespace(name="elsewhere")))
        self.attempt(pb.CreateModelRequest(namespace="elsewhere", model=pb.Model(name="a")))
        self.attempt(pb.CreateModelVersionRequest(**place, version=pb.ModelVersion(source="s")))
        self.attempt(pb.DeleteModelVersionRequest(**place, version=number))
        self.attempt(pb.PurgeModelVersionRequest(**place, version=number, reason="by law"))
        if whole:
            request = pb.GetModelRequest(**place)
            model_id = self.registry.GetModel(request, ANONYMOUS).model.id
            self.attempt(pb.DeleteModelRequest(**place))
            self.attempt(
                pb.PurgeModelRequest(namespace="elsewhere", model_id=model_id, reason="by law")
            )

    @precondition(lambda self: self.simple.models)
    @rule(description=TEXTS)
    def describe(self, description: str) -> None:
        update = pb.ModelUpdate(description=description)
        request = pb.UpdateModelRequest(model="a", update=update)
        request.update_mask.paths.append("description")
        self.attempt(request)

    def teardown(self) -> None:
        """Restore into an empty registry, again, and from there into another."""
        try:
            before = exported(self.registry)
            other, close = type(self).open_registry()
            try:
                other.bootstrap()
                imported(other, before, size=type(self).size)
                assert content(exported(other)) == content(before)
                again = imported(other, before)
                assert (again.imported, list(again.conflicts)) == (0, [])
                assert other.VerifyLog(pb.VerifyLogRequest(), ANONYMOUS).intact
            finally:
                close()
        finally:
            super().teardown()


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("fresh", "examples", "size"),
    [("sqlite", 30, 3), ("sqlite", 30, 1000), ("postgresql", 6, 20)],
    indirect=["fresh"],
)
def test_any_history_is_restored_byte_for_byte(
    fresh: Callable[[], tuple[Registry, Callable[[], None]]],  # a fixture
    examples: int,
    size: int,
) -> None:
    machine = type("Machine", (Moves,), {"open_registry": staticmethod(fresh), "size": size})

    run(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
