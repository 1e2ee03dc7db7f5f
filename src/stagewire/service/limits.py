"""The limits of the contract, enforced as the protos state them in `(modelregistry.v1.limit)`.

A checker is compiled for each message type when it is first met, so a limit added to a proto
holds without a line here; unset fields cost nothing.
"""

from __future__ import annotations

import functools
import json
import math
import operator
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from google.protobuf.descriptor import FieldDescriptor
from modelregistry.v1 import limits_pb2

from stagewire.errors import FieldViolation, RegistryError, invalid

if TYPE_CHECKING:
    from google.protobuf import duration_pb2, field_mask_pb2, timestamp_pb2
    from google.protobuf.descriptor import Descriptor, EnumDescriptor
    from google.protobuf.message import Message

#: A refusal names this many violations; nobody mends more at once.
MAX_VIOLATIONS = 20
MASK_MAX_PATHS = 100
#: How much of a refused text is repeated in the refusal, and how many words of a choice.
_QUOTED_LENGTH = 60
_CHOICE_LENGTH = 20

#: Year 1 to year 9999, which is what google.protobuf.Timestamp can say.
_TIMESTAMP_SECONDS = range(-62_135_596_800, 253_402_300_800)
_DURATION_SECONDS = range(-315_576_000_000, 315_576_000_001)
_NANOS = 10**9

#: Path from the value checked ("", ".key", "[3].key") and what is wrong there.
_Violation = tuple[str, str]
#: Returns what is wrong with a value; the empty tuple is the hot path's answer.
_Rule = Callable[[Any], Sequence[_Violation]]
_FINE: Sequence[_Violation] = ()


def check(message: Message) -> None:
    """Refuse a message in which any field breaks a limit, naming each that does."""
    found = _message_rule(message.DESCRIPTOR)(message)
    if found:
        fields = [FieldViolation(path[1:], text) for path, text in found[:MAX_VIOLATIONS]]
        more = f" (and {len(fields) - 1} more)" if len(fields) > 1 else ""
        raise RegistryError(
            "INVALID_FIELD", f"{fields[0].field}: {fields[0].description}{more}", fields=fields
        )


def mask_paths(mask: field_mask_pb2.FieldMask, allowed: frozenset[str]) -> list[str]:
    """Return the fields that an update names, each once; refuse none, `*` and unknown ones."""
    choice = ", ".join(sorted(allowed))
    paths = list(dict.fromkeys(mask.paths))
    if not paths:
        raise _invalid_mask(f"is required: name the fields to change, any of {choice}")
    for path in paths:
        if path == "*":
            raise _invalid_mask(
                '"*" would also clear fields that this client does not know; name the fields to'
                f" change, any of {choice}"
            )
        if path not in allowed:
            raise _invalid_mask(f"{_quoted(path)} can't be updated; name any of {choice}")
    return paths


def _invalid_mask(description: str) -> RegistryError:
    return invalid("update_mask", description, reason="INVALID_UPDATE_MASK")


@functools.cache
def _message_rule(descriptor: Descriptor) -> _Rule:
    special = _WELL_KNOWN.get(descriptor.full_name)
    if special is not None:
        return special
    rules = {
        field: (field.name, rule)
        for field in descriptor.fields
        if (rule := _field_rule(field, _limit(field))) is not None
    }
    demands = [
        (_presence(field), field.name, demand)
        for field in descriptor.fields
        if (demand := _demand(field, _limit(field)))
    ]

    def broken(message: Message) -> Sequence[_Violation]:
        found: list[_Violation] = []
        for field, value in message.ListFields():
            named = rules.get(field)
            if named is not None:
                name, rule = named
                wrong = rule(value)
                if wrong:
                    found += [(f".{name}{path}", text) for path, text in wrong]
        for is_present, name, demand in demands:
            if not is_present(message):
                found.append((f".{name}", demand))
        return found

    return broken


def _limit(field: FieldDescriptor) -> limits_pb2.Limit:
    return field.GetOptions().Extensions[limits_pb2.limit]


def _presence(field: FieldDescriptor) -> Callable[[Message], object]:
    """Return what tells cheaply whether a required field was given."""
    if field.has_presence:
        return operator.methodcaller("HasField", field.name)
    return operator.attrgetter(field.name)


def _demand(field: FieldDescriptor, limit: limits_pb2.Limit) -> str:
    """Return what to say when the field is not given; nothing when it need not be."""
    if field.is_repeated:
        span = _span(limit.min_items, limit.max_items)
        return f"is required: give {span} of them" if limit.min_items else ""
    if field.message_type is not None:
        return "is required: set it" if limit.required else ""
    if field.has_presence:
        return ""
    if field.enum_type is not None:
        return f"is required: one of {_choice(field.enum_type)}" if limit.required else ""
    if limit.min_length:
        return f"is required: {_span(limit.min_length, limit.max_length)} {_unit(field)}"
    low, high = _range(limit)
    return "" if low <= 0 <= high else f"is required: {_bounds(low, high)}"


def _field_rule(field: FieldDescriptor, limit: limits_pb2.Limit) -> _Rule | None:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        key, value = (field.message_type.fields_by_name[name] for name in ("key", "value"))
        return _map_rule(limit, _value_rule(key, limit.keys), _value_rule(value, limit.values))
    if field.is_repeated:
        return _list_rule(limit, _value_rule(field, limit))
    return _value_rule(field, limit)


def _value_rule(field: FieldDescriptor, limit: limits_pb2.Limit) -> _Rule | None:
    """Return the rule for one value: a singular field, an item, a map's key or value."""
    if field.message_type is not None:
        return _inner_rule(field.message_type)
    if field.enum_type is not None:
        return _enum_rule(field.enum_type)
    if field.type == FieldDescriptor.TYPE_STRING:
        return _text_rule(limit)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return _bytes_rule(limit)
    if limit.HasField("min") or limit.HasField("max"):
        return _number_rule(*_range(limit))
    return None


def _inner_rule(descriptor: Descriptor) -> _Rule:
    # Compiled when met, not with the outer one: messages may contain themselves.
    def broken(message: Message) -> Sequence[_Violation]:
        return _message_rule(descriptor)(message)

    return broken


def _list_rule(limit: limits_pb2.Limit, rule: _Rule | None) -> _Rule | None:
    count = _count_rule(limit)
    if rule is None:
        return count

    def broken(items: Sequence[Any]) -> Sequence[_Violation]:
        wrong = count(items) if count is not None else _FINE
        if wrong:
            return wrong
        found: list[_Violation] = []
        for index, item in enumerate(items):
            wrong = rule(item)
            if wrong:
                found += [(f"[{index}]{path}", text) for path, text in wrong]
                if len(found) >= MAX_VIOLATIONS:
                    break
        return found

    return broken


def _map_rule(limit: limits_pb2.Limit, key_rule: _Rule | None, value_rule: _Rule | None) -> _Rule:
    count = _count_rule(limit)

    def broken(entries: Mapping[Any, Any]) -> Sequence[_Violation]:
        wrong = count(entries) if count is not None else _FINE
        if wrong:
            return wrong
        found: list[_Violation] = []
        for key, value in entries.items():
            if key_rule is not None and (wrong := key_rule(key)):
                found += [(f"[{_quoted(key)}]", f"the key {text}") for _, text in wrong]
            if value_rule is not None and (wrong := value_rule(value)):
                found += [(f"[{_quoted(key)}]{path}", text) for path, text in wrong]
            if len(found) >= MAX_VIOLATIONS:
                break
        return found

    return broken


def _count_rule(limit: limits_pb2.Limit) -> _Rule | None:
    if not (limit.min_items or limit.max_items):
        return None
    low, high = limit.min_items, limit.max_items or math.inf

    def broken(items: Collection[Any]) -> Sequence[_Violation]:
        if low <= len(items) <= high:
            return _FINE
        advice = "add some" if len(items) < low else "send fewer"
        span = _span(low, limit.max_items)
        return _here(f"must have {span} of them, has {len(items):,}; {advice}")

    return broken


def _text_rule(limit: limits_pb2.Limit) -> _Rule:
    low, high = limit.min_length, limit.max_length or math.inf
    # RE2's classes are ASCII's, Python's are Unicode's unless told.
    match = re.compile(limit.pattern, re.ASCII).fullmatch if limit.pattern else None

    def broken(text: str) -> Sequence[_Violation]:
        if low <= len(text) <= high and "\0" not in text and (match is None or match(text)):
            return _FINE
        if not low <= len(text) <= high:
            return _here(_wrong_length(len(text), limit, "characters"))
        if "\0" in text:
            return _here(f"has a NUL character at {text.index(chr(0)) + 1}; remove it")
        return _here(f"must match {limit.pattern} as a whole, is {_quoted(text)}; correct it")

    return broken


def _bytes_rule(limit: limits_pb2.Limit) -> _Rule | None:
    if not (limit.min_length or limit.max_length):
        return None
    low, high = limit.min_length, limit.max_length or math.inf

    def broken(octets: bytes) -> Sequence[_Violation]:
        if low <= len(octets) <= high:
            return _FINE
        return _here(_wrong_length(len(octets), limit, "bytes"))

    return broken


def _wrong_length(length: int, limit: limits_pb2.Limit, unit: str) -> str:
    span = _span(limit.min_length, limit.max_length)
    advice = "lengthen it" if length < limit.min_length else "shorten it"
    return f"must have {span} {unit}, has {length:,}; {advice}"


def _number_rule(low: float, high: float) -> _Rule:
    def broken(number: float) -> Sequence[_Violation]:
        if low <= number <= high:
            return _FINE
        return _here(f"must be {_bounds(low, high)}, is {number}; choose another")

    return broken


def _enum_rule(enum: EnumDescriptor) -> _Rule:
    numbers = frozenset(enum.values_by_number)

    def broken(number: int) -> Sequence[_Violation]:
        if number in numbers:
            return _FINE
        return _here(f"{number} is no {enum.name}; choose one of {_choice(enum)}")

    return broken


def _broken_timestamp(time: timestamp_pb2.Timestamp) -> Sequence[_Violation]:
    if time.seconds in _TIMESTAMP_SECONDS and 0 <= time.nanos < _NANOS:
        return _FINE
    return _here(
        "must lie in the years 1 to 9999 with nanos 0 to 999,999,999, has"
        f" seconds {time.seconds}, nanos {time.nanos}; send a valid time",
    )


def _broken_duration(span: duration_pb2.Duration) -> Sequence[_Violation]:
    one_sign = span.seconds * span.nanos >= 0
    if span.seconds in _DURATION_SECONDS and abs(span.nanos) < _NANOS and one_sign:
        return _FINE
    return _here(
        "must have seconds within 10,000 years and nanos of the same sign below"
        f" 1,000,000,000, has seconds {span.seconds}, nanos {span.nanos}; send a valid one",
    )


def _broken_mask(mask: field_mask_pb2.FieldMask) -> Sequence[_Violation]:
    if len(mask.paths) <= MASK_MAX_PATHS:
        return _FINE
    return _here(f"must have at most {MASK_MAX_PATHS} paths, has {len(mask.paths):,}; send fewer")


_WELL_KNOWN: dict[str, _Rule] = {
    "google.protobuf.Timestamp": _broken_timestamp,
    "google.protobuf.Duration": _broken_duration,
    "google.protobuf.FieldMask": _broken_mask,
}


def _here(text: str) -> Sequence[_Violation]:
    return [("", text)]


def _range(limit: limits_pb2.Limit) -> tuple[float, float]:
    return (
        limit.min if limit.HasField("min") else -math.inf,
        limit.max if limit.HasField("max") else math.inf,
    )


def _bounds(low: float, high: float) -> str:
    if high == math.inf:
        return f"at least {low:,}"
    return f"at most {high:,}" if low == -math.inf else f"{low:,} to {high:,}"


def _span(low: int, high: int) -> str:
    return _bounds(low or -math.inf, high or math.inf)


def _unit(field: FieldDescriptor) -> str:
    return "bytes" if field.type == FieldDescriptor.TYPE_BYTES else "characters"


def _choice(enum: EnumDescriptor) -> str:
    words = [value.name for value in enum.values if value.number]
    return ", ".join(words[:_CHOICE_LENGTH]) + ", …" * (len(words) > _CHOICE_LENGTH)


def _quoted(key: object) -> str:
    text = str(key)
    clipped = text if len(text) <= _QUOTED_LENGTH else f"{text[:_QUOTED_LENGTH]}…"
    return json.dumps(clipped, ensure_ascii=False)
