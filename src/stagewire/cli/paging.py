"""Lists longer than a page: read page by page until the limit, under one unchanged query."""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from google.protobuf.message import Message

from stagewire.cli import texts

R = TypeVar("R", bound=Message)

#: What lists show unless told otherwise, as the contract's own page does.
DEFAULT_LIMIT = 100
#: The contract's largest page.
LARGEST_PAGE = 1000


def rows(
    call: Callable[[Any], Any], request: Any, found: Callable[[Any], Any], *, limit: int
) -> Iterator[Any]:
    """Call a List RPC for `limit` rows, or all when it is 0."""
    request.page_size = min(limit or LARGEST_PAGE, LARGEST_PAGE)
    given = 0
    while True:
        answer = call(request)
        for row in found(answer):
            yield row
            given += 1
            if given == limit:
                return
        request.page_token = answer.next_page_token
        if not answer.next_page_token:
            return


def collect(
    call: Callable[[Any], Any], request: R, rows: Callable[[Any], Any], *, limit: int
) -> list[Any]:
    """Call a List RPC until `limit` rows (0: all) are together; says so when there were more."""
    request.page_size = min(limit or LARGEST_PAGE, LARGEST_PAGE)  # type: ignore[attr-defined]
    found: list[Any] = []
    while True:
        answer = call(request)
        found.extend(rows(answer))
        more = answer.next_page_token
        if limit and (len(found) > limit or (len(found) == limit and more)):
            texts.remark(f"these are the first {limit}; --limit 0 lists all")
            return found[:limit]
        if not more:
            return found
        request.page_token = more  # type: ignore[attr-defined]
