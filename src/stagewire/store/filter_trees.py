"""A filter's text as a tree; what is not in the grammar is refused where it stands."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, cast

import lark

from stagewire.errors import invalid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stagewire.errors import RegistryError

MAX_LENGTH = 10_000
#: Parentheses and NOTs around one comparison.
MAX_DEPTH = 32
MAX_COMPARISONS = 100
MAX_LIST = 1_000

#: Filters that are asked again and again are short; a tree takes fifty times its text, so that a
#: thousand long ones took half a gigabyte.
_REMEMBERED_LENGTH = 500

#: How much of a refused word is repeated in the refusal.
_CLIPPED_LENGTH = 60
_INT64 = range(-(2**63), 2**63)
_INT64_LENGTH = len(str(_INT64.start))

Operator = Literal["=", "<", "<=", ">", ">=", "LIKE", "ILIKE", "IN", "BETWEEN", "IS"]


class Operand(NamedTuple):
    """A value that a field is compared with, and the character where it stands, from 1."""

    value: str | int | float
    position: int


class Comparison(NamedTuple):
    """One field compared: `!=` is `=` negated, and IS asks whether there is no value."""

    field: str
    position: int
    operator: Operator
    operands: tuple[Operand, ...]
    negated: bool


class Not(NamedTuple):
    """True where the inner one is not."""

    inner: Node


class All(NamedTuple):
    """True where every part is."""

    parts: tuple[Node, ...]


class AnyOf(NamedTuple):
    """True where some part is."""

    parts: tuple[Node, ...]


Node = Comparison | Not | All | AnyOf


@functools.cache
def _parser() -> lark.Lark:
    grammar = Path(__file__).with_name("filters.lark").read_text(encoding="utf-8")
    return lark.Lark(grammar, parser="lalr", lexer="basic")


def parse(text: str) -> Node:
    """Return the tree of a filter that is not blank; fields are not looked at yet."""
    return _remembered(text) if len(text) <= _REMEMBERED_LENGTH else _parsed(text)


@functools.lru_cache(maxsize=512)
def _remembered(text: str) -> Node:
    return _parsed(text)


def _parsed(text: str) -> Node:
    if len(text) > MAX_LENGTH:
        raise refused(f"must have at most {MAX_LENGTH:,} characters, has {len(text):,}; shorten it")
    try:
        tree = _parser().parse(text)
    except lark.UnexpectedToken as error:
        raise _unexpected_word(text, error) from None
    except lark.UnexpectedCharacters as error:
        raise _unexpected_character(text, error) from None
    comparisons = sum(1 for _ in tree.find_pred(lambda t: t.data in {"compared", "not_compared"}))
    if comparisons > MAX_COMPARISONS:
        raise refused(f"must have at most {MAX_COMPARISONS} comparisons, has {comparisons}")
    return _node(tree, 0)


def _node(tree: lark.Tree[lark.Token], depth: int) -> Node:
    if depth > MAX_DEPTH:
        raise refused(f"is nested more than {MAX_DEPTH} deep; take some parentheses or NOTs away")
    if tree.data in {"compared", "not_compared"}:
        return _comparison(tree.children, negated=tree.data == "not_compared")
    deeper = depth + (tree.data in {"group", "negated"})
    parts = tuple(_node(part, deeper) for part in tree.children if isinstance(part, lark.Tree))
    if tree.data == "group":
        return parts[0]
    if tree.data == "negated":
        return Not(parts[0])
    return All(parts) if tree.data == "conjunction" else AnyOf(parts)


_SPELLINGS = {"==": ("=", False), "!=": ("=", True), "<>": ("=", True)}


def _comparison(children: Sequence[object], *, negated: bool) -> Comparison:
    field, word, *rest = (token for token in children if isinstance(token, lark.Token))
    operator, opposite = _SPELLINGS.get(word.value, (word.value.upper(), False))
    operands = tuple(_operand(token) for token in rest if token.type != "NULL")
    if len(operands) > MAX_LIST:
        raise refused(
            f"lists may have at most {MAX_LIST:,} values, has {len(operands):,}", _place(word)
        )
    return Comparison(
        field.value, _place(field), cast("Operator", operator), operands, negated or opposite
    )


def _operand(token: lark.Token) -> Operand:
    text = token.value
    if token.type == "TEXT":
        return Operand(unquoted(text), _place(token))
    # Compared as text first: int() refuses thousands of digits with an error of its own.
    whole = len(text) <= _INT64_LENGTH and text.removeprefix("-").isdigit() and int(text) in _INT64
    return Operand(int(text) if whole else float(text), _place(token))


def unquoted(text: str) -> str:
    """Return a text or a key without its quotes, doubled ones inside made single."""
    mark = text[0]
    return text[1:-1].replace(mark * 2, mark) if mark in "'\"`" else text


def _place(token: lark.Token) -> int:
    return (token.start_pos or 0) + 1


def refused(description: str, position: int | None = None) -> RegistryError:
    """Build the refusal of a filter, at a character where there is one to name."""
    where = "" if position is None else f"at character {position}: "
    return invalid("filter", f"{where}{description}", reason="INVALID_FILTER")


_COMPARISON = "a comparison (=, !=, <, <=, >, >=, LIKE, ILIKE, IN, BETWEEN, IS NULL or NOT of it)"
#: What each terminal of the grammar is to a reader; the others are called what they are.
_WORDS = {
    "FIELD": "a field such as name or tags.team",
    "_NOT": "NOT",
    "_AND": "AND",
    "_OR": "OR",
    "_LEFT": '"("',
    "_COMMA": '","',
    "_RIGHT": '")"',
    "TEXT": "a text in quotes",
    "NUMBER": "a number",
    "$END": "the end",
}


def _unexpected_word(text: str, error: lark.UnexpectedToken) -> RegistryError:
    token = error.token
    wanted = error.accepts or error.expected
    words = [word for terminal, word in _WORDS.items() if terminal in wanted]
    words += sorted(terminal for terminal in wanted if terminal not in _WORDS)
    expected = _COMPARISON if "COMPARATOR" in wanted else _listed(words)
    if token.type == "$END":
        return refused(f"it ends where {expected} was expected", len(text) + 1)
    hint = ""
    if token.type == "FIELD" and "TEXT" in wanted:
        hint = "; put texts in quotes"
    elif token.type == "FIELD" and text[: token.start_pos].endswith(("'", '"')):
        hint = "; a quote inside a text is doubled"
    return refused(f"expected {expected}, found {clipped(token.value)}{hint}", _place(token))


def _listed(words: Sequence[str]) -> str:
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _unexpected_character(text: str, error: lark.UnexpectedCharacters) -> RegistryError:
    position = cast("int", error.pos_in_stream)
    character = text[position]
    if character in "'\"`":
        advice = "the quote is never closed; a quote inside is doubled"
    elif character in "&|!":
        advice = f"{character} is no operator here; write AND, OR or NOT"
    else:
        advice = f"can't read {clipped(text[position:])}"
    return refused(advice, position + 1)


def clipped(text: str) -> str:
    """Return as much of a text as a refusal repeats."""
    return text if len(text) <= _CLIPPED_LENGTH else f"{text[:_CLIPPED_LENGTH]}…"
