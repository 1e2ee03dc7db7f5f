"""Names: who bears one, and what it goes on meaning after it was given up.

A (name, number) pair never means two different versions: `name_ranges` keep which numbers under
a name belong to which model, also after renames and deletions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from stagewire import errors
from stagewire.store import lookup, schema

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stagewire.store.transactions import Tx


def refuse_taken(name: lookup.Row, text: str) -> None:
    """Refuse MODEL_EXISTS for a name that a living model bears."""
    if name.model_id is not None:
        raise errors.RegistryError(
            "MODEL_EXISTS",
            f"model {text!r} exists; add a version to it, or choose another name",
            resource_type="model",
            resource_name=text,
        )


def leave(tx: Tx, row: lookup.Row, *, renamed: bool) -> None:
    """Close the model's open range and let the name go on from its highest number."""
    key = {"namespace": row.namespace, "name": row.name}
    open_range = sa.select(schema.NameRange).where(
        schema.NameRange.namespace == row.namespace,
        schema.NameRange.name == row.name,
        schema.NameRange.model_id == row.id,
        schema.NameRange.last.is_(None),
    )
    for found in tx.rows(open_range):
        place = {**key, "first": found.first, "model_id": row.id}
        if found.first < row.next_number:
            tx.update(schema.NameRange, place, last=row.next_number - 1)
        else:
            tx.delete(schema.NameRange, **place)
    name = tx.rows(lookup.NAME, **key)[0]
    tx.update(
        schema.Name,
        key,
        model_id=None,
        renamed_id=row.id if renamed else name.renamed_id,
        next_number=max(name.next_number, row.next_number),
    )


def take(tx: Tx, row: lookup.Row, text: str) -> tuple[int, int]:
    """Make the model the bearer of a name; answer its (next number, first number).

    Every number that it has, or will give, under the name must be nobody else's.
    """
    key = {"namespace": row.namespace, "name": text}
    name = tx.rows(lookup.NAME, **key)[0]
    refuse_taken(name, text)
    under = sa.and_(schema.NameRange.namespace == row.namespace, schema.NameRange.name == text)
    ranges = tx.rows(sa.select(schema.NameRange).where(under))
    numbers = tx.rows(
        sa.select(schema.Version.number)
        .where(schema.Version.model_id == row.id)
        .order_by(schema.Version.number)
    )
    others = [r for r in ranges if r.model_id != row.id]
    for version in numbers:
        for other in others:
            if other.first <= version.number <= (other.last or version.number):
                raise errors.precondition(
                    "NAME_HAS_HISTORY",
                    text,
                    f"under the name {text!r} version {version.number} already means another "
                    f"model's version; choose another name",
                )
    next_number = max(row.next_number, name.next_number)
    for mine in ranges:
        if mine.model_id == row.id:
            tx.delete(schema.NameRange, **key, first=mine.first, model_id=row.id)
    for first, last in _runs([v.number for v in numbers], next_number, crowded=bool(others)):
        tx.insert(schema.NameRange, **key, first=first, last=last, model_id=row.id)
    tx.update(schema.Name, key, model_id=row.id)
    return next_number, row.first_number if numbers else next_number


def _runs(
    numbers: Sequence[int], next_number: int, *, crowded: bool
) -> list[tuple[int, int | None]]:
    """Cut a model's numbers, and all that it will give, into ranges."""
    if not crowded:
        return [(numbers[0] if numbers else next_number, None)]
    runs: list[tuple[int, int | None]] = []
    for number in numbers:
        if runs and runs[-1][1] == number - 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    if runs and runs[-1][1] == next_number - 1:
        return [*runs[:-1], (runs[-1][0], None)]
    return [*runs, (next_number, None)]
