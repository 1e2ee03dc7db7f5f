"""Whatever is done at the same time, what is counted for a quota is what is there."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
import sqlalchemy as sa
from google.protobuf.field_mask_pb2 import FieldMask
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, rule
from hypothesis.stateful import run_state_machine_as_test as run

from stagewire import errors, pb
from stagewire.callers import ANONYMOUS
from stagewire.service import exports
from stagewire.service.registry import Registry
from stagewire.store import schema
from stagewire.store.opening import open_database
from stagewire.store.transactions import Tx

NAMES = st.sampled_from(["a", "a", "b", "c"])
NUMBERS = st.integers(1, 4)
#: What others may refuse a call for, and what quotas do; anything else is a fault.
EXPECTED = {
    "MODEL_EXISTS",
    "MODEL_NOT_FOUND",
    "VERSION_NOT_FOUND",
    "NOT_DELETED",
    "PURGED",
    "RENAMED",
    "NAME_HAS_HISTORY",
    "QUOTA_EXCEEDED",
    "IMPORT_CONFLICT",
}
_LIVING = sa.select(sa.func.count()).where(
    schema.Model.namespace == "default", schema.Model.deleted.is_(False)
)
_LIVING_VERSIONS = (
    sa.select(sa.func.count())
    .select_from(schema.Version)
    .join(schema.Model, schema.Model.id == schema.Version.model_id)
    .where(
        schema.Model.namespace == "default",
        schema.Model.deleted.is_(False),
        schema.Version.deleted.is_(False),
    )
)


def quota(models: int, versions: int) -> pb.UpdateNamespaceRequest:
    limits = pb.Quota(max_models=models, max_versions=versions)
    return pb.UpdateNamespaceRequest(
        name="default",
        update=pb.NamespaceUpdate(quota=limits),
        update_mask=FieldMask(paths=["quota"]),
    )


CALLS = st.one_of(
    NAMES.map(lambda n: pb.CreateModelRequest(model=pb.Model(name=n))),
    NAMES.map(lambda n: pb.CreateModelVersionRequest(model=n)),
    NAMES.map(lambda n: pb.CreateModelVersionRequest(model=n)),
    NAMES.map(lambda n: pb.DeleteModelRequest(model=n, force=True)),
    st.builds(lambda n, v: pb.DeleteModelVersionRequest(model=n, version=v), NAMES, NUMBERS),
    st.builds(lambda n, v: pb.UndeleteModelVersionRequest(model=n, version=v), NAMES, NUMBERS),
    st.builds(
        lambda n, v: pb.PurgeModelVersionRequest(model=n, version=v, reason="law"), NAMES, NUMBERS
    ),
    st.builds(lambda n, m: pb.RenameModelRequest(model=n, new_name=m), NAMES, NAMES),
    st.builds(
        lambda n, v, t: pb.CopyModelVersionRequest(model=n, version=v, target_model=t),
        NAMES,
        NUMBERS,
        NAMES,
    ),
    st.integers(0, 9).map(lambda place: pb.UndeleteModelRequest(model_id=str(place))),
    st.integers(0, 9).map(lambda place: pb.PurgeModelRequest(model_id=str(place))),
    st.builds(quota, st.integers(0, 3), st.integers(0, 5)),
    st.just(pb.ImportRegistryRequest(on_conflict=pb.IMPORT_CONFLICT_POLICY_SKIP)),
)


class Counting(RuleBasedStateMachine):
    """Calls at the same time, and a look at what was counted."""

    open_registry: Callable[[], tuple[Registry, Callable[[], None]]]

    def __init__(self) -> None:
        """Start with something there, and a quota that is soon used up."""
        super().__init__()
        self.registry, self.close = type(self).open_registry()
        self.registry.bootstrap()
        for name in ("a", "b"):
            self.call(pb.CreateModelRequest(model=pb.Model(name=name)))
            self.call(pb.CreateModelVersionRequest(model=name))
        self.call(quota(3, 5))
        self.exports: list[pb.RegistryRecord] = []
        self.remember()

    def call(self, request: Any) -> None:
        """Run one call, which others may have made impossible."""
        operation = getattr(self.registry, type(request).__name__.removesuffix("Request"))
        try:
            operation(request, ANONYMOUS)
        except errors.RegistryError as error:
            if error.reason not in EXPECTED:
                raise

    def aimed(self, request: Any) -> Any:
        """Put in what is known only by now: ids of models, and what to import."""
        if isinstance(request, pb.UndeleteModelRequest | pb.PurgeModelRequest):
            ids = self.registry.database.read(lambda tx: tx.rows(sa.select(schema.Model.id)))
            model_id = sorted(row.id for row in ids)[int(request.model_id) % len(ids)]
            if isinstance(request, pb.PurgeModelRequest):
                return pb.PurgeModelRequest(model_id=model_id, reason="law")
            return pb.UndeleteModelRequest(model_id=model_id)
        if isinstance(request, pb.ImportRegistryRequest):
            return pb.ImportRegistryRequest(records=self.exports, on_conflict=request.on_conflict)
        return request

    @rule()
    def remember(self) -> None:
        """Keep what is there, under ids of its own, to import it later."""
        found = self.registry.database.read(
            lambda tx: list(exports.records(tx, pb.ExportRegistryRequest()))
        )
        self.exports = []
        for record in found:
            if record.HasField("model"):
                record.model.model.id = record.model.model.id[::-1]
                del record.model.ranges[:]
                record.model.model.name += "-twin"
                self.exports.append(record)
            elif record.HasField("version"):
                record.version.model_id = record.version.model_id[::-1]
                record.version.ClearField("lineage")
                self.exports.append(record)

    @rule(calls=st.lists(CALLS, min_size=1, max_size=8))
    def do_at_once(self, calls: list[Any]) -> None:
        wanted = [self.aimed(call) for call in calls]
        limits, before = self.limits(), self.counted()

        with ThreadPoolExecutor(len(calls)) as pool:
            list(pool.map(self.call, wanted))

        self.nothing_is_miscounted()
        free = any(
            isinstance(c, pb.UpdateNamespaceRequest | pb.ImportRegistryRequest) for c in calls
        )
        if not free and before is not None:
            after = self.counted()
            assert after is not None
            for limit, now, then in zip(limits, after, before, strict=True):
                assert not limit or now <= max(limit, then)

    def limits(self) -> tuple[int, int]:
        answer = self.registry.GetNamespace(pb.GetNamespaceRequest(name="default"), ANONYMOUS)
        return answer.namespace.quota.max_models, answer.namespace.quota.max_versions

    def counted(self) -> tuple[int, int] | None:
        answer = self.registry.GetNamespace(pb.GetNamespaceRequest(name="default"), ANONYMOUS)
        if not answer.HasField("usage"):
            return None
        return answer.usage.models, answer.usage.versions

    def nothing_is_miscounted(self) -> None:
        def there(tx: Tx) -> tuple[int, int]:
            return tx.scalar(_LIVING), tx.scalar(_LIVING_VERSIONS)

        counted = self.counted()
        assert (counted is None) == (self.limits() == (0, 0))
        assert counted in (None, self.registry.database.read(there))

    def teardown(self) -> None:
        """Close, however it ended."""
        self.close()


@pytest.fixture
def fresh(
    request: pytest.FixtureRequest, sqlite_template: Path
) -> Callable[[], tuple[Registry, Callable[[], None]]]:
    """Open a fresh registry on the database that the test is about."""

    def on_sqlite() -> tuple[Registry, Callable[[], None]]:
        folder = Path(tempfile.mkdtemp())
        shutil.copy(sqlite_template, folder / "stagewire.db")
        return opened(f"sqlite:///{folder / 'stagewire.db'}", lambda: shutil.rmtree(folder))

    if request.param == "sqlite":
        return on_sqlite
    make_postgres_url = request.getfixturevalue("make_postgres_url")
    return lambda: opened(make_postgres_url(), lambda: None)


def opened(url: str, clean: Callable[[], None]) -> tuple[Registry, Callable[[], None]]:
    database = open_database(url, readers=12)

    def close() -> None:
        database.close()
        clean()

    return Registry(database), close


@pytest.mark.parametrize(
    ("fresh", "examples"), [("sqlite", 15), ("postgresql", 6)], indirect=["fresh"]
)
def test_what_is_counted_is_what_is_there(
    fresh: Callable[[], tuple[Registry, Callable[[], None]]], examples: int
) -> None:
    machine = type("Machine", (Counting,), {"open_registry": staticmethod(fresh)})
    run(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=12,
            deadline=None,
            # How threads take turns is not the same each time, and need not be.
            derandomize=False,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
