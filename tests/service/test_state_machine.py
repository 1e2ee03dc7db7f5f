"""Any sequence of calls leaves the registry where a registry of dictionaries would be."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from hypothesis.stateful import run_state_machine_as_test as run

from stagewire import errors, pb
from stagewire.callers import ANONYMOUS
from stagewire.service.registry import Registry
from stagewire.store.opening import open_database
from tests.service.simple_registry import STAGES, Refused, SimpleModel, SimpleRegistry

# Mostly what exists: refusals for what does not are a small part of the rules.
NAMES = st.sampled_from(["a", "a", "a", "a", "b", "b", "c"])
NUMBERS = st.sampled_from([1, 2, 3, 1, 2, 3, 1, 2, 3, 4, 5])
STAGE = st.sampled_from([*STAGES, "None"])
REAL_STAGE = st.sampled_from(STAGES)
ALIASES = st.sampled_from(["champion", "challenger"])
KEEP = st.sampled_from([None, True, False])
DISPLACE = {
    None: pb.DISPLACEMENT_UNSPECIFIED,
    True: pb.DISPLACEMENT_KEEP,
    False: pb.DISPLACEMENT_ARCHIVE,
}


class Agreement(RuleBasedStateMachine):
    """Does everything twice and compares."""

    open_registry: Callable[[], tuple[Registry, Callable[[], None]]]

    def __init__(self) -> None:
        """Start both empty."""
        super().__init__()
        self.registry, self.close = type(self).open_registry()
        self.registry.bootstrap()
        self.simple = SimpleRegistry()
        self.ids: dict[SimpleModel, str] = {}
        for name in ("a", "a", "a", "b", "b"):
            if name not in self.simple.names:
                self.create_model(name)
            self.create_version(name)

    def both(
        self, request: Any, simple: Callable[[], object], method: str | None = None
    ) -> tuple[Any, Any]:
        """Run one call on both; they agree on whether, and why, it is refused."""
        operation = getattr(self.registry, method or type(request).__name__.removesuffix("Request"))
        try:
            expected = simple()
        except Refused as refusal:
            reason = str(refusal)
        else:
            return operation(request, ANONYMOUS), expected
        with pytest.raises(errors.RegistryError) as refused:
            operation(request, ANONYMOUS)
        assert refused.value.reason == reason
        return None, None

    @rule(name=NAMES)
    def create_model(self, name: str) -> None:
        answer, made = self.both(
            pb.CreateModelRequest(model=pb.Model(name=name)),
            lambda: self.simple.create_model(name),
        )
        if answer:
            self.ids[made] = answer.model.id

    @rule(name=NAMES)
    def create_version(self, name: str) -> None:
        answer, number = self.both(
            pb.CreateModelVersionRequest(model=name), lambda: self.simple.create_version(name)
        )
        if answer:
            assert answer.version.version == number

    @rule(name=NAMES, number=NUMBERS, stage=STAGE, keep=KEEP, leave=st.booleans())
    def transition(
        self, name: str, number: int, stage: str, keep: bool | None, leave: bool
    ) -> None:
        self.both(
            pb.TransitionStageRequest(
                model=name,
                version=number,
                stage=stage.upper(),
                displace=DISPLACE[keep],
                leave_other_stages=leave,
            ),
            lambda: self.simple.transition(name, number, stage, keep=keep, leave=leave),
        )

    @rule(name=NAMES, number=NUMBERS)
    def promote(self, name: str, number: int) -> None:
        self.transition(name, number, "Production", None, leave=False)

    @rule(numbers=st.lists(st.integers(1, 3), min_size=1, max_size=4), back=st.integers(0, 3))
    def promote_some_and_go_back(self, numbers: list[int], back: int) -> None:
        for number in numbers:
            self.transition("a", number, "Production", None, leave=False)
        for _ in range(back):
            self.rollback("a", "Production")

    @rule(name=NAMES, number=NUMBERS, stage=REAL_STAGE)
    def remove(self, name: str, number: int, stage: str) -> None:
        self.both(
            pb.RemoveFromStageRequest(model=name, version=number, stage=stage),
            lambda: self.simple.remove(name, number, stage),
        )

    @rule(name=NAMES, stage=REAL_STAGE)
    def rollback(self, name: str, stage: str) -> None:
        self.both(
            pb.RollbackStageRequest(model=name, stage=stage),
            lambda: self.simple.rollback(name, stage),
        )

    @rule(name=NAMES, number=NUMBERS, force=st.booleans())
    def delete_version(self, name: str, number: int, force: bool) -> None:
        self.both(
            pb.DeleteModelVersionRequest(model=name, version=number, force=force),
            lambda: self.simple.delete_version(name, number, force=force),
        )

    @rule(name=NAMES, number=NUMBERS)
    def undelete_version(self, name: str, number: int) -> None:
        self.both(
            pb.UndeleteModelVersionRequest(model=name, version=number),
            lambda: self.simple.undelete_version(name, number),
        )

    @rule(name=NAMES, number=NUMBERS, alias=ALIASES, reassign=st.booleans())
    def set_alias(self, name: str, number: int, alias: str, reassign: bool) -> None:
        self.both(
            pb.SetAliasRequest(model=name, version=number, alias=alias, reassign=reassign),
            lambda: self.simple.set_alias(name, alias, number, reassign=reassign),
        )

    @rule(name=NAMES, alias=ALIASES)
    def delete_alias(self, name: str, alias: str) -> None:
        self.both(
            pb.DeleteAliasRequest(model=name, alias=alias),
            lambda: self.simple.delete_alias(name, alias),
        )

    @rule(name=NAMES, new=NAMES)
    def rename(self, name: str, new: str) -> None:
        self.both(
            pb.RenameModelRequest(model=name, new_name=new),
            lambda: self.simple.rename(name, new),
        )

    @rule(name=NAMES, force=st.booleans())
    def delete_model(self, name: str, force: bool) -> None:
        self.both(
            pb.DeleteModelRequest(model=name, force=force),
            lambda: self.simple.delete_model(name, force=force),
        )

    @precondition(lambda self: self.simple.models)
    @rule(data=st.data())
    def undelete_model(self, data: st.DataObject) -> None:
        model = data.draw(st.sampled_from(self.simple.models))
        self.both(
            pb.UndeleteModelRequest(model_id=self.ids[model]),
            lambda: self.simple.undelete_model(model),
        )

    @rule(name=NAMES, number=NUMBERS)
    def read_a_number(self, name: str, number: int) -> None:
        answer, meant = self.both(
            pb.GetModelVersionRequest(model=name, version=number),
            lambda: self.simple.read_number(name, number),
        )
        if answer:
            owner, expected = meant
            found = answer.version
            assert (found.model_id, found.version) == (self.ids[owner], expected)

    @rule(name=NAMES)
    def read_a_name(self, name: str) -> None:
        answer, owner = self.both(pb.GetModelRequest(model=name), lambda: self.simple.read(name))
        if answer:
            assert answer.model.id == self.ids[owner]

    @invariant()
    def every_version_is_where_it_should_be(self) -> None:
        if not hasattr(self, "simple"):
            return
        request = pb.ListModelVersionsRequest(page_size=1000)
        found = {
            (v.model_id, v.version): (v.model, set(v.stages), set(v.aliases))
            for v in self.registry.ListModelVersions(request, ANONYMOUS).versions
        }
        expected = {
            (self.ids[m], n): (m.name, set(v.stages), v.aliases)
            for m in self.simple.models
            if not m.deleted
            for n, v in m.versions.items()
            if not v.deleted
        }
        assert found == expected

    def teardown(self) -> None:
        """The log must prove itself, whatever was done."""
        try:
            assert self.registry.VerifyLog(pb.VerifyLogRequest(), ANONYMOUS).intact
        finally:
            self.close()


@pytest.fixture
def fresh(
    request: pytest.FixtureRequest, sqlite_template: Path
) -> Callable[[], tuple[Registry, Callable[[], None]]]:
    """Open a fresh registry on the database that the test is about."""

    def on_sqlite() -> tuple[Registry, Callable[[], None]]:
        folder = Path(tempfile.mkdtemp(prefix="sw-machine-"))
        path = shutil.copy(sqlite_template, folder / "stagewire.db")
        database = open_database(f"sqlite:///{path}", readers=2)

        def close() -> None:
            database.close()
            shutil.rmtree(folder)

        return Registry(database), close

    def on_postgresql() -> tuple[Registry, Callable[[], None]]:
        database = open_database(make_url(), readers=2)

        def close() -> None:
            database.close()

        return Registry(database), close

    if request.param == "sqlite":
        return on_sqlite
    make_url = request.getfixturevalue("make_postgres_url")
    return on_postgresql


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("fresh", "examples"), [("sqlite", 60), ("postgresql", 8)], indirect=["fresh"]
)
def test_the_registry_agrees_with_a_simple_one(
    fresh: Callable[[], tuple[Registry, Callable[[], None]]], examples: int
) -> None:
    machine = type("Machine", (Agreement,), {"open_registry": staticmethod(fresh)})

    run(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
