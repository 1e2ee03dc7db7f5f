"""MLflow's filters and orders in our own language."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Query:
    """What a list of ours is asked for."""

    filter: str
    order_by: str


def models_query(filter_text: str, order_by: Sequence[str]) -> Query:
    """Ask for models, by name unless told otherwise."""
    return Query(filter_text, ", ".join(order_by) or "name")


def versions_query(filter_text: str, order_by: Sequence[str]) -> Query:
    """Ask for versions, those that changed last first unless told otherwise."""
    return Query(filter_text, ", ".join(order_by) or "last_updated_timestamp desc")
