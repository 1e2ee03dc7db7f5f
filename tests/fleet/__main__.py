"""One process of a simulated fleet: takes commands as JSON lines, answers each with one.

`open` adds members, `state` counts who is served, `cut` drops every connection at once, `told`
gives what was received, `stop` (or the end of the input) ends it.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import time
from collections import Counter
from dataclasses import fields
from typing import Any

import uvloop

from tests.fleet.members import Crowd


def state(crowd: Crowd, since: float, reached: dict[str, int]) -> dict[str, Any]:
    """Count whose present stream was greeted after `since`, and who has received what."""
    served = [m.hello_time for m in crowd.members if m.hello_time > since]
    return {
        "members": len(crowd.members),
        "served": len(served),
        "last_served": max(served, default=0.0),
        "reached": sum(m.position >= reached.get(m.model, 0) for m in crowd.members),
        **{each.name: getattr(crowd.counts, each.name) for each in fields(crowd.counts)},
    }


def told(crowd: Crowd) -> list[tuple[str, list[int], int]]:
    """Give each sequence of revisions that members of a model received, and how many did."""
    found = Counter((member.model, tuple(member.told)) for member in crowd.members)
    return [(model, list(revisions), count) for (model, revisions), count in found.items()]


async def obey(crowd: Crowd, order: dict[str, Any]) -> Any:
    """Do what one command says."""
    match order["command"]:
        case "open":
            crowd.open(order["models"])
            return len(order["models"])
        case "state":
            return state(crowd, order["since"], order["reached"])
        case "cut":
            return crowd.cut()
        case "told":
            return told(crowd)
    raise ValueError(order["command"])


async def main() -> None:
    """Obey until told to stop."""
    first = json.loads(sys.stdin.readline())
    crowd = Crowd(first["addresses"], streams_a_connection=first["streams_a_connection"])
    minding = asyncio.create_task(crowd.mind_silence())
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        answer = await obey(crowd, json.loads(line))
        reply = {"answer": answer, "cpu": time.process_time(), "now": time.monotonic()}
        print(json.dumps(reply), flush=True)  # noqa: T201  # how a command is answered
    minding.cancel()
    # The connections go with the process: an orderly farewell of thousands would take seconds.
    os._exit(0)


if __name__ == "__main__":
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    uvloop.run(main())
