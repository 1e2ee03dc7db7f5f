"""What is measured, against what, and what was aimed at.

Subjects of one group take turns, round after round, in one server process; a ratio is of two
neighbours in one round, and what is told is the median over the rounds.
"""

from __future__ import annotations

import asyncio
import statistics
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks import bare, requests, server
from benchmarks.fanout import FanOut, OwnModels
from benchmarks.fleets import Figure, Figures, measure_backlog, measure_storms, measure_streams
from benchmarks.places import Postgresql, Sqlite, serving
from benchmarks.stalls import measure_stall
from benchmarks.wire import raw_call
from stagewire import pb

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from benchmarks.load import Sample
    from benchmarks.places import Place, Stand

POOL = "echo on the pool"
LOOP = "echo on the loop"
GUARDED = "echo on the loop, with access control"
GRPC = "bare grpc.aio echo"
OWN = "Watch, each its own model"
HEARD = "Watch at another replica, by NOTIFY"
POLLED = "Watch at another replica, by poll"
READS = ("GetModelVersion", "ResolveModelVersion")
#: The same with metrics, which are never kept in memory.
STORED = {name: f"{name}, from the database" for name in READS}
WRITES = ("CreateModelVersion", "TransitionStage")
FLEETS = ("streams", "storm", "stall")
AUTH = "auth"
NAMES = (*READS, *WRITES, AUTH, "Watch", "own", "replica", *FLEETS)
#: What knowing a caller, and judging what it may do, may cost.
MOST_AUTH_MICROS = 60.0
OWN_STREAMS = 5000
REPLICA_STREAMS = 1000


@dataclass(frozen=True, slots=True)
class Effort:
    """How much time a run takes."""

    rounds: int
    seconds: float
    #: Recorded use cases that a bare round runs.
    cases: int
    events: int
    #: Members of the fleet, and of those with a connection of their own.
    fleet: int
    alone: int
    idle_seconds: float
    cuts: int
    stalls: int


FULL = Effort(
    rounds=5,
    seconds=1.0,
    cases=1600,
    events=12,
    fleet=10_000,
    alone=2_000,
    idle_seconds=30.0,
    cuts=2,
    stalls=9,
)
QUICK = Effort(
    rounds=3,
    seconds=0.3,
    cases=320,
    events=4,
    fleet=2_000,
    alone=500,
    idle_seconds=15.0,
    cuts=1,
    stalls=3,
)


@dataclass(frozen=True, slots=True)
class Target:
    """What was aimed at: a text, and whether a row reached it."""

    text: str
    met: Callable[[Row], bool]


@dataclass(slots=True)
class Row:
    """One subject at one load: a sample from each round, and the ratios of each round."""

    name: str
    database: str
    at_once: int
    samples: list[Sample] = field(default_factory=list)
    to_echo: list[float] = field(default_factory=list)
    to_bare: list[float] = field(default_factory=list)
    target: Target | None = None

    def median(self, what: str) -> float:
        """Give the median over the rounds of a field of Sample."""
        return float(statistics.median(getattr(each, what) for each in self.samples))

    @property
    def echo(self) -> float:
        """The median ratio to the echo."""
        return statistics.median(self.to_echo)

    @property
    def bare(self) -> float:
        """The median ratio to what does the same without the registry."""
        return statistics.median(self.to_bare)


def _target(name: str, place: str, at_once: int) -> Target | None:
    if name in READS and at_once == requests.CALLERS:
        return Target("0.75 x echo on the loop", lambda row: row.echo >= 0.75)
    if name in STORED.values() and at_once == requests.CALLERS:
        least = 0.6 if place == Sqlite.name else 0.5
        return Target(f"{least} x echo", lambda row: row.echo >= least)
    if name in WRITES and at_once == requests.WRITERS:
        if place == Sqlite.name:
            return Target(
                "1,500/s or 0.4 x bare; p99 < 40 ms",
                lambda row: (
                    (row.median("rate") >= 1500 or row.bare >= 0.4) and row.median("p99_ms") < 40
                ),
            )
        return Target("0.8 x bare", lambda row: row.bare >= 0.8)
    if name == "Watch" and at_once == 1000:
        return Target(
            "0.8 x bare; p99 < 60 ms",
            lambda row: row.bare >= 0.8 and row.median("p99_ms") < 60,
        )
    if name == "Watch" and at_once == 5000:
        return Target(
            "0.8 x bare; p99 < 350 ms",
            lambda row: row.bare >= 0.8 and row.median("p99_ms") < 350,
        )
    if name == OWN:
        return Target(
            "p50 < 2 ms, p99 < 10",
            lambda row: row.median("p50_ms") < 2 and row.median("p99_ms") < 10,
        )
    if name in (HEARD, POLLED):
        most = 100 if name == HEARD else 1500
        return Target(f"p99 < {most} ms", lambda row: row.median("p99_ms") < most)
    return None


@dataclass(slots=True)
class Subject:
    """Who takes a turn in a round."""

    row: Row
    run: Callable[[], Awaitable[Sample]]
    #: Rows of the same round that its ratios are to.
    echo: Row | None = None
    bare: Row | None = None


class Suite:
    """One run of everything, or of what `only` names."""

    def __init__(self, effort: Effort, only: frozenset[str], note: Callable[[str], None]) -> None:
        """Run with `effort`; `note` is told of every round."""
        self.effort = effort
        self.only = only
        self.note = note
        self.rows: list[Row] = []
        self.figures: list[Figure] = []
        self.versions: dict[str, str] = {}

    def turns(self) -> int:
        """Say how many turns there will be."""
        reads = sum(n in self.only for n in READS)
        writes = sum(n in self.only for n in WRITES)
        few = 2 * (1 + 2 * reads + 2 * writes) if reads + writes else 0
        many = 2 * reads + 3 if reads else 0
        watch = 2 * len(requests.FAN_OUTS) if "Watch" in self.only else 0
        own = 1 if "own" in self.only else 0
        replica = 2 * self.effort.rounds if "replica" in self.only else 0
        storms = 2 * (self.effort.cuts + 1) if "storm" in self.only else 0
        return 2 * self.effort.rounds * (few + many + watch + own) + replica + storms

    async def run(self) -> None:
        """Measure on both databases."""
        for kind in (Sqlite, Postgresql):
            with kind() as place:
                if isinstance(place, Postgresql):
                    self.versions["PostgreSQL"] = place.version()
                await self._on(place)

    async def _on(self, place: Place) -> None:
        if self.only.intersection((*READS, *WRITES, AUTH, "Watch", "own")):
            await self._one_server(place)
        if "replica" in self.only and isinstance(place, Postgresql):
            await self._replicas(place)
        if self.only.intersection(FLEETS):
            await self._fleets(place)

    async def _one_server(self, place: Place) -> None:
        recordings = {name: self._record(place, name) for name in WRITES if name in self.only}
        async with serving(place) as stand:
            asked = {
                "GetModelVersion": (requests.GET, requests.gets()),
                STORED["GetModelVersion"]: (requests.GET, requests.gets(include_metrics=True)),
                "ResolveModelVersion": (requests.RESOLVE, requests.resolves()),
                STORED["ResolveModelVersion"]: (
                    requests.RESOLVE,
                    requests.resolves(include_metrics=True),
                ),
                "CreateModelVersion": (requests.CREATE, requests.creates()),
                "TransitionStage": (requests.TRANSITION, requests.transitions()),
            }
            await _check(stand)
            for at_once in (1, requests.WRITERS, requests.CALLERS):
                subjects = self._calls(place, stand, at_once, asked, recordings)
                await self._take_turns(subjects)
                self._weigh_access(place, [subject.row for subject in subjects])
            if "Watch" in self.only:
                for size in requests.FAN_OUTS:
                    await self._fan_out(place, stand, size)
            if "own" in self.only:
                await self._own_models(place, stand, stand, OWN, OWN_STREAMS)

    async def _own_models(
        self, place: Place, writing: Stand, watching: Stand, name: str, size: int
    ) -> None:
        own = OwnModels(writing.channel, watching.address, size)
        await own.open()
        await own.watch(1)
        row = Row(name, place.name, size, target=_target(name, place.name, size))
        # A change that is left to the poll takes most of a second.
        events = self.effort.events // 3 if name == POLLED else self.effort.events
        await self._take_turns([Subject(row, partial(own.watch, max(events, 2)))])
        own.watchers.close()

    async def _replicas(self, place: Place) -> None:
        """Write at one server and watch at another, which is notified or left to its poll."""
        for name, failpoints in ((HEARD, ""), (POLLED, "notify=skip")):
            url = place.copy()
            async with (
                serving(place, url, STAGEWIRE_FAILPOINTS=failpoints) as writing,
                serving(place, url) as watching,
            ):
                await self._own_models(place, writing, watching, name, REPLICA_STREAMS)

    async def _fleets(self, place: Place) -> None:
        effort, figures = self.effort, Figures(place.name)
        # Their memory and bookmarks are the same whatever the database.
        if "streams" in self.only and isinstance(place, Sqlite):
            self.note(f"{place.name}: idle streams")
            await asyncio.to_thread(
                measure_streams,
                place,
                figures,
                size=effort.fleet,
                alone=effort.alone,
                idle_seconds=effort.idle_seconds,
            )
        if "storm" in self.only:
            await asyncio.to_thread(
                measure_storms, place, figures, size=effort.fleet, cuts=effort.cuts, note=self.note
            )
        if "stall" in self.only:
            self.note(f"{place.name}: a stalled reader")
            async with serving(place) as stand:
                events = effort.events // 2
                await measure_stall(stand, figures, rounds=effort.stalls, events=events)
            await asyncio.to_thread(measure_backlog, place, figures, rounds=effort.rounds)
        self.figures += figures.rows.values()

    def _record(self, place: Place, name: str) -> list[bare.Case]:
        bodies = requests.creates() if name == "CreateModelVersion" else requests.transitions()
        self.note(f"{place.name}: recording {name}")
        return bare.record(place.copy(), name, bodies, self.effort.cases)

    def _calls(
        self,
        place: Place,
        stand: Stand,
        at_once: int,
        asked: dict[str, tuple[str, list[Iterator[bytes]]]],
        recordings: dict[str, list[bare.Case]],
    ) -> list[Subject]:
        names = [n for n in asked if n.partition(",")[0] in self.only]
        if at_once == requests.CALLERS:
            names = [n for n in names if n not in WRITES]
        guarded = AUTH in self.only and at_once == requests.CALLERS
        if not names and not guarded:
            return []
        path, bodies = asked["GetModelVersion"]
        seconds = self.effort.seconds

        def measured(path: str, bodies: list[Iterator[bytes]]) -> Callable[[], Awaitable[Sample]]:
            return lambda: stand.generator.measure(path, bodies[:at_once], seconds=seconds)

        echo = loop = Row(POOL, place.name, at_once)
        subjects = [Subject(echo, measured(server.POOL_ECHO, bodies))]
        if at_once == requests.CALLERS:
            loop = Row(LOOP, place.name, at_once)
            bare_grpc = Row(GRPC, place.name, at_once)
            for row, echo_path in ((loop, server.LOOP_ECHO), (bare_grpc, server.BARE_ECHO)):
                subjects.append(Subject(row, measured(echo_path, bodies), echo=echo))
        if guarded:
            row = Row(GUARDED, place.name, at_once)
            subjects.append(Subject(row, measured(server.GUARDED_ECHO, bodies), echo=loop))
        for name in names:
            path, bodies = asked[name]
            row = Row(name, place.name, at_once, target=_target(name, place.name, at_once))
            # What is answered on the loop is held against the echo there, where there is one.
            subject = Subject(row, measured(path, bodies), echo=loop if name in READS else echo)
            if name in recordings:
                subject.run = partial(_counted, stand, subject.run)
                subject.bare = Row(f"{name}, bare statements", place.name, at_once)
                cases = recordings[name]
                some = cases if at_once > 1 else cases[: len(cases) // 4]
                subjects.append(
                    Subject(subject.bare, partial(_replayed, place, some, at_once), echo=echo)
                )
            subjects.append(subject)
        return subjects

    def _weigh_access(self, place: Place, rows: list[Row]) -> None:
        """Tell what access control costs a call, from the two echoes of each round."""
        found = {row.name: row for row in rows}
        if GUARDED not in found:
            return
        costs = [
            (with_.server_cpu / with_.rate - without.server_cpu / without.rate) * 1e6
            for with_, without in zip(found[GUARDED].samples, found[LOOP].samples, strict=True)
        ]
        self.figures.append(
            Figure("access control, CPU a call", place.name, "µs", MOST_AUTH_MICROS, costs)
        )

    async def _fan_out(self, place: Place, stand: Stand, size: int) -> None:
        fan_out = FanOut(stand.channel, stand.address, size)
        await fan_out.open()
        # Fewer to many: a round takes as long.
        events = max(self.effort.events * 1000 // max(size, 1000), 2)
        # The first event gives the bare fan-out its bytes, and warms both.
        await fan_out.watch(1)
        await fan_out.publish(1)
        plain = Row("Watch, bare grpc.aio", place.name, size)
        row = Row("Watch", place.name, size, target=_target("Watch", place.name, size))
        await self._take_turns(
            [
                Subject(plain, partial(fan_out.publish, events)),
                Subject(row, partial(fan_out.watch, events), bare=plain),
            ]
        )
        fan_out.close()

    async def _take_turns(self, subjects: list[Subject]) -> None:
        self.rows += [subject.row for subject in subjects]
        for number in range(self.effort.rounds):
            for subject in subjects:
                row = subject.row
                self.note(f"{row.database}: {row.name}, {row.at_once} at once, round {number + 1}")
                sample = await subject.run()
                row.samples.append(sample)
                if subject.echo is not None:
                    row.to_echo.append(sample.rate / subject.echo.samples[-1].rate)
                if subject.bare is not None:
                    row.to_bare.append(sample.rate / subject.bare.samples[-1].rate)


async def _replayed(place: Place, cases: list[bare.Case], at_once: int) -> Sample:
    return place.replay(cases, at_once)


async def _counted(stand: Stand, run: Callable[[], Awaitable[Sample]]) -> Sample:
    """Make sure that every call of a round took a revision: a no-op would be too easy."""
    before = await stand.head()
    sample = await run()
    grown = await stand.head() - before
    if grown != sample.calls:
        raise RuntimeError(f"{sample.calls} writes took {grown} revisions")
    return sample


async def _check(stand: Stand) -> None:
    """See with a real client that what will be asked is answered as it should be."""
    answers: list[Any] = []
    for path in (requests.GET, server.POOL_ECHO, server.LOOP_ECHO, server.GUARDED_ECHO):
        answer = await raw_call(stand.channel, path)(next(requests.gets()[0]))
        answers.append(pb.GetModelVersionResponse.FromString(answer))
    if any(answer.version != answers[0].version for answer in answers):
        raise RuntimeError("the echoes answer something else than the registry")
    resolved = await raw_call(stand.channel, requests.RESOLVE)(next(requests.resolves()[0]))
    if pb.ResolveModelVersionResponse.FromString(resolved).version.model != "read-00":
        raise RuntimeError("the registry resolves something else than what was asked")
