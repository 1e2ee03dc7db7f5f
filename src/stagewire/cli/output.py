"""How answers are printed: tables for people, JSON and YAML for programs, names for scripts.

Standard output carries answers and nothing else; remarks go to standard error.
"""

import json
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.json_format import MessageToDict

from stagewire.cli.arguments import Format
from stagewire.cli.texts import one_line, remark, safe

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from rich.console import Console, RenderableType
    from rich.progress import Progress

    from stagewire.cli.views import Column, View

    M = TypeVar("M", bound=Message)
    R = TypeVar("R")

_INTEGERS = {FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64}
#: Wide enough that no table is ever folded where nobody looks: in a pipe or a file.
_PIPE_WIDTH = 1_000_000
#: Between two columns.
_GAP = 2
#: What a long text needs to be readable in a folded column.
_LEAST_LONG_WIDTH = 12


def plain(message: "Message", *, whole: bool = True) -> dict[str, Any]:
    """Turn a message into what JSON prints: the contract's field names, enums by name.

    64-bit integers become numbers (protobuf's own JSON writes them as strings), so that jq
    and friends compare them. Fields without a value are printed as empty unless `whole` is
    false, so that a script finds every key.
    """
    tree = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=whole
    )
    return _numbered(tree, message.DESCRIPTOR)


def show(message: "M", view: "View[M]", form: Format) -> None:
    """Print one message."""
    match form:
        case Format.TABLE:
            _print(_details(message, view))
        case Format.NAME:
            _lines([view.name(message)])
        case _:
            _structured(view.plain(message), form)


def show_all(messages: "Sequence[M]", view: "View[M]", form: Format) -> None:
    """Print many messages of one kind."""
    match form:
        case Format.TABLE if messages:
            _print(table(messages, view.columns))
        case Format.TABLE:
            remark(f"no {view.plural}")
        case Format.NAME:
            _lines(view.name(message) for message in messages)
        case _:
            _structured([view.plain(message) for message in messages], form)


def show_plain(tree: Any, form: Format, *, name: str, text: str) -> None:
    """Print what is no message of the contract: a health, a file's name."""
    match form:
        case Format.TABLE:
            _lines([text])
        case Format.NAME:
            _lines([name])
        case _:
            _structured(tree, form)


def line(text: str) -> None:
    """Print one line of an answer at once: of a stream, each line may be the last for hours."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def json_line(tree: Any) -> None:
    """Print one JSON object as one line, at once."""
    line(json.dumps(tree, ensure_ascii=False, separators=(",", ":")))


def console(*, stderr: bool = False) -> "Console":
    """Make a console that takes texts as they are: no markup, no emoji codes, no guessing."""
    from rich.console import Console

    found = Console(stderr=stderr, markup=False, emoji=False, highlight=False, soft_wrap=False)
    if not found.is_terminal:
        found.width = _PIPE_WIDTH
    return found


def progress() -> "Progress":
    """Make a bar on standard error, which shows on a terminal and leaves nothing behind."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:,.0f}/s" if task.speed else "")

    out = console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
        console=out,
        transient=True,
        disable=not out.is_terminal,
    )


def show_table(rows: "Sequence[R]", columns: "Sequence[Column[R]]") -> None:
    """Print what is no message of the contract as a table."""
    _print(table(rows, columns))


def table(messages: "Sequence[R]", columns: "Sequence[Column[R]]") -> "RenderableType":
    """Lay messages out in columns, leaving out optional columns in which nothing stands.

    Nothing is ever cut: in a narrow terminal the long columns are folded first, then all.
    """
    from rich.table import Table
    from rich.text import Text

    cells = {column: [one_line(column.text(message)) for message in messages] for column in columns}
    shown = [column for column in columns if column.always or any(cells[column])]
    short = sum(_width(column.header, cells[column]) for column in shown if column.whole)
    long = sum(not column.whole for column in shown)
    fits = short + long * _LEAST_LONG_WIDTH <= console().width
    grid = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    for column in shown:
        grid.add_column(
            column.header,
            justify="right" if column.right else "left",
            overflow="fold",
            no_wrap=column.whole and fits,
        )
    for row, message in enumerate(messages):
        grid.add_row(
            *(
                Text(cells[column][row], style=column.style(message) if column.style else "")
                for column in shown
            )
        )
    return grid


def _width(header: str, cells: "Sequence[str]") -> int:
    from rich.cells import cell_len

    return max(map(cell_len, (header, *cells))) + _GAP


def _details(message: "M", view: "View[M]") -> "RenderableType":
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for label, text in view.details(message):
        if text:
            grid.add_row(label, Text(safe(text)))
    title = [Text(one_line(view.title(message)), style="bold")] if view.title else []
    return Group(*title, grid, *view.appendix(message))


def _print(renderable: "RenderableType") -> None:
    out = console()
    if out.is_terminal:
        out.print(renderable)
        return
    with out.capture() as captured:
        out.print(renderable)
    _lines(text.rstrip() for text in captured.get().splitlines())


def _structured(tree: Any, form: Format) -> None:
    if form is Format.JSON:
        _lines([json.dumps(tree, ensure_ascii=False, indent=2)])
        return
    import yaml

    yaml.safe_dump(tree, sys.stdout, sort_keys=False, allow_unicode=True)
    sys.stdout.flush()


def _lines(texts: Iterable[str]) -> None:
    sys.stdout.writelines(f"{text}\n" for text in texts)
    sys.stdout.flush()


def _numbered(tree: dict[str, Any], descriptor: Any) -> dict[str, Any]:
    # In the contract's order; protobuf's own puts fields without a value last.
    fields = (field for field in descriptor.fields if field.name in tree)
    return {field.name: _number(tree[field.name], field) for field in fields}


def _number(value: Any, field: FieldDescriptor) -> Any:
    if isinstance(value, list):
        return [_number(item, field) for item in value]
    kind = field.message_type
    if kind is None:
        return int(value) if field.cpp_type in _INTEGERS else value
    if kind.GetOptions().map_entry:
        return {key: _number(item, kind.fields_by_name["value"]) for key, item in value.items()}
    if kind.file.package == "google.protobuf":
        return value
    return _numbered(value, kind)
