"""Fifty writers on one model: numbers without holes, and every invariant."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from stagewire import pb
from tests.faults import checkers
from tests.faults.load import Writer
from tests.faults.processes import ServerProcess
from tests.faults.scenes import Scene

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

WRITERS = 50
MODEL = "risk-1"
BOOKMARK_SECONDS = 0.5


class Contender(Writer):
    """A writer that has eyes for one model only, and mostly adds versions to it."""

    def _something(self) -> tuple[Callable[..., Any], Any]:
        if self._random.random() < 0.6:
            return self._registry.CreateModelVersion, pb.CreateModelVersionRequest(model=MODEL)
        stage = self._random.choice(("Staging", "Production"))
        return self._stages.TransitionStage, pb.TransitionStageRequest(
            model=MODEL, version=self._random.randint(1, 6), stage=stage
        )


@pytest.mark.fault
@pytest.mark.timeout(240)
def test_fifty_writers_of_one_model_leave_no_hole_in_its_numbers_or_the_logs(
    database_url: str,
    tmp_path: Path,
    at_length: bool,
    record_property: Callable[[str, object], None],
) -> None:
    record_property("fault", "50 writers on one model")
    seconds = 20.0 if at_length else 2.0
    with ServerProcess(
        database_url,
        tmp_path / "server.log",
        bookmark_interval_seconds=BOOKMARK_SECONDS,
        poll_interval_seconds=0.2,
    ) as server:
        scene = Scene(server.address, seed=5, bookmark_seconds=BOOKMARK_SECONDS, writers=WRITERS)
        scene.writers = [Contender(c, 500 + n) for n, c in enumerate(scene._channels)]
        with scene.playing():
            threading.Event().wait(seconds)

    history = scene.history
    made = {e.revision: c.version for e in history.log for c in created(e)}
    assert len(made) > 2 * WRITERS
    # In the order of the log, so that nobody saw a number before the one below it.
    assert [made[revision] for revision in sorted(made)] == list(range(1, len(made) + 1))
    counts = checkers.check(history)
    record_property("runs", 1)
    record_property("checked", {**counts, "versions": len(made), "writes": len(history.writes)})
    assert all(counts[name] > 0 for name in checkers.CHECKERS), counts


def created(event: pb.Event) -> list[pb.Change]:
    """Give the model's versions that a transaction created."""
    changes = [record.change for record in event.payload.records]
    return [
        change
        for change in changes
        if change.kind == pb.CHANGE_KIND_VERSION_CREATED
        and change.model == MODEL
        and change.namespace == "default"
    ]
