"""However grants, names and stages change, nobody is told what they may not see, and all else."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, rule
from hypothesis.stateful import run_state_machine_as_test as run

from stagewire import pb
from stagewire.server import streams
from tests.factories import eventually
from tests.faults.fold import Fold
from tests.guarded import GuardedServer, make_token
from tests.wire.grants_machine import Watching, eras, judge

FAMILIES = st.sampled_from(["a", "b"])
SPACES = st.sampled_from(["default", "default", "risk"])
GRANTED_SPACES = st.sampled_from(["default", "default", "risk", "*"])
STAGES = st.sampled_from(["Staging", "Production", "Archived"])
NUMBERS = st.sampled_from([1, 2])
SUBJECTS = st.sampled_from(["ann", "ann", "bob", "*"])
PATTERNS = st.sampled_from(["a1", "a*", "a*", "b*", "b2", "*"])
WIDE = pb.Scope(role=pb.ROLE_VIEWER, namespace="*", model="a*")
REFUSALS = {
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.FAILED_PRECONDITION,
}
#: Whom, through what filter, and within which names their tokens see.
WATCHES = [
    ("ann", pb.WatchFilter(namespaces=["*"]), ()),
    ("ann", pb.WatchFilter(model_prefix="a"), ()),
    ("ann", pb.WatchFilter(namespaces=["*"], stages=["Production"]), ()),
    ("bob", pb.WatchFilter(namespaces=["*"]), (WIDE,)),
]


class Granting(RuleBasedStateMachine):
    """A registry in which one admin does everything, and others watch what they may."""

    open_server: Callable[[], contextlib.AbstractContextManager[GuardedServer]]

    def __init__(self) -> None:
        """Begin with two namespaces, two models, and watchers who see one of them or nothing."""
        super().__init__()
        self.stack = contextlib.ExitStack()
        self.server = self.stack.enter_context(type(self).open_server())
        self.admin = self.stack.enter_context(self.server.door())
        self.acknowledged = 0
        self.grants: list[str] = []
        self.deleted: list[tuple[str, str]] = []
        self.watches: list[Watching] = []
        self.tokens: list[str] = []
        self.names: dict[str, list[str]] = {"default": [], "risk": []}
        self.numbers = itertools.count(1)
        self.do("CreateNamespace", pb.CreateNamespaceRequest(namespace=pb.Namespace(name="risk")))
        for space, family in (("default", "a"), ("default", "b"), ("risk", "a")):
            self.create(space, family)
        self.show("ann", "default", "a*")
        for subject, filter_, scopes in WATCHES:
            id_, secret = make_token(self.admin, subject, *scopes)
            watching = Watching(self.server.address, subject, filter_, lambda: self.acknowledged)
            watching.door.token = secret
            self.tokens.append(id_)
            self.watches.append(watching)
            self.stack.callback(watching.stop)
            watching.start()

    def do(self, method: str, request: Any) -> Any:
        """Call as the admin; what is refused for what is there changes nothing."""
        try:
            answer = self.admin(method, request)
        except grpc.RpcError as error:
            if error.code() not in REFUSALS:
                raise
            return None
        self.acknowledged = max(self.acknowledged, answer.revision)
        return answer

    @rule(space=SPACES, family=FAMILIES)
    def create(self, space: str, family: str) -> None:
        name = f"{family}{next(self.numbers)}"
        self.do("CreateModel", pb.CreateModelRequest(namespace=space, model=pb.Model(name=name)))
        for _ in range(2):
            version = pb.CreateModelVersionRequest(namespace=space, model=name)
            self.do("CreateModelVersion", version)
        self.names[space].append(name)

    @rule(data=st.data(), space=SPACES, number=NUMBERS, stage=STAGES)
    def move(self, data: st.DataObject, space: str, number: int, stage: str) -> None:
        if self.names[space]:
            request = pb.TransitionStageRequest(
                namespace=space,
                model=data.draw(st.sampled_from(self.names[space])),
                version=number,
                stage=stage,
                reason="a whim",
            )
            self.do("TransitionStage", request)

    @rule(space=SPACES, number=NUMBERS, stage=STAGES)
    def move_all(self, space: str, number: int, stage: str) -> None:
        moves = [pb.Transition(model=m, version=number, stage=stage) for m in self.names[space]]
        if moves:
            request = pb.BatchTransitionStagesRequest(
                namespace=space, transitions=moves, reason="of all"
            )
            self.do("BatchTransitionStages", request)

    @rule(data=st.data(), space=SPACES, family=FAMILIES)
    def rename(self, data: st.DataObject, space: str, family: str) -> None:
        if self.names[space]:
            old = data.draw(st.sampled_from(self.names[space]))
            new = f"{family}{next(self.numbers)}"
            request = pb.RenameModelRequest(namespace=space, model=old, new_name=new)
            self.do("RenameModel", request)
            self.names[space].remove(old)
            self.names[space].append(new)

    @rule(data=st.data(), space=SPACES)
    def delete(self, data: st.DataObject, space: str) -> None:
        if self.names[space]:
            name = data.draw(st.sampled_from(self.names[space]))
            request = pb.DeleteModelRequest(namespace=space, model=name, force=True)
            self.deleted.append((space, self.do("DeleteModel", request).model.id))
            self.names[space].remove(name)

    @rule(data=st.data())
    def undelete(self, data: st.DataObject) -> None:
        if self.deleted:
            space, id_ = data.draw(st.sampled_from(self.deleted))
            request = pb.UndeleteModelRequest(namespace=space, model_id=id_)
            if (answer := self.do("UndeleteModel", request)) is not None:
                self.deleted.remove((space, id_))
                self.names[space].append(answer.model.name)

    @rule(subject=SUBJECTS, space=GRANTED_SPACES, model=PATTERNS)
    def show(self, subject: str, space: str, model: str) -> None:
        self.grant(subject, pb.Scope(role=pb.ROLE_VIEWER, namespace=space, model=model))

    @rule(space=GRANTED_SPACES)
    def make_admin(self, space: str) -> None:
        self.grant("ann", pb.Scope(role=pb.ROLE_ADMIN, namespace=space))

    def grant(self, subject: str, scope: pb.Scope) -> None:
        wanted = pb.Grant(subject=subject, scope=scope)
        id_ = self.do("CreateGrant", pb.CreateGrantRequest(grant=wanted)).grant.id
        if id_ not in self.grants:
            self.grants.append(id_)

    @rule(data=st.data())
    def revoke(self, data: st.DataObject) -> None:
        if self.grants:
            id_ = data.draw(st.sampled_from(self.grants))
            self.grants.remove(id_)
            self.do("DeleteGrant", pb.DeleteGrantRequest(id=id_))

    @rule(index=st.integers(0, len(WATCHES) - 1))
    def exchange_token(self, index: int) -> None:
        subject, _, scopes = WATCHES[index]
        old = self.tokens[index]
        self.tokens[index], secret = make_token(self.admin, subject, *scopes)
        self.watches[index].door.token = secret
        self.do("RevokeToken", pb.RevokeTokenRequest(id=old))

    @rule(index=st.integers(0, len(WATCHES) - 1))
    def cut(self, index: int) -> None:
        self.watches[index].cut()

    @rule()
    def let_them_see(self) -> None:
        """Wait until everybody is told everything so far, or refused."""
        for watching in self.watches:
            eventually(lambda w=watching: self.is_level(w))  # type: ignore[misc]

    def is_level(self, watching: Watching) -> bool:
        if watching.records and watching.records[-1].end == "NAMESPACE_NOT_FOUND":
            return True
        return watching.position >= self.acknowledged

    def teardown(self) -> None:
        """Compare what was told with the log, and what is known in the end with what is there."""
        with self.stack:
            request = pb.ListEventsRequest(namespace="*", page_size=1000)
            log = list(reversed(self.admin("ListEvents", request).events))
            assert [event.revision for event in log] == list(range(1, len(log) + 1))
            self.acknowledged = len(log)
            fold = Fold()
            for event in log:
                fold.apply(event)
            for (subject, filter_, scopes), watching in zip(WATCHES, self.watches, strict=True):
                found = eras(log, subject, "a" if scopes else "")
                sight = found[-1].sight
                hidden = [
                    space
                    for space in list(filter_.namespaces) or ["default"]
                    if space != "*" and not sight.shows_space(space)
                ]
                wanted = {
                    key: getattr(item, key[0]) for key, item in fold.view(filter_, sight).items()
                }
                if hidden:
                    eventually(lambda w=watching: w.records[-2].end == "NAMESPACE_NOT_FOUND")  # type: ignore[misc]
                else:
                    eventually(lambda w=watching: self.is_level(w), seconds=20)  # type: ignore[misc]
                    eventually(lambda w=watching, s=wanted: known(w) == s, seconds=20)  # type: ignore[misc]
                watching.stop()
                judge(watching, log, found)


def known(watching: Watching) -> dict[Any, Any]:
    """Give what a watch knows; through stages it hears of models only now and then."""
    states = dict(watching.knowledge.states)
    if watching.filter.stages:
        return {k: s for k, s in states.items() if k[0] != "model"}
    return states


@pytest.fixture
def machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> type[Granting]:
    """Give the machine for each database in turn, every run of it with a registry of its own."""
    monkeypatch.setattr(streams, "PERMISSIONS_SPREAD_SECONDS", 0.05)

    @contextlib.contextmanager
    def open_server() -> Iterator[GuardedServer]:
        folder = Path(tempfile.mkdtemp(prefix="sw-grants-"))
        if request.param == "sqlite":
            shutil.copy(request.getfixturevalue("sqlite_template"), folder / "registry.db")
            url = f"sqlite:///{folder}/registry.db"
        else:
            url = request.getfixturevalue("make_postgres_url")()
        try:
            with GuardedServer(url, folder, bookmark_interval_seconds=0.2) as server:
                yield server
        finally:
            shutil.rmtree(folder)

    class Chosen(Granting):
        pass

    Chosen.open_server = staticmethod(open_server)
    return Chosen


@pytest.mark.parametrize("machine", ["sqlite", "postgresql"], indirect=True)
def test_nothing_is_told_without_permission_and_nothing_else_is_missing(
    machine: type[Granting],
) -> None:
    run(
        machine,
        settings=settings(
            max_examples=15,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
