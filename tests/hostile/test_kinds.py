"""What is no request at all, or hardly one, over gRPC's port and over HTTP's."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.hostile import frames, lines, queries
from tests.hostile.barrages import Kind, fire
from tests.hostile.scenes import lay_out
from tests.hostile.tables import TOLD
from tests.hostile.targets import Target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Record = Callable[[str, object], None]

pytestmark = pytest.mark.hostile


@pytest.fixture(scope="module")
def wire_target(
    sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Target]:
    """Run one watched server for all kinds: what one leaves behind, the next ones meet."""
    folder = tmp_path_factory.mktemp("hostile")
    shutil.copy(sqlite_template, folder / "stagewire.db")
    with Target(f"sqlite:///{folder / 'stagewire.db'}", folder) as serving:
        serving.ids = lay_out(serving)
        yield serving


@pytest.mark.parametrize("kind", [*frames.kinds(), *lines.kinds(), *queries.kinds()], ids=str)
def test_the_server_outlives_it_and_gives_nothing_away(
    wire_target: Target, kind: Kind, many: bool, record_property: Record
) -> None:
    tally = fire(wire_target, kind, many=many)
    record_property(TOLD, tally.row())

    assert not tally.problems, "\n".join(tally.problems)
