"""Texts like a pattern, and texts with a prefix: the same ones on every database.

Only ASCII letters have two cases.
"""

from __future__ import annotations

import re
import string
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles

if TYPE_CHECKING:
    from sqlalchemy.sql.compiler import SQLCompiler

_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
_WORD = re.compile(r"\\(.)|[%_*?\[]", re.DOTALL)


def like(column: sa.SQLColumnExpression[Any], pattern: str) -> sa.ColumnElement[bool]:
    """Return the condition that a text matches, `%` for any and `_` for one character.

    A backslash escapes the character after it; the caller refuses one that ends the pattern.
    """
    return _Like(column, sa.literal(pattern, _Pattern()))


def ilike(column: sa.SQLColumnExpression[Any], pattern: str) -> sa.ColumnElement[bool]:
    """Return what `like` does, taking A to Z and a to z as one."""
    return _FoldedLike(column, sa.literal(pattern.translate(_LOWER), _Pattern()))


def begins_with(column: sa.SQLColumnExpression[Any], prefix: str) -> sa.ColumnElement[bool]:
    """Return the condition that a text begins so, as a range that an index answers."""
    # By code point, as both databases compare; the last text has nothing above it.
    above = _above(prefix)
    reached = column >= prefix
    return sa.and_(reached, column < above) if above else reached


def _above(prefix: str) -> str:
    """Give the least text above every text with this prefix, or ''."""
    for end in range(len(prefix), 0, -1):
        code = ord(prefix[end - 1])
        if code < 0x10FFFF:  # noqa: PLR2004  # Unicode's last
            # Surrogates are no characters: step over them.
            following = 0xE000 if code == 0xD7FF else code + 1  # noqa: PLR2004
            return prefix[: end - 1] + chr(following)
    return ""


class _Pattern(sa.types.TypeDecorator[str]):
    """A LIKE pattern, sent to SQLite as the GLOB pattern that means the same."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: sa.Dialect) -> str | None:
        """Translate for SQLite, whose own LIKE ignores case."""
        if value is None or dialect.name != "sqlite":
            return value
        return _WORD.sub(_glob, value)


def _glob(word: re.Match[str]) -> str:
    if (wild := {"%": "*", "_": "?"}.get(word[0])) is not None:
        return wild
    literal = word[1] or word[0]
    return f"[{literal}]" if literal in "*?[" else literal


class _Like(sa.sql.expression.FunctionElement[bool]):
    """LIKE that tells letter case apart, whatever the database."""

    type = sa.Boolean()
    inherit_cache = True


class _FoldedLike(sa.sql.expression.FunctionElement[bool]):
    """LIKE of a lower-case pattern that takes ASCII letters of both cases as one."""

    type = sa.Boolean()
    inherit_cache = True


# In parentheses: SQLite has no booleans, so SQLAlchemy negates by appending "= 0".


@compiles(_Like, "sqlite")
def _like_on_sqlite(element: _Like, compiler: SQLCompiler, **kw: Any) -> str:
    column, pattern = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"({column} GLOB {pattern})"


@compiles(_FoldedLike, "sqlite")
def _folded_like_on_sqlite(element: _FoldedLike, compiler: SQLCompiler, **kw: Any) -> str:
    column, pattern = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"(lower({column}) GLOB {pattern})"


@compiles(_Like)
def _like(element: _Like, compiler: SQLCompiler, **kw: Any) -> str:
    column, pattern = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"({column} LIKE {pattern} ESCAPE '\\')"


@compiles(_FoldedLike)
def _folded_like(element: _FoldedLike, compiler: SQLCompiler, **kw: Any) -> str:
    column, pattern = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"(lower({column} COLLATE \"C\") LIKE {pattern} ESCAPE '\\')"
