"""The desk: what an agent's three threads share, and the one lock around it."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

import tenacity

if TYPE_CHECKING:
    from stagewire.agent.board import Board
    from stagewire.agent.state import StateFile

_log = logging.getLogger("stagewire.agent")

#: Full jitter between retries of a failed order, a refused watch or a failed report.
BACKOFF = tenacity.wait_random_exponential(multiplier=1, max=120)


class Desk:
    """The board, its file, and what is still to be told; read and changed under `changed`."""

    def __init__(
        self, board: Board, state: StateFile, *, backoff: tenacity.wait.wait_base = BACKOFF
    ) -> None:
        """Begin with nothing read and nothing to tell."""
        self.board = board
        self.changed = threading.Condition()
        self.stopping = threading.Event()
        self.session = 0
        self.is_untold = False
        self._state = state
        self._backoff = backoff

    def tell(self) -> None:
        """Wake whoever waits: there is something to carry out or to report."""
        self.is_untold = True
        self.changed.notify_all()

    def save(self) -> None:
        """Make the board durable."""
        try:
            self._state.save(self.board)
        except OSError:
            # Memory is right; after a restart the older cursor only repeats what is done.
            _log.exception("the state could not be saved")

    def close(self) -> None:
        """Let every thread end."""
        with self.changed:
            self.stopping.set()
            self.changed.notify_all()

    def pause(self, failures: int) -> float:
        """Return how many seconds to wait after so many failures."""
        state = tenacity.RetryCallState(tenacity.Retrying(), None, (), {})
        state.attempt_number = failures
        return self._backoff(state)
