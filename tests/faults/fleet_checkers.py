"""The invariants that show only with several servers, agents and time; see `checkers`.

W14, that one stalled client slows no other, is a ratio of rounds side by side and is measured by
a test of its own.
"""

from __future__ import annotations

import bisect
import itertools
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stagewire import pb
from stagewire.service import cursors
from tests.faults import checkers
from tests.faults.checkers import require, streams
from tests.faults.fold import Fold

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.faults.recordings import AgentRecord, History, ReportRecord, StreamRecord

#: What an idle server may take, and a stream, as the targets say.
IDLE_BYTES = 150 * 1024 * 1024
STREAM_BYTES = 30 * 1024
#: The ring counts the bytes that it holds; Python's objects around them take as much again,
#: and what passes through while streams begin all at once is not given back to the kernel.
RING_FACTOR = 3
#: What a server in its stride may still grow by, its streams aside.
GROWTH_BYTES = 24 * 1024 * 1024


@dataclass
class _Segment:
    """What a stream told between two snapshots: everything after `base`, up to `until`."""

    base: int
    until: int
    name: str
    told: list[tuple[int, pb.WatchResponse]] = field(default_factory=list)


def check(history: History) -> Counter[str]:
    """Run every checker, those of `checkers` too; answer how many things each one checked."""
    return checkers.check(history) + Counter(
        {name: checker(history) for name, checker in CHECKERS.items()}
    )


def w15_same_everywhere(history: History) -> int:
    """One cursor gives one sequence, on every server, as far as both go between snapshots."""
    groups: defaultdict[tuple[bytes, int], list[_Segment]] = defaultdict(list)
    for watcher, stream in streams(history):
        asked = watcher.filter.SerializeToString(deterministic=True)
        for segment in _segments(history, stream, watcher.name):
            groups[asked, segment.base].append(segment)
    count = 0
    for segments in groups.values():
        longest = max(segments, key=lambda segment: segment.until)
        for segment in segments:
            if segment is longest:
                continue
            until = bisect.bisect_right(longest.told, segment.until, key=lambda told: told[0])
            where = (segment.name, "and", longest.name, "after", segment.base)
            require(segment.told == longest.told[:until], "W15", *where, "hear differently")
            count += len(segment.told)
    return count


def _segments(history: History, stream: StreamRecord, name: str) -> Iterator[_Segment]:
    base = checkers.base(history, stream)
    segment = None if base is None else _Segment(base, base, name)
    for heard in stream.heard:
        message = heard.message
        match message.WhichOneof("message"):
            case "snapshot_begin":
                if segment is not None:
                    yield segment
                segment = None
            case "snapshot_end":
                revision = cursors.decode(message.snapshot_end.cursor).revision
                segment = _Segment(revision, revision, name)
            case "transaction" if segment is not None:
                segment.until = message.transaction.revision
                segment.told.append((segment.until, message))
            case "bookmark" if segment is not None:
                segment.until = message.bookmark.revision
    if segment is not None:
        yield segment


def w17_reports(history: History) -> int:
    """A stored report is one that was sent, never older than one seen or acknowledged before."""
    sent: dict[tuple[str, str, int], ReportRecord] = {}
    acknowledged = defaultdict[tuple[str, str], list[tuple[float, tuple[int, int]]]](list)
    for report in history.reports:
        for model, moment in report.told:
            sent[report.agent, model, moment] = report
            if report.acknowledged is not None:
                place = (report.session, report.seq)
                acknowledged[report.agent, model].append((report.acknowledged, place))
    for places in acknowledged.values():
        places.sort()
    tops = {
        key: list(itertools.accumulate((place for _, place in places), max))
        for key, places in acknowledged.items()
    }
    seen: dict[tuple[str, str], tuple[int, int, int]] = {}
    count = 0
    for poll in history.polls:
        for stored in poll.deployments:
            key = (stored.agent, stored.model)
            found = sent.get((*key, stored.agent_time.ToMicroseconds()))
            require(found is not None, "W17", key, "was never reported like this", stored)
            assert found is not None
            require(found.session == stored.session, "W17", key, "of session", stored.session)
            at = (found.session, found.seq, stored.report_time.ToMicroseconds())
            require(at >= seen.get(key, at), "W17", key, "went back to", at)
            seen[key] = at
            before = bisect.bisect_left(acknowledged[key], (poll.began,))
            least = tops[key][before - 1] if before else (0, 0)
            require(at[:2] >= least, "W17", key, "is at", at, "though acknowledged at", least)
            count += 1
    return count


def w19_agents(history: History) -> int:
    """When writes stop and faults heal, every agent runs what the registry says."""
    fold = Fold()
    for event in history.log:
        fold.apply(event)
    living = fold.living()
    count = 0
    for agent in history.agents:
        primaries: dict[tuple[str, str], int] = {}
        for key, state in living.items():
            if key[0] == "version" and _is_for(agent, state):
                place = (state.model, state.model_id)
                primaries[place] = max(primaries.get(place, 0), state.version)
        wanted = {name: version for (name, _), version in primaries.items()}
        require(agent.running == wanted, "W19", agent.name, "runs", agent.running, "not", wanted)
        for (_, model_id), version in primaries.items():
            done = agent.carried_out.get(model_id)
            require(done == version, "W19", agent.name, "carried out", done, "not", version)
        count += 1 + len(wanted)
    return count


def _is_for(agent: AgentRecord, version: pb.ModelVersion) -> bool:
    return (
        version.namespace == agent.namespace
        and agent.stage.casefold() in {stage.casefold() for stage in version.stages}
        and any(
            version.model.startswith(model[:-1]) if model.endswith("*") else version.model == model
            for model in agent.models
        )
    )


def w20_bounded(history: History) -> int:
    """A server's memory is bounded by its streams and its ring, and does not grow with time."""
    streams_bytes = STREAM_BYTES * len(history.watchers)
    most = IDLE_BYTES + streams_bytes + RING_FACTOR * history.ring_bytes
    lives: defaultdict[tuple[str, int], list[int]] = defaultdict(list)
    for sample in history.memory:
        where = (sample.server, "in life", sample.life, "after", round(sample.seconds), "s")
        require(sample.rss_bytes <= most, "W20", *where, "holds", sample.rss_bytes, "over", most)
        if sample.seconds >= history.settled_seconds:
            lives[sample.server, sample.life].append(sample.rss_bytes)
    # Other servers' streams may come over at any time.
    allowed = GROWTH_BYTES + streams_bytes
    for (server, life), held in lives.items():
        grown = max(held) - held[0]
        require(grown <= allowed, "W20", server, "in life", life, "grew by", grown, "of", allowed)
    return len(history.memory)


CHECKERS: dict[str, Callable[[History], int]] = {
    "W15": w15_same_everywhere,
    "W17": w17_reports,
    "W19": w19_agents,
    "W20": w20_bounded,
}
