"""Records as lines of JSON: the contract's field names, one record a line, in one spelling.

Every line is read under the contract's limits, so what is wrong with a file is said by line and
field before anything is sent.
"""

from __future__ import annotations

import hashlib
import json
from typing import IO, TYPE_CHECKING, Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.json_format import MessageToDict, ParseDict, ParseError

from stagewire import errors, pb
from stagewire.service import limits

if TYPE_CHECKING:
    from collections.abc import Iterator

FORMAT = 1
_INTEGERS = {FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64}


class BadFile(ValueError):
    """What is to be imported is no export, or not a whole one; the text says the line."""


def write(record: pb.RegistryRecord) -> str:
    """Spell a record; equal records give equal lines."""
    tree = MessageToDict(record, preserving_proto_field_name=True)
    plain = _numbered(tree, record.DESCRIPTOR)
    # Sorted: protobuf gives a map's entries in any order.
    return json.dumps(plain, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def _numbered(tree: dict[str, Any], descriptor: Any) -> dict[str, Any]:
    """Write 64-bit integers as numbers; protobuf's own JSON makes texts of them."""
    return {name: _number(value, descriptor.fields_by_name[name]) for name, value in tree.items()}


def _number(value: Any, field: FieldDescriptor) -> Any:
    if isinstance(value, list):
        return [_number(item, field) for item in value]
    kind = field.message_type
    if kind is None:
        return int(value) if field.cpp_type in _INTEGERS else value
    if kind.GetOptions().map_entry or kind.file.package == "google.protobuf":
        return value
    return _numbered(value, kind)


def read(file: IO[str]) -> Iterator[tuple[int, pb.RegistryRecord]]:
    """Read a whole export, header and end included, with the numbers of its lines.

    Raises BadFile for a line that is no record, and at the end for a file that is not whole.
    """
    digest = hashlib.sha256()
    count = 0
    end: pb.ExportEnd | None = None
    number = 0
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        if end is not None:
            message = f"line {number}: something follows the end; give one export at a time"
            raise BadFile(message)
        record = parse(line, number)
        if count == 0:
            _check_header(record, number)
        elif record.HasField("end"):
            end = record.end
        else:
            digest.update(record.SerializeToString(deterministic=True))
        count += 1
        yield number, record
    if end is None or end.records != count - 2:
        missing = f"; {end.records - (count - 2):,} are missing" if end is not None else ""
        message = f"line {number}: the file ends before the export does{missing}; export again"
        raise BadFile(message)
    if end.sha256 and end.sha256 != digest.digest():
        message = (
            f"line {number}: the records are not those that were exported; if you changed them "
            "yourself, delete sha256 from this line"
        )
        raise BadFile(message)


def parse(line: str, number: int) -> pb.RegistryRecord:
    """Read one line. Raises BadFile, naming line and field."""
    try:
        record = ParseDict(json.loads(line), pb.RegistryRecord())
        limits.check(record)
    except json.JSONDecodeError as error:
        message = f"line {number}: is no JSON: {error.msg} at {error.colno}"
        raise BadFile(message) from None
    except ParseError as error:
        message = f"line {number}: {error}"
        raise BadFile(message) from None
    except (UnicodeError, ValueError, AttributeError, TypeError) as error:
        message = f"line {number}: is no record: {error}"
        raise BadFile(message) from None
    except errors.RegistryError as error:
        message = f"line {number}: {error.message}"
        raise BadFile(message) from None
    if record.WhichOneof("record") is None:
        message = f"line {number}: holds no record; leave it out"
        raise BadFile(message)
    return record


def _check_header(record: pb.RegistryRecord, number: int) -> None:
    if not record.HasField("header"):
        message = f"line {number}: an export begins with its header; is this one, from the start?"
        raise BadFile(message)
    if record.header.format != FORMAT:
        message = (
            f"line {number}: header.format {record.header.format} is none that this release "
            "reads; use the release that wrote it, or a newer one"
        )
        raise BadFile(message)
