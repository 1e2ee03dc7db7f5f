"""Requests delivered twice, late and out of order: each is done once and answered alike."""

from __future__ import annotations

import threading
import uuid
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from stagewire import pb
from tests.faults import checkers
from tests.faults.load import NAMES, SPACES, Writer
from tests.faults.post import Post
from tests.faults.processes import CHANNEL_OPTIONS, ServerProcess
from tests.faults.scenes import Scene

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

WRITERS = 16
BOOKMARK_SECONDS = 0.5


class Steady(Writer):
    """A writer of what is never refused: a refusal is not kept, so a repetition may succeed."""

    def _something(self) -> tuple[Callable[..., Any], Any]:
        chance, registry = self._random, self._registry
        named: dict[str, Any] = {"namespace": chance.choice(SPACES), "model": chance.choice(NAMES)}
        numbered: dict[str, Any] = {**named, "version": chance.randint(1, 3)}
        made: list[tuple[Callable[..., Any], Any]] = [
            (registry.CreateModelVersion, pb.CreateModelVersionRequest(**named)),
            (
                registry.CreateModel,
                pb.CreateModelRequest(model=pb.Model(name=f"new-{uuid.uuid4().hex}")),
            ),
            (
                registry.SetModelTags,
                pb.SetModelTagsRequest(**named, tags={"n": str(chance.randint(1, 9))}),
            ),
            (registry.SetAlias, pb.SetAliasRequest(**numbered, alias="champion", reassign=True)),
            (
                self._stages.TransitionStage,
                pb.TransitionStageRequest(
                    **numbered, stage=chance.choice(("Staging", "Production"))
                ),
            ),
        ]
        return chance.choice(made)


@pytest.mark.fault
@pytest.mark.timeout(180)
def test_requests_that_come_twice_or_late_are_done_once_and_answered_alike(
    database_url: str,
    tmp_path: Path,
    at_length: bool,
    record_property: Callable[[str, object], None],
) -> None:
    record_property("fault", "duplicated and delayed requests")
    seconds = 60.0 if at_length else 4.0
    with (
        ServerProcess(
            database_url,
            tmp_path / "server.log",
            bookmark_interval_seconds=BOOKMARK_SECONDS,
            poll_interval_seconds=0.2,
        ) as server,
        Post(server.address, seed=6, late_seconds=2.0) as post,
    ):
        scene = Scene(server.address, seed=6, bookmark_seconds=BOOKMARK_SECONDS)
        options = [*CHANNEL_OPTIONS, ("grpc.use_local_subchannel_pool", 1)]
        channels = [grpc.insecure_channel(post.address, options=options) for _ in range(WRITERS)]
        scene.writers = [Steady(channel, n) for n, channel in enumerate(channels)]
        with scene.playing():
            threading.Event().wait(seconds)
            for writer in scene.writers:
                writer.stop()
            # Or what is still under way would come after the stock was taken.
            post.wait_until_delivered()
        for channel in channels:
            channel.close()

    history = scene.history
    assert not [write.refusal for write in history.writes if write.refusal]
    both = [d for d in post.duplicates if {c for c, _ in d.replies} == {grpc.StatusCode.OK}]
    for duplicate in both:
        answer = getattr(pb, duplicate.method.rpartition("/")[2] + "Response")
        one, other = (answer.FromString(data) for _, data in duplicate.replies)
        assert one == other
    counts = checkers.check(history)
    record_property("runs", len(post.duplicates))
    record_property("checked", {**counts, "carried": post.carried, "given_up": post.given_up})
    assert len(both) > len(post.duplicates) * 0.8
    assert all(counts[name] > 0 for name in checkers.CHECKERS), counts
