"""MLflow's grammar of filters: a text in, its clauses out, or MLflow's own refusal.

Read from sqlparse's tokens, as MLflow reads them, so that the two take the same texts. Sets in
the texts of refusals are sorted, where MLflow's come as they fall.
"""

from __future__ import annotations

import ast
import itertools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import sqlparse
from sqlparse import sql
from sqlparse import tokens as kinds

from stagewire.mlflow.errors import invalid

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

Value = str | int | float | tuple[str, ...]

_TEXTS = frozenset({"=", "!=", "LIKE", "ILIKE"})
_LISTS = frozenset({"IN", "NOT IN"})
_NUMBERS = frozenset({"=", "!=", "<", "<=", ">", ">="})
_LITERALS = frozenset({kinds.Literal.Number.Integer, kinds.Literal.Number.Float})
_FRACTION = kinds.Literal.Number.Float
ENTITIES = ("attribute", "tag", "tags")
_A_LIST = "While parsing a list in the query,"
#: What may follow a backslash in a text of a list; before anything else it stands for itself.
_ESCAPES = frozenset("\\'\"abfnrtvxuUN01234567\n")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


#: sqlparse groups in time that grows with the square of the tokens: 10,000 took over a second. A
#: longer filter is left to the registry's own parser, which reads lists of a thousand names.
_MOST_TOKENS = 3_000


class Clause(NamedTuple):
    """One comparison, of a tag by its key or of an attribute by its name."""

    tag: bool
    key: str
    comparator: str
    value: Value


@dataclass(frozen=True)
class Grammar:
    """What MLflow lets be compared in a search, and what a search is ordered by."""

    attributes: frozenset[str]
    listed: frozenset[str]
    #: Of these only those that are attributes too can be compared; its refusals name them all.
    numeric: frozenset[str] = frozenset()


MODELS = Grammar(frozenset({"name"}), frozenset({"name"}))
VERSIONS = Grammar(
    frozenset({"name", "run_id", "source_path", "version_number"}),
    frozenset({"name", "run_id"}),
    frozenset({"version_number", "creation_timestamp", "last_updated_timestamp"}),
)


def read(text: str, grammar: Grammar) -> list[Clause]:
    """Return the clauses of a filter, all of which must hold."""
    if not text:
        return []
    if _is_too_much(text):
        raise invalid(f"Error on parsing filter '{text}'")
    try:
        statements = sqlparse.parse(text)
    except Exception:  # noqa: BLE001  # whatever its grouping ends in, the text was to blame
        raise invalid(f"Error on parsing filter '{text}'") from None
    if not statements:
        raise invalid(f"Invalid filter '{text}'. Could not be parsed.")
    if len(statements) > 1:
        raise invalid(
            f"Search filter contained multiple expression {text!r}. Provide AND-ed expression list."
        )
    parts = list(_parts(statements[0].tokens))
    strays = [part for part in parts if not isinstance(part, list) and not _joins(part)]
    if strays:
        raise invalid(f"Invalid clause(s) in filter string: {', '.join(map(str, strays))}")
    found = [_clause(part, grammar) for part in parts if isinstance(part, list)]
    return [_checked(clause, grammar) for clause in found]


def _is_too_much(text: str) -> bool:
    if len(text) <= _MOST_TOKENS:
        return False
    tokens = sqlparse.lexer.tokenize(text)  # type: ignore[no-untyped-call]
    return next(itertools.islice(tokens, _MOST_TOKENS, None), None) is not None


def _joins(token: Any) -> bool:
    return bool(token.is_whitespace or token.match(kinds.Keyword, ["AND"]))


def _parts(tokens: Sequence[Any]) -> Iterator[Any]:
    """Give each comparison as a list of its tokens, and the other tokens as they are.

    sqlparse groups no IN: it is three or four tokens, looked for from an identifier on; those
    that turn out otherwise are passed over together.
    """
    words = [token for token in tokens if not token.is_whitespace]
    place = 0
    while place < len(words):
        first, rest = words[place], words[place + 1 : place + 4]
        taken = 1
        if isinstance(first, sql.Comparison):
            yield [token for token in first.tokens if not token.is_whitespace]
        elif len(rest) < 2 or not isinstance(first, sql.Identifier):  # noqa: PLR2004
            yield first
        elif _is(rest[0], "IN") and isinstance(rest[1], sql.Parenthesis):
            yield [first, "IN", rest[1]]
            taken = 3
        elif _is(rest[0], "IS") and (_is(rest[1], "NULL") or _is(rest[1], "NOT NULL")):
            yield [first, "IS"]
            taken = 3
        elif (
            len(rest) == 3  # noqa: PLR2004
            and _is(rest[0], "NOT")
            and _is(rest[1], "IN")
            and isinstance(rest[2], sql.Parenthesis)
        ):
            yield [first, "NOT IN", rest[2]]
            taken = 4
        else:
            for token in (first, *rest):
                grouped = isinstance(token, sql.Comparison)
                yield [t for t in token.tokens if not t.is_whitespace] if grouped else token
            taken = 1 + len(rest)
        place += taken


def _is(token: Any, word: str) -> bool:
    return bool(token.match(kinds.Keyword, [word]))


def _clause(words: Sequence[Any], grammar: Grammar) -> Clause:
    if len(words) != 3:  # noqa: PLR2004  # field, comparator, value
        raise invalid(f"Invalid comparison clause. Expected 3 tokens found {len(words)}")
    left, comparator, right = words
    if not isinstance(left, sql.Identifier):
        raise invalid(f"Invalid comparison clause. Expected 'Identifier' found '{left}'")
    tag, key = _field(left.value, grammar)
    value = _text(right) if tag else _value(key, right, grammar)
    if value is None:
        raise invalid(
            f"Expected a quoted string value for tag (e.g. 'my-value'). Got value {right.value}"
        )
    return Clause(tag, key, str(comparator).upper(), value)


def _field(text: str, grammar: Grammar) -> tuple[bool, str]:
    entity, dot, key = text.partition(".")
    if not dot:
        entity, key = "attribute", text
    if entity not in ENTITIES:
        raise invalid(f"Invalid entity type '{entity}'. Valid entity types are {ENTITIES}")
    if entity == "attribute" and key not in grammar.attributes:
        known = set_of(grammar.attributes)
        raise invalid(f"Invalid attribute key '{key}' specified. Valid keys are '{known}'")
    return entity != "attribute", without(without(key, "'\""), "`")


def _value(key: str, token: Any, grammar: Grammar) -> Value:
    """Return what an attribute is compared with."""
    text = _text(token)
    if text is not None:
        return text
    if isinstance(token, sql.Parenthesis):
        if key not in grammar.listed:
            raise invalid(
                f"Only {sorted(grammar.listed)} attributes support comparison with a list of "
                "quoted string values."
            )
        return _list(token.value)
    if grammar.numeric and token.ttype in _LITERALS:
        if key not in grammar.numeric:
            raise invalid(
                f"Only the '{set_of(grammar.numeric)}' attributes support comparison with numeric "
                "values."
            )
        return _number(token.value, key, of=float if token.ttype is _FRACTION else int)
    raise invalid(
        "Expected a quoted string value or a list of quoted string values for attributes. "
        f"Got value {token.value}"
    )


def _number(text: str, key: str, *, of: type[int | float]) -> float:
    try:
        return of(text)
    except ValueError:
        # Also of thousands of digits, which int() won't read.
        raise _no_number(key, text) from None


def _no_number(key: str, value: Value) -> Exception:
    return invalid(f"Invalid value for numeric attribute '{key}': {value!r}")


def _text(token: Any) -> str | None:
    """Return a text without its quotes; nothing in it is undoubled or unescaped."""
    if token.ttype is not kinds.Literal.String.Single and not isinstance(token, sql.Identifier):
        return None
    text: str = token.value
    inner = without(text, "'\"")
    if inner is text:
        raise invalid(
            "Parameter value is either not quoted or unidentified quote types used for string "
            f"value {text}. Use either single or double quotes."
        )
    return inner


def without(text: str, marks: str) -> str:
    """Return a text without the marks around it, if it stands between two of one kind."""
    for mark in marks:
        if len(text) >= 2 and text.startswith(mark) and text.endswith(mark):  # noqa: PLR2004
            return text[1:-1]
    return text


def _list(text: str) -> tuple[str, ...]:
    """Read a list, which MLflow reads as Python does: escapes, adjacent texts and all."""
    text = _ESCAPE.sub(lambda match: match[0] if match[1] in _ESCAPES else "\\" + match[0], text)
    try:
        found = ast.literal_eval(text)
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        raise invalid(
            f"{_A_LIST} expected a non-empty list of string values, but got ill-formed list."
        ) from None
    values = found if isinstance(found, tuple) else (found,)
    if not values:
        raise invalid(f"{_A_LIST} expected a non-empty list of string values, but got empty list")
    if not all(isinstance(value, str) for value in values):
        try:
            shown = repr(values)
        except (ValueError, RecursionError):
            # A whole number of thousands of digits, or a list of lists that deep.
            shown = text
        raise invalid(
            f"{_A_LIST} expected string value, punctuation, or whitespace, but got different type "
            f"in list: {shown}"
        )
    return values


def _checked(clause: Clause, grammar: Grammar) -> Clause:
    """Refuse comparators that read well and mean nothing, and make numbers of texts."""
    key, comparator = clause.key, clause.comparator
    if clause.tag:
        if comparator not in _TEXTS:
            raise invalid(f"Invalid comparator for tag: {comparator}")
        return clause
    if key in grammar.numeric:
        if comparator not in _NUMBERS:
            raise invalid(f"Invalid comparator for attribute {key}: {comparator}")
        if isinstance(clause.value, str):
            return clause._replace(value=_number(clause.value, key, of=int))
        if not isinstance(clause.value, int):
            raise _no_number(key, clause.value)
        return clause
    # A list goes with IN, and nothing else with it.
    usable = _LISTS if isinstance(clause.value, tuple) else _TEXTS
    if comparator not in usable:
        raise invalid(f"Invalid comparator for attribute: {comparator}")
    return clause


def set_of(names: Collection[str]) -> str:
    """Show names as Python shows a set."""
    return f"{{{', '.join(map(repr, sorted(names)))}}}"
