"""The fields of MLflow's requests: how each is read, checked and refused.

Types are as protobuf's JSON has them, and refusals come in MLflow's order: the types of all
fields first, then what is missing, field by field.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from stagewire.mlflow import errors

if TYPE_CHECKING:
    from collections.abc import Callable

#: What a parsed JSON object is.
Json = dict[str, Any]
#: A tag as it is sent: key and value.
Tag = tuple[str, str]

_SURROGATE = re.compile("[\ud800-\udfff]")
_INT64 = range(-(2**63), 2**63)


class _Mistyped(Exception):
    """A value is not of its field's type."""


@dataclass(frozen=True, slots=True)
class Field:
    """One parameter: how it is read, what MLflow's check of its type lets pass, its default."""

    read: Callable[[Any], Any]
    accepts: Callable[[Any], bool]
    default: Any
    repeated: bool = False
    required: bool = False
    most: int | None = None

    @property
    def needed(self) -> Field:
        """Give the same field, required."""
        return replace(self, required=True)

    def up_to(self, most: int, *, default: int) -> Field:
        """Give the same field with a largest value."""
        return replace(self, most=most, default=default)


#: The parameters of a request, in the order in which they are checked.
Shape = dict[str, Field]


def fields(shape: Shape, given: Json) -> Json:
    """Read the fields of a shape, or refuse as MLflow does."""
    raw = {name: given.get(name, given.get(_camel(name))) for name in shape}
    for name in shape:
        if name != _camel(name) and name in given and _camel(name) in given:
            raise errors.invalid(
                f"Request specifies both '{name}' and '{_camel(name)}'; provide only one of them."
            )
    values: Json = {}
    mistyped: list[str] = []
    for name, field in shape.items():
        try:
            values[name] = field.default if raw[name] is None else field.read(raw[name])
        except _Mistyped:
            mistyped.append(name)
    for name, field in shape.items():
        if mistyped and (field.required or name in given) and not field.accepts(raw[name]):
            raise _wrong(name, raw[name])
        if field.required and raw[name] in (None, ""):
            raise errors.invalid(f"Missing value for required parameter '{name}'.{errors.SEE_DOCS}")
        if field.most is not None and name in values and values[name] > field.most:
            raise _wrong(name, raw[name])
    for name in mistyped:
        raise _wrong(name, raw[name])
    return values


def _wrong(name: str, value: Any) -> errors.MlflowError:
    hint = f" Hint: Value was of type '{type(value).__name__}'.{errors.SEE_DOCS}"
    return errors.invalid_value(name, value, hint)


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _read_text(value: Any) -> str:
    if not isinstance(value, str) or _SURROGATE.search(value):
        raise _Mistyped
    return value


def _read_count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise _Mistyped
    if (isinstance(value, str) and " " in value) or (
        isinstance(value, float) and not value.is_integer()
    ):
        raise _Mistyped
    try:
        number = int(value)
    except ValueError:
        raise _Mistyped from None
    if number not in _INT64:
        raise _Mistyped
    return number


def _is_like_a_count(value: Any) -> bool:
    try:
        int(value)
    except (ValueError, TypeError, OverflowError):
        return False
    return True


def _read_flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _Mistyped
    return value


def _read_texts(value: Any) -> list[str]:
    if not isinstance(value, list):
        raise _Mistyped
    return [_read_text(item) for item in value]


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _read_tags(value: Any) -> list[Tag]:
    if not isinstance(value, list):
        raise _Mistyped
    return [_read_tag(item) for item in value]


def _read_tag(item: Any) -> Tag:
    if not isinstance(item, dict):
        raise _Mistyped
    key, value = ("" if item.get(n) is None else _read_text(item[n]) for n in ("key", "value"))
    return key, value


def _read_object(value: Any) -> Json:
    if not isinstance(value, dict):
        raise _Mistyped
    return value


def _read_objects(value: Any) -> list[Json]:
    if not isinstance(value, list):
        raise _Mistyped
    return [_read_object(item) for item in value]


def _read_word(value: Any) -> str | int:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise _Mistyped
    return value


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


TEXT = Field(_read_text, _is_text, "")
#: Tells a text that was not sent from an empty one.
TEXT_IF_ANY = Field(_read_text, _is_text, None)
COUNT = Field(_read_count, _is_like_a_count, 0)
FLAG = Field(_read_flag, _is_flag, default=False)
TEXTS = Field(_read_texts, _are_texts, (), repeated=True)
#: An enum's value, by name or by number.
WORD = Field(_read_word, _is_text, None)
OBJECT = Field(_read_object, _is_object, None)
OBJECTS = Field(_read_objects, _is_list, (), repeated=True)
TAGS = Field(_read_tags, _is_list, (), repeated=True)
