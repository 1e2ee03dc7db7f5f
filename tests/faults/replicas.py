"""Several servers on one database, as one address for clients."""

from __future__ import annotations

import itertools
import threading
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from tests.faults.processes import ServerProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.faults.recordings import WriteRecord

BOOKMARK_SECONDS = 0.5
#: A server that can't reach the log may not know it for 5 s, and takes one more for its goodbyes:
#: so much later than otherwise its bookmarks may be behind.
STALE_SECONDS = 6.0


@contextmanager
def replicas(
    database_url: str, folder: Path, count: int = 2, *, failpoints: str = "", **settings: Any
) -> Iterator[tuple[list[ServerProcess], str]]:
    """Run so many servers; give them, and the address that names all of them.

    `failpoints` are the first server's.
    """
    chosen = {
        "bookmark_interval_seconds": BOOKMARK_SECONDS,
        "poll_interval_seconds": 0.2,
        **settings,
    }
    servers = [
        ServerProcess(database_url, folder / f"server-{number}.log", **chosen)
        for number in range(count)
    ]
    with ExitStack() as stack:
        for server in servers:
            server.launch(failpoints=failpoints if server is servers[0] else "")
            stack.callback(server.kill)
        for server in servers:
            server.wait_until_serving()
        yield servers, address(servers)


def address(servers: list[ServerProcess]) -> str:
    """Name several servers at once, as DNS does."""
    return "ipv4:" + ",".join(server.address for server in servers)


def until(claim: Callable[[], object], what: str, seconds: float = 20.0) -> float:
    """Wait until something is so, and say how long that took."""
    began = time.monotonic()
    while not claim():
        assert time.monotonic() - began < seconds, f"{what}: not within {seconds:g} s"
        threading.Event().wait(0.01)
    return time.monotonic() - began


def longest_silence(writes: list[WriteRecord], since: float, until: float) -> float:
    """Give the longest time in which no write at all was acknowledged."""
    moments = sorted(w.acknowledged for w in writes if w.acknowledged is not None)
    inside = [since, *(m for m in moments if since < m < until), until]
    return max(later - earlier for earlier, later in itertools.pairwise(inside))
