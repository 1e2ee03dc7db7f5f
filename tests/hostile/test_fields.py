"""Climbing texts in every place where a text can stand, over gRPC and over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.hostile import calls, visits
from tests.hostile.barrages import Kind, fire
from tests.hostile.tables import TOLD

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.hostile.targets import Target

    Record = Callable[[str, object], None]

pytestmark = pytest.mark.hostile


def test_what_surrounds_a_hostile_text_is_no_mistake_itself(target: Target) -> None:
    called, visited = calls.usual(target), visits.usual(target)
    # What it has instead of files is where they are.
    visited.pop("GET /model-versions/get-artifact")

    wrong = [name for name, answer in called.items() if answer.code == "INVALID_ARGUMENT"]
    wrong += [name for name, answer in visited.items() if answer.code not in ("200", "404")]
    assert not wrong
    for found, good in ((called, "OK"), (visited, "200")):
        assert sum(answer.code == good for answer in found.values()) > len(found) / 2


@pytest.mark.parametrize("kind", [*calls.kinds(), *visits.kinds()], ids=str)
def test_a_hostile_text_is_refused_or_kept_and_is_never_anything_but_a_text(
    target: Target, kind: Kind, many: bool, record_property: Record
) -> None:
    tally = fire(target, kind, many=many)
    record_property(TOLD, tally.row())

    assert not tally.problems, "\n".join(tally.problems)
