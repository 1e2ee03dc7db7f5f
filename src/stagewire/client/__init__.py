"""The SDK: `Client` and `AsyncClient`, the watch's events, and the errors they raise.

Needs neither the server's dependencies nor a running event loop, and configures nothing of the
program that imports it.
"""

from stagewire.client import errors
from stagewire.client.aio import AsyncClient
from stagewire.client.client import Client
from stagewire.client.errors import HistoryLost, StagewireError
from stagewire.client.follower import Event, Snapshot
from stagewire.client.watch import AsyncWatch, Watch

__all__ = [
    "AsyncClient",
    "AsyncWatch",
    "Client",
    "Event",
    "HistoryLost",
    "Snapshot",
    "StagewireError",
    "Watch",
    "errors",
]
