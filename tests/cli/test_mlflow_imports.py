"""`stagewire import mlflow` from databases that MLflow's releases left, hostile rows and all.

What MLflow itself makes is tried in `tests/mlflow`; here are the rows that it does not make, or
not any more.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from stagewire import pb
from stagewire.client import Client
from tests.cli.conftest import Ran, Run
from tests.servers import RunningServer

T = 1_700_000_000_000
NUL = "a\0b"


class Mlflow:
    """A database with MLflow's tables: `since` says of which release."""

    def __init__(self, url: str, *, since: str) -> None:
        self.url = url
        self._engine = sa.create_engine(
            url.replace("postgresql://", "postgresql+psycopg://"), poolclass=sa.pool.NullPool
        )
        self.metadata = sa.MetaData()
        self.workspaces = since == "3.17"
        times = ("creation_time", "last_updated_time")
        self._table("registered_models", *times, "description")
        texts = ("user_id", "current_stage", "source", "run_id", "status", "status_message")
        newer = () if since == "1.0" else ("run_link", "storage_location")
        self._table("model_versions", "version", *times, "description", *texts, *newer)
        self._table("registered_model_tags", "key", "value")
        self._table("model_version_tags", "version", "key", "value")
        if since != "1.0":
            self._table("registered_model_aliases", "alias", "version")
        if self.workspaces:
            self._table("webhooks", "webhook_id", "deleted_timestamp")
        self.metadata.create_all(self._engine)

    def _table(self, name: str, *columns: str) -> None:
        numbers = {"version", "creation_time", "last_updated_time", "deleted_timestamp"}
        sa.Table(
            name,
            self.metadata,
            sa.Column("name", sa.Text),
            *([sa.Column("workspace", sa.Text)] if self.workspaces else []),
            *(sa.Column(c, sa.BigInteger if c in numbers else sa.Text) for c in columns),
        )

    def add(self, table: str, *rows: dict[str, Any], workspace: str = "default") -> None:
        given = {"workspace": workspace} if self.workspaces else {}
        with self._engine.begin() as connection:
            for row in rows:
                statement = sa.insert(self.metadata.tables[table])
                connection.execute(statement.values(**given, **row))

    def model(self, name: str, *numbers: int, workspace: str = "default", **more: Any) -> None:
        row = {"name": name, "creation_time": T, "last_updated_time": T + 5, **more}
        self.add("registered_models", row, workspace=workspace)
        for number in numbers:
            self.version(name, number, workspace=workspace)

    def version(self, name: str, number: int, workspace: str = "default", **more: Any) -> None:
        row = {
            "name": name,
            "version": number,
            "creation_time": T + number,
            "last_updated_time": T + 10 + number,
            "current_stage": "None",
            "status": "READY",
            "source": f"s3://{name}/{number}",
            **more,
        }
        self.add("model_versions", row, workspace=workspace)


@pytest.fixture
def make_mlflow(
    request: pytest.FixtureRequest, database_url: str, tmp_path: Path
) -> Callable[[str], Mlflow]:
    """Make a database of MLflow's beside the registry's, of the same kind."""

    def make(since: str) -> Mlflow:
        if database_url.startswith("sqlite"):
            return Mlflow(f"sqlite:///{tmp_path / 'mlflow.db'}", since=since)
        url: str = request.getfixturevalue("make_postgres_url")()
        engine = sa.create_engine(url, poolclass=sa.pool.NullPool)
        with engine.begin() as connection:
            connection.exec_driver_sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        return Mlflow(url.replace("postgresql+psycopg://", "postgresql://"), since=since)

    return make


@pytest.fixture
def server(database_url: str) -> Iterator[RunningServer]:
    with RunningServer(database_url, log_level="critical") as running:
        yield running


@pytest.fixture
def bring_in(run: Run, server: RunningServer, silent_servers: None) -> Callable[..., Ran]:
    def ran(mlflow: Mlflow, line: str = "") -> Ran:
        return run(f"import mlflow --address {server.address} {line} --from", mlflow.url)

    return ran


@pytest.fixture
def client(server: RunningServer) -> Iterator[Client]:
    with Client(server.address) as connected:
        yield connected


@pytest.mark.parametrize("since", ["1.0", "2.9", "3.17"])
def test_databases_of_every_release_are_read(
    since: str, make_mlflow: Callable[[str], Mlflow], bring_in: Callable[..., Ran], client: Client
) -> None:
    mlflow = make_mlflow(since)
    mlflow.model("churn", 1, 2, description="who leaves")
    mlflow.version("churn", 4, current_stage="Production", user_id="ann", run_id="r4")
    mlflow.add("registered_model_tags", {"name": "churn", "key": "team", "value": "crm"})
    mlflow.add("model_version_tags", {"name": "churn", "version": 4, "key": "a", "value": None})
    if since != "1.0":
        mlflow.add("registered_model_aliases", {"name": "churn", "alias": "best", "version": 4})

    first = bring_in(mlflow, "-o json").json
    again = bring_in(mlflow, "-o json").json

    assert (first["models"], first["versions"], first["findings"]) == (1, 3, [])
    assert (again["imported"], again["unchanged"]) == (0, first["imported"])
    found = client.resolve("churn", stage="Production")
    assert (found.version, found.creator, found.lineage.run_id) == (4, "ann", "r4")
    assert dict(found.tags) == {"a": ""}
    assert found.create_time.ToMilliseconds() == T + 4
    assert found.update_time.ToMilliseconds() == T + 14
    assert list(found.aliases) == ([] if since == "1.0" else ["best"])
    model = client.registry.GetModel(pb.GetModelRequest(model="churn")).model
    assert model.create_time.ToMilliseconds() == T
    assert dict(model.tags) == {"team": "crm"}


def test_workspaces_become_namespaces(
    make_mlflow: Callable[[str], Mlflow], bring_in: Callable[..., Ran], client: Client
) -> None:
    mlflow = make_mlflow("3.17")
    mlflow.model("churn", 1)
    mlflow.model("churn", 1, 2, workspace="risk")
    mlflow.add("webhooks", {"name": "hook", "webhook_id": "1"})

    dry = bring_in(mlflow, "--dry-run -o json").json
    said = bring_in(mlflow, "-o json").json

    assert (dry["imported"], dry["dry_run"]) == (said["imported"], True)
    assert "1 were not brought" in said["findings"][-1]["problem"]
    request = pb.GetModelRequest(namespace="risk", model="churn")
    assert client.registry.GetModel(request).latest_version == 2
    assert client.registry.GetModel(pb.GetModelRequest(model="churn")).latest_version == 1
    assert bring_in(mlflow, "--workspace nowhere").code == 2


def test_one_mlflow_may_come_into_several_namespaces(
    make_mlflow: Callable[[str], Mlflow], bring_in: Callable[..., Ran], client: Client
) -> None:
    mlflow = make_mlflow("2.9")
    mlflow.model("churn", 1)

    assert bring_in(mlflow, "-n one").code == bring_in(mlflow, "-n two").code == 0

    for space in ("one", "two"):
        request = pb.GetModelRequest(namespace=space, model="churn")
        assert client.registry.GetModel(request).latest_version == 1


def test_what_the_contract_forbids_is_reported_with_its_remedy(
    make_mlflow: Callable[[str], Mlflow],
    bring_in: Callable[..., Ran],
    client: Client,
    database_url: str,
) -> None:
    mlflow = make_mlflow("2.9")
    mlflow.model("bell\a", 1)
    mlflow.model("x" * 257, 1)
    mlflow.model("e\u0301", 1)
    mlflow.model("\u00e9", 1)
    mlflow.model("churn", 1, description="x" * 6000, creation_time=None)
    mlflow.version("churn", 2, source="s3://" + "x" * 5000)
    mlflow.version("churn", 3, current_stage="Shadow", status="UNKNOWN")
    mlflow.version("churn", 4, current_stage="Deleted_Internal")
    mlflow.add(
        "model_version_tags",
        {"name": "churn", "version": 1, "key": "k" * 251, "value": "v"},
        {"name": "churn", "version": 1, "key": "long", "value": "x" * 100_001},
        *({"name": "churn", "version": 3, "key": f"k{n:03}", "value": "v"} for n in range(501)),
    )
    mlflow.add(
        "registered_model_aliases",
        {"name": "churn", "alias": "no spaces", "version": 1},
        {"name": "churn", "alias": "lost", "version": 4},
    )
    on_sqlite = database_url.startswith("sqlite")
    if on_sqlite:
        mlflow.add("model_version_tags", {"name": "churn", "version": 1, "key": "n", "value": NUL})

    said = bring_in(mlflow, "-o json").json

    problems = {(f["subject"], f["field"]): f["problem"] for f in said["findings"]}
    assert all(f["remedy"] for f in said["findings"])
    first, third = "version 1 of model 'churn'", "version 3 of model 'churn'"
    for place, text in {
        ("model 'bell\\x07'", "name"): "control character",
        (f"model {'x' * 257!r}", "name"): "at most 256 characters",
        ("model 'churn'", "description"): "has 6,000 characters; the first 5,000",
        ("model 'churn'", "creation_timestamp"): "unknown",
        ("version 2 of model 'churn'", "source"): "5,005 characters",
        (third, "current_stage"): "there is no 'Shadow'",
        (third, "status"): "'UNKNOWN' is unknown",
        (third, "tag 'k500'"): "there are 500 others",
        (first, f"tag {'k' * 60!r}"): "1 to 250 characters",
        (first, "tag 'long'"): "100,001 characters",
        ("model 'churn'", "alias 'no spaces'"): "is no alias",
        ("model 'churn'", "alias 'lost'"): "version 4 is not there",
        ("model 'churn'", "versions"): "1 were deleted",
        **({(first, "tag 'n'"): "NUL"} if on_sqlite else {}),
    }.items():
        assert text in problems[place], place
    # One spelling of two: whichever came first is there.
    assert sum("spelled as" in text for text in problems.values()) == 1
    listed = [m.name for m in client.registry.ListModels(pb.ListModelsRequest()).models]
    assert listed == ["churn", "\u00e9"]
    assert len(client.resolve("churn", version=3).tags) == 500
    assert client.create_version("churn").version == 5
    assert bring_in(mlflow, "-o json --on-conflict skip").json["imported"] == 0


def test_where_files_are_and_logged_models_are_brought(
    make_mlflow: Callable[[str], Mlflow], bring_in: Callable[..., Ran], client: Client
) -> None:
    mlflow = make_mlflow("3.17")
    mlflow.model("churn")
    mlflow.version("churn", 1, source="models:/m-1234", storage_location="s3://mlflow/m-1234")
    mlflow.version("churn", 2, source="models:/churn/1", storage_location="s3://mlflow/m-1234")

    assert bring_in(mlflow, "-o json").json["findings"] == []

    first, second = client.resolve("churn", version=1), client.resolve("churn", version=2)
    assert (first.lineage.logged_model_id, first.storage_uri) == ("m-1234", "s3://mlflow/m-1234")
    assert second.storage_uri == "s3://mlflow/m-1234"
    assert [(p.model, p.version) for p in second.lineage.parents] == [("churn", 1)]
    assert first.activity_time.ToMilliseconds() == T + 11


def test_sources_that_a_server_does_not_take_are_named_and_can_be_left_out(
    run: Run,
    database_url: str,
    make_mlflow: Callable[[str], Mlflow],
    silent_servers: None,
) -> None:
    mlflow = make_mlflow("2.9")
    mlflow.model("churn", 1)
    mlflow.version("churn", 2, source="/etc/passwd", current_stage="Production")
    mlflow.version("churn", 3, source="s3://models/../secrets")
    with RunningServer(database_url, source_policy="traversal") as strict:
        line = f"import mlflow --from {mlflow.url} --address {strict.address}"

        refused = run(line)
        skipping = run(f"{line} --on-conflict skip -o json").json

    assert refused.code == 1
    assert "version 2 of model 'churn'" in refused.err
    assert "SOURCE_UNSAFE" in refused.err
    assert "source_policy" in refused.err
    assert (skipping["imported"], len(skipping["skipped"])) == (3, 3)


def test_the_report_is_a_table_for_people(
    make_mlflow: Callable[[str], Mlflow], bring_in: Callable[..., Ran]
) -> None:
    mlflow = make_mlflow("2.9")
    mlflow.model("churn", 1)
    mlflow.model("bell\a", 1)

    ran = bring_in(mlflow)

    header, row, text = ran.out.splitlines()
    assert header.split() == ["WHAT", "FIELD", "DIFFERS", "REMEDY"]
    assert "rename it in MLflow and import again" in row
    assert text == "imported 2 records; 0 were here already"


def test_a_stage_that_is_defined_later_is_brought_later(
    run: Run,
    server: RunningServer,
    make_mlflow: Callable[[str], Mlflow],
    bring_in: Callable[..., Ran],
    client: Client,
) -> None:
    mlflow = make_mlflow("2.9")
    mlflow.model("churn")
    mlflow.version("churn", 1, current_stage="Shadow")
    bring_in(mlflow)
    run(f"stage create shadow --address {server.address}")

    again = bring_in(mlflow, "-o json").json

    assert (again["imported"], again["findings"]) == (2, [])
    assert list(client.resolve("churn").stages) == ["shadow"]


def test_what_changed_in_mlflow_since_is_a_conflict_and_new_versions_can_be_fetched(
    make_mlflow: Callable[[str], Mlflow], bring_in: Callable[..., Ran], client: Client
) -> None:
    mlflow = make_mlflow("2.9")
    mlflow.model("churn", 1)
    bring_in(mlflow)
    mlflow.version("churn", 2, current_stage="Production")
    with mlflow._engine.begin() as connection:
        table = mlflow.metadata.tables["registered_models"]
        connection.execute(sa.update(table).values(last_updated_time=T + 100))

    refused = bring_in(mlflow)
    fetched = bring_in(mlflow, "--on-conflict skip -o json").json

    assert refused.code == 1
    assert "model 'churn' is here with other content: update_time" in refused.err
    assert (fetched["imported"], len(fetched["skipped"])) == (3, 1)
    assert client.resolve("churn", stage="Production").version == 2


def test_what_is_no_registry_of_mlflow_is_refused_in_one_line(
    run: Run, server: RunningServer, silent_servers: None, tmp_path: Path
) -> None:
    empty = tmp_path / "empty.db"
    sa.create_engine(f"sqlite:///{empty}").connect().close()
    for url, said, code in (
        (f"sqlite:///{tmp_path / 'absent.db'}", "can't be read", 1),
        (f"sqlite:///{empty}", "has no table registered_models", 1),
        ("mlflow.db", "is no URL", 2),
        ("mysql://nowhere/mlflow", "can't be opened", 1),
        ("http://127.0.0.1:9", "does not answer as it should", 1),
    ):
        ran = run(f"import mlflow --address {server.address} --from", url)
        assert (ran.code, ran.out) == (code, ""), url
        assert said in ran.err
        assert ran.err.count("\n") == 1
