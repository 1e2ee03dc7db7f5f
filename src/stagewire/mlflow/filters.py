"""MLflow's filters and orders, said in the registry's own language.

A text that MLflow takes means here what it means there. Any other goes on as it is, so that
everything the registry can be asked for can be asked for through MLflow too; where the registry
refuses it as well, the refusal is MLflow's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stagewire.mlflow import clauses, orders
from stagewire.mlflow.errors import MlflowError, invalid

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from stagewire.mlflow.clauses import Clause, Grammar

#: As long as the registry's own may be.
LONGEST_FILTER = 10_000
LONGEST_ORDER = 1_000

_PROMPT = "mlflow.prompt.is_prompt"
#: MLflow's clients of 2.21 and later end every filter for models with this.
_NO_PROMPTS = f" AND tag.`{_PROMPT}` != 'true'"
#: A prompt's versions are found out by any of them: one that has lost its tag is hidden as well.
_HIDDEN_MODELS = f"NOT tags.`{_PROMPT}` = 'true'"
_HIDDEN_VERSIONS = f"NOT any_version_tags.`{_PROMPT}` = 'true'"
#: No name is absent, so that nothing satisfies this.
_NOTHING = "name IS NULL"
#: No version's number is beyond it, and the registry takes it for a whole number.
_FURTHEST = 2**53

_QUOTED_OR_BRACKET = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|`(?:[^`]|``)*`|[()]""")


@dataclass(frozen=True, slots=True)
class Query:
    """What a list of the registry's is asked for.

    `refusals` says by reason what to answer where the registry refuses it.
    """

    filter: str
    order_by: str
    refusals: Mapping[str, MlflowError] = field(default_factory=dict)


def models_query(filter_text: str, order_by: Sequence[str]) -> Query:
    """Say a search for models, by name unless told otherwise; prompts only if asked for."""
    return _query(_MODELS, filter_text, order_by)


def versions_query(filter_text: str, order_by: Sequence[str]) -> Query:
    """Say a search for versions, the last changed first unless told otherwise."""
    return _query(_VERSIONS, filter_text, order_by or ["last_updated_timestamp DESC"])


@dataclass(frozen=True, slots=True)
class _Search:
    """What is searched for, and what goes without saying."""

    grammar: Grammar
    hidden: str
    read_order: Callable[[str], tuple[str, bool]]
    #: What rows that are equal otherwise are ordered by, and whether it ascends.
    ties: Mapping[str, bool]


_MODELS = _Search(clauses.MODELS, _HIDDEN_MODELS, orders.model_order, {"name": True})
_VERSIONS = _Search(
    clauses.VERSIONS,
    _HIDDEN_VERSIONS,
    orders.version_order,
    {"name": True, "version_number": False},
)


def _query(search: _Search, text: str, order_by: Sequence[str]) -> Query:
    _check_length("filter", len(text), LONGEST_FILTER)
    # Clauses are joined by a comma and a blank.
    _check_length("order_by", sum(len(clause) + 2 for clause in order_by), LONGEST_ORDER)
    refusals: dict[str, MlflowError] = {}
    try:
        found = clauses.read(text, search.grammar)
    except MlflowError as refusal:
        filter_text = _passed_on(text, search.hidden, refusal)
        refusals["INVALID_FILTER"] = refusal
    else:
        filter_text = _said(found, search.hidden)
    try:
        order_text = _ordered(search, order_by)
    except MlflowError as refusal:
        if not all(clause.strip() for clause in order_by):
            raise
        order_text = ", ".join(order_by)
        refusals["INVALID_ORDER_BY"] = refusal
    return Query(filter_text, order_text, refusals)


def _check_length(name: str, length: int, most: int) -> None:
    if length > most:
        raise invalid(
            f"Invalid value for parameter '{name}' supplied: it must have at most "
            f"{most:,} characters, but has {length:,}"
        )


def _said(found: Sequence[Clause], hidden: str) -> str:
    about_prompts = [clause for clause in found if clause.tag and clause.key == _PROMPT]
    if not about_prompts or not _asks_for_prompts(about_prompts[0]):
        # Then nothing that it says of prompts counts.
        found = [clause for clause in found if not (clause.tag and clause.key == _PROMPT)]
        return " AND ".join([*map(_comparison, found), hidden])
    return " AND ".join(map(_comparison, found))


def _asks_for_prompts(clause: Clause) -> bool:
    return (clause.comparator, str(clause.value).lower()) in {("=", "true"), ("!=", "false")}


def _comparison(clause: Clause) -> str:
    if clause.tag and not clause.key:
        return _NOTHING
    name = f"tags.`{clause.key.replace('`', '``')}`" if clause.tag else clause.key
    value = clause.value
    if isinstance(value, tuple):
        return f"{name} {clause.comparator} ({', '.join(map(_quoted, value))})"
    if not isinstance(value, str):
        return f"{name} {clause.comparator} {max(-_FURTHEST, min(int(value), _FURTHEST))}"
    if clause.comparator in ("LIKE", "ILIKE"):
        # MLflow knows no escapes in patterns: a backslash is one character like another.
        value = value.replace("\\", "\\\\")
    said = f"{name} {clause.comparator} {_quoted(value)}"
    # MLflow looks among the tags that are there.
    return f"{said} AND {name} IS NOT NULL" if clause.tag and clause.comparator == "!=" else said


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _passed_on(text: str, hidden: str, refusal: MlflowError) -> str:
    """Leave a filter to the registry, but for prompts: those it must name to get any."""
    text = text.removesuffix(_NO_PROMPTS)
    if not text.strip():
        return hidden
    if not _is_closed(text):
        # In the brackets below it could be read as another one.
        raise refusal
    return f"({text})" if _PROMPT in text else f"({text}) AND {hidden}"


def _is_closed(text: str) -> bool:
    depth = 0
    for match in _QUOTED_OR_BRACKET.finditer(text):
        depth += {"(": 1, ")": -1}.get(match[0], 0)
        if depth < 0:
            return False
    return depth == 0


def _ordered(search: _Search, order_by: Sequence[str]) -> str:
    terms = [search.read_order(clause) for clause in order_by]
    named = {name for name, _ in terms}
    if len(named) < len(terms):
        raise invalid(f"`order_by` contains duplicate fields: {list(order_by)}")
    terms += [(name, ascends) for name, ascends in search.ties.items() if name not in named]
    return ", ".join(f"{name} {'asc' if ascends else 'desc'}" for name, ascends in terms)
