"""What is sent over HTTP: bodies and queries in, JSON out, a long list piece by piece."""

from __future__ import annotations

import contextlib
import json
import re
from typing import TYPE_CHECKING, Any

import orjson

from stagewire.mlflow import errors

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stagewire.mlflow.searches import Listing
    from stagewire.mlflow.shapes import Json, Shape

_LONG_NUMBER = re.compile(rb"\d{19}")


def read_body(body: bytes) -> Json:
    """Read a body; one that is no JSON counts as empty, one encoded twice is decoded twice."""
    found = _parsed(body)
    if isinstance(found, str):
        # Clients of early releases encode their JSON once more, as a string.
        found = _parsed(found.encode(errors="replace"))
        if found is None:
            raise errors.MlflowError("BAD_REQUEST", "The request body holds no JSON object.")
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise errors.MlflowError("BAD_REQUEST", "The request body must be a JSON object.")
    return found


def _parsed(body: bytes) -> Any:
    if _LONG_NUMBER.search(body) is None:
        with contextlib.suppress(ValueError):
            return orjson.loads(body)
    # Python's own parser takes what clients in Python can write: NaN, lone surrogates, and
    # integers of any length, which are not rounded, for refusals repeat them.
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def read_query(shape: Shape, pairs: list[tuple[str, str]]) -> Json:
    """Read a query string; a repeated field is a list however often it is there."""
    found: Json = {}
    for name, field in shape.items():
        values = [value for key, value in pairs if key == name]
        if values:
            found[name] = values if field.repeated else values[0]
    return found


def dumped(answer: Mapping[str, Any]) -> bytes:
    """Write an answer."""
    return orjson.dumps(answer)


class Stream:
    """A list on its way out: each `chunk` reads one more page, on the pool, and writes it."""

    def __init__(self, listing: Listing) -> None:
        self._listing = listing
        self._begun = False

    @property
    def ended(self) -> bool:
        """Tell whether the last chunk was the last."""
        return self._listing.ended

    def chunk(self) -> bytes:
        """Read on, and give the next piece of the answer; the last one closes it."""
        rows = self._listing.page()
        # An empty list is left out, as MLflow does.
        start = b'{"%s":[' % self._listing.name.encode() if rows else b"{"
        if self._begun:
            start = b","
        self._begun = True
        return start + orjson.dumps(rows)[1:-1] + (self._end(rows) if self.ended else b"")

    def _end(self, rows: list[Json]) -> bytes:
        if not rows:
            return b"}"
        token = self._listing.token
        more = b',"next_page_token":' + orjson.dumps(token) if token else b""
        return b"]" + more + b"}"
