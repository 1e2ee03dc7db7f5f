"""A fleet: watchers and agents in processes of their own, started, told to finish, read back."""

from __future__ import annotations

import json
import select
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tests.faults.recordings import AgentRecord, ReportRecord
from tests.faults.tapes import Library

if TYPE_CHECKING:
    from types import TracebackType

    from tests.faults.recordings import History

ROOT = Path(__file__).parents[2]
WATCHERS_A_PROCESS = 500
PATIENCE_SECONDS = 120.0


class _Crew:
    """One process of the fleet."""

    def __init__(self, module: str, folder: Path, name: str, **spec: Any) -> None:
        self.tape = folder / name
        self._log = folder / f"{name}.log"
        command = [sys.executable, "-m", f"tests.faults.{module}"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*command, json.dumps({**spec, "tape": str(self.tape)})],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=ROOT,
                text=True,
            )

    def expect(self, word: str) -> None:
        """Wait until it says a word; fail with its log when it does not."""
        stdout = self._process.stdout
        assert stdout is not None
        said = ""
        if select.select([stdout], [], [], PATIENCE_SECONDS)[0]:
            said = stdout.readline().strip()
        assert said == word, (said, self._log.read_text()[-4000:])

    def tell(self, line: str) -> None:
        """Send it a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def end(self) -> None:
        """Wait for its end."""
        assert self._process.wait(PATIENCE_SECONDS) == 0, self._log.read_text()[-4000:]

    def abandon(self) -> None:
        """End it, if it still runs."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(10)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()


class Fleet:
    """So many watchers, and among them so many agents, on one address of several servers."""

    def __init__(
        self, address: str, folder: Path, *, watchers: int, agents: int, impatient: bool = True
    ) -> None:
        """Start the processes."""
        folder.mkdir()
        common = {"address": address, "impatient": impatient}
        self._crews: list[_Crew] = []
        try:
            for first in range(0, watchers - agents, WATCHERS_A_PROCESS):
                count = min(WATCHERS_A_PROCESS, watchers - agents - first)
                name = f"watchers-{first}"
                crew = _Crew("watching", folder, name, first=first, count=count, **common)
                self._crews.append(crew)
            if agents:
                self._crews.append(_Crew("deploying", folder, "agents", count=agents, **common))
        except BaseException:
            self.abandon()
            raise

    def __enter__(self) -> Self:
        """Wait until every watcher has heard something."""
        try:
            for crew in self._crews:
                crew.expect("ready")
        except BaseException:
            self.abandon()
            raise
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        """End what still runs."""
        self.abandon()

    def abandon(self) -> None:
        """End every process."""
        for crew in self._crews:
            crew.abandon()

    def finish(self, head: int, history: History) -> None:
        """Wait until all have come to the head, and take in what they recorded."""
        for crew in self._crews:
            crew.tell(str(head))
        for crew in self._crews:
            crew.expect("done")
        for crew in self._crews:
            crew.end()
        library = Library()
        for crew in self._crews:
            history.watchers += library.watchers(crew.tape)
            told = crew.tape.with_suffix(".json")
            if told.exists():
                content = json.loads(told.read_text())
                history.agents += [AgentRecord(**fields) for fields in content["agents"]]
                history.reports += [ReportRecord(**fields) for fields in content["reports"]]
