"""What is read of the log at once is bounded by its weight, and still is all of it in the end."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from stagewire import pb
from stagewire.callers import ANONYMOUS
from stagewire.service import tail as tails
from stagewire.store import events

if TYPE_CHECKING:
    from stagewire.service.registry import Registry

HEAVY = 60
TEXTS = 100


def write_heavy_changes(registry: Registry) -> None:
    model = pb.Model(name="churn")
    registry.CreateModel(pb.CreateModelRequest(model=model), ANONYMOUS)
    for number in range(HEAVY):
        tags = {f"t{text}": str(number % 10) * 1000 for text in range(TEXTS)}
        registry.SetModelTags(pb.SetModelTagsRequest(model="churn", tags=tags), ANONYMOUS)


async def test_a_page_of_the_log_is_bounded_by_its_weight(registry: Registry) -> None:
    write_heavy_changes(registry)
    head, chain = registry.database.read(lambda tx: (tx.head, events.hash_at(tx, 0) or b""))
    after, pages = 0, []
    with ThreadPoolExecutor(1) as executor:
        tail = tails.Tail(registry.database, executor)
        while after < head:
            page = await tail.page(after, chain[:8])
            pages.append(page)
            after, chain = page[-1].revision, page[-1].chain
        tail.close()

    assert [entry.revision for page in pages for entry in page] == list(range(1, head + 1))
    assert len(pages) > 1
    weights = [sum(entry.size for entry in page) for page in pages]
    # One more than fits is read, and what is kept of a change is little larger than its row.
    assert max(weights) < tails.PAGE_BYTES + 2 * TEXTS * 1100


def test_a_change_heavier_than_a_page_is_read_alone(registry: Registry) -> None:
    write_heavy_changes(registry)

    rows = registry.database.read(
        lambda tx: tx.rows(tails._PAGE_AFTER, after=2, size=200, most_bytes=1)
    )

    assert [row.revision for row in rows] == [3]
