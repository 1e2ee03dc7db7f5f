"""What a fleet costs one server: thousands of streams held, dropped at once, and one that stalls.

The server is `stagewire serve` as anybody runs it; the fleet is processes of real gRPC clients
(`tests/fleet`), whose CPU time is told beside the server's.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.faults.processes import ServerProcess
from tests.fleet import stalling, storms
from tests.fleet.controls import Fleet

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.places import Place

MODELS = tuple(f"m{number}" for number in range(100))
_KIBIBYTE = 1024
_MEBIBYTE = 1024 * 1024
OPEN_SECONDS = 120.0


@dataclass(slots=True)
class Figure:
    """One thing measured, with its unit, and what was aimed at."""

    name: str
    database: str
    unit: str
    most: float | None = None
    values: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """The median of what was found."""
        return statistics.median(self.values)

    @property
    def met(self) -> bool | None:
        """Whether what was aimed at was reached; None where nothing was."""
        return None if self.most is None else self.median <= self.most


class Figures:
    """What was measured so far, in the order in which it was first told."""

    def __init__(self, database: str) -> None:
        """Tell it of one kind of database."""
        self._database = database
        self.rows: dict[str, Figure] = {}

    def tell(self, name: str, value: float, unit: str, *, most: float | None = None) -> None:
        """Add a value of one round."""
        row = self.rows.setdefault(name, Figure(name, self._database, unit, most))
        row.values.append(value)


def measure_streams(
    place: Place, figures: Figures, *, size: int, alone: int, idle_seconds: float
) -> None:
    """Hold idle streams, a hundred on a connection, and some with a connection of their own."""
    for count, shared in ((size, 100), (alone, 1)):
        with _serving(place) as server, Fleet(server.address, streams_a_connection=shared) as fleet:
            pid = server.process.pid
            # The first streams warm the server up: what they cost is not a stream's.
            fleet.open(100, MODELS)
            fleet.wait_until_served(seconds=OPEN_SECONDS)
            before = storms.resident_bytes(pid)
            fleet.open(count, MODELS)
            fleet.wait_until_served(seconds=OPEN_SECONDS)
            grown = storms.resident_bytes(pid) - before
            named = f"{count:,} idle streams, {shared} a connection"
            most = 30.0 if shared > 1 else None
            figures.tell(f"{named}: memory", grown / count / _KIBIBYTE, "KiB a stream", most=most)
            if shared == 1:
                continue
            own, cpu = fleet.cpu_seconds, storms.cpu_seconds(pid)
            # Nothing to wait for: it is the time itself that is measured.
            time.sleep(idle_seconds)
            fleet.state()
            told = f"{named}: bookmarks every 15 s"
            used = (storms.cpu_seconds(pid) - cpu) / idle_seconds
            figures.tell(f"{told}, server", used, "CPU s a second")
            used = (fleet.cpu_seconds - own) / idle_seconds
            figures.tell(f"{told}, fleet", used, "CPU s a second")


def measure_storms(
    place: Place, figures: Figures, *, size: int, cuts: int, note: Callable[[str], None]
) -> None:
    """Drop every stream at once, by cutting connections and by killing the server."""
    with _serving(place) as server, Fleet(server.address) as fleet:
        writer = storms.ModelWriter(server.address, MODELS, pause_seconds=0.05)
        writer.make_models()
        fleet.open(size, MODELS)
        fleet.wait_until_served(seconds=OPEN_SECONDS)
        with storms.Prober(server.address) as prober, writer:
            for number, drop in enumerate(
                (*[storms.cut_connections] * cuts, storms.kill_server), start=1
            ):
                note(f"{place.name}: storm of {size:,}, round {number}")
                how = "the server killed" if drop is storms.kill_server else "connections cut"
                named = f"{size:,} dropped, {how}"
                storm = drop(fleet, server, writer)
                figures.tell(f"{named}: all greeted", storm.served_seconds, "s")
                figures.tell(f"{named}: up to date", storm.caught_up_seconds, "s", most=10.0)
                figures.tell(f"{named}: CPU of the server", storm.server_cpu_seconds, "s")
                figures.tell(f"{named}: CPU of the fleet", storm.fleet_cpu_seconds, "s")
        if bad := prober.answers.keys() - {"SERVING", "UNAVAILABLE"}:
            figures.tell("health: no answer in 1 s", sum(prober.answers[b] for b in bad), "")
        figures.tell("health: longest answer", prober.longest_seconds, "s", most=1.0)


def measure_backlog(place: Place, figures: Figures, *, rounds: int) -> None:
    """Compare how much a server grows by a backlog before a reader, and before a stalled one."""
    changes = 12 * _MEBIBYTE // stalling.CHANGE_BYTES
    with (
        _serving(place, ring_bytes=_MEBIBYTE) as server,
        stalling.Ballast(server.address, "ballast") as ballast,
    ):
        pid = server.process.pid
        ballast.change(changes)
        for _ in range(rounds):
            reading, stalled = (
                stalling.grow_by_backlog(pid, server.address, ballast, changes, stalled=way)
                for way in (False, True)
            )
            cost = (stalled - reading) / _MEBIBYTE
            figures.tell("a stalled reader before 12 MiB: memory", cost, "MiB", most=6.0)


def _serving(place: Place, *, ring_bytes: int = 32 * _MEBIBYTE) -> ServerProcess:
    return ServerProcess(place.copy(), place.folder / "serve.log", ring_bytes=ring_bytes)
